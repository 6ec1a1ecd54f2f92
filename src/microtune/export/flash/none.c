/*
 * none.c: no storage at all, for boards without a driver: what is learnt is gone with the power.
 *
 * mt_flash_open says so, and NAME_init is given NULL: the device learns, and starts from the base model each time.
 * To keep what is learnt, write the three functions of mt_port.h for your storage and fill them in here.
 */
#include "mt_flash.h"

#include <string.h>

int mt_flash_open(mt_port *port)
{
    memset(port, 0, sizeof *port);
    return -1;
}
