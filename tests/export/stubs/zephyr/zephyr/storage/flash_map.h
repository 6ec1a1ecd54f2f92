/* What zephyr_flash_map.c needs of Zephyr's flash map. */
#ifndef ZEPHYR_FLASH_MAP_H
#define ZEPHYR_FLASH_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <zephyr/drivers/flash.h>

struct flash_area {
    uint8_t fa_id;
    off_t fa_off;
    size_t fa_size;
    const struct device *fa_dev;
};

#define JOINED(a, b) a##b
#define NODE_OF(label) JOINED(NODE_, label)
#define FIXED_PARTITION_ID(label) NODE_OF(label)
#define NODE_storage_partition 3

int flash_area_open(uint8_t id, const struct flash_area **fa);
int flash_area_read(const struct flash_area *fa, off_t off, void *dst, size_t len);
int flash_area_write(const struct flash_area *fa, off_t off, const void *src, size_t len);
int flash_area_erase(const struct flash_area *fa, off_t off, size_t len);
uint32_t flash_area_align(const struct flash_area *fa);
const struct device *flash_area_get_device(const struct flash_area *fa);
bool flash_area_device_is_ready(const struct flash_area *fa);

#endif
