/*
 * stm32l4_page.c: internal flash of STM32L4 chips (not L4+). Pages of 2 KB, programmed by double words with an error
 * correction of their own: 8 bytes at once, and only once between two erases. microtune writes multiples of 32.
 *
 * A power cut can leave a double word whose correction fails. Reading it raises the NMI: call mt_flash_nmi from its
 * handler, and the read fails as it should. Without that the firmware hangs at the next start.
 *
 * Reading while writing: in one bank the core waits, 22 ms for a page and 90 us for a double word. In chips with two
 * banks the other one can be read meanwhile: storage in bank 2 and code in bank 1 do not wait for each other.
 */
#include "mt_flash.h"

#include <string.h>

#define PAGE 2048u

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

/* Bytes of a bank. Chips of 1 MB have two of 512 KB, and smaller ones are mostly in one bank, below that. A chip of
 * 512 or 256 KB that is set to two banks: half of it. */
#ifndef MT_FLASH_BANK
#define MT_FLASH_BANK 0x80000u
#endif

/* of mt_flash_nmi: see there */
int mt_flash_nmi(void);

typedef struct flash_registers {
    volatile uint32_t acr, pdkeyr, keyr, optkeyr, sr, cr, eccr;
} flash_registers;

#define FLASH_CONTROL ((flash_registers *)(uintptr_t)0x40022000u)
#define FLASH_START 0x08000000u

#define KEY_1 0x45670123u
#define KEY_2 0xCDEF89ABu
#define SR_BUSY (1u << 16)
#define SR_ERRORS 0xC3FAu
#define CR_PROGRAM (1u << 0)
#define CR_PAGE_ERASE (1u << 1)
#define CR_PAGE(number) ((number) << 3)
#define CR_BANK_2 (1u << 11)
#define CR_START (1u << 16)
#define CR_LOCK (1u << 31)
#define ACR_DATA_CACHE (1u << 10)
#define ACR_DATA_CACHE_RESET (1u << 12)
#define ECCR_DETECTED (1u << 31) /* two bits or more are wrong; written as 1: cleared */

/* 1: a double word of the storage could not be corrected, since the last read began */
static volatile int uncorrectable;

/* To be called first by NMI_Handler. Returns 1 when the flash raised it: return from the handler then, the read that
 * caused it fails; 0: it was another reason. */
int mt_flash_nmi(void)
{
    if ((FLASH_CONTROL->eccr & ECCR_DETECTED) == 0) {
        return 0;
    }
    FLASH_CONTROL->eccr |= ECCR_DETECTED;
    uncorrectable = 1;
    return 1;
}

static int is_inside(uint32_t address, uint32_t bytes)
{
    return address <= MT_FLASH_SIZE && bytes <= MT_FLASH_SIZE - address;
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
    (void)finish(); /* what others left behind: programming refuses while an error stands */
    return (FLASH_CONTROL->cr & CR_LOCK) != 0 ? -1 : 0;
}

/* what the cache kept of the erased page is no longer true; it can be emptied only while it is off */
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
    const volatile uint8_t *from = (const volatile uint8_t *)(STORAGE + address);
    (void)context;
    if (!is_inside(address, bytes)) {
        return -1;
    }
    uncorrectable = 0;
    for (uint32_t i = 0; i < bytes; ++i) {
        ((uint8_t *)data)[i] = from[i];
    }
    __asm__ volatile("dsb" ::: "memory");
    (void)mt_flash_nmi(); /* should it be masked */
    return uncorrectable ? -1 : 0;
}

static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % 8u != 0 || bytes % 8u != 0 || unlock() != 0) {
        return -1;
    }
    FLASH_CONTROL->cr = CR_PROGRAM;
    for (uint32_t i = 0; i < bytes && !failed; i += 8u) {
        volatile uint32_t *to = (volatile uint32_t *)(STORAGE + address + i);
        uint32_t words[2];
        memcpy(words, (const uint8_t *)data + i, sizeof words);
        to[0] = words[0];
        __asm__ volatile("isb" ::: "memory"); /* the lower half first, not merged with the upper */
        to[1] = words[1];
        failed = finish() != 0;
    }
    FLASH_CONTROL->cr = CR_LOCK;
    return failed ? -1 : 0;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    int failed = 0;
    (void)context;
    if (!is_inside(address, bytes) || address % PAGE != 0 || bytes % PAGE != 0 || unlock() != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < bytes && !failed; i += PAGE) {
        const uint32_t place = (uint32_t)(STORAGE + address + i) - FLASH_START;
        const uint32_t page = CR_PAGE(place % MT_FLASH_BANK / PAGE) | (place >= MT_FLASH_BANK ? CR_BANK_2 : 0u);
        FLASH_CONTROL->cr = CR_PAGE_ERASE | page;
        FLASH_CONTROL->cr = CR_PAGE_ERASE | page | CR_START;
        failed = finish() != 0;
    }
    FLASH_CONTROL->cr = CR_LOCK;
    empty_data_cache();
    return failed ? -1 : 0;
}

int mt_flash_open(mt_port *port)
{
    const uint32_t device = *(const volatile uint32_t *)(uintptr_t)0xE0042000u & 0xFFFu; /* DBGMCU_IDCODE */
    memset(port, 0, sizeof *port);
    /* L4+: larger pages */
    if (device == 0x470u || device == 0x471u) {
        return -1;
    }
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
