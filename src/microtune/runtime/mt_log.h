/*
 * mt_log.h: a bounded log of how well a device does, kept through power loss.
 *
 * A ring of records of 32 bytes in the last sectors of the port's storage, each one write of one program unit. A
 * record holds counters and shares: no inputs, no targets. See docs/log.md.
 */
#ifndef MT_LOG_H
#define MT_LOG_H

#include "mt_platform.h"
#include "mt_port.h"
#include "mt_status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a record was written for; `detail` says more. A number never gets a second meaning. */
typedef enum mt_log_kind {
    MT_LOG_START = 1,     /* the device started; detail: the mt_status of its init */
    MT_LOG_TAKEN = 2,     /* an update was taken */
    MT_LOG_DROPPED = 3,   /* an update was judged worse and dropped */
    MT_LOG_CHANGE = 4,    /* habits changed; detail: uses the new ones have lasted, at most 255 */
    MT_LOG_SENSOR = 5,    /* an input is not believed any more; detail: MT_SENSOR_ flags */
    MT_LOG_PROFILE = 6,   /* another profile is in use */
    MT_LOG_FORGET = 7,
    MT_LOG_RESET = 8,
    MT_LOG_USE = 9,       /* so many uses went by */
    MT_LOG_TEACHING = 10, /* learning mode; detail: 1 on, 0 off */
    MT_LOG_RETURN = 11    /* used again after a long time; detail: days, at most 255 */
} mt_log_kind;

/* The same bytes on every target. What mt_log_append fills in by itself may be left as it is. */
typedef struct mt_log_record {
    uint16_t magic;      /* filled in: 'L' and the version of this layout, '1' */
    uint8_t kind;        /* an mt_log_kind */
    uint8_t detail;
    uint32_t sequence;   /* filled in: number of the record; a gap is a record that was cut off */
    uint32_t time;       /* seconds of the port's clock; 0 without one */
    uint32_t uses;       /* observations since the factory; a reset does not take them back */
    uint8_t profile;     /* in use */
    uint8_t right;       /* of the last `recent` answers */
    uint8_t recent;      /* 0 to 32 */
    uint8_t confidence;  /* in 1/255 */
    float error;         /* mean error, as in mt_metrics */
    uint16_t taken;      /* updates since the factory, modulo 65536 */
    uint16_t dropped;    /* likewise */
    uint32_t checksum;   /* filled in: CRC-32 of the 28 bytes above */
} mt_log_record;

MT_REQUIRE(sizeof(mt_log_record) == 32, log_record_is_one_unit);

/* Where a log is: whole sectors of the storage, at least two. */
typedef struct mt_log_region {
    const mt_port *port;
    uint32_t start, bytes;
} mt_log_region;

/* What is kept in RAM of a log, not saved; mt_log_open finds it again. */
typedef struct mt_log_head {
    uint32_t next; /* number of the next record */
    uint32_t uses; /* of the newest record */
} mt_log_head;

/* When a record is due. */
typedef struct mt_log_settings {
    uint16_t every; /* uses from any record to an MT_LOG_USE; 0: none of these */
    uint16_t apart; /* least uses from any record to an MT_LOG_TAKEN or MT_LOG_DROPPED; at least 1 counts */
} mt_log_settings;

/* The log a port gives room to: its last `port->log` bytes. Where that is no log, or none that can be, the calls below
 * return MT_INVALID_ARGUMENT. */
mt_log_region mt_log_of(const mt_port *port);

/* Find the end of the log. Records of an older build are gone on from, where the region was another one too.
 * MT_STORAGE_FAILED: nothing could be read; records can be appended all the same. */
mt_status mt_log_open(const mt_log_region *log, mt_log_head *head);

/*
 * Is a record of this kind due, `uses` after the factory? Pure. An event needs a use since the newest record, so a
 * device that restarts in a loop, or whose button is held down, wears nothing out.
 */
int mt_log_due(const mt_log_settings *settings, const mt_log_head *head, uint32_t kind, uint32_t uses);

/* Write a record and read it back; head goes on. The first one in a sector erases it. A unit that does not take it is
 * left behind for the next one; no more than four are tried, and one sector erased: else MT_STORAGE_FAILED. */
mt_status mt_log_append(const mt_log_region *log, mt_log_head *head, const mt_log_record *record);

/* Read the record of that number. Returns 1, or 0 when it is not there, not any more, or not whole. */
int mt_log_read(const mt_log_region *log, uint32_t number, mt_log_record *record);

#ifdef __cplusplus
}
#endif

#endif
