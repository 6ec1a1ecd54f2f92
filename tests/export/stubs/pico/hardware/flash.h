/* What rp2040.c needs of the Pico SDK, over simulated_flash.c. */
#ifndef HARDWARE_FLASH_H
#define HARDWARE_FLASH_H

#include <stddef.h>
#include <stdint.h>

#define FLASH_PAGE_SIZE (1u << 8)
#define FLASH_SECTOR_SIZE (1u << 12)

#ifdef __arm__
#define XIP_BASE 0x10000000u
#else
extern uint8_t simulated_bytes[];
#define XIP_BASE ((uintptr_t)simulated_bytes)
#endif

void flash_range_erase(uint32_t flash_offs, size_t count);
void flash_range_program(uint32_t flash_offs, const uint8_t *data, size_t count);

#endif
