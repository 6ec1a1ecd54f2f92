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

/// The header: five words, little-endian, and zeros up to a unit; behind it a unit of marks ///

enum { MAGIC = 0, IDENTITY = 4, SEQUENCE = 8, BYTES = 12, CHECKSUM = 16, HEADER = 20 };

/* "MTS1", "MTS2": the last character is the version of the format */
#define MT_STORE_MAGIC_1 0x3153544Du
#define MT_STORE_MAGIC_2 0x3253544Du

/* Written last and far in bits from 0x00 and 0xFF: tells an unfinished first save from a damaged state. Nothing else
 * depends on it, and the checksum does not cover it. */
#define MT_STORE_MARK 0x5Au

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

/* Where the payload stands in a slot of this header's format; 0 for a format that is not known. All formats so far
 * agree on the five words and on what the checksum covers. */
MT_COLD static uint32_t payload_offset(const uint8_t *header)
{
    switch (word_at(header, MAGIC)) {
    case MT_STORE_MAGIC_2: return MT_STORE_HEADER;
    case MT_STORE_MAGIC_1: return 24u;
    default: return 0;
    }
}

MT_COLD static int is_all(const uint8_t *bytes, uint32_t size, uint8_t value)
{
    for (uint32_t i = 0; i < size; ++i) {
        if (bytes[i] != value) {
            return 0;
        }
    }
    return 1;
}

/// Slots ///

/* what of the storage holds states: the log lies behind it */
static uint32_t room_of(const mt_port *port)
{
    return port->log < port->size ? port->size - port->log : 0u;
}

MT_COLD uint32_t mt_store_slots(const mt_port *port, uint32_t bytes)
{
    if (port == NULL || port->read == NULL || port->write == NULL || port->erase == NULL) {
        return 0;
    }
    if (port->sector == 0 || port->sector % MT_STORE_UNIT != 0 || bytes > room_of(port) || port->size > 0x7FFFFFFFu ||
        port->sector > room_of(port)) {
        return 0;
    }
    const uint32_t slots = room_of(port) / MT_STORE_SLOT(bytes, port->sector);
    return slots >= 2 ? slots : 0;
}

/* 1: the payload behind this header has its checksum; 0: it has not; -1: the port failed */
MT_COLD static int is_whole(const mt_port *port, uint32_t address, const uint8_t *header)
{
    uint8_t chunk[MT_STORE_CHUNK];
    const uint32_t bytes = word_at(header, BYTES);
    const uint32_t offset = payload_offset(header);
    if (offset == 0 || bytes > room_of(port) || offset + bytes > room_of(port) - address) {
        return 0;
    }
    uint32_t crc = mt_crc32(0, header, CHECKSUM);
    for (uint32_t at = 0; at < bytes; at += MT_STORE_CHUNK) {
        const uint32_t size = bytes - at < MT_STORE_CHUNK ? bytes - at : MT_STORE_CHUNK;
        if (port->read(port->context, address + offset + at, chunk, size) != 0) {
            return -1;
        }
        crc = mt_crc32(crc, chunk, size);
    }
    return crc == word_at(header, CHECKSUM);
}

/* the number after this one; where numbers wrap around, those that would repeat a slot are left out */
MT_COLD static uint32_t number_after(uint32_t sequence, uint32_t slots)
{
    return sequence != 0xFFFFFFFFu ? sequence + 1u : (sequence % slots + 1u) % slots;
}

/* The first number from this header's on whose next save leaves what stands at `address` alone: its own, but for
 * states of other builds and formats, which may cut their slots elsewhere. If every slot touches it, its own. */
MT_COLD static uint32_t number_beside(const mt_port *port, uint32_t bytes, uint32_t address, const uint8_t *header)
{
    const uint32_t slot = MT_STORE_SLOT(bytes, port->sector);
    const uint32_t slots = mt_store_slots(port, bytes);
    const uint32_t end = address + payload_offset(header) + word_at(header, BYTES);
    uint32_t number = word_at(header, SEQUENCE);
    for (uint32_t i = 0; i < slots; ++i) {
        const uint32_t after = number_after(number, slots);
        const uint32_t next = after % slots * slot;
        if (next >= end || address >= next + slot) {
            return number;
        }
        number = after;
    }
    return word_at(header, SEQUENCE);
}

