/*
 * mt_store.h: keep a block of bytes through power loss at any instant.
 *
 * Storage is a ring of slots. A save erases the slot after the newest one, writes the payload, and writes
 * the header, whose checksum covers both, last: until its final byte is there, the older slot is still the
 * newest whole one. See docs/store.md.
 */
#ifndef MT_STORE_H
#define MT_STORE_H

#include "mt_port.h"
#include "mt_status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* bytes of a header; payloads are padded to a multiple of 8 */
#define MT_STORE_HEADER 24u

/* bytes one slot takes, for a payload of `bytes` */
#define MT_STORE_SLOT(bytes, sector) \
    (((MT_STORE_HEADER + (((bytes) + 7u) & ~7u)) + (sector) - 1u) / (sector) * (sector))

/*
 * Read the newest whole payload. `identity` names the build whose state it must be, `bytes` its size.
 * MT_OK and *found = 1: `payload` holds it and *sequence its number.
 * MT_OK and *found = 0: storage was never written, or the very first save was cut off. MT_STATE_CORRUPT:
 * something was written but nothing is whole. MT_STATE_FOREIGN: a whole state, but of another build.
 * MT_INVALID_ARGUMENT: fewer than two slots fit. MT_STORAGE_FAILED: the port failed. Only with *found = 1 is
 * `payload` defined.
 */
mt_status mt_store_load(const mt_port *port, uint32_t identity, void *payload, uint32_t bytes, uint32_t *sequence,
                        int *found);

/* Write the payload as the number after *sequence into the next slot of the ring and read it back; *sequence
 * counts on success. On failure the state before is still there, and the next save tries the same slot. */
mt_status mt_store_save(const mt_port *port, uint32_t identity, const void *payload, uint32_t bytes,
                        uint32_t *sequence);

/* CRC-32 (IEEE 802.3) of `bytes` bytes, continued from `crc` (0 to start). */
uint32_t mt_crc32(uint32_t crc, const void *data, uint32_t bytes);

#ifdef __cplusplus
}
#endif

#endif
