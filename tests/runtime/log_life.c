/*
 * log_life.c: the metrics log's life on the simulated flash of flash_life.c, its power cut at random instants.
 *
 * After each cut the log must open and hold, in order and unchanged, every record that had been appended and that the
 * ring has room for; of the record under way all or nothing.
 */
#include "flash_life.c"
#include "mt_log.h"

enum { MOST_SECTORS = 256, KNOWN = 4096, LOG_UNIT = 32 };

typedef struct log_life {
    life flash;        /* sector, unit, erased, strict, seed, rots, breaches; the rest is not used */
    uint32_t sectors;  /* of the log */
    uint32_t before;   /* bytes of storage before it, which nobody may touch */
    uint32_t stubborn; /* 1: a unit that was cut off before any bit of it was written refuses to be written */
    uint32_t appends;  /* to live through */
    uint32_t cutting;  /* of 256 appends, so many are cut off */
    /* what came of it */
    uint32_t cuts, records, refused; /* power cuts; records appended; refused by stubborn units */
    uint32_t under_way; /* cut off and there all the same */
    uint32_t again;     /* units written a second time, after a cut that left no bit of them */
    uint32_t rotten;    /* records damaged, and not read any more */
    uint32_t most_erases, least_erases; /* of a sector of the log */
    uint32_t lost, changed, disordered, outside, unopened; /* failures */
} log_life;

/* what is known of the record of a number, in the ring of numbers modulo KNOWN */
typedef struct known {
    mt_log_record record;
    uint32_t appended; /* 1: it must be there as long as its sector is not erased; 0: it was cut off, and may be */
} known;

typedef struct chip {
    flash flash;
    log_life *own;
    uint32_t tried; /* the highest number that an erase or a write was begun for */
    uint32_t erases[MOST_SECTORS];
} chip;

static known book[KNOWN];
static chip the_chip;

/// The port: that of flash_life.c, but a unit without any written bit may be written once more ///

static int log_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    return flash_read(&((chip *)context)->flash, address, data, bytes);
}

static int log_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    chip *c = (chip *)context;
    flash *f = &c->flash;
    uint32_t torn = 0, written = 0;
    c->own->outside += address < c->own->before || address % LOG_UNIT != 0 || bytes != LOG_UNIT;
    for (uint32_t i = 0; i < bytes; ++i) {
        torn += f->programmed[address + i];
        written += f->bytes[address + i] != f->own->erased;
    }
    if (torn != 0 && written == 0 && !f->off) {
        if (c->own->stubborn) {
            return -1;
        }
        ++c->own->again;
        MT_ZERO(f->programmed + address, bytes);
    }
    if (!f->off) {
        const mt_log_record *record = (const mt_log_record *)data;
        book[record->sequence % KNOWN].record = *record;
        book[record->sequence % KNOWN].appended = 0;
        c->tried = record->sequence > c->tried ? record->sequence : c->tried;
    }
    return flash_write(f, address, data, bytes);
}

static int log_erase(void *context, uint32_t address, uint32_t bytes)
{
    chip *c = (chip *)context;
    c->own->outside += address < c->own->before || bytes != c->flash.own->sector;
    if (!c->flash.off) {
        const uint32_t each = bytes / LOG_UNIT, sector = (address - c->own->before) / bytes;
        /* the sector under way once more, or the next one */
        c->tried += c->tried / each % c->own->sectors != sector ? each - c->tried % each : 0u;
        ++c->erases[address / bytes];
    }
    return flash_erase(&c->flash, address, bytes);
}

/// Life ///

static mt_log_record make_record(flash *f, uint32_t uses)
{
    mt_log_record record;
    MT_ZERO(&record, sizeof record);
    record.kind = (uint8_t)(1u + below(f, 11));
    record.detail = (uint8_t)below(f, 256);
    record.uses = uses;
    record.time = below(f, 2) != 0 ? draw(f) : 0u;
    record.taken = (uint16_t)draw(f);
    record.error = (float)below(f, 1000);
    return record;
}

static int same_record(const mt_log_record *a, const mt_log_record *b)
{
    return same((const uint8_t *)a, (const uint8_t *)b, sizeof *a);
}

/* All that can be read against the book, back from the highest number tried. */
static void check(log_life *own, const mt_log_region *log, uint32_t tried)
{
    const uint32_t units = log->bytes / LOG_UNIT, each = log->port->sector / LOG_UNIT;
    mt_log_record record;
    mt_log_head head;
    own->unopened += mt_log_open(log, &head) != MT_OK;
    for (uint32_t back = 0; back < units && back <= tried; ++back) {
        const uint32_t number = tried - back;
        known *of = &book[number % KNOWN];
        const int is_known = of->record.sequence == number;
        if (mt_log_read(log, number, &record)) {
            own->changed += !is_known || !same_record(&record, &of->record);
            own->disordered += number >= head.next;
            own->under_way += !of->appended;
            of->appended = 1;
        } else {
            /* the sector of the last number tried takes the place of the oldest */
            own->lost += is_known && of->appended && number + units >= tried / each * each + each;
        }
    }
}