/// Load ///

/* The address of the newest whole state, of this build or (`foreign` 1) of any other, its header in `header`;
 * room_of(port) when there is none. At every sector, as other builds and formats cut their slots elsewhere; from the
 * last to the first, so that most older ones are known by their number and not read in full. */
MT_COLD static uint32_t find_newest(const mt_port *port, uint32_t identity, uint32_t bytes, int foreign,
                                    uint8_t *header, int *failed)
{
    uint8_t other[HEADER];
    uint32_t newest = room_of(port);
    MT_ZERO(header, HEADER);
    for (uint32_t i = room_of(port) / port->sector; i-- > 0;) {
        const uint32_t at = i * port->sector;
        if (port->read(port->context, at, other, HEADER) != 0) {
            *failed = 1;
            continue;
        }
        if ((word_at(other, IDENTITY) != identity || word_at(other, BYTES) != bytes) != foreign) {
            continue;
        }
        /* numbers are compared by their distance, so that they may wrap around */
        const uint32_t ahead = word_at(other, SEQUENCE) - word_at(header, SEQUENCE);
        if (newest != room_of(port) && (ahead == 0 || ahead >= 0x80000000u)) {
            continue;
        }
        const int whole = is_whole(port, at, other);
        if (whole == 1) {
            newest = at;
            MT_COPY(header, other, HEADER);
        } else if (whole < 0) {
            *failed = 1;
        }
    }
    return newest;
}

/* Why nothing is whole: never written, or damaged. */
MT_COLD static mt_status explain_nothing(const mt_port *port, uint32_t bytes)
{
    const uint32_t slot = MT_STORE_SLOT(bytes, port->sector);
    for (uint32_t i = 0; i < mt_store_slots(port, bytes); ++i) {
        uint8_t unit[MT_STORE_UNIT];
        if (port->read(port->context, i * slot, unit, HEADER) != 0) {
            return MT_STORAGE_FAILED;
        }
        if (is_all(unit, HEADER, 0xFFu) || is_all(unit, HEADER, 0x00u)) {
            continue;
        }
        /* The very first save goes to slot 1. Cut off before its mark is complete it is no loss: nothing had been saved
         * yet. */
        if (i == 1) {
            if (port->read(port->context, slot + MT_STORE_UNIT, unit, MT_STORE_UNIT) != 0) {
                return MT_STORAGE_FAILED;
            }
            if (!is_all(unit, MT_STORE_UNIT, MT_STORE_MARK)) {
                continue;
            }
        }
        return MT_STATE_CORRUPT;
    }
    return MT_OK;
}

MT_COLD mt_status mt_store_load(const mt_port *port, uint32_t identity, void *payload, uint32_t bytes, uint32_t *sequence,
                                int *found)
{
    uint8_t header[HEADER];
    int failed = 0;
    *found = 0;
    *sequence = 0;
    if (mt_store_slots(port, bytes) == 0) {
        return MT_INVALID_ARGUMENT;
    }
    int foreign = 0;
    uint32_t newest = find_newest(port, identity, bytes, foreign, header, &failed);
    if (newest == room_of(port)) {
        foreign = 1;
        newest = find_newest(port, identity, bytes, foreign, header, &failed);
    }
    if (newest == room_of(port)) {
        return failed ? MT_STORAGE_FAILED : explain_nothing(port, bytes);
    }
    *sequence = number_beside(port, bytes, newest, header);
    if (foreign) {
        return MT_STATE_FOREIGN;
    }
    if (port->read(port->context, newest + payload_offset(header), payload, bytes) != 0 ||
        mt_crc32(mt_crc32(0, header, CHECKSUM), payload, bytes) != word_at(header, CHECKSUM)) {
        return MT_STORAGE_FAILED; /* it was whole a moment ago */
    }
    *found = 1;
    return MT_OK;
}

/// States of older builds ///

