/* mt_store.c: see mt_store.h for the calls and docs/store.md for why a power cut leaves the old state or the new. */
#include "mt_store.h"

#include "mt_platform.h"

/// CRC-32 (IEEE 802.3), four bits at a time: 64 bytes of table instead of 1024 ///

MT_COLD uint32_t mt_crc32(uint32_t crc, const void *data, uint32_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    const uint8_t *byte = (const uint8_t *)data;
    crc = ~crc;
    for (uint32_t i = 0; i < bytes; ++i) {
        crc ^= byte[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

/// The header: six words, little-endian ///

/* "MTS1": the last character is the version of the format */
#define MT_STORE_MAGIC 0x3153544Du
/* Written with the last bytes of a save, far in bits from 0x00 and 0xFF: tells an unfinished save from a damaged
 * state. Nothing else depends on it, and the checksum does not cover it. */
#define MT_STORE_MARK 0x5AA55AA5u

enum { MAGIC = 0, IDENTITY = 4, SEQUENCE = 8, BYTES = 12, CHECKSUM = 16, MARK = 20 };

#define MT_STORE_CHUNK 64u

MT_COLD static uint32_t word_at(const uint8_t *header, uint32_t at)
{
    return (uint32_t)header[at] | (uint32_t)header[at + 1] << 8 | (uint32_t)header[at + 2] << 16 |
           (uint32_t)header[at + 3] << 24;
}

MT_COLD static void put_word(uint8_t *header, uint32_t at, uint32_t word)
{
    header[at] = (uint8_t)word;
    header[at + 1] = (uint8_t)(word >> 8);
    header[at + 2] = (uint8_t)(word >> 16);
    header[at + 3] = (uint8_t)(word >> 24);
}

/* all 0xFF or all 0x00: what erased storage reads as */
MT_COLD static int is_blank(const uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 1; i < size; ++i) {
        if (bytes[i] != bytes[0]) {
            return 0;
        }
    }
    return bytes[0] == 0x00u || bytes[0] == 0xFFu;
}

/// Slots ///

/* slots in the ring, 0 when fewer than two fit or the port is impossible */
MT_COLD static uint32_t slots_of(const mt_port *port, uint32_t bytes)
{
    if (port == NULL || port->read == NULL || port->write == NULL || port->erase == NULL) {
        return 0;
    }
    if (port->sector == 0 || port->sector % 8u != 0 || bytes > port->size || port->size > 0x7FFFFFFFu ||
        port->sector > port->size) {
        return 0;
    }
    const uint32_t slots = port->size / MT_STORE_SLOT(bytes, port->sector);
    return slots >= 2 ? slots : 0;
}

MT_COLD static int read_header(const mt_port *port, uint32_t address, uint8_t *header)
{
    return port->read(port->context, address, header, MT_STORE_HEADER);
}

/* 1: the payload behind this header has its checksum; 0: it has not; -1: the port failed */
MT_COLD static int is_whole(const mt_port *port, uint32_t address, const uint8_t *header)
{
    uint8_t chunk[MT_STORE_CHUNK];
    const uint32_t bytes = word_at(header, BYTES);
    if (word_at(header, MAGIC) != MT_STORE_MAGIC || bytes > port->size - address - MT_STORE_HEADER) {
        return 0;
    }
    uint32_t crc = mt_crc32(0, header, CHECKSUM);
    for (uint32_t at = 0; at < bytes; at += MT_STORE_CHUNK) {
        const uint32_t size = bytes - at < MT_STORE_CHUNK ? bytes - at : MT_STORE_CHUNK;
        if (port->read(port->context, address + MT_STORE_HEADER + at, chunk, size) != 0) {
            return -1;
        }
        crc = mt_crc32(crc, chunk, size);
    }
    return crc == word_at(header, CHECKSUM);
}

/// Load ///

/* The address of the newest whole slot of this build, its header in `header`; port->size when there is none.
 * From the last slot to the first, so that most older ones are known by their number and not read in full. */
MT_COLD static uint32_t find_newest(const mt_port *port, uint32_t identity, uint32_t bytes, uint8_t *header, int *failed)
{
    const uint32_t slot = MT_STORE_SLOT(bytes, port->sector);
    uint8_t other[MT_STORE_HEADER];
    uint32_t newest = port->size;
    MT_ZERO(header, MT_STORE_HEADER);
    for (uint32_t i = slots_of(port, bytes); i-- > 0;) {
        if (read_header(port, i * slot, other) != 0) {
            *failed = 1;
            continue;
        }
        if (word_at(other, IDENTITY) != identity || word_at(other, BYTES) != bytes) {
            continue;
        }
        /* numbers are compared by their distance, so that they may wrap around */
        const uint32_t ahead = word_at(other, SEQUENCE) - word_at(header, SEQUENCE);
        if (newest != port->size && (ahead == 0 || ahead >= 0x80000000u)) {
            continue;
        }
        const int whole = is_whole(port, i * slot, other);
        if (whole == 1) {
            newest = i * slot;
            MT_COPY(header, other, MT_STORE_HEADER);
        } else if (whole < 0) {
            *failed = 1;
        }
    }
    return newest;
}

/* Why nothing of this build is whole: never written, damaged, or of another build. */
MT_COLD static mt_status explain_nothing(const mt_port *port, uint32_t bytes, int *failed)
{
    const uint32_t slot = MT_STORE_SLOT(bytes, port->sector);
    const uint32_t slots = slots_of(port, bytes);
    uint8_t header[MT_STORE_HEADER];
    mt_status status = MT_OK;
    /* another build may cut its slots at any sector */
    for (uint32_t at = 0; port->size - at >= MT_STORE_HEADER; at += port->sector) {
        if (read_header(port, at, header) != 0) {
            *failed = 1;
        } else {
            const int whole = is_whole(port, at, header);
            if (whole == 1) {
                return MT_STATE_FOREIGN;
            }
            *failed |= whole < 0;
            /* The very first save goes to slot 1. Cut off before its mark, or while erasing, it is no loss: nothing
             * had been saved yet. */
            const int cut_off = at == slot && (is_blank(header + MARK + 3, 1) || is_blank(header + CHECKSUM, 4));
            if (at % slot == 0 && at / slot < slots && !is_blank(header, MT_STORE_HEADER) && !cut_off) {
                status = MT_STATE_CORRUPT;
            }
        }
        if (port->size - at < port->sector) {
            break;
        }
    }
    return status;
}

MT_COLD mt_status mt_store_load(const mt_port *port, uint32_t identity, void *payload, uint32_t bytes, uint32_t *sequence,
                        int *found)
{
    uint8_t header[MT_STORE_HEADER];
    int failed = 0;
    *found = 0;
    *sequence = 0;
    if (slots_of(port, bytes) == 0) {
        return MT_INVALID_ARGUMENT;
    }
    const uint32_t newest = find_newest(port, identity, bytes, header, &failed);
    if (newest == port->size) {
        const mt_status status = explain_nothing(port, bytes, &failed);
        return failed && status != MT_STATE_FOREIGN ? MT_STORAGE_FAILED : status;
    }
    if (port->read(port->context, newest + MT_STORE_HEADER, payload, bytes) != 0 ||
        mt_crc32(mt_crc32(0, header, CHECKSUM), payload, bytes) != word_at(header, CHECKSUM)) {
        return MT_STORAGE_FAILED; /* it was whole a moment ago */
    }
    *sequence = word_at(header, SEQUENCE);
    *found = 1;
    return MT_OK;
}

/// Save ///

/* the number after this one; where numbers wrap around, those that would repeat a slot are left out */
MT_COLD static uint32_t number_after(uint32_t sequence, uint32_t slots)
{
    return sequence != 0xFFFFFFFFu ? sequence + 1u : (sequence % slots + 1u) % slots;
}

MT_COLD static int write_payload(const mt_port *port, uint32_t address, const uint8_t *payload, uint32_t bytes)
{
    const uint32_t even = bytes & ~7u;
    if (even != 0 && port->write(port->context, address, payload, even) != 0) {
        return -1;
    }
    if (bytes != even) {
        uint8_t rest[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        MT_COPY(rest, payload + even, bytes - even);
        return port->write(port->context, address + even, rest, sizeof rest);
    }
    return 0;
}

MT_COLD mt_status mt_store_save(const mt_port *port, uint32_t identity, const void *payload, uint32_t bytes,
                        uint32_t *sequence)
{
    uint8_t header[MT_STORE_HEADER];
    const uint32_t slots = slots_of(port, bytes);
    if (slots == 0) {
        return MT_INVALID_ARGUMENT;
    }
    const uint32_t number = number_after(*sequence, slots);
    const uint32_t slot = MT_STORE_SLOT(bytes, port->sector);
    const uint32_t address = number % slots * slot;
    put_word(header, MAGIC, MT_STORE_MAGIC);
    put_word(header, IDENTITY, identity);
    put_word(header, SEQUENCE, number);
    put_word(header, BYTES, bytes);
    put_word(header, CHECKSUM, mt_crc32(mt_crc32(0, header, CHECKSUM), payload, bytes));
    put_word(header, MARK, MT_STORE_MARK);
    if (port->erase(port->context, address, slot) != 0 ||
        write_payload(port, address + MT_STORE_HEADER, (const uint8_t *)payload, bytes) != 0 ||
        port->write(port->context, address, header, sizeof header) != 0) {
        return MT_STORAGE_FAILED;
    }
    /* worn flash may take a write and not keep it: what counts is what can be read */
    uint8_t kept[MT_STORE_HEADER];
    if (read_header(port, address, kept) != 0 || word_at(kept, CHECKSUM) != word_at(header, CHECKSUM) ||
        word_at(kept, SEQUENCE) != number || is_whole(port, address, kept) != 1) {
        return MT_STORAGE_FAILED;
    }
    *sequence = number;
    return MT_OK;
}
