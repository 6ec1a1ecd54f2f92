#ifndef ZEPHYR_KERNEL_H
#define ZEPHYR_KERNEL_H

#include <stdint.h>

int32_t k_msleep(int32_t ms);

#endif
