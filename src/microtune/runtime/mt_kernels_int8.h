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

/* Cortex-M4, M7 and M33 multiply pairs of 16 bits; sums of integers are the same in any order */
#if defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>

/* four elements: the first and third, the second and fourth */
typedef struct {
    int16x2_t even, odd;
} mt_pairs;

static inline mt_pairs mt_int8_pairs(const int8_t *x)
{
    uint32_t four;
    mt_pairs pairs;
    MT_COPY(&four, x, sizeof four);
    pairs.even = __sxtb16((int8x4_t)four);
    pairs.odd = __sxtb16((int8x4_t)__ror(four, 8));
    return pairs;
}

static inline mt_pairs mt_int8_shifted_pairs(const int8_t *x, int16_t zero)
{
    const int16x2_t zeros = (int16x2_t)((uint32_t)(uint16_t)zero * 0x00010001u);
    mt_pairs pairs = mt_int8_pairs(x);
    pairs.even = __ssub16(pairs.even, zeros);
    pairs.odd = __ssub16(pairs.odd, zeros);
    return pairs;
}
#endif

/* before a loop that fills the registers as it is */
#if defined(__clang__)
#define MT_NOT_UNROLLED _Pragma("clang loop unroll(disable)")
#else
#define MT_NOT_UNROLLED
#endif

/* channels that are summed side by side: a few vector registers, 64 bytes of stack */
#define MT_INT8_BLOCK 16u

/* before a loop of 16-bit products: left alone, the compiler takes four at a time and uses half of each instruction */
#if defined(__clang__) && defined(__SSE2__)
#define MT_BY_EIGHT _Pragma("clang loop vectorize_width(8)")
#elif defined(__clang__) && defined(__ARM_FEATURE_DSP)
/* here it is the rest of a division by four */
#define MT_BY_EIGHT _Pragma("clang loop unroll(disable)")
#else
#define MT_BY_EIGHT
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

/* x * multiplier * 2^(shift - 31), rounded half up, then (by a shift to the right) half away from zero;
 * a shift to the left saturates. multiplier >= 0, -31 <= shift <= 30 */
static inline int32_t mt_rescale(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        x = mt_saturate_int32((int64_t)x * ((int64_t)1 << shift));
    }
    const int32_t high = (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << 30)) >> 31);
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
    return mt_saturate_int32(((int64_t)x * multiplier + ((int64_t)1 << (places - 1))) >> places);
}

/* the stored value of a sum: rescaled, moved by y_zero, clamped to low .. high */
static inline int8_t mt_int8_output(
    int32_t sum, int32_t multiplier, int32_t shift, int32_t y_zero, int32_t low, int32_t high)
{
    /* clamped before y_zero is added, which could overflow */
    return (int8_t)(y_zero + mt_clamp_int32(mt_rescale(sum, multiplier, shift), low - y_zero, high - y_zero));
}

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
