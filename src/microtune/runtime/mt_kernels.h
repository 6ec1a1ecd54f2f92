/*
 * mt_kernels.h: what all kernels share.
 *
 * Every kernel is a small inline function whose sizes are arguments: generated code passes constants, so
 * the compiler sees fixed loops. Sums run in a fixed order, in four lanes that a compiler may keep in one
 * vector register, and so give the same bits on every target.
 */
#ifndef MT_KERNELS_H
#define MT_KERNELS_H

#include "mt_platform.h"

/* four products more, one to each lane */
MT_INLINE void mt_lanes_add(float lane[4], const float *a, const float *b)
{
    lane[0] += a[0] * b[0];
    lane[1] += a[1] * b[1];
    lane[2] += a[2] * b[2];
    lane[3] += a[3] * b[3];
}

/* the last products, fewer than four, and the sum; written out, so that lanes stay in registers when rest is no
 * constant */
MT_INLINE float mt_lanes_end(float lane[4], const float *a, const float *b, uint32_t rest)
{
    if (rest > 0) {
        lane[0] += a[0] * b[0];
    }
    if (rest > 1) {
        lane[1] += a[1] * b[1];
    }
    if (rest > 2) {
        lane[2] += a[2] * b[2];
    }
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

/* sum of a[i] * b[i]: lane i % 4 takes element i, then (lane 0 + lane 1) + (lane 2 + lane 3) */
MT_INLINE float mt_dot(const float *MT_RESTRICT a, const float *MT_RESTRICT b, uint32_t size)
{
    float lane[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t i = 0;
    if (size >= 4) {
        /* no addition to zero, which a compiler must keep for the sake of -0; written out for those that unroll late */
        lane[0] = a[0] * b[0];
        lane[1] = a[1] * b[1];
        lane[2] = a[2] * b[2];
        lane[3] = a[3] * b[3];
        i = 4;
    }
    for (; i + 4 <= size; i += 4) {
        mt_lanes_add(lane, a + i, b + i);
    }
    return mt_lanes_end(lane, a + i, b + i, size - i);
}

/* sum of a[i] * w[i] in the lanes of mt_dot, for int8 weights */
static inline float mt_dot_int8(const float *MT_RESTRICT a, const int8_t *MT_RESTRICT w, uint32_t size)
{
    float lane[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t i = 0;
    for (; i + 4 <= size; i += 4) {
        lane[0] += a[i] * (float)w[i];
        lane[1] += a[i + 1] * (float)w[i + 1];
        lane[2] += a[i + 2] * (float)w[i + 2];
        lane[3] += a[i + 3] * (float)w[i + 3];
    }
    for (uint32_t j = 0; i + j < size; ++j) {
        lane[j] += a[i + j] * (float)w[i + j];
    }
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

/* y += a * x, element by element */
static inline void mt_add_scaled(float *MT_RESTRICT y, float a, const float *MT_RESTRICT x, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] += a * x[i];
    }
}

static inline void mt_add_scaled_int8(float *MT_RESTRICT y, float a, const int8_t *MT_RESTRICT w, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] += a * (float)w[i];
    }
}

#endif