MT_COLD int mt_store_read(const mt_old_state *old, uint32_t at, void *data, uint32_t bytes)
{
    if (at > old->bytes || bytes > old->bytes - at) {
        return -1;
    }
    return old->port->read(old->port->context, old->address + at, data, bytes);
}

MT_COLD mt_status mt_store_migrate(const mt_port *port, uint32_t identity, mt_migrate migrate, void *payload,
                                   uint32_t bytes)
{
    uint8_t header[HEADER];
    mt_old_state old;
    int failed = 0;
    if (mt_store_slots(port, bytes) == 0 || migrate == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    old.port = port;
    old.address = find_newest(port, identity, bytes, 1, header, &failed);
    if (old.address == room_of(port)) {
        return failed ? MT_STORAGE_FAILED : MT_STATE_FOREIGN;
    }
    old.address += payload_offset(header);
    old.identity = word_at(header, IDENTITY);
    old.bytes = word_at(header, BYTES);
    return migrate(&old, payload, bytes) == 0 ? MT_OK : MT_STATE_FOREIGN;
}

/// Save ///

MT_COLD static int write_payload(const mt_port *port, uint32_t address, const uint8_t *payload, uint32_t bytes)
{
    const uint32_t even = bytes / MT_STORE_UNIT * MT_STORE_UNIT;
    if (even != 0 && port->write(port->context, address, payload, even) != 0) {
        return -1;
    }
    if (bytes != even) {
        uint8_t rest[MT_STORE_UNIT];
        MT_ZERO(rest, sizeof rest);
        MT_COPY(rest, payload + even, bytes - even);
        return port->write(port->context, address + even, rest, sizeof rest);
    }
    return 0;
}

MT_COLD static int write_mark(const mt_port *port, uint32_t address, uint8_t *unit)
{
    for (uint32_t i = 0; i < MT_STORE_UNIT; ++i) {
        unit[i] = MT_STORE_MARK;
    }
    return port->write(port->context, address, unit, MT_STORE_UNIT);
}

MT_COLD mt_status mt_store_save(const mt_port *port, uint32_t identity, const void *payload, uint32_t bytes,
                                uint32_t *sequence)
{
    uint8_t unit[MT_STORE_UNIT];
    const uint32_t slots = mt_store_slots(port, bytes);
    if (slots == 0) {
        return MT_INVALID_ARGUMENT;
    }
    const uint32_t number = number_after(*sequence, slots);
    const uint32_t slot = MT_STORE_SLOT(bytes, port->sector);
    const uint32_t address = number % slots * slot;
    MT_ZERO(unit, sizeof unit);
    put_word(unit, MAGIC, MT_STORE_MAGIC_2);
    put_word(unit, IDENTITY, identity);
    put_word(unit, SEQUENCE, number);
    put_word(unit, BYTES, bytes);
    const uint32_t checksum = mt_crc32(mt_crc32(0, unit, CHECKSUM), payload, bytes);
    put_word(unit, CHECKSUM, checksum);
    if (port->erase(port->context, address, slot) != 0 ||
        write_payload(port, address + MT_STORE_HEADER, (const uint8_t *)payload, bytes) != 0 ||
        port->write(port->context, address, unit, MT_STORE_UNIT) != 0 ||
        write_mark(port, address + MT_STORE_UNIT, unit) != 0) {
        return MT_STORAGE_FAILED;
    }
    /* worn flash may take a write and not keep it: what counts is what can be read */
    if (port->read(port->context, address, unit, HEADER) != 0 || word_at(unit, CHECKSUM) != checksum ||
        word_at(unit, SEQUENCE) != number || is_whole(port, address, unit) != 1) {
        return MT_STORAGE_FAILED;
    }
    *sequence = number;
    return MT_OK;
}

/// Wear ///

MT_COLD void mt_store_wear(const mt_port *port, uint32_t bytes, uint32_t sequence, mt_wear *wear)
{
    const uint32_t slots = mt_store_slots(port, bytes);
    wear->saves = slots != 0 ? sequence : 0;
    /* save n erases slot n % slots, from save 1 on: slot 1 is always among the most worn */
    wear->erases = slots != 0 ? sequence / slots + (sequence % slots != 0) : 0;
}
