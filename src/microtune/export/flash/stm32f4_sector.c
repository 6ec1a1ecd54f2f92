/*
 * stm32f4_sector.c: internal flash of STM32F4 chips of up to 1 MB. Large sectors, programmed by words; supply from 2.7 V.
 *
 * Sectors 0 to 3 have 16 KB, 4 has 64 KB, those behind have 128 KB. The storage needs sectors of one size that the linker
 * script leaves free: the chip's last two unless MT_FLASH_SECTOR and MT_FLASH_SECTORS say which. Shorten FLASH in the
 * linker script by 256 KB, or move code behind sectors 1 to 3 and take those. A metrics log takes two sectors of four.
 * Where the script has ST's usual symbols, mt_flash_open refuses sectors that the firmware reaches into.
 *
 * Reading while writing: one bank, so the core waits for the flash: 16 us for a word, and up to 4 s while 128 KB are
 * erased (1 to 2 s are typical), as long as interrupts and the watchdog. Choose a small sector where that is too long.
 */
#include "mt_flash.h"

#include <string.h>

typedef struct flash_registers {
    volatile uint32_t acr, keyr, optkeyr, sr, cr;
} flash_registers;

#define FLASH_CONTROL ((flash_registers *)(uintptr_t)0x40023C00u)
#define FLASH_KILOBYTES (*(const volatile uint16_t *)(uintptr_t)0x1FFF7A22u)
#define FLASH_START 0x08000000u

#define KEY_1 0x45670123u
#define KEY_2 0xCDEF89ABu
#define SR_BUSY (1u << 16)
#define SR_ERRORS 0x1F2u /* read protection, sequence, parallelism, alignment, write protection, operation */
#define CR_PROGRAM (1u << 0)
#define CR_SECTOR_ERASE (1u << 1)
#define CR_SECTOR(number) ((number) << 3)
#define CR_BY_WORDS (2u << 8)
#define CR_START (1u << 16)
#define CR_LOCK (1u << 31)
#define ACR_DATA_CACHE (1u << 10)
#define ACR_DATA_CACHE_RESET (1u << 12)

/* ST's linker scripts say where the initial values of the data lie, the last of the firmware; 0 in others */
extern const uint8_t _sidata[] __attribute__((weak));
extern const uint8_t _sdata[] __attribute__((weak));
extern const uint8_t _edata[] __attribute__((weak));

/* found by mt_flash_open */
static struct {
    uint32_t first, start, size, sector;
} storage;

static uint32_t bytes_of(uint32_t sector)
{
    return sector < 4u ? 0x4000u : sector == 4u ? 0x10000u : 0x20000u;
}

static uint32_t start_of(uint32_t sector)
{
    return sector <= 4u ? sector * 0x4000u : 0x20000u * (sector - 4u);
}

static int is_inside(uint32_t address, uint32_t bytes)
{
    return address <= storage.size && bytes <= storage.size - address;
}

/* Wait for the controller. Returns 0, or -1 when it reports an error, which is cleared. */
static int finish(void)
{
    __asm__ volatile("dsb" ::: "memory");
    while ((FLASH_CONTROL->sr & SR_BUSY) != 0) {
    }
    const uint32_t errors = FLASH_CONTROL->sr & SR_ERRORS;
    FLASH_CONTROL->sr = errors;
    return errors != 0 ? -1 : 0;
}

static int unlock(void)
{
    if ((FLASH_CONTROL->cr & CR_LOCK) != 0) {
        FLASH_CONTROL->keyr = KEY_1;
        FLASH_CONTROL->keyr = KEY_2;
    }
    (void)finish(); /* what others left behind */
    return (FLASH_CONTROL->cr & CR_LOCK) != 0 ? -1 : 0;
}

/* what the cache kept of the erased sector is no longer true; it can be emptied only while it is off */
static void empty_data_cache(void)
{
    const uint32_t acr = FLASH_CONTROL->acr;
    if ((acr & ACR_DATA_CACHE) != 0) {
        FLASH_CONTROL->acr = acr & ~ACR_DATA_CACHE;
        FLASH_CONTROL->acr = (acr & ~ACR_DATA_CACHE) | ACR_DATA_CACHE_RESET;
        FLASH_CONTROL->acr = acr & ~ACR_DATA_CACHE;
        FLASH_CONTROL->acr = acr;
    }
}

static int flash_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    const volatile uint8_t *from = (const volatile uint8_t *)(uintptr_t)(storage.start + address);
    (void)context;
    if (!is_inside(address, bytes)) {
        return -1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        ((uint8_t *)data)[i] = from[i];
    }
    return 0;
}

static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % 4u != 0 || bytes % 4u != 0 || unlock() != 0) {
        return -1;
    }
    FLASH_CONTROL->cr = CR_BY_WORDS | CR_PROGRAM;
    for (uint32_t i = 0; i < bytes && !failed; i += 4u) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)data + i, sizeof word);
        *(volatile uint32_t *)(uintptr_t)(storage.start + address + i) = word;
        failed = finish() != 0;
    }
    FLASH_CONTROL->cr = CR_LOCK;
    return failed ? -1 : 0;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % storage.sector != 0 || bytes % storage.sector != 0 || unlock() != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < bytes && !failed; i += storage.sector) {
        const uint32_t sector = storage.first + (address + i) / storage.sector;
        FLASH_CONTROL->cr = CR_BY_WORDS | CR_SECTOR_ERASE | CR_SECTOR(sector);
        FLASH_CONTROL->cr = CR_BY_WORDS | CR_SECTOR_ERASE | CR_SECTOR(sector) | CR_START;
        failed = finish() != 0;
    }
    FLASH_CONTROL->cr = CR_LOCK;
    empty_data_cache();
    return failed ? -1 : 0;
}

int mt_flash_open(mt_port *port)
{
    const uint32_t last = 3u + FLASH_KILOBYTES / 128u; /* of 512 KB: sector 7 */
#ifdef MT_FLASH_SECTOR
    const uint32_t first = MT_FLASH_SECTOR, sectors = MT_FLASH_SECTORS;
#else
    const uint32_t first = last - 1u, sectors = 2u;
#endif
    memset(port, 0, sizeof *port);
    /* one bank has 12 sectors at most; the vectors are in the first; all must be of one size */
    if (last > 11u || first < 1u || sectors < 2u || sectors > last || first + sectors - 1u > last ||
        bytes_of(first) != bytes_of(first + sectors - 1u)) {
        return -1;
    }
    const uintptr_t firmware = (uintptr_t)_sidata + ((uintptr_t)_edata - (uintptr_t)_sdata);
#ifndef MT_FLASH_SECTOR
    if (firmware > FLASH_START + start_of(first)) {
        return -1;
    }
#else
    (void)firmware; /* code lies on both sides */
#endif
    storage.first = first;
    storage.start = FLASH_START + start_of(first);
    storage.sector = bytes_of(first);
    storage.size = sectors * storage.sector;
    port->read = flash_read;
    port->write = flash_write;
    port->erase = flash_erase;
    port->size = storage.size;
    port->sector = storage.sector;
    port->log = sectors >= 4u ? MT_FLASH_LOG(storage.sector) : 0u;
    return 0;
}
