/* memory_port.c: flash as an array. A write can only clear bits, as in flash: a missing erase shows at once. */
#include "memory_port.h"

#include "mt_platform.h"

static int memory_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    MT_COPY(data, (const uint8_t *)context + address, bytes);
    return 0;
}

static int memory_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    uint8_t *storage = (uint8_t *)context + address;
    const uint8_t *from = (const uint8_t *)data;
    for (uint32_t i = 0; i < bytes; ++i) {
        storage[i] = (uint8_t)(storage[i] & from[i]);
    }
    return 0;
}

static int memory_erase(void *context, uint32_t address, uint32_t bytes)
{
    uint8_t *storage = (uint8_t *)context + address;
    for (uint32_t i = 0; i < bytes; ++i) {
        storage[i] = 0xFFu;
    }
    return 0;
}

void mt_memory_port_create(mt_port *port, void *storage, uint32_t size, uint32_t sector)
{
    port->context = storage;
    port->read = memory_read;
    port->write = memory_write;
    port->erase = memory_erase;
    port->size = size;
    port->sector = sector;
    port->log = 0;
    port->now = NULL;
    port->may_learn = NULL;
}
