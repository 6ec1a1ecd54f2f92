/*
 * mt_fixed.h: numbers with 16 binary places in an int32_t, for chips without a floating-point unit.
 *
 * mt_fixed x stands for x / 65536: from -32768 to 32768, in steps of 1.5e-5. Nothing overflows: a result out of range
 * becomes the nearest of -MT_FIXED_LARGEST and MT_FIXED_LARGEST. Integers of 32 bits alone, no 64-bit product or
 * division: Cortex-M0 has neither. Largest errors, measured over all arguments (over samples of pairs) by
 * tests/runtime/test_fixed.py, in steps of 2^-16: add, subtract exact; multiply, divide and square root 0.5 (rounded to
 * nearest, half away from zero); log and sigmoid 1; exp 0.5 and 2^-17 of its value.
 */
#ifndef MT_FIXED_H
#define MT_FIXED_H

#include "mt_platform.h"

typedef int32_t mt_fixed;

#define MT_FIXED_ONE 65536
#define MT_FIXED_LARGEST 2147483647

/// Magnitudes ///

static inline uint32_t mt_fixed_magnitude(mt_fixed x)
{
    return x < 0 ? 0u - (uint32_t)x : (uint32_t)x;
}

/* the number of this magnitude, saturated */
static inline mt_fixed mt_fixed_signed(uint32_t magnitude, int negative)
{
    const mt_fixed x = magnitude > (uint32_t)MT_FIXED_LARGEST ? MT_FIXED_LARGEST : (mt_fixed)magnitude;
    return negative ? -x : x;
}

static inline mt_fixed mt_fixed_absolute(mt_fixed x)
{
    return mt_fixed_signed(mt_fixed_magnitude(x), 0);
}

static inline mt_fixed mt_fixed_clamp(mt_fixed x, mt_fixed low, mt_fixed high)
{
    return x < low ? low : (x > high ? high : x);
}

/// Integers ///

static inline mt_fixed mt_fixed_of_int(int32_t whole)
{
    return whole > 32767 ? MT_FIXED_LARGEST : (whole < -32767 ? -MT_FIXED_LARGEST : whole * MT_FIXED_ONE);
}

/* the largest whole number not above x */
static inline int32_t mt_fixed_floor(mt_fixed x)
{
    return x >> 16;
}

/* the nearest whole number, half upwards */
static inline int32_t mt_fixed_round(mt_fixed x)
{
    return (x >> 16) + (x >> 15 & 1);
}

/// Arithmetic ///

static inline mt_fixed mt_fixed_add(mt_fixed a, mt_fixed b)
{
#if defined(__GNUC__)
    mt_fixed sum;
    const int lost = __builtin_add_overflow(a, b, &sum);
#else
    /* in the unsigned numbers nothing overflows; where the sum would, both have the sign that it lost */
    const uint32_t wrapped = (uint32_t)a + (uint32_t)b;
    const int lost = (((uint32_t)a ^ wrapped) & ((uint32_t)b ^ wrapped)) >> 31 != 0u;
    const mt_fixed sum = lost ? 0 : a + b;
#endif
    if (lost) {
        return a < 0 ? -MT_FIXED_LARGEST : MT_FIXED_LARGEST;
    }
    return sum < -MT_FIXED_LARGEST ? -MT_FIXED_LARGEST : sum;
}

static inline mt_fixed mt_fixed_subtract(mt_fixed a, mt_fixed b)
{
#if defined(__GNUC__)
    mt_fixed difference;
    const int lost = __builtin_sub_overflow(a, b, &difference);
#else
    const uint32_t wrapped = (uint32_t)a - (uint32_t)b;
    const int lost = (((uint32_t)a ^ (uint32_t)b) & ((uint32_t)a ^ wrapped)) >> 31 != 0u;
    const mt_fixed difference = lost ? 0 : a - b;
#endif
    if (lost) {
        return a < 0 ? -MT_FIXED_LARGEST : MT_FIXED_LARGEST;
    }
    return difference < -MT_FIXED_LARGEST ? -MT_FIXED_LARGEST : difference;
}

