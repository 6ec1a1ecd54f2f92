/*
 * mt_number.h: what outputs, targets, losses and confidences are made of.
 *
 * In this form of the file numbers are fixed-point, mt_fixed.h: 32 bits, 16 of them behind the point. It is that of
 * packages that compute in integers only (precision="int8"); in the others numbers are floats. Policy is written once,
 * over these.
 */
#ifndef MT_NUMBER_H
#define MT_NUMBER_H

#include "mt_fixed.h"

typedef mt_fixed mt_number;
typedef uint32_t mt_seconds; /* a long time */

/* 0: float; 1: fixed-point. Kept in each saved state, for whoever reads it without its build */
#define MT_NUMBER_KIND 1u
/* a constant, as in MT_NUMBER(0.5), rounded by the compiler */
#define MT_NUMBER(constant) ((mt_fixed)((constant) * 65536.0 + ((constant) < 0 ? -0.5 : 0.5)))
/* what no loss or error exceeds; sums saturate */
#define MT_NUMBER_LARGE MT_FIXED_LARGEST
/* above zero, and below any tolerance squared */
#define MT_NUMBER_TINY 1
/* what a running mean looks back on at most, 2^10: of more, a single value would be rounded away */
#define MT_NUMBER_MEMORY 1024u

static inline mt_number mt_number_of(uint32_t whole)
{
    return mt_fixed_of_int(whole < 32768u ? (int32_t)whole : 32768);
}

/* the whole part of what is at least 0 and below 2^15 */
static inline uint32_t mt_number_whole(mt_number x)
{
    return (uint32_t)mt_fixed_floor(x);
}

/* all numbers are */
static inline int mt_number_all_finite(const mt_number *values, uint32_t size)
{
    (void)values;
    (void)size;
    return 1;
}

static inline mt_number mt_number_add(mt_number a, mt_number b)
{
    return mt_fixed_add(a, b);
}

static inline mt_number mt_number_subtract(mt_number a, mt_number b)
{
    return mt_fixed_subtract(a, b);
}

static inline mt_number mt_number_multiply(mt_number a, mt_number b)
{
    return mt_fixed_multiply(a, b);
}

static inline mt_number mt_number_divide(mt_number a, mt_number b)
{
    return mt_fixed_divide(a, b);
}

/* x / count, of at least one */
static inline mt_number mt_number_share(mt_number x, uint32_t count)
{
    return count <= (uint32_t)MT_FIXED_LARGEST ? x / (int32_t)count : 0;
}

/* magnitude / count, of 1 to 1023 */
static inline uint32_t mt_number_divided(uint32_t magnitude, uint32_t count)
{
#if defined(MT_NO_DIVIDER)
    /* 17 digits where there are no more, as of means of right and wrong; behind a one that ends in the highest bit */
    uint32_t digits = 1u << 14, part = count << 16;
    for (; digits > 1u && magnitude >> 1 >= part; digits >>= 1) {
        part <<= 1;
    }
    do {
        digits <<= 1;
        if (magnitude >= part) {
            magnitude -= part;
            ++digits;
            MT_OPAQUE(digits); /* a branch, which is shorter */
        }
        part >>= 1;
    } while ((int32_t)digits >= 0);
    return digits & 0x7FFFFFFFu;
#else
    return magnitude / count;
#endif
}

/* a running mean that has looked at `count` values, this one included, or at about the last 1024 of them */
MT_COLD MT_APART static mt_number mt_number_mean(mt_number mean, mt_number value, uint32_t count)
{
    const mt_number apart = mt_fixed_subtract(value, mean);
    if (count >= MT_NUMBER_MEMORY) {
        /* rounded up as often as 1024ths are there: to nearest, what is below 512 steps would never move the mean */
        const mt_number dither = (mt_number)(count * 0x9E3779B9u >> 22);
        return mt_fixed_add(mean, mt_fixed_add(apart, dither) >> 10);
    }
    const mt_fixed up = mt_fixed_add(mt_fixed_absolute(apart), (mt_fixed)(count / 2u));
    return mt_fixed_add(mean, mt_fixed_signed(mt_number_divided((uint32_t)up, count), apart < 0));
}

static inline mt_number mt_number_absolute(mt_number x)
{
    return mt_fixed_absolute(x);
}

static inline mt_number mt_number_sqrt(mt_number x)
{
    return mt_fixed_sqrt(x);
}

static inline mt_number mt_number_exp(mt_number x)
{
    return mt_fixed_exp(x);
}

static inline mt_number mt_number_sigmoid(mt_number x)
{
    return mt_fixed_sigmoid(x);
}

/* how many half-lives so many seconds are; 32767 for any more */
static inline mt_number mt_number_lives(uint32_t seconds, mt_seconds half_life)
{
    /* to 16 bits, where a quotient fits: more half-lives than that leave nothing */
    while (seconds > 0x7FFFu || half_life > 0x7FFFu) {
        seconds >>= 1;
        half_life >>= 1;
    }
    return mt_fixed_divide((mt_fixed)seconds, (mt_fixed)half_life);
}

/* 1 with this probability, by 32 random bits */
static inline int mt_number_chance(mt_number probability, uint32_t random)
{
    return (int32_t)(random >> 16) < probability;
}

/* 0 to 1 as 0 to 255 */
static inline uint8_t mt_number_byte(mt_number x)
{
    return (uint8_t)((uint32_t)mt_fixed_clamp(x, 0, MT_FIXED_ONE) * 255u >> 16);
}

/* as a float, in whose form records are read: exact above 0 with up to 24 binary places, else rounded towards zero */
static inline uint32_t mt_number_float_bits(mt_number x)
{
    uint32_t magnitude = mt_fixed_magnitude(x), exponent = 127u + 15u;
    if (magnitude == 0) {
        return 0;
    }
    for (; magnitude >> 31 == 0; magnitude <<= 1) {
        --exponent;
    }
    return (x < 0 ? 0x80000000u : 0u) | exponent << 23 | (magnitude >> 8 & 0x007FFFFFu);
}

#endif
