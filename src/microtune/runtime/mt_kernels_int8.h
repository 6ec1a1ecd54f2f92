/*
 * mt_kernels_int8.h: what all int8 kernels share.
 *
 * A stored value q stands for scale * (q - zero). Sums are exact in 32 bits (the compiler refuses layers that
 * could overflow them), and a real factor is multiplier * 2^(shift - 31), rounded as gemmlowp and TFLite do:
 * every result is defined to the last bit, on every target.
 */
#ifndef MT_KERNELS_INT8_H
#define MT_KERNELS_INT8_H

#include "mt_kernels.h"

/* Cortex-M4, M7 and M33 multiply pairs of 16 bits; sums of integers are the same in any order. Cores with vectors
 * (Cortex-M55) could as well, but the plain loops become vectors there. */
#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)
#define MT_INT8_PAIRS
#include <arm_acle.h> /* gcc's has no __ror, and an __ssat that warns: both are written as what they do */

/* four elements: the first and third, the second and fourth */
typedef struct {
    int16x2_t even, odd;
} mt_pairs;

static inline uint32_t mt_int8_four(const int8_t *x)
{
    uint32_t four;
    MT_COPY(&four, x, sizeof four);
    return four;
}

/* the instructions rotate by themselves, as clang knows and gcc does not */
static inline int16x2_t mt_int8_odd(uint32_t four)
{
#if defined(__clang__) || !defined(__GNUC__)
    return __sxtb16((int8x4_t)(four >> 8 | four << 24));
#else
    int16x2_t odd;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(four));
    return odd;
#endif
}

static inline int16x2_t mt_int8_moved_odd(uint32_t four, int16x2_t minus_zero)
{
#if defined(__clang__) || !defined(__GNUC__)
    return __sxtab16(minus_zero, (int8x4_t)(four >> 8 | four << 24));
#else
    int16x2_t odd;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(odd) : "r"(minus_zero), "r"(four));
    return odd;
#endif
}

static inline mt_pairs mt_int8_pairs_of(uint32_t four)
{
    mt_pairs pairs;
    pairs.even = __sxtb16((int8x4_t)four);
    pairs.odd = mt_int8_odd(four);
    return pairs;
}

/* both halves -zero: what `mt_int8_moved_pairs` adds */
static inline int16x2_t mt_int8_minus(int32_t zero)
{
    return (int16x2_t)((uint32_t)(uint16_t)-zero * 0x00010001u);
}

static inline mt_pairs mt_int8_moved_pairs(uint32_t four, int16x2_t minus_zero)
{
    mt_pairs pairs;
    pairs.even = __sxtab16(minus_zero, (int8x4_t)four);
    pairs.odd = mt_int8_moved_odd(four, minus_zero);
    return pairs;
}

/* sum and the products of four elements with four weights */
static inline int32_t mt_int8_products(const int8_t *w, mt_pairs x, int32_t sum)
{
    const mt_pairs weights = mt_int8_pairs_of(mt_int8_four(w));
    return __smlad(weights.odd, x.odd, __smlad(weights.even, x.even, sum));
}
#endif

/* channels that are summed side by side: a few vector registers, 64 bytes of stack */
#define MT_INT8_BLOCK 16u

/* before a loop of 16-bit products: left alone, the compiler takes four at a time and uses half of each instruction */
#if defined(__clang__) && defined(__SSE2__)
#define MT_BY_EIGHT _Pragma("clang loop vectorize_width(8)")
#elif defined(__clang__) && defined(MT_INT8_PAIRS)
/* here it is the rest of a division by four */
#define MT_BY_EIGHT _Pragma("clang loop unroll(disable)")
#elif defined(__clang__) && defined(__riscv)
/* a pointer moves for each row: every fourth time is enough */
#define MT_BY_EIGHT _Pragma("clang loop unroll_count(4)")
#else
#define MT_BY_EIGHT
#endif

/* x - x_zero: in 16 bits where products of 16 bits are worth it, else as the processor has it */
#if defined(__riscv)
typedef int32_t mt_int8_shifted;
#else
typedef int16_t mt_int8_shifted;
#endif

