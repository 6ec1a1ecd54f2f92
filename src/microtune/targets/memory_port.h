/* memory_port.h: a mt_port over a plain array, for emulated cores, WebAssembly and tests. */
#ifndef MT_MEMORY_PORT_H
#define MT_MEMORY_PORT_H

#include "mt_port.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fill in `port` for `size` bytes at `storage`, which reads as erased where it is 0xFF. The array outlives the port. */
void mt_memory_port_create(mt_port *port, void *storage, uint32_t size, uint32_t sector);

#ifdef __cplusplus
}
#endif

#endif
