/*
 * mt_store.h: keep a block of bytes through power loss at any instant.
 *
 * Storage is a ring of slots. A save erases the slot after the newest one, writes the payload, then the
 * header, whose checksum covers both, then a mark: until the header's last byte is there, the older slot is
 * still the newest whole one. See docs/store.md.
 */
#ifndef MT_STORE_H
#define MT_STORE_H

#include "mt_port.h"
#include "mt_status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every write is a multiple of this at a multiple of this, and nothing is written twice between two erases: no
 * common flash programs wider units. */
#define MT_STORE_UNIT 32u

/* bytes of a slot before its payload: the header, and the mark in a unit of its own */
#define MT_STORE_HEADER (2u * MT_STORE_UNIT)

/* bytes one slot takes, for a payload of `bytes` */
#define MT_STORE_SLOT(bytes, sector) \
    ((MT_STORE_HEADER + ((bytes) + MT_STORE_UNIT - 1u) / MT_STORE_UNIT * MT_STORE_UNIT + (sector) - 1u) / (sector) * \
     (sector))

/*
 * Read the newest whole payload, in this format or an older one. `identity` names the build whose state it must
 * be, `bytes` its size.
 * MT_OK and *found = 1: `payload` holds it and *sequence its number.
 * MT_OK and *found = 0: storage was never written, or the very first save was cut off. MT_STATE_CORRUPT:
 * something was written but nothing is whole. MT_STATE_FOREIGN: a whole state, but of another build; *sequence
 * goes on from its number. MT_INVALID_ARGUMENT: fewer than two slots fit. MT_STORAGE_FAILED: the port failed.
 * Only with *found = 1 is `payload` defined.
 */
mt_status mt_store_load(const mt_port *port, uint32_t identity, void *payload, uint32_t bytes, uint32_t *sequence,
                        int *found);

/* Write the payload as the number after *sequence into the next slot of the ring and read it back; *sequence
 * counts on success. On failure the state before is still there, and the next save tries the same slot. */
mt_status mt_store_save(const mt_port *port, uint32_t identity, const void *payload, uint32_t bytes,
                        uint32_t *sequence);

/* Slots in the ring; 0 when fewer than two fit, or the port is impossible. After as many saves nothing older is left. */
uint32_t mt_store_slots(const mt_port *port, uint32_t bytes);

/// States of older builds ///

/* A whole state that another build saved: what a mt_migrate is given. */
typedef struct mt_old_state {
    const mt_port *port;
    uint32_t address;  /* of its payload in the storage */
    uint32_t identity; /* of the build that saved it */
    uint32_t bytes;    /* of its payload */
} mt_old_state;

/* Make this build's state out of an older build's: look at `old->identity`, read with mt_store_read, fill in all
 * `bytes` of `payload`. Returns 0, or anything else when that build is not known or a read failed. */
typedef int (*mt_migrate)(const mt_old_state *old, void *payload, uint32_t bytes);

/* Read part of an old payload from its byte `at`. Returns 0, or anything else when it is not all there. */
int mt_store_read(const mt_old_state *old, uint32_t at, void *data, uint32_t bytes);

/*
 * After mt_store_load said MT_STATE_FOREIGN: have `migrate` take over the newest whole state of another build.
 * MT_OK: `payload` holds its state for this build; save it. The old one stays whole until that save is.
 * MT_STATE_FOREIGN: refused, or there is none; MT_STORAGE_FAILED: none could be read; `payload` is undefined.
 */
mt_status mt_store_migrate(const mt_port *port, uint32_t identity, mt_migrate migrate, void *payload, uint32_t bytes);

/// Wear ///

typedef struct mt_wear {
    uint32_t saves;  /* that were finished, since the storage was first written */
    uint32_t erases; /* of each sector of the most worn slot; one more for each save that was cut off in it */
} mt_wear;

/* What saves have cost the storage so far, from the number of the newest; nothing is read. */
void mt_store_wear(const mt_port *port, uint32_t bytes, uint32_t sequence, mt_wear *wear);

/* CRC-32 (IEEE 802.3) of `bytes` bytes, continued from `crc` (0 to start). */
uint32_t mt_crc32(uint32_t crc, const void *data, uint32_t bytes);

#ifdef __cplusplus
}
#endif

#endif
