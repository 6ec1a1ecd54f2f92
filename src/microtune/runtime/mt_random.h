/* mt_random.h: the one generator of random numbers; its state is saved with the device, so lives can be repeated. */
#ifndef MT_RANDOM_H
#define MT_RANDOM_H

#include "mt_platform.h"

/* xorshift32 (Marsaglia 2003): every number but zero once in 2^32 - 1 draws. Zero would stay zero; a state that holds
 * it begins at another place. */
static inline uint32_t mt_random_next(uint32_t *state)
{
    uint32_t x = *state != 0 ? *state : 0x9E3779B9u;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* One of 0 .. count - 1; 0 for a count of 0. The number is scaled down, which takes its high bits and needs one draw,
 * always: 2^32 numbers do not divide evenly among `count`, but the chance of a result below k is k / count to within
 * 2^-31. */
static inline uint32_t mt_random_below(uint32_t *state, uint32_t count)
{
    return (uint32_t)(((uint64_t)mt_random_next(state) * count) >> 32);
}

#endif