static inline mt_fixed mt_fixed_multiply(mt_fixed a, mt_fixed b)
{
    const uint32_t p = mt_fixed_magnitude(a);
    const uint32_t q = mt_fixed_magnitude(b);
    /* whole and fraction of each: four products of 16 bits, none above 2^32 */
    const uint32_t wholes = (p >> 16) * (q >> 16);
    const uint32_t mixed = (p >> 16) * (q & 0xFFFFu) + (p & 0xFFFFu) * (q >> 16);
    const uint32_t fractions = (p & 0xFFFFu) * (q & 0xFFFFu);
    if (wholes > 0x7FFFu || mixed > 0x7FFFFFFFu) {
        return mt_fixed_signed(0xFFFFFFFFu, (a ^ b) < 0);
    }
    return mt_fixed_signed((wholes << 16) + mixed + ((fractions + 0x8000u) >> 16), (a ^ b) < 0);
}

/* 0 / 0 is 0, anything else over 0 saturates */
static inline mt_fixed mt_fixed_divide(mt_fixed a, mt_fixed b)
{
    const uint32_t p = mt_fixed_magnitude(a);
    const uint32_t q = mt_fixed_magnitude(b);
    if (p >> 15 >= q) {
        return p == 0u ? 0 : mt_fixed_signed(0xFFFFFFFFu, (a ^ b) < 0);
    }
    uint32_t quotient = p / q;
    uint32_t rest = p - quotient * q;
    if (rest < 0x10000u) {
        rest <<= 16;
        const uint32_t places = rest / q;
        quotient = (quotient << 16) + places;
        rest -= places * q;
    } else {
        /* the rest is below q and so below 2^31: doubled, it still fits */
        for (uint32_t place = 0; place < 16u; ++place) {
            const uint32_t fits = (uint32_t)(rest << 1 >= q);
            rest = (rest << 1) - (fits != 0u ? q : 0u);
            quotient = quotient << 1 | fits;
        }
    }
    return mt_fixed_signed(quotient + (uint32_t)(rest >= q - rest), (a ^ b) < 0);
}

