/* mt_log.c: see mt_log.h for the calls and docs/log.md for why a power cut costs at most the record under way. */
#include "mt_log.h"

#include "mt_store.h"

#define MT_LOG_MAGIC 0x314Cu /* "L1": the second letter is the version of the record */
#define MT_LOG_UNIT ((uint32_t)sizeof(mt_log_record))
#define MT_LOG_TRIES 4u
#define MT_LOG_CHECKED (MT_LOG_UNIT - 4u) /* bytes the checksum covers */

/// Where records are: number n in unit n modulo units, so that the ring needs no pointer ///

MT_COLD static uint32_t units_of(const mt_log_region *log)
{
    return log->bytes / MT_LOG_UNIT;
}

MT_COLD static uint32_t address_of(const mt_log_region *log, uint32_t number)
{
    return log->start + number % units_of(log) * MT_LOG_UNIT;
}

MT_COLD mt_log_region mt_log_of(const mt_port *port)
{
    mt_log_region log;
    log.port = port;
    log.start = log.bytes = 0;
    if (port != NULL && port->sector != 0 && port->log <= port->size) {
        log.bytes = port->log / port->sector * port->sector;
        log.start = port->size / port->sector * port->sector - log.bytes;
    }
    return log;
}

MT_COLD static int is_possible(const mt_log_region *log)
{
    const mt_port *port = log->port;
    if (port == NULL || port->read == NULL || port->write == NULL || port->erase == NULL) {
        return 0;
    }
    return port->sector != 0 && port->sector % MT_LOG_UNIT == 0 && log->bytes >= 2u * port->sector;
}

MT_COLD static int is_whole(const mt_log_record *record)
{
    return record->magic == MT_LOG_MAGIC && mt_crc32(0, record, MT_LOG_CHECKED) == record->checksum;
}

MT_COLD static int read_unit(const mt_log_region *log, uint32_t number, mt_log_record *record)
{
    return log->port->read(log->port->context, address_of(log, number), record, MT_LOG_UNIT);
}

/* All its bits alike: nothing was written to it. */
MT_COLD static int is_blank(const mt_log_region *log, uint32_t number)
{
    mt_log_record record;
    const uint8_t *byte = (const uint8_t *)&record;
    if (read_unit(log, number, &record) != 0 || (byte[0] != 0x00u && byte[0] != 0xFFu)) {
        return 0;
    }
    for (uint32_t i = 1; i < MT_LOG_UNIT; ++i) {
        if (byte[i] != byte[0]) {
            return 0;
        }
    }
    return 1;
}

/// Read ///

MT_COLD int mt_log_read(const mt_log_region *log, uint32_t number, mt_log_record *record)
{
    return is_possible(log) && read_unit(log, number, record) == 0 && is_whole(record) && record->sequence == number;
}

MT_COLD mt_status mt_log_open(const mt_log_region *log, mt_log_head *head)
{
    mt_log_record record;
    uint32_t newest = 0, at = 0;
    int found = 0, readable = 0;
    head->next = head->uses = 0;
    if (!is_possible(log)) {
        return MT_INVALID_ARGUMENT;
    }
    const uint32_t units = units_of(log);
    for (uint32_t i = 0; i < units; ++i) {
        if (read_unit(log, i, &record) != 0) {
            continue;
        }
        readable = 1;
        /* numbers are compared by their distance, so that they may wrap around */
        if (is_whole(&record) && (!found || record.sequence - newest < 0x80000000u)) {
            found = 1;
            newest = record.sequence;
            head->uses = record.uses;
            at = i;
        }
    }
    if (found) {
        /* not where this region has it: another build's; on from the beginning of a sector, which is erased then */
        const uint32_t each = log->port->sector / MT_LOG_UNIT;
        head->next = newest % units == at ? newest + 1u : (newest / each + 1u) * each;
    }
    return readable ? MT_OK : MT_STORAGE_FAILED;
}

/// Append ///

MT_COLD int mt_log_due(const mt_log_settings *settings, const mt_log_head *head, uint32_t kind, uint32_t uses)
{
    /* fewer uses than the newest record's: they were not saved before a power cut; then a record is due */
    const uint32_t since = uses - head->uses;
    if (kind == MT_LOG_USE) {
        return settings->every != 0 && since >= settings->every;
    }
    const int often = kind == MT_LOG_TAKEN || kind == MT_LOG_DROPPED;
    return since != 0 && (!often || since >= settings->apart);
}

/* the next unit that nothing has been written to, or the next sector: a power cut may have left some half written */
MT_COLD static uint32_t next_unit(const mt_log_region *log, uint32_t number)
{
    while (address_of(log, number) % log->port->sector != 0 && !is_blank(log, number)) {
        ++number;
    }
    return number;
}

MT_COLD mt_status mt_log_append(const mt_log_region *log, mt_log_head *head, const mt_log_record *record)
{
    mt_log_record written = *record, kept;
    if (!is_possible(log)) {
        return MT_INVALID_ARGUMENT;
    }
    const mt_port *port = log->port;
    written.magic = MT_LOG_MAGIC;
    /* a unit that was cut off may read as blank and yet not take anything (error correction): then the next one. No
     * more than one sector is erased, whatever fails. */
    for (uint32_t i = 0; i < MT_LOG_TRIES; ++i) {
        const uint32_t number = next_unit(log, head->next);
        const uint32_t address = address_of(log, number);
        const int first = address % port->sector == 0;
        head->next = number + 1u;
        written.sequence = number;
        written.checksum = mt_crc32(0, &written, MT_LOG_CHECKED);
        if ((!first || port->erase(port->context, address, port->sector) == 0) &&
            port->write(port->context, address, &written, MT_LOG_UNIT) == 0 && mt_log_read(log, number, &kept)) {
            head->uses = written.uses;
            return MT_OK;
        }
        if (first) {
            break;
        }
    }
    return MT_STORAGE_FAILED;
}
