/* slice_port.c: a port without storage that allows so many slices of learning and no more. */
#include "slice_port.h"

static int allow(void *context)
{
    uint32_t *left = (uint32_t *)context;
    if (*left == 0) {
        return 0;
    }
    --*left;
    return 1;
}

void mt_slice_port_create(mt_port *port, uint32_t *left)
{
    port->context = left;
    port->read = NULL;
    port->write = NULL;
    port->erase = NULL;
    port->size = 0;
    port->sector = 0;
    port->log = 0;
    port->now = NULL;
    port->may_learn = allow;
}
