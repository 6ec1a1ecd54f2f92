/*
 * mt_number.h: what outputs, targets, losses and confidences are made of.
 *
 * In this form of the file numbers are floats. A package that computes in integers only (precision="int8") holds the
 * other form, in which they are fixed-point: 32 bits, 16 of them behind the point. Policy is written once, over these.
 */
#ifndef MT_NUMBER_H
#define MT_NUMBER_H

#include "mt_math.h"

typedef float mt_number;
typedef float mt_seconds; /* a long time */

/* 0: float; 1: fixed-point. Kept in each saved state, for whoever reads it without its build */
#define MT_NUMBER_KIND 0u
/* a constant, as in MT_NUMBER(0.5) */
#define MT_NUMBER(constant) ((float)(constant))
/* more than any loss or error that matters; keeps sums finite */
#define MT_NUMBER_LARGE 1e30f
/* above zero, and below any tolerance squared */
#define MT_NUMBER_TINY 1e-30f

static inline mt_number mt_number_of(uint32_t whole)
{
    return (float)whole;
}

/* the whole part of what is at least 0 and below 2^15 */
static inline uint32_t mt_number_whole(mt_number x)
{
    return (uint32_t)x;
}

/* Neither NaN nor infinite, all of `values` (size)? Adding one to a full exponent, theirs, carries into the sign. */
static inline int mt_number_all_finite(const mt_number *values, uint32_t size)
{
    uint32_t carried = 0;
#if MT_SCALAR_FLOATS
    /* if their sum is, so are they, which a third of the instructions tells; of large ones it may be infinite */
    float sum = 0.0f;
    MT_UNROLL
    for (uint32_t i = 0; i < size; ++i) {
        sum += values[i];
    }
    if (mt_is_finite(sum)) {
        return 1;
    }
#endif
    for (uint32_t i = 0; i < size; ++i) {
        carried |= (mt_float_bits(values[i]) & 0x7FFFFFFFu) + 0x00800000u;
    }
    return carried >> 31 == 0;
}

static inline mt_number mt_number_add(mt_number a, mt_number b)
{
    return a + b;
}

static inline mt_number mt_number_subtract(mt_number a, mt_number b)
{
    return a - b;
}

static inline mt_number mt_number_multiply(mt_number a, mt_number b)
{
    return a * b;
}

static inline mt_number mt_number_divide(mt_number a, mt_number b)
{
    return a / b;
}

/* x / count */
static inline mt_number mt_number_share(mt_number x, uint32_t count)
{
    return x / (float)count;
}

/* a running mean that has looked at `count` values, this one included */
static inline mt_number mt_number_mean(mt_number mean, mt_number value, uint32_t count)
{
    return mean + (value - mean) / (float)count;
}

static inline mt_number mt_number_absolute(mt_number x)
{
    return mt_absolute(x);
}

static inline mt_number mt_number_sqrt(mt_number x)
{
    return mt_sqrt(x);
}

static inline mt_number mt_number_exp(mt_number x)
{
    return mt_exp(x);
}

static inline mt_number mt_number_sigmoid(mt_number x)
{
    return mt_sigmoid(x);
}

/* how many half-lives so many seconds are */
static inline mt_number mt_number_lives(uint32_t seconds, mt_seconds half_life)
{
    return (float)seconds / half_life;
}

/* 1 with this probability, by 32 random bits */
static inline int mt_number_chance(mt_number probability, uint32_t random)
{
    return (float)(random >> 8) < 16777216.0f * probability;
}

/* 0 to 1 as 0 to 255 */
static inline uint8_t mt_number_byte(mt_number x)
{
    return (uint8_t)(255.0f * mt_clamp(x, 0.0f, 1.0f));
}

/* as a float, in whose form records are read */
static inline uint32_t mt_number_float_bits(mt_number x)
{
    return mt_float_bits(x);
}

#endif
