/*
 * mt_port.h: the whole contract with the hardware. Fill one in and hand it to NAME_init.
 *
 * Storage is `size` bytes that survive power loss, addressed from 0 and erased in sectors of `sector`
 * bytes, as in internal flash, a serial flash chip, EEPROM or a file. A device with none of this passes no port.
 */
#ifndef MT_PORT_H
#define MT_PORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct mt_port {
    /* Given back to the functions below as their first argument; microtune never looks at it. */
    void *context;

    /* Read `bytes` bytes at `address` into `data`. Returns 0, or anything else on failure. */
    int (*read)(void *context, uint32_t address, void *data, uint32_t bytes);

    /* Write to erased storage. `address` and `bytes` are multiples of 32, which flash that programs 1, 2, 4, 8, 16
     * or 32 bytes at once takes as they come; nothing is written twice between two erases. A power failure may cut
     * it off anywhere and leave any of its bits written. Returns 0, or anything else on failure. */
    int (*write)(void *context, uint32_t address, const void *data, uint32_t bytes);

    /* Erase whole sectors; what erased bytes read as does not matter. `address` and `bytes` are multiples
     * of `sector`. Returns 0, or anything else on failure. */
    int (*erase)(void *context, uint32_t address, uint32_t bytes);

    /* Bytes of storage; 0: none, and the functions above may be NULL. Before the log it is divided into as many slots
     * as fit, at least two; more slots share the wear. */
    uint32_t size;

    /* Bytes of one erase sector; a multiple of 32. */
    uint32_t sector;

    /* Of the storage, the last so many bytes hold the metrics log: a multiple of `sector`, at least two sectors, or 0
     * for no log. What is before holds the state. */
    uint32_t log;

    /* Seconds of a clock that goes on while the power is off, from any start; 0 while the time is not known (before a
     * clock without a battery has been set, say). NULL without one: absence is then not noticed, and what was learnt on
     * the last day cannot be told from the rest. */
    uint32_t (*now)(void *context);

    /* Asked before each slice of learning: anything but 0 allows it. On a battery, say no unless it is charging; with
     * a watchdog, say no when time is up, and NAME_idle returns. NULL: always allowed. */
    int (*may_learn)(void *context);
} mt_port;

#endif
