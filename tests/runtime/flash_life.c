/*
 * flash_life.c: the store's life on simulated flash whose power is cut at random instants, in C for speed.
 *
 * The flash has program units: a unit is programmed once between two erases, and programming only takes bits away
 * from the erased value. A cut in the middle of a unit leaves any of its bits programmed; in the middle of erasing a
 * sector, any mixture of old and erased bits, or of bits that were neither. Offences are counted in `breaches`.
 *
 * After each cut the store must load the state before the save or the one after it, whole.
 */
#include "mt_platform.h"
#include "mt_store.h"

enum { MAX_FLASH = 131072, MAX_PAYLOAD = 16384, IDENTITY = 0x1234ABCD };

/* what is being done at an instant; the last says that the save was through before the cut came */
enum { ERASING, PAYLOAD, HEADER, MARK, DONE, PLACES };

typedef struct life {
    /* the flash and the people around it */
    uint32_t sector, slots, spare; /* bytes of a sector; slots of it for this payload; bytes behind the last slot */
    uint32_t unit;                 /* bytes programmed at once: up to 32 a program unit, above it a page of bytes */
    uint32_t bytes;                /* of the payload */
    uint32_t erased;               /* what an erased byte reads as: 0xFF or 0x00 */
    uint32_t strict;               /* 1: a unit that was cut off cannot be read (error correction) until it is erased */
    uint32_t seed;
    uint32_t cuts, rots; /* power cuts to live through; of these, every rots-th is followed by bit rot (0: never) */
    /* what came of it */
    uint32_t at[PLACES];                /* cuts by what was under way */
    uint32_t before, after, torn_whole; /* what a cut left; a torn slot that was whole all the same */
    uint32_t finished, rotten;          /* saves without a cut; newest states damaged, noticed, the one before found */
    uint32_t lost, mixed, breaches, status; /* failures: no state, neither of both, offences; the last odd status */
    uint32_t failed_at;                 /* number of the cut at the first failure */
} life;

typedef struct flash {
    life *own;
    uint32_t size, random;
    uint32_t left; /* units and sectors still done before the cut; the next one is under way when it comes */
    uint32_t off;  /* 1: no power until the next start */
    uint32_t place, slot; /* what is under way, and in which slot */
    uint32_t bad, bad_bytes; /* the unit that was cut off, when strict */
    uint8_t *bytes, *programmed;
} flash;

static uint8_t memory[MAX_FLASH], programmed[MAX_FLASH];
static uint8_t old_payload[MAX_PAYLOAD], new_payload[MAX_PAYLOAD], found_payload[MAX_PAYLOAD];
static uint8_t older_payload[MAX_PAYLOAD];

static uint32_t draw(flash *f)
{
    f->random ^= f->random << 13;
    f->random ^= f->random >> 17;
    f->random ^= f->random << 5;
    return f->random;
}

static uint32_t below(flash *f, uint32_t limit) { return (uint32_t)((uint64_t)draw(f) * limit >> 32); }

/* eight bits, each set with the probability share / 256 */
static uint8_t bits(flash *f, uint32_t share)
{
    uint32_t byte = 0;
    for (uint32_t i = 0; i < 8; ++i) {
        byte |= (uint32_t)((draw(f) >> 24) < share) << i;
    }
    return (uint8_t)byte;
}

/// The port ///

static int flash_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    flash *f = (flash *)context;
    if (address > f->size || bytes > f->size - address) {
        ++f->own->breaches;
        return -1;
    }
    if (f->off || (f->bad_bytes != 0 && address < f->bad + f->bad_bytes && address + bytes > f->bad)) {
        return -1;
    }
    MT_COPY(data, f->bytes + address, bytes);
    return 0;
}

static void cut_program(flash *f, uint32_t at, const uint8_t *from, uint32_t bytes)
{
    const uint32_t share = below(f, 257);
    for (uint32_t i = 0; i < bytes; ++i) {
        f->bytes[at + i] = (uint8_t)(f->bytes[at + i] ^ ((f->bytes[at + i] ^ from[i]) & bits(f, share)));
        f->programmed[at + i] = 1;
    }
    if (f->own->strict) {
        f->bad = at;
        f->bad_bytes = bytes;
    }
}