static inline uint32_t mt_smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline int32_t mt_clamp_int32(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : (x > high ? high : x);
}

static inline int32_t mt_saturate_int32(int64_t x)
{
    return (int32_t)(x < INT32_MIN ? INT32_MIN : (x > INT32_MAX ? INT32_MAX : x));
}

/* A product of 64 bits in two words. */
typedef struct {
    int32_t upper;
    uint32_t lower;
} mt_words;

/* a * b, b >= 0 */
static inline mt_words mt_long_product(int32_t a, int32_t b)
{
    mt_words words;
#if defined(MT_SHORT_PRODUCTS)
    const int32_t a_upper = a >> 16, b_upper = b >> 16;
    const uint32_t a_lower = (uint32_t)a & 0xFFFFu, b_lower = (uint32_t)b & 0xFFFFu;
    const int32_t mixed = a_upper * (int32_t)b_lower + (int32_t)((a_lower * b_lower) >> 16);
    const uint32_t rest = a_lower * (uint32_t)b_upper + ((uint32_t)mixed & 0xFFFFu);
    words.upper = a_upper * b_upper + (mixed >> 16) + (int32_t)(rest >> 16);
    words.lower = (uint32_t)a * (uint32_t)b;
#else
    const int64_t product = (int64_t)a * b;
    words.upper = (int32_t)(product >> 32);
    words.lower = (uint32_t)product;
#endif
    return words;
}

/* x * multiplier * 2^(shift - 31), rounded half up, then (by a shift to the right) half away from zero;
 * a shift to the left saturates. multiplier >= 0, -31 <= shift <= 30 */
static inline int32_t mt_rescale(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        x = mt_saturate_int32((int64_t)x * ((int64_t)1 << shift));
    }
#if defined(MT_SHORT_PRODUCTS)
    const mt_words words = mt_long_product(x, multiplier);
    const uint32_t lower = words.lower + 0x40000000u;
    const uint32_t upper = (uint32_t)words.upper + (uint32_t)(lower < 0x40000000u);
    const int32_t high = (int32_t)(upper << 1 | lower >> 31);
#else
    const int32_t high = (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << 30)) >> 31);
#endif
    if (shift >= 0) {
        return high;
    }
    /* one less below zero, so that half a step goes down there; the last place, which rounds, by itself, so that
     * nothing overflows */
    const int32_t doubled = (high + (high >> 31)) >> (-shift - 1);
    return (doubled >> 1) + (doubled & 1);
}

/* x * multiplier * 2^(shift - 31), rounded half up, saturated: as TFLite has it in fully connected layers */
static inline int32_t mt_rescale_once(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t places = 31 - shift;
#if defined(MT_SHORT_PRODUCTS)
    mt_words words = mt_long_product(x, multiplier);
    if (places > 32) {
        return (words.upper + ((int32_t)1 << (places - 33))) >> (places - 32);
    }
    const uint32_t half = 1u << (places - 1);
    words.lower += half;
    words.upper += words.lower < half;
    if (words.upper >> (places - 1) != words.upper >> 31) {
        return words.upper < 0 ? INT32_MIN : INT32_MAX;
    }
    return places == 32 ? words.upper : (int32_t)((uint32_t)words.upper << (32 - places) | words.lower >> places);
#else
    return mt_saturate_int32(((int64_t)x * multiplier + ((int64_t)1 << (places - 1))) >> places);
#endif
}

/* a + b, saturated */
static inline int32_t mt_saturating_sum(int32_t a, int32_t b)
{
#if defined(MT_INT8_PAIRS)
    return __qadd(a, b);
#elif defined(MT_SHORT_PRODUCTS)
    int32_t sum;
    return __builtin_add_overflow(a, b, &sum) ? (a < 0 ? INT32_MIN : INT32_MAX) : sum;
#else
    return mt_saturate_int32((int64_t)a + b);
#endif
}

/* the stored value of a sum: rescaled, moved by y_zero, clamped to low .. high */
static inline int8_t mt_int8_output(
    int32_t sum, int32_t multiplier, int32_t shift, int32_t y_zero, int32_t low, int32_t high)
{
    /* clamped before y_zero is added, which could overflow */
    return (int8_t)(y_zero + mt_clamp_int32(mt_rescale(sum, multiplier, shift), low - y_zero, high - y_zero));
}

