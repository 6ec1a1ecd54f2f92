/*
 * zephyr_flash_map.c: a fixed partition of the devicetree, through Zephyr's flash map, on whatever chip it is.
 *
 * The partition is `storage_partition` unless MT_FLASH_PARTITION names another label; all of it is used, and nothing else
 * (settings, NVS, a file system) may be on it. Its pages must be of one size and its write block at most 32 bytes:
 * mt_flash_open refuses what is not.
 *
 * Reading while writing, and how long: as the chip's driver has it. Call from a thread, not from an interrupt.
 */
#include "mt_flash.h"

#include <string.h>

#include <zephyr/drivers/flash.h>
#include <zephyr/storage/flash_map.h>

#ifndef MT_FLASH_PARTITION
#define MT_FLASH_PARTITION storage_partition
#endif

static int flash_read_area(void *context, uint32_t address, void *data, uint32_t bytes)
{
    return flash_area_read((const struct flash_area *)context, (off_t)address, data, bytes) == 0 ? 0 : -1;
}

static int flash_write_area(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    return flash_area_write((const struct flash_area *)context, (off_t)address, data, bytes) == 0 ? 0 : -1;
}

static int flash_erase_area(void *context, uint32_t address, uint32_t bytes)
{
    return flash_area_erase((const struct flash_area *)context, (off_t)address, bytes) == 0 ? 0 : -1;
}

int mt_flash_open(mt_port *port)
{
    const struct flash_area *area;
    struct flash_pages_info first, page;
    memset(port, 0, sizeof *port);
    if (flash_area_open(FIXED_PARTITION_ID(MT_FLASH_PARTITION), &area) != 0) {
        return -1;
    }
    const struct device *chip = flash_area_get_device(area);
    if (!flash_area_device_is_ready(area) || 32u % flash_area_align(area) != 0 ||
        flash_get_page_info_by_offs(chip, area->fa_off, &first) != 0 || first.start_offset != area->fa_off) {
        return -1;
    }
    for (size_t at = 0; at < area->fa_size; at += first.size) {
        if (flash_get_page_info_by_offs(chip, area->fa_off + (off_t)at, &page) != 0 || page.size != first.size) {
            return -1;
        }
    }
    port->context = (void *)(uintptr_t)area; /* the flash map keeps it for good, and nothing here writes to it */
    port->read = flash_read_area;
    port->write = flash_write_area;
    port->erase = flash_erase_area;
    port->size = (uint32_t)(area->fa_size / first.size * first.size);
    port->sector = (uint32_t)first.size;
    port->log = MT_FLASH_LOG((uint32_t)first.size);
    return 0;
}