static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    flash *f = (flash *)context;
    const uint8_t *from = (const uint8_t *)data;
    const uint32_t unit = f->own->unit, erased = f->own->erased;
    if (f->off) {
        return -1;
    }
    if ((unit <= MT_STORE_UNIT && (address % unit != 0 || bytes % unit != 0)) || address > f->size ||
        bytes > f->size - address) {
        ++f->own->breaches;
        return -1;
    }
    const uint32_t in_slot = address - f->slot;
    f->place = in_slot >= MT_STORE_HEADER ? PAYLOAD : in_slot >= MT_STORE_UNIT ? MARK : HEADER;
    for (uint32_t at = 0, next; at < bytes; at = next) {
        next = (address + at) / unit * unit + unit - address;
        next = next < bytes ? next : bytes;
        if (f->left-- == 0) {
            cut_program(f, address + at, from + at, next - at);
            f->off = 1;
            return -1;
        }
        for (uint32_t i = at; i < next; ++i) {
            /* a second time, or a bit back to what it was erased to */
            f->own->breaches += f->programmed[address + i] != 0;
            f->own->breaches += ((f->bytes[address + i] ^ erased) & ~(from[i] ^ erased) & 0xFFu) != 0;
            f->programmed[address + i] = 1;
            f->bytes[address + i] = from[i];
        }
    }
    return 0;
}

static void cut_erase(flash *f, uint32_t at)
{
    const uint32_t share = below(f, 257), manner = below(f, 3);
    for (uint32_t i = at; i < at + f->own->sector; ++i) {
        /* some flash programs all bits before it erases them */
        const uint32_t to = manner == 0 ? f->own->erased : manner == 1 ? ~f->own->erased : draw(f) >> 24;
        f->bytes[i] = (uint8_t)(f->bytes[i] ^ ((f->bytes[i] ^ to) & bits(f, share)));
        f->programmed[i] = 1;
    }
    if (f->own->strict) {
        f->bad = at;
        f->bad_bytes = f->own->sector;
    }
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    flash *f = (flash *)context;
    const uint32_t sector = f->own->sector;
    if (f->off) {
        return -1;
    }
    if (address % sector != 0 || bytes % sector != 0 || address > f->size || bytes > f->size - address) {
        ++f->own->breaches;
        return -1;
    }
    f->place = ERASING;
    f->slot = address;
    if (f->bad >= address && f->bad < address + bytes) {
        f->bad_bytes = 0;
    }
    for (uint32_t at = address; at < address + bytes; at += sector) {
        if (f->left-- == 0) {
            cut_erase(f, at);
            f->off = 1;
            return -1;
        }
        for (uint32_t i = at; i < at + sector; ++i) {
            f->bytes[i] = (uint8_t)f->own->erased;
            f->programmed[i] = 0;
        }
    }
    return 0;
}

/// Life ///

static void make_payload(flash *f, uint8_t *payload)
{
    /* mostly like the state before, as a learner's is: a mixture of both would be plausible */
    const uint32_t changes = 1 + below(f, f->own->bytes);
    for (uint32_t i = 0; i < changes; ++i) {
        payload[below(f, f->own->bytes)] = (uint8_t)(draw(f) >> 24);
    }
}

static int same(const uint8_t *a, const uint8_t *b, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; ++i) {
        if (a[i] != b[i]) {
            return 0;
        }
    }
    return 1;
}

/* The instant of a cut: half of them anywhere, half in the last units and just behind, where it matters most. */
static uint32_t instant(flash *f, uint32_t work)
{
    if (below(f, 2) == 0) {
        return below(f, work + 1);
    }
    const uint32_t end = 3 * (f->own->unit < MT_STORE_UNIT ? MT_STORE_UNIT / f->own->unit : 1);
    return end < work ? work - end + below(f, end + 1) : below(f, work + 1);
}

static void failure(life *own, uint32_t *kind, uint32_t cut)
{
    if (own->lost + own->mixed == 0) {
        own->failed_at = cut;
    }
    ++*kind;
}

/* Flip bits of the newest slot's header or payload; the state before it must be found. */
enum { ROT_NOTICED, NOTHING_ROTTEN, ROT_LOST_ALL, ROT_MIXED };

static int rot(flash *f, const mt_port *port, uint32_t newest, const uint8_t *expected)
{
    life *own = f->own;
    const uint32_t start = newest % own->slots * MT_STORE_SLOT(own->bytes, own->sector);
    const uint32_t flips = below(f, 4) == 0 ? 1 + below(f, 64) : 1 + below(f, 3);
    uint8_t kept[20];
    uint32_t number = 0;
    int found = 0;
    MT_COPY(kept, f->bytes + start, 20);
    MT_COPY(found_payload, f->bytes + start + MT_STORE_HEADER, own->bytes);
    for (uint32_t i = 0; i < flips; ++i) {
        const uint32_t bit = below(f, (20 + own->bytes) * 8);
        const uint32_t at = bit / 8 < 20 ? bit / 8 : MT_STORE_HEADER + bit / 8 - 20;
        f->bytes[start + at] = (uint8_t)(f->bytes[start + at] ^ 1u << bit % 8);
    }
    const int changed =
        !same(kept, f->bytes + start, 20) || !same(found_payload, f->bytes + start + MT_STORE_HEADER, own->bytes);
    if (!changed) {
        return NOTHING_ROTTEN; /* bits flipped back and forth */
    }
    ++own->rotten;
    const mt_status status = mt_store_load(port, IDENTITY, found_payload, own->bytes, &number, &found);
    if (status != MT_OK || !found) {
        own->status = (uint32_t)status;
        return ROT_LOST_ALL;
    }
    return same(found_payload, expected, own->bytes) && number == newest - 1 ? ROT_NOTICED : ROT_MIXED;
}