/* 0 for anything not above 0 */
static inline mt_fixed mt_fixed_sqrt(mt_fixed x)
{
    if (x <= 0) {
        return 0;
    }
    /* digit by digit: the root of x * 2^16, which has 24 binary digits */
    uint32_t left = (uint32_t)x;
    uint32_t rest = 0u;
    uint32_t root = 0u;
    for (uint32_t digit = 0; digit < 24u; ++digit) {
        rest = rest << 2 | left >> 30;
        left <<= 2;
        const uint32_t trial = root << 2 | 1u;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    /* the root lies above root + 1/2 where the rest is above root */
    return (mt_fixed)(root + (uint32_t)(rest > root));
}

/// Exponential and logarithm ///

/* e^x; 0 below -11.8, saturated above 10.397 */
static inline mt_fixed mt_fixed_exp(mt_fixed x)
{
    if (x >= 681391) {
        return MT_FIXED_LARGEST;
    }
    if (x < -786432) {
        return 0;
    }
    /* x = n ln 2 + r with |r| <= 0.35, r with 24 places */
    const int32_t n = (x * 1477 + (1 << 25)) >> 26;
    const int32_t r = x * 256 - n * 11629080;
    /* e^r = 1 + r + r^2 g(r): the polynomial of 15 places, r of 17, the square of 18 */
    const int32_t f = (r + 64) >> 7;
    int32_t g = 274;
    g = ((g * f + 65536) >> 17) + 1371;
    g = ((g * f + 65536) >> 17) + 5461;
    g = ((g * f + 65536) >> 17) + 16384;
    const uint32_t square = (uint32_t)(f * f + 32768) >> 16;
    const uint32_t e = (uint32_t)(16777216 + r) + ((square * (uint32_t)g + 256u) >> 9);
    if (n > 8) {
        return mt_fixed_signed(e << (n - 8), 0);
    }
    return n == 8 ? (mt_fixed)e : (mt_fixed)(((e >> (7 - n)) + 1u) >> 1);
}

/* ln 2^n m, m in [1, 2) with 31 places */
static inline mt_fixed mt_fixed_log_of(uint32_t m, int32_t n)
{
    /* 1 + f in [2/3, 4/3), f with 24 places */
    int32_t f = (int32_t)(m >> 7) - 16777216;
    if (f >= 5592405) {
        f = (int32_t)(m >> 8) - 16777216;
        ++n;
    }
    /* ln(1 + f) = f + f^2 h(f): the polynomial of 15 places, f of 17, the square of 18 */
    const int32_t s = (f + 64) >> 7;
    int32_t h = 5482;
    h = ((h * s + 65536) >> 17) - 6223;
    h = ((h * s + 65536) >> 17) + 6507;
    h = ((h * s + 65536) >> 17) - 8159;
    h = ((h * s + 65536) >> 17) + 10923;
    h = ((h * s + 65536) >> 17) - 16384;
    const int32_t square = (s * s + 32768) >> 16;
    return (n * 11629080 + f + ((square * h + 256) >> 9) + 128) >> 8;
}

/* ln x; that of the smallest number above 0, -11.09, for anything not above 0 */
static inline mt_fixed mt_fixed_log(mt_fixed x)
{
    uint32_t m = x > 0 ? (uint32_t)x : 1u;
    int32_t n = 15;
    for (uint32_t places = 16u; places != 0u; places >>= 1) {
        if (m >> (32u - places) == 0u) {
            m <<= places;
            n -= (int32_t)places;
        }
    }
    return mt_fixed_log_of(m, n);
}

/* ln(1 + e) of e from 0 to 1 */
static inline mt_fixed mt_fixed_log_above_one(mt_fixed e)
{
    return e < MT_FIXED_ONE ? mt_fixed_log_of((uint32_t)(MT_FIXED_ONE + e) << 15, 0) : mt_fixed_log_of(1u << 31, 1);
}

/* 1 / (1 + e) of e from 0 to 1 */
static inline mt_fixed mt_fixed_share_of_one(mt_fixed e)
{
    const uint32_t whole = (uint32_t)(MT_FIXED_ONE + e);
#if defined(MT_NO_DIVIDER)
    /* two of Newton's steps from a straight line, by what the product lacks to 2^32: the same, or a unit less */
    uint32_t p = 92504u - (61681u * (whole >> 1) >> 16);
    p += (uint32_t)((int32_t)p * ((int32_t)(0u - whole * p) >> 16) >> 16);
    p += (uint32_t)(((int32_t)p * ((int32_t)(0u - whole * p) >> 14) + 131072) >> 18);
    return (mt_fixed)(p + (uint32_t)((int32_t)(0u - whole * p) > (int32_t)(whole >> 1)));
#else
    /* 2^32 / (1 + e), rounded; 2^32 itself, for e of 0, has no place in 32 bits but the same result */
    return (mt_fixed)((0xFFFFFFFFu - (whole >> 1)) / whole + 1u);
#endif
}

/* e^-|x|, which a sigmoid and its loss are made of */
static inline mt_fixed mt_fixed_exp_below(mt_fixed x)
{
    mt_fixed below = x < 0 ? x : -x;
    MT_OPAQUE(below); /* one exponential, and not one for each sign */
    return mt_fixed_exp(below);
}

/* 1 / (1 + e^-x) by mt_fixed_exp_below(x) */
static inline mt_fixed mt_fixed_sigmoid_by(mt_fixed x, mt_fixed e)
{
    const mt_fixed p = mt_fixed_share_of_one(e);
    return x < 0 ? MT_FIXED_ONE - p : p;
}

/* 1 / (1 + e^-x) */
static inline mt_fixed mt_fixed_sigmoid(mt_fixed x)
{
    return mt_fixed_sigmoid_by(x, mt_fixed_exp_below(x));
}

#endif
