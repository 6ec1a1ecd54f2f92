/*
 * esp32_partition.c: a partition of its own on ESP32 chips, through ESP-IDF. Sectors of 4 KB, programmed by bytes; in an
 * encrypted partition by 16, which multiples of 32 are.
 *
 * The partition table must have a data partition of this label (MT_FLASH_PARTITION) and at least NAME_STORAGE(4096)
 * bytes; all of it is used. It survives new firmware, also over the air.
 *
 * Reading while writing: ESP-IDF stops both cores' use of the flash meanwhile, about 45 ms for a sector. Interrupts
 * registered with ESP_INTR_FLAG_IRAM go on.
 */
#include "mt_flash.h"

#include <string.h>

#include "esp_partition.h"

#ifndef MT_FLASH_PARTITION
#define MT_FLASH_PARTITION "microtune"
#endif

static int flash_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    return esp_partition_read((const esp_partition_t *)context, address, data, bytes) == ESP_OK ? 0 : -1;
}

static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    return esp_partition_write((const esp_partition_t *)context, address, data, bytes) == ESP_OK ? 0 : -1;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    return esp_partition_erase_range((const esp_partition_t *)context, address, bytes) == ESP_OK ? 0 : -1;
}

int mt_flash_open(mt_port *port)
{
    const esp_partition_t *found =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, MT_FLASH_PARTITION);
    memset(port, 0, sizeof *port);
    if (found == NULL || found->erase_size == 0) {
        return -1;
    }
    port->context = (void *)(uintptr_t)found; /* ESP-IDF keeps it for good, and nothing here writes to it */
    port->read = flash_read;
    port->write = flash_write;
    port->erase = flash_erase;
    port->size = found->size / found->erase_size * found->erase_size;
    port->sector = found->erase_size;
    port->log = MT_FLASH_LOG(found->erase_size);
    return 0;
}