static void blank(flash *f)
{
    for (uint32_t i = 0; i < f->size; ++i) {
        f->bytes[i] = (uint8_t)f->own->erased;
        f->programmed[i] = 0;
    }
}

int flash_life(life *own)
{
    flash f;
    mt_port port;
    uint32_t number = 0, whole = 0; /* whole: slots known to hold a whole state, the newest included */
    MT_ZERO(&f, sizeof f);
    f.own = own;
    f.size = own->slots * MT_STORE_SLOT(own->bytes, own->sector) + own->spare;
    f.random = own->seed | 1u;
    f.bytes = memory;
    f.programmed = programmed;
    if (f.size > MAX_FLASH || own->bytes > MAX_PAYLOAD || own->bytes == 0) {
        return -1;
    }
    port.context = &f;
    port.read = flash_read;
    port.write = flash_write;
    port.erase = flash_erase;
    port.size = f.size;
    port.sector = own->sector;
    port.log = 0;
    port.now = NULL;
    port.may_learn = NULL;
    MT_ZERO(old_payload, own->bytes);
    blank(&f);
    f.left = 0xFFFFFFFFu;
    const mt_status tried = mt_store_save(&port, IDENTITY, old_payload, own->bytes, &number);
    const uint32_t work = 0xFFFFFFFFu - f.left; /* units and sectors a save takes */
    if (tried != MT_OK) {
        return -1;
    }
    blank(&f);
    number = 0;
    for (uint32_t cut = 0; cut < own->cuts;) {
        MT_COPY(new_payload, old_payload, own->bytes);
        make_payload(&f, new_payload);
        const int cuts = below(&f, 4) != 0;
        const uint32_t before = number;
        uint32_t loaded = 0;
        int found = 0;
        f.left = cuts ? instant(&f, work) : 0xFFFFFFFFu;
        const mt_status saved = mt_store_save(&port, IDENTITY, new_payload, own->bytes, &number);
        if (!cuts || saved == MT_OK) {
            own->breaches += saved != MT_OK;
            ++own->finished;
        }
        if (cuts) {
            ++cut;
            ++own->at[f.off ? f.place : DONE];
        }
        f.off = 0;
        f.left = 0xFFFFFFFFu;
        const mt_status status = mt_store_load(&port, IDENTITY, found_payload, own->bytes, &loaded, &found);
        const int is_new = found && same(found_payload, new_payload, own->bytes) && loaded == before + 1;
        if (is_new) {
            own->torn_whole += saved != MT_OK;
            own->after += (uint32_t)cuts;
            MT_COPY(older_payload, old_payload, own->bytes);
            MT_COPY(old_payload, new_payload, own->bytes);
            whole += whole < own->slots;
        } else if (saved == MT_OK) {
            failure(own, &own->lost, cut); /* it had said that it was saved */
            own->status = (uint32_t)status;
        } else if (found && same(found_payload, old_payload, own->bytes) && loaded == before) {
            ++own->before;
            whole -= whole == own->slots; /* the oldest was erased for it */
        } else if (!found && before == 0 && (status == MT_OK || (status == MT_STORAGE_FAILED && own->strict))) {
            ++own->before; /* nothing had been saved yet, and that is what it says */
        } else {
            failure(own, found ? &own->mixed : &own->lost, cut);
            own->status = (uint32_t)status;
        }
        number = loaded;
        /* with the newest gone there must be one before it */
        if (own->rots != 0 && whole >= 2 && is_new && below(&f, own->rots) == 0) {
            const int what = rot(&f, &port, number, older_payload);
            if (what == ROT_LOST_ALL || what == ROT_MIXED) {
                failure(own, what == ROT_LOST_ALL ? &own->lost : &own->mixed, cut);
            }
            if (what == ROT_NOTICED) {
                MT_COPY(old_payload, older_payload, own->bytes);
                --number;
                whole = 1;
            }
        }
        if (own->lost + own->mixed != 0) {
            return 1;
        }
    }
    return own->breaches != 0;
}