#if defined(MT_INT8_PAIRS)
/* a factor with 2 m for m; `places` is negative where it shifts to the left or not at all */
typedef struct {
    int32_t multiplier, doubled, wrapped, shift, places;
} mt_int8_factor;

static inline mt_int8_factor mt_int8_factor_of(int32_t multiplier, int32_t shift)
{
    mt_int8_factor factor;
    factor.multiplier = multiplier;
    factor.shift = shift;
    factor.doubled = (int32_t)((uint32_t)multiplier << 1);
    factor.wrapped = factor.doubled >> 31;
    MT_OPAQUE(factor.wrapped); /* or the compiler branches where a mask will do */
    factor.places = -shift - 1;
    return factor;
}

/* added + the upper word of a b, rounded: SMMLAR */
static inline int32_t mt_int8_upper(int32_t a, int32_t b, int32_t added)
{
#if defined(__clang__) || !defined(__GNUC__)
    return (int32_t)(((int64_t)a * b + (int64_t)added * ((int64_t)1 << 32) + ((int64_t)1 << 31)) >> 32);
#else
    int32_t upper;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(upper) : "r"(a), "r"(b), "r"(added));
    return upper;
#endif
}

/* y_zero + the rescaled x, saturated to a byte, where `places` >= 0. x m / 2^31, rounded, is the upper word of x (2 m),
 * rounded: one instruction. 2 m as int32_t is less by 2^32 where m >= 2^30, which x itself makes up for. */
static inline int8_t mt_int8_scaled(int32_t x, mt_int8_factor factor, int32_t y_zero)
{
    x = mt_int8_upper(x, factor.doubled, x & factor.wrapped);
    /* as in mt_rescale, with y_zero added before the last place rounds */
    x = (x + (x >> 31)) >> factor.places;
    return (int8_t)mt_clamp_int32(__qadd(x, 2 * y_zero + 1) >> 1, INT8_MIN, INT8_MAX);
}

/* the same for a factor that shifts to the left or not at all: few layers have one */
static MT_APART int32_t mt_int8_scaled_up(int32_t x, int32_t multiplier, int32_t shift, int32_t y_zero)
{
    return mt_clamp_int32(__qadd(mt_rescale(x, multiplier, shift), y_zero), INT8_MIN, INT8_MAX);
}

static inline int8_t mt_int8_scaled_any(int32_t x, mt_int8_factor factor, int32_t y_zero)
{
    return factor.places >= 0 ? mt_int8_scaled(x, factor, y_zero)
                              : (int8_t)mt_int8_scaled_up(x, factor.multiplier, factor.shift, y_zero);
}

/* what is stored already, clamped to low .. high */
static inline void mt_int8_limit(int8_t *y, uint32_t size, int32_t low, int32_t high)
{
    if (low > INT8_MIN || high < INT8_MAX) {
        for (uint32_t i = 0; i < size; ++i) {
            y[i] = (int8_t)mt_clamp_int32(y[i], low, high);
        }
    }
}

/* by words; a call of memcpy costs more than the few bytes of a window's line */
static inline void mt_int8_copy(int8_t *MT_RESTRICT to, const int8_t *MT_RESTRICT from, uint32_t bytes)
{
    uint32_t i = 0;
    MT_NOT_UNROLLED
    for (; i + 4 <= bytes; i += 4) {
        MT_COPY(to + i, from + i, 4);
    }
    MT_NOT_UNROLLED
    for (; i < bytes; ++i) {
        to[i] = from[i];
    }
}
#endif

/* The taps first .. end - 1 of a window that lie inside the image: the window's first tap is at element
 * start - before, which may be left of the image. */
typedef struct {
    uint32_t first;
    uint32_t end;
} mt_taps;

static inline mt_taps mt_taps_inside(uint32_t start, uint32_t before, uint32_t size, uint32_t taps)
{
    mt_taps inside;
    inside.first = before > start ? before - start : 0u;
    inside.end = mt_smaller(taps, size + before - start);
    return inside;
}

#endif
