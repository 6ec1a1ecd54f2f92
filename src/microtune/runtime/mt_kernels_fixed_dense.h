/*
 * mt_kernels_fixed_dense.h: the layer that closed-form heads learn where there are integers only.
 *
 * Its input is int8, x stands for x - x_zero steps; a weight tells in 2^-24 what one step is worth in the output, so
 * that the largest weight times the largest input fills an mt_fixed; biases and outputs are mt_fixed.
 */
#ifndef MT_KERNELS_FIXED_DENSE_H
#define MT_KERNELS_FIXED_DENSE_H

#include "mt_scaled.h"

/* binary places of a weight, and those of a weight that an output has not */
#define MT_FIXED_WEIGHT_PLACES 24
#define MT_FIXED_WEIGHT_FINER 8

/*
 * The sum of w[0] phi[0], w[pitch] phi[1], w[2 pitch + more] phi[2] ...: each pitch is `more` larger than the one
 * before; phi = x - x_zero. Exact.
 */
static inline int64_t mt_fixed_sum(const int32_t *MT_RESTRICT w, uint32_t pitch, uint32_t more,
                                   const int8_t *MT_RESTRICT x, int32_t x_zero, uint32_t size)
{
    int64_t sum = 0;
#if defined(MT_SHORT_PRODUCTS)
    for (uint32_t i = 0, at = 0; i < size;) {
        /* the halves of 64 products fit 32 bits */
        const uint32_t end = size - i < 64u ? size : i + 64u;
        int32_t high = 0, low = 0;
        for (; i < end; ++i, at += pitch, pitch += more) {
            const int32_t phi = x[i] - x_zero;
            high += (w[at] >> 16) * phi;
            low += (w[at] & 0xFFFF) * phi;
        }
        sum += (int64_t)high * 65536 + low;
    }
#else
    for (uint32_t i = 0, at = 0; i < size; ++i, at += pitch, pitch += more) {
        sum += (int64_t)w[at] * (x[i] - x_zero);
    }
#endif
    return sum;
}

/* the low 32 bits of a b / 2^30, cut off downwards */
static inline int32_t mt_fixed_product(int32_t a, int32_t b)
{
#if defined(MT_SHORT_PRODUCTS)
    const int32_t a_low = a & 0xFFFF, b_low = b & 0xFFFF;
    /* of 2^16, each within 31 bits and a sign; 14 of them are cut off, where the carry comes from */
    const int32_t p = (a >> 16) * b_low + (int32_t)((uint32_t)a_low * (uint32_t)b_low >> 16);
    const int32_t q = a_low * (b >> 16);
    const uint32_t carry = ((uint32_t)(p & 0x3FFF) + (uint32_t)(q & 0x3FFF)) >> 14;
    return (int32_t)(((uint32_t)((a >> 16) * (b >> 16)) << 2) + (uint32_t)(p >> 14) + (uint32_t)(q >> 14) + carry);
#else
    return (int32_t)(uint32_t)(((uint64_t)((int64_t)a * b) >> 30) & 0xFFFFFFFFu);
#endif
}

/* y (outputs) = W (x - x_zero) + b; weight (outputs, inputs) */
static inline void mt_dense_fixed(const int8_t *MT_RESTRICT x, const int32_t *MT_RESTRICT weight,
                                  const int32_t *MT_RESTRICT bias, int32_t *MT_RESTRICT y, int32_t x_zero,
                                  uint32_t inputs, uint32_t outputs)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        const int64_t sum = mt_fixed_sum(weight + o * inputs, 1, 0, x, x_zero, inputs);
        y[o] = mt_fixed_saturated(((sum + (1 << (MT_FIXED_WEIGHT_FINER - 1))) >> MT_FIXED_WEIGHT_FINER) + bias[o]);
    }
}

#endif
