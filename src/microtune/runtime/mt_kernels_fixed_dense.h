/*
 * mt_kernels_fixed_dense.h: the layer that closed-form heads learn where there are integers only.
 *
 * Its input is int8, x stands for x - x_zero steps; a weight tells in 2^-24 what one step is worth in the output, so
 * that the largest weight times the largest input fills an mt_fixed; biases and outputs are mt_fixed.
 */
#ifndef MT_KERNELS_FIXED_DENSE_H
#define MT_KERNELS_FIXED_DENSE_H

#include "mt_fixed.h"

/* binary places of a weight, and those of a weight that an output has not */
#define MT_FIXED_WEIGHT_PLACES 24
#define MT_FIXED_WEIGHT_FINER 8

static inline int32_t mt_fixed_saturated(int64_t x)
{
    return x > MT_FIXED_LARGEST ? MT_FIXED_LARGEST : (x < -MT_FIXED_LARGEST ? -MT_FIXED_LARGEST : (int32_t)x);
}

/*
 * The sum of w[0] phi[0], w[pitch] phi[1], w[2 pitch + more] phi[2] ...: each pitch is `more` larger than the one before;
 * phi = x - x_zero. Exact.
 */
static inline int64_t mt_fixed_sum(const int32_t *MT_RESTRICT w, uint32_t pitch, uint32_t more,
                                   const int8_t *MT_RESTRICT x, int32_t x_zero, uint32_t size)
{
    int64_t sum = 0;
    for (uint32_t i = 0, at = 0; i < size; ++i, at += pitch, pitch += more) {
        sum += (int64_t)w[at] * (x[i] - x_zero);
    }
    return sum;
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
