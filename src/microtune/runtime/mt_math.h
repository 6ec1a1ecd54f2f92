/*
 * mt_math.h: exp, log, tanh, sigmoid and square root from + - * / alone.
 *
 * The C library's functions differ in the last bits from one library to the next; these give the same
 * bits wherever float is IEEE 754 binary32 and nothing is contracted into a fused multiply-add
 * (-ffp-contract=off). Largest errors, measured over all of the range by tests/runtime/test_math.py, in units
 * in the last place: mt_exp 1.1, mt_log 1, mt_tanh and mt_sigmoid 2.5, mt_sqrt 0.8. Every float is a defined
 * argument; what each makes of NaN is said there, and is the same on every target.
 */
#ifndef MT_MATH_H
#define MT_MATH_H

#include "mt_platform.h"

static inline uint32_t mt_float_bits(float x)
{
    uint32_t bits;
    MT_COPY(&bits, &x, sizeof bits);
    return bits;
}

static inline float mt_float_of(uint32_t bits)
{
    float x;
    MT_COPY(&x, &bits, sizeof x);
    return x;
}

/* neither NaN nor infinite */
static inline int mt_is_finite(float x)
{
    return (mt_float_bits(x) & 0x7F800000u) != 0x7F800000u;
}

static inline float mt_absolute(float x)
{
    return mt_float_of(mt_float_bits(x) & 0x7FFFFFFFu);
}

static inline float mt_clamp(float x, float low, float high)
{
    return x < low ? low : (x > high ? high : x);
}

/* e^x. Saturates outside [-87, 88], so the result is always finite, normal and above zero; NaN counts as -87. */
static inline float mt_exp(float x)
{
    x = x > -87.0f ? x : -87.0f;
    x = x < 88.0f ? x : 88.0f;
    /* x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, the first exact in n * part */
    const float scaled = x * 1.44269504f;
    const int32_t n = (int32_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
    const float r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    /* Taylor to the seventh power: the rest is below 6e-9 of the result */
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = (p * r) * r + r;
    return (p + 1.0f) * mt_float_of((uint32_t)(n + 127) << 23);
}

/* ln x for normal x > 0; anything else, NaN too, counts as the smallest normal number. Infinity gives 128 ln 2. */
static inline float mt_log(float x)
{
    if (!(x > 1.17549435e-38f)) {
        x = 1.17549435e-38f;
    }
    /* x = 2^n m with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1) / (m + 1) */
    const uint32_t bits = mt_float_bits(x) - 0x3F3504F3u;
    const float n = (float)((int32_t)bits >> 23);
    const float m = mt_float_of((bits & 0x007FFFFFu) + 0x3F3504F3u);
    const float f = m - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    float p = 2.0f / 9.0f;
    p = p * z + 2.0f / 7.0f;
    p = p * z + 2.0f / 5.0f;
    p = p * z + 2.0f / 3.0f;
    /* 2 s = f - s f keeps the digits that 2 s alone would round away */
    const float tail = s * (p * z - f) - n * 2.12194440e-4f;
    return (tail + f) + n * 0.693359375f;
}

/* 1 / (1 + e^-x); below -87 as at -87, and so above zero. NaN gives 1. */
static inline float mt_sigmoid(float x)
{
    /* the exponential of a number below zero never saturates upwards */
    const float e = mt_exp(-mt_absolute(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* NaN gives -1. */
static inline float mt_tanh(float x)
{
    const float a = mt_absolute(x);
    if (a < 0.55f) {
        /* Lambert's continued fraction, five terms: no cancellation near zero */
        const float z = x * x;
        return x * (((z + 105.0f) * z + 945.0f) / ((15.0f * z + 420.0f) * z + 945.0f));
    }
    const float t = 1.0f - 2.0f / (mt_exp(2.0f * a) + 1.0f);
    return x < 0.0f ? -t : t;
}

/* Square root by Newton's method; zero for NaN and anything not above the smallest normal number;
 * infinity gives NaN. */
static inline float mt_sqrt(float x)
{
    if (!(x > 1.17549435e-38f)) {
        return 0.0f;
    }
    /* halving the exponent starts within 4 %; three steps then square the error below 2^-24 */
    float y = mt_float_of((mt_float_bits(x) >> 1) + 0x1FBB4F2Eu);
    y = 0.5f * (y + x / y);
    y = 0.5f * (y + x / y);
    y = 0.5f * (y + x / y);
    return y;
}

#endif
