/*
 * mt_port.h: the whole contract with the hardware. Fill one in and hand it to NAME_init.
 *
 * Storage is `size` bytes that survive power loss, addressed from 0 and erased in sectors of `sector`
 * bytes, as in internal flash, a serial flash chip, EEPROM or a file. A device without any passes no port.
 */
#ifndef MT_PORT_H
#define MT_PORT_H

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

    /* Bytes of storage. It is divided into as many slots as fit, at least two; more slots share the wear. */
    uint32_t size;

    /* Bytes of one erase sector; a multiple of 32. */
    uint32_t sector;
} mt_port;

#endif
