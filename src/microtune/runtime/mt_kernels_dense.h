/* mt_kernels_dense.h: the fully connected layer, y = W x + b, with W stored (outputs, inputs). */
#ifndef MT_KERNELS_DENSE_H
#define MT_KERNELS_DENSE_H

#include "mt_kernels.h"

/* mt_dense of four rows, which reads x once for all; size >= 4 */
static inline void mt_dense_four(const float *MT_RESTRICT x, const float *MT_RESTRICT row,
                                 const float *MT_RESTRICT bias, float *MT_RESTRICT y, uint32_t size)
{
    const float *const second = row + size, *const third = second + size, *const fourth = third + size;
    float a[4] = {row[0] * x[0], row[1] * x[1], row[2] * x[2], row[3] * x[3]};
    float b[4] = {second[0] * x[0], second[1] * x[1], second[2] * x[2], second[3] * x[3]};
    float c[4] = {third[0] * x[0], third[1] * x[1], third[2] * x[2], third[3] * x[3]};
    float d[4] = {fourth[0] * x[0], fourth[1] * x[1], fourth[2] * x[2], fourth[3] * x[3]};
    const uint32_t whole = size - size % 4;
    for (uint32_t i = 4; i < whole; i += 4) {
        mt_lanes_add(a, row + i, x + i);
        mt_lanes_add(b, second + i, x + i);
        mt_lanes_add(c, third + i, x + i);
        mt_lanes_add(d, fourth + i, x + i);
    }
    const uint32_t rest = size % 4;
    y[0] = bias[0] + mt_lanes_end(a, row + whole, x + whole, rest);
    y[1] = bias[1] + mt_lanes_end(b, second + whole, x + whole, rest);
    y[2] = bias[2] + mt_lanes_end(c, third + whole, x + whole, rest);
    y[3] = bias[3] + mt_lanes_end(d, fourth + whole, x + whole, rest);
}

/* x (inputs), weight (outputs, inputs), bias (outputs) -> y (outputs) */
static inline void mt_dense(const float *MT_RESTRICT x, const float *MT_RESTRICT weight,
                            const float *MT_RESTRICT bias, float *MT_RESTRICT y,
                            uint32_t inputs, uint32_t outputs)
{
    uint32_t o = 0;
    if (MT_SCALAR_FLOATS && inputs >= 16) {
        const uint32_t whole = outputs - outputs % 4;
        MT_ONE_BY_ONE
        for (; o < whole; o += 4) {
            mt_dense_four(x, weight + o * inputs, bias + o, y + o, inputs);
        }
    }
    MT_ONE_BY_ONE
    for (; o < outputs; ++o) {
        y[o] = bias[o] + mt_dot(weight + o * inputs, x, inputs);
    }
}

/* the same without a bias, for low-rank adapters */
static inline void mt_linear(const float *MT_RESTRICT x, const float *MT_RESTRICT weight,
                             float *MT_RESTRICT y, uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        y[o] = mt_dot(weight + o * inputs, x, inputs);
    }
}

/* dL/dx = W' dL/dy: dy (outputs), weight (outputs, inputs) -> dx (inputs); four sums at a time stay in registers, each
 * from the first row to the last */
static inline void mt_dense_grad_input(const float *MT_RESTRICT dy, const float *MT_RESTRICT weight,
                                       float *MT_RESTRICT dx, uint32_t inputs, uint32_t outputs)
{
    const uint32_t whole = inputs - inputs % 4;
    for (uint32_t i = 0; i < whole; i += 4) {
        const float *row = weight + i;
        float sum[4] = {dy[0] * row[0], dy[0] * row[1], dy[0] * row[2], dy[0] * row[3]};
        for (uint32_t o = 1; o < outputs; ++o) {
            row += inputs;
            sum[0] += dy[o] * row[0];
            sum[1] += dy[o] * row[1];
            sum[2] += dy[o] * row[2];
            sum[3] += dy[o] * row[3];
        }
        dx[i] = sum[0];
        dx[i + 1] = sum[1];
        dx[i + 2] = sum[2];
        dx[i + 3] = sum[3];
    }
    for (uint32_t i = whole; i < inputs; ++i) {
        float sum = dy[0] * weight[i];
        for (uint32_t o = 1; o < outputs; ++o) {
            sum += dy[o] * weight[o * inputs + i];
        }
        dx[i] = sum;
    }
}

/* dL/dW = dL/dy x': dy (outputs), x (inputs) -> dw (outputs, inputs) */
static inline void mt_dense_grad_weight(const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                        float *MT_RESTRICT dw, uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t i = 0; i < inputs; ++i) {
            dw[o * inputs + i] = dy[o] * x[i];
        }
    }
}

/// Frozen int8 weights: scale (outputs) times them is meant ///

static inline void mt_dense_weight8(const float *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                    const float *MT_RESTRICT scale, const float *MT_RESTRICT bias,
                                    float *MT_RESTRICT y, uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        y[o] = scale[o] * mt_dot_int8(x, weight + o * inputs, inputs) + bias[o];
    }
}

static inline void mt_dense_weight8_grad_input(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight,
                                               const float *MT_RESTRICT scale, float *MT_RESTRICT dx, uint32_t inputs,
                                               uint32_t outputs)
{
    MT_ZERO(dx, inputs * sizeof *dx);
    for (uint32_t o = 0; o < outputs; ++o) {
        mt_add_scaled_int8(dx, scale[o] * dy[o], weight + o * inputs, inputs);
    }
}

#endif
