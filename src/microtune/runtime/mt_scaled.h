/*
 * mt_scaled.h: an integer times a power of two, for the few numbers of a sample whose size nobody knows beforehand:
 * variances, and what is divided by them.
 *
 * mantissa * 2^exponent, the mantissa's magnitude from 2^30 up to 2^31; zero is {0, 0}. Results are cut off towards
 * zero, so off by less than 2^-30 of their value. Exponents stay small: constants are within 2^-200 and 2^200.
 */
#ifndef MT_SCALED_H
#define MT_SCALED_H

#include "mt_fixed.h"

typedef struct {
    int32_t mantissa;
    int32_t exponent;
} mt_scaled;

/* what an mt_fixed holds of a whole number of its steps */
static inline int32_t mt_fixed_saturated(int64_t x)
{
    return x > MT_FIXED_LARGEST ? MT_FIXED_LARGEST : (x < -MT_FIXED_LARGEST ? -MT_FIXED_LARGEST : (int32_t)x);
}

/* value * 2^exponent */
static inline mt_scaled mt_scaled_of(int64_t value, int32_t exponent)
{
    mt_scaled found = {0, 0};
    const uint64_t magnitude = value < 0 ? 0u - (uint64_t)value : (uint64_t)value;
    uint32_t high = (uint32_t)(magnitude >> 32);
    uint32_t low = (uint32_t)(magnitude & 0xFFFFFFFFu);
    if (high == 0u) {
        if (low == 0u) {
            return found;
        }
        high = low;
        low = 0u;
        exponent -= 32;
    }
    uint32_t left = 0u;
    for (uint32_t places = 16u; places != 0u; places >>= 1) {
        if (high >> (32u - places) == 0u) {
            high <<= places;
            left += places;
        }
    }
    high |= left != 0u ? low >> (32u - left) : 0u;
    found.mantissa = (int32_t)(high >> 1);
    found.mantissa = value < 0 ? -found.mantissa : found.mantissa;
    found.exponent = exponent - (int32_t)left + 33;
    return found;
}

static inline mt_scaled mt_scaled_multiply(mt_scaled a, mt_scaled b)
{
    return mt_scaled_of((int64_t)a.mantissa * b.mantissa, a.exponent + b.exponent);
}

/* neither below 0 */
static inline mt_scaled mt_scaled_add(mt_scaled a, mt_scaled b)
{
    if (a.mantissa == 0 || (b.mantissa != 0 && b.exponent > a.exponent)) {
        const mt_scaled smaller = a;
        a = b;
        b = smaller;
    }
    const int32_t apart = a.exponent - b.exponent;
    if (b.mantissa == 0 || apart > 31) {
        return a;
    }
    const int64_t sum = (int64_t)a.mantissa * 0x80000000 + ((int64_t)b.mantissa * 0x80000000 >> apart);
    return mt_scaled_of(sum, a.exponent - 31);
}

/* neither below 0, b above it */
static inline mt_scaled mt_scaled_divide(mt_scaled a, mt_scaled b)
{
    return mt_scaled_of((int64_t)a.mantissa * 0x100000000 / b.mantissa, a.exponent - b.exponent - 32);
}

/* the root of a number not below 0, to 23 places */
static inline mt_scaled mt_scaled_root(mt_scaled a)
{
    const int32_t odd = a.exponent & 1;
    return mt_scaled_of(mt_fixed_sqrt(a.mantissa >> odd), (a.exponent + odd) / 2 - 8);
}

/* a x, rounded half upwards; saturated */
static inline int32_t mt_scaled_times(mt_scaled a, int32_t x)
{
    const int64_t product = (int64_t)a.mantissa * x;
    const int32_t places = -a.exponent;
    if (product == 0 || places > 62) {
        return 0;
    }
    int64_t found = product;
    if (places > 0) {
        found = (product + ((int64_t)1 << (places - 1))) >> places;
    } else if (places < 0) {
        found = product < 0 ? INT64_MIN : INT64_MAX; /* 2^30 and more, doubled */
    }
    return mt_fixed_saturated(found);
}

#endif
