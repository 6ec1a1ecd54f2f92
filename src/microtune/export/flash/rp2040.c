/*
 * rp2040.c: the serial flash of RP2040 and RP2350 boards, through the Pico SDK. Sectors of 4 KB, programmed by pages of
 * 256 bytes: what microtune writes, multiples of 32, is padded with 0xFF, which leaves the rest of a page as it is.
 *
 * Reading while writing: nothing can be read or executed from this flash meanwhile, about 45 ms for a sector and 0.4 ms
 * for a page; worn chips take up to 400 ms. Interrupts are off for as long. The other core must not run from flash
 * then: halt it (multicore_lockout_start_blocking), or leave it unused.
 */
#include "mt_flash.h"

#include <string.h>

#include "hardware/flash.h"
#include "hardware/sync.h"

#define SECTOR FLASH_SECTOR_SIZE
#define PAGE FLASH_PAGE_SIZE

/* Where: MT_FLASH_ADDRESS, from XIP_BASE on, in sectors that the program leaves free, survives new firmware too. Without
 * it the storage is part of the firmware's own image: it can overlap nothing, and new firmware begins anew. */
#ifndef MT_FLASH_SIZE
#define MT_FLASH_SIZE MT_FLASH_BYTES(SECTOR)
#endif
#ifdef MT_FLASH_ADDRESS
#define STORAGE ((uintptr_t)MT_FLASH_ADDRESS)
#else
static const uint8_t image[MT_FLASH_SIZE] __attribute__((aligned(FLASH_SECTOR_SIZE), section(".rodata.mt_flash")));
#define STORAGE ((uintptr_t)image)
#endif

/* Mbed OS, under Arduino's own core for these boards, forbids execution from RAM, where the SDK's routines are. */
#if defined(__MBED__) || defined(ARDUINO_ARCH_MBED)
#include "platform/mbed_mpu_mgmt.h"
#define ALLOW_RAM() mbed_mpu_manager_lock_ram_execution()
#define FORBID_RAM() mbed_mpu_manager_unlock_ram_execution()
#else
#define ALLOW_RAM() ((void)0)
#define FORBID_RAM() ((void)0)
#endif

static uint32_t begin(void)
{
    ALLOW_RAM();
    return save_and_disable_interrupts();
}

static void end(uint32_t interrupts)
{
    restore_interrupts(interrupts);
    FORBID_RAM();
}

static int is_inside(uint32_t address, uint32_t bytes)
{
    return address <= MT_FLASH_SIZE && bytes <= MT_FLASH_SIZE - address;
}

/* the SDK counts from the start of the flash */
static uint32_t offset_of(uint32_t address)
{
    return (uint32_t)(STORAGE + address - (uintptr_t)XIP_BASE);
}

static int flash_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    const volatile uint8_t *from = (const volatile uint8_t *)(STORAGE + address);
    (void)context;
    if (!is_inside(address, bytes)) {
        return -1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        ((uint8_t *)data)[i] = from[i];
    }
    return 0;
}

/* The SDK reports no errors: what is there afterwards tells. */
static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    uint8_t page[PAGE];
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes)) {
        return -1;
    }
    for (uint32_t done = 0; done < bytes;) {
        const uint32_t inside = (address + done) % PAGE;
        const uint32_t part = bytes - done < PAGE - inside ? bytes - done : PAGE - inside;
        const volatile uint8_t *written = (const volatile uint8_t *)(STORAGE + address + done);
        memset(page, 0xFF, sizeof page);
        memcpy(page + inside, (const uint8_t *)data + done, part);
        const uint32_t interrupts = begin();
        flash_range_program(offset_of(address + done - inside), page, PAGE);
        end(interrupts);
        for (uint32_t i = 0; i < part; ++i) {
            failed |= written[i] != page[inside + i];
        }
        done += part;
    }
    return failed ? -1 : 0;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    const volatile uint8_t *erased = (const volatile uint8_t *)(STORAGE + address);
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % SECTOR != 0 || bytes % SECTOR != 0) {
        return -1;
    }
    /* sector by sector: interrupts get their turn in between */
    for (uint32_t i = 0; i < bytes; i += SECTOR) {
        const uint32_t interrupts = begin();
        flash_range_erase(offset_of(address + i), SECTOR);
        end(interrupts);
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        failed |= erased[i] != 0xFFu;
    }
    return failed ? -1 : 0;
}

int mt_flash_open(mt_port *port)
{
    memset(port, 0, sizeof *port);
    if (STORAGE % SECTOR != 0 || MT_FLASH_SIZE % SECTOR != 0) {
        return -1;
    }
    port->read = flash_read;
    port->write = flash_write;
    port->erase = flash_erase;
    port->size = MT_FLASH_SIZE;
    port->sector = SECTOR;
    port->log = MT_FLASH_LOG(SECTOR);
    return 0;
}
