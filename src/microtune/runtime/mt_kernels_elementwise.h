/*
 * mt_kernels_elementwise.h: activations and element-wise arithmetic with their gradients.
 *
 * The result may take the memory of an input: element i is read before it is written. Gradients are given
 * the activation's output y, which is all they need, so that its input need not be kept.
 */
#ifndef MT_KERNELS_ELEMENTWISE_H
#define MT_KERNELS_ELEMENTWISE_H

#include "mt_kernels.h"
#include "mt_math.h"

/* by its sign bit: half the instructions of a comparison, and no call where there is no floating-point unit */
static inline void mt_relu(const float *x, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        const uint32_t bits = mt_float_bits(x[i]);
        y[i] = mt_float_of(bits & ((bits >> 31) - 1u));
    }
}

/* y is what mt_relu gave: above zero, or all bits zero */
static inline void mt_relu_grad(const float *dy, const float *y, float *dx, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = mt_float_bits(y[i]) != 0u ? dy[i] : 0.0f;
    }
}

static inline void mt_relu6(const float *x, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_clamp(x[i], 0.0f, 6.0f);
    }
}

static inline void mt_relu6_grad(const float *dy, const float *y, float *dx, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = (y[i] > 0.0f && y[i] < 6.0f) ? dy[i] : 0.0f;
    }
}

/* alpha > 0, so the sign of y is the sign of x */
static inline void mt_leaky_relu(const float *x, float *y, float alpha, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = x[i] > 0.0f ? x[i] : alpha * x[i];
    }
}

static inline void mt_leaky_relu_grad(const float *dy, const float *y, float *dx, float alpha, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = y[i] > 0.0f ? dy[i] : alpha * dy[i];
    }
}

static inline void mt_sigmoid_all(const float *x, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_sigmoid(x[i]);
    }
}

static inline void mt_sigmoid_grad(const float *dy, const float *y, float *dx, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = dy[i] * (y[i] * (1.0f - y[i]));
    }
}

static inline void mt_tanh_all(const float *x, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_tanh(x[i]);
    }
}

static inline void mt_tanh_grad(const float *dy, const float *y, float *dx, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = dy[i] * (1.0f - y[i] * y[i]);
    }
}

/* exp(x - max) / sum */
static inline void mt_softmax(const float *x, float *y, uint32_t size)
{
    float largest = x[0];
    for (uint32_t i = 1; i < size; ++i) {
        largest = x[i] > largest ? x[i] : largest;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_exp(x[i] - largest);
        sum += y[i];
    }
    for (uint32_t i = 0; i < size; ++i) {
        y[i] /= sum;
    }
}

/* dx = y * (dy - <dy, y>) */
static inline void mt_softmax_grad(const float *dy, const float *y, float *dx, uint32_t size)
{
    const float mean = mt_dot(dy, y, size);
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = y[i] * (dy[i] - mean);
    }
}

static inline void mt_add(const float *a, const float *b, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = a[i] + b[i];
    }
}

static inline void mt_multiply(const float *a, const float *b, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = a[i] * b[i];
    }
}

static inline void mt_scale(const float *x, float *y, float factor, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = factor * x[i];
    }
}

static inline void mt_copy(const float *x, float *y, uint32_t size)
{
    MT_COPY(y, x, (size_t)size * sizeof *y);
}

#endif
