/*
 * flash.c: the store on simulated flash that loses power after a given number of written or erased bytes.
 *
 * Breaches of the port's contract (alignment, bounds, a write to what is not erased) are counted in `breaches`.
 */
#include "mt_store.h"

typedef struct flash {
    uint8_t *bytes;
    uint32_t size, sector;
    uint32_t left;     /* bytes that can still be written or erased before the power fails */
    uint32_t garbage;  /* 256: the byte under way keeps its value; else it takes this value */
    uint32_t erased;   /* what erased bytes read as */
    uint32_t backward; /* 1: sectors are erased from their end */
    uint32_t unreadable, unreadable_bytes; /* reads that touch this range fail */
    uint32_t breaches;
} flash;

static int put(flash *f, uint32_t at, uint8_t value)
{
    if (f->left == 0) {
        return -1;
    }
    if (--f->left == 0) {
        f->bytes[at] = f->garbage < 256u ? (uint8_t)f->garbage : f->bytes[at];
        return -1;
    }
    f->bytes[at] = value;
    return 0;
}

static int flash_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    flash *f = (flash *)context;
    if (address > f->size || bytes > f->size - address) {
        ++f->breaches;
        return -1;
    }
    if (address < f->unreadable + f->unreadable_bytes && address + bytes > f->unreadable) {
        return -1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        ((uint8_t *)data)[i] = f->bytes[address + i];
    }
    return 0;
}

static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    flash *f = (flash *)context;
    if (address % MT_STORE_UNIT != 0 || bytes % MT_STORE_UNIT != 0 || address > f->size || bytes > f->size - address) {
        ++f->breaches;
        return -1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        f->breaches += f->bytes[address + i] != f->erased;
        if (put(f, address + i, ((const uint8_t *)data)[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    flash *f = (flash *)context;
    if (address % f->sector != 0 || bytes % f->sector != 0 || address > f->size || bytes > f->size - address) {
        ++f->breaches;
        return -1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        if (put(f, address + (f->backward ? bytes - 1u - i : i), (uint8_t)f->erased) != 0) {
            return -1;
        }
    }
    return 0;
}

static mt_port port_of(flash *f)
{
    mt_port port;
    port.context = f;
    port.read = flash_read;
    port.write = flash_write;
    port.erase = flash_erase;
    port.size = f->size;
    port.sector = f->sector;
    port.log = 0;
    port.now = NULL;
    port.may_learn = NULL;
    return port;
}

int flash_save(flash *f, uint32_t identity, const void *payload, uint32_t bytes, uint32_t *sequence)
{
    const mt_port port = port_of(f);
    return (int)mt_store_save(&port, identity, payload, bytes, sequence);
}

int flash_load(flash *f, uint32_t identity, void *payload, uint32_t bytes, uint32_t *sequence, int *found)
{
    const mt_port port = port_of(f);
    return (int)mt_store_load(&port, identity, payload, bytes, sequence, found);
}

void flash_wear(flash *f, uint32_t bytes, uint32_t sequence, mt_wear *wear)
{
    const mt_port port = port_of(f);
    mt_store_wear(&port, bytes, sequence, wear);
}

/// An older build's state: bytes of 8 bits were nibbles there, two in each byte ///

static int widen(const mt_old_state *old, void *payload, uint32_t bytes)
{
    if (old->identity != 0x0DDBA11Du || old->bytes * 2u != bytes) {
        return -1;
    }
    for (uint32_t i = 0; i < old->bytes; ++i) {
        uint8_t pair;
        if (mt_store_read(old, i, &pair, 1) != 0) {
            return -1;
        }
        ((uint8_t *)payload)[2 * i] = pair & 15u;
        ((uint8_t *)payload)[2 * i + 1] = (uint8_t)(pair >> 4);
    }
    /* nothing lies behind it */
    return mt_store_read(old, old->bytes, payload, 1) != 0 ? 0 : -1;
}

int flash_migrate(flash *f, uint32_t identity, void *payload, uint32_t bytes)
{
    const mt_port port = port_of(f);
    return (int)mt_store_migrate(&port, identity, widen, payload, bytes);
}
