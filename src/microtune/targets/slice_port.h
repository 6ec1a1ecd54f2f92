/* slice_port.h: a port that counts slices, to measure each by itself on emulated cores. */
#ifndef MT_SLICE_PORT_H
#define MT_SLICE_PORT_H

#include "mt_port.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fill in `port`: no storage, no clock, and learning is allowed while *left is above 0; each slice takes one. */
void mt_slice_port_create(mt_port *port, uint32_t *left);

#ifdef __cplusplus
}
#endif

#endif
