/*
 * nrf52.c: the internal flash of nRF52 chips, through its controller (NVMC). Pages of 4 KB, programmed by words.
 *
 * Reading while writing: the core waits whenever it needs the flash, for 85 ms while a page is erased and 41 us for a
 * word (nRF52840). Interrupts whose code lies in flash are late by as much.
 * With a SoftDevice running, the controller is its own and touching it is a fault: disable it around NAME_idle and
 * NAME_save, or write with sd_flash_page_erase and sd_flash_write instead.
 */
#include "mt_flash.h"

#include <string.h>

#define PAGE 4096u

/* Where: MT_FLASH_ADDRESS, in pages that the linker script leaves free, survives new firmware too. Without it the
 * storage is part of the firmware's own image: it can overlap nothing, and new firmware begins anew. */
#ifndef MT_FLASH_SIZE
#define MT_FLASH_SIZE MT_FLASH_BYTES(PAGE)
#endif
#ifdef MT_FLASH_ADDRESS
#define STORAGE ((uintptr_t)MT_FLASH_ADDRESS)
#else
static const uint8_t image[MT_FLASH_SIZE] __attribute__((aligned(PAGE), section(".rodata.mt_flash")));
#define STORAGE ((uintptr_t)image)
#endif

/* Mbed OS, under Arduino's own core for these boards, forbids writes to flash until told otherwise. */
#if defined(__MBED__) || defined(ARDUINO_ARCH_MBED)
#include "platform/mbed_mpu_mgmt.h"
#define ALLOW_WRITES() mbed_mpu_manager_lock_rom_write()
#define FORBID_WRITES() mbed_mpu_manager_unlock_rom_write()
#else
#define ALLOW_WRITES() ((void)0)
#define FORBID_WRITES() ((void)0)
#endif

typedef struct nvmc {
    uint32_t before_ready[256];
    volatile uint32_t ready; /* 0x400: 0 while busy */
    uint32_t before_config[64];
    volatile uint32_t config;     /* 0x504 */
    volatile uint32_t erase_page; /* 0x508: the address of a page */
} nvmc;

#define NVMC ((nvmc *)(uintptr_t)0x4001E000u)
#define READ_ONLY 0u
#define WRITE_ENABLED 1u
#define ERASE_ENABLED 2u

/* what went to the flash's bus has arrived, and the controller is done with it */
static void finish(void)
{
    __asm__ volatile("dsb" ::: "memory");
    while (NVMC->ready == 0) {
    }
}

static void enter(uint32_t mode)
{
    finish();
    NVMC->config = mode;
    __asm__ volatile("dsb" ::: "memory");
}

static int is_inside(uint32_t address, uint32_t bytes)
{
    return address <= MT_FLASH_SIZE && bytes <= MT_FLASH_SIZE - address;
}

static uint32_t word_at(uintptr_t place)
{
    return *(const volatile uint32_t *)place;
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

/* The controller reports no errors: what is there afterwards tells. */
static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % 4u != 0 || bytes % 4u != 0) {
        return -1;
    }
    ALLOW_WRITES();
    enter(WRITE_ENABLED);
    for (uint32_t i = 0; i < bytes; i += 4u) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)data + i, sizeof word);
        *(volatile uint32_t *)(STORAGE + address + i) = word;
        finish();
        failed |= word_at(STORAGE + address + i) != word;
    }
    enter(READ_ONLY);
    FORBID_WRITES();
    return failed ? -1 : 0;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % PAGE != 0 || bytes % PAGE != 0) {
        return -1;
    }
    enter(ERASE_ENABLED);
    for (uint32_t i = 0; i < bytes; i += PAGE) {
        NVMC->erase_page = (uint32_t)(STORAGE + address + i);
        finish();
    }
    enter(READ_ONLY);
    for (uint32_t i = 0; i < bytes; i += 4u) {
        failed |= word_at(STORAGE + address + i) != 0xFFFFFFFFu;
    }
    return failed ? -1 : 0;
}

int mt_flash_open(mt_port *port)
{
    memset(port, 0, sizeof *port);
    if (STORAGE % PAGE != 0 || MT_FLASH_SIZE % PAGE != 0) {
        return -1;
    }
    port->read = flash_read;
    port->write = flash_write;
    port->erase = flash_erase;
    port->size = MT_FLASH_SIZE;
    port->sector = PAGE;
    port->log = MT_FLASH_LOG(PAGE);
    return 0;
}
