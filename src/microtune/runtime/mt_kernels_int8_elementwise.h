/*
 * mt_kernels_int8_elementwise.h: the doors between float and int8, int8 arithmetic, tables and softmax.
 *
 * The result of an int8 kernel may take the memory of an int8 input: element i is read before it is written.
 */
#ifndef MT_KERNELS_INT8_ELEMENTWISE_H
#define MT_KERNELS_INT8_ELEMENTWISE_H

#include "mt_kernels_int8.h"
#include "mt_math.h"

/* the nearest integer, half away from zero; |x| below 2^31 */
static inline int32_t mt_round(float x)
{
    const int32_t whole = (int32_t)x;
    /* the rest is exact; adding a half to x first would round 0.49999997 up */
    const float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

/* y = zero_point + x / scale, saturated; NaN counts as zero */
static inline void mt_quantize_int8(
    const float *MT_RESTRICT x, int8_t *MT_RESTRICT y, float scale, int32_t zero_point, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        const float number = x[i] == x[i] ? x[i] : 0.0f;
        /* beyond 512 steps all is saturated */
        const float steps = mt_clamp(number / scale, -512.0f, 512.0f);
        y[i] = (int8_t)mt_clamp_int32(mt_round(steps) + zero_point, -128, 127);
    }
}

static inline void mt_dequantize_int8(
    const int8_t *MT_RESTRICT x, float *MT_RESTRICT y, float scale, int32_t zero_point, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = scale * (float)(x[i] - zero_point);
    }
}

/* each input shifted left and brought to the scale of twice the larger one, added, brought to y's */
static inline void mt_add_int8(const int8_t *a, const int8_t *b, int8_t *y, int32_t a_zero, int32_t b_zero,
    int32_t y_zero, int32_t left_shift, int32_t a_multiplier, int32_t a_shift, int32_t b_multiplier, int32_t b_shift,
    int32_t y_multiplier, int32_t y_shift, int32_t low, int32_t high, uint32_t size)
{
    const int32_t factor = (int32_t)(1u << left_shift);
    for (uint32_t i = 0; i < size; ++i) {
        const int32_t sum = mt_rescale((a[i] - a_zero) * factor, a_multiplier, a_shift)
            + mt_rescale((b[i] - b_zero) * factor, b_multiplier, b_shift);
        y[i] = mt_int8_output(sum, y_multiplier, y_shift, y_zero, low, high);
    }
}

static inline void mt_multiply_int8(const int8_t *a, const int8_t *b, int8_t *y, int32_t a_zero, int32_t b_zero,
    int32_t y_zero, int32_t y_multiplier, int32_t y_shift, int32_t low, int32_t high, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        const int32_t product = (a[i] - a_zero) * (b[i] - b_zero);
        y[i] = mt_int8_output(product, y_multiplier, y_shift, y_zero, low, high);
    }
}

/* table[i] = exp(-i x_scale); y in steps of 1 / 256 from -128 */
static inline void mt_softmax_int8(const int8_t *x, const float *MT_RESTRICT table, int8_t *y, uint32_t size)
{
    int32_t largest = x[0];
    for (uint32_t i = 1; i < size; ++i) {
        largest = x[i] > largest ? x[i] : largest;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        sum += table[largest - x[i]];
    }
    const float inverse = 1.0f / (sum * (1.0f / 256.0f));
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = (int8_t)mt_clamp_int32(mt_round(table[largest - x[i]] * inverse) - 128, -128, 127);
    }
}

static inline void mt_lookup_int8(const int8_t *x, const int8_t *MT_RESTRICT table, int8_t *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = table[x[i] + 128];
    }
}

#endif