/* Flip bits of a record; it must not be read any more. */
static void rot_record(chip *c, const mt_log_region *log)
{
    flash *f = &c->flash;
    const uint32_t units = log->bytes / LOG_UNIT;
    const uint32_t back = below(f, units) / (1u + below(f, units)), number = c->tried - back; /* often of the newest */
    mt_log_record record;
    if (back > c->tried || !mt_log_read(log, number, &record)) {
        return;
    }
    const uint32_t flips = 1 + below(f, 4), at = log->start + number % units * LOG_UNIT;
    for (uint32_t i = 0; i < flips; ++i) {
        const uint32_t bit = below(f, 64) * 4u + i; /* never the same one twice */
        f->bytes[at + bit / 8u] = (uint8_t)(f->bytes[at + bit / 8u] ^ 1u << bit % 8u);
    }
    c->own->changed += (uint32_t)mt_log_read(log, number, &record);
    ++c->own->rotten;
    book[number % KNOWN].record.sequence = ~number;
}

static mt_port begin(chip *c, log_life *own)
{
    mt_port port;
    MT_ZERO(c, sizeof *c);
    MT_ZERO(book, sizeof book);
    MT_ZERO(&port, sizeof port);
    c->own = own;
    c->flash.own = &own->flash;
    c->flash.size = own->before + own->sectors * own->flash.sector;
    c->flash.random = own->flash.seed | 1u;
    c->flash.bytes = memory;
    c->flash.programmed = programmed;
    c->flash.left = 0xFFFFFFFFu;
    port.context = c;
    port.read = log_read;
    port.write = log_write;
    port.erase = log_erase;
    port.size = c->flash.size;
    port.sector = own->flash.sector;
    port.log = own->sectors * own->flash.sector;
    return port;
}

int log_life_run(log_life *own)
{
    chip *c = &the_chip;
    flash *f = &c->flash;
    const life *settings = &own->flash;
    const mt_port port = begin(c, own);
    const mt_log_region log = mt_log_of(&port);
    mt_log_head head;
    if (f->size > MAX_FLASH || log.bytes / LOG_UNIT * 2u > KNOWN || f->size / settings->sector > MOST_SECTORS) {
        return -1;
    }
    blank(f);
    if (mt_log_open(&log, &head) != MT_OK || head.next != 0) {
        return -1;
    }
    const uint32_t steps = settings->unit < LOG_UNIT ? LOG_UNIT / settings->unit : 1u; /* of writing a record */
    for (uint32_t uses = 1; uses <= own->appends; ++uses) {
        const mt_log_record record = make_record(f, uses);
        const int cutting = below(f, 256) < own->cutting;
        /* at every instant of an erase and a record or two, and behind them */
        f->left = cutting ? below(f, 2u * steps + 2u) : 0xFFFFFFFFu;
        const mt_status status = mt_log_append(&log, &head, &record);
        if (status == MT_OK) {
            book[(head.next - 1u) % KNOWN].appended = 1;
        }
        own->records += status == MT_OK;
        own->refused += status != MT_OK && !f->off;
        f->left = 0xFFFFFFFFu;
        if (!cutting) {
            continue;
        }
        ++own->cuts;
        f->off = 0;
        check(own, &log, c->tried);
        if (settings->rots != 0 && below(f, settings->rots) == 0) {
            rot_record(c, &log);
            check(own, &log, c->tried);
        }
        mt_log_open(&log, &head);
        if (own->lost + own->changed + own->disordered + own->outside + own->unopened != 0) {
            own->flash.failed_at = uses;
            return 1;
        }
    }
    check(own, &log, c->tried);
    own->least_erases = 0xFFFFFFFFu;
    for (uint32_t i = log.start / settings->sector; i < f->size / settings->sector; ++i) {
        own->most_erases = c->erases[i] > own->most_erases ? c->erases[i] : own->most_erases;
        own->least_erases = c->erases[i] < own->least_erases ? c->erases[i] : own->least_erases;
    }
    return settings->breaches + own->lost + own->changed + own->disordered != 0;
}

/* A record with every field set by its name: whoever reads records by their bytes must find these. */
void log_sample_record(mt_log_record *record)
{
    MT_ZERO(record, sizeof *record);
    record->kind = MT_LOG_SENSOR;
    record->detail = 2;
    record->time = 86400;
    record->uses = 1000;
    record->profile = 3;
    record->right = 24;
    record->recent = 32;
    record->confidence = 51;
    record->error = 0.375f;
    record->taken = 40000;
    record->dropped = 7;
}
