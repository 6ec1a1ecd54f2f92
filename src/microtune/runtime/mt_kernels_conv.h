/*
 * mt_kernels_conv.h: two-dimensional convolution, channels last.
 *
 * x (height, width, channels), y (out_height, out_width, outputs), weight (outputs, rows, columns, channels). A row of
 * a kernel lies beside its row of the input, so all inner loops run over columns and channels at once. Of
 * an int8 weight, `scale` (outputs) times it is meant.
 */
#ifndef MT_KERNELS_CONV_H
#define MT_KERNELS_CONV_H

#include "mt_kernels.h"

/* The sizes of a convolution, which generated code passes as constants, in this order. The padding before (top, left)
 * and behind is smaller than the kernel. */
#define MT_CONV_SIZES \
    uint32_t height, uint32_t width, uint32_t out_height, uint32_t out_width, uint32_t rows, uint32_t columns, \
        uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs
#define MT_CONV_PASSED \
    height, width, out_height, out_width, rows, columns, stride_y, stride_x, top, left, channels, outputs

/* kernel places first .. end that lie inside an input of `size`, for an output whose window starts at start - before */
typedef struct mt_window {
    uint32_t first, end;
} mt_window;

static inline mt_window mt_window_of(uint32_t start, uint32_t before, uint32_t size, uint32_t taps)
{
    mt_window inside;
    inside.first = before > start ? before - start : 0u;
    inside.end = size + before > start ? size + before - start : 0u;
    inside.end = inside.end < taps ? inside.end : taps;
    inside.first = inside.first < inside.end ? inside.first : inside.end;
    return inside;
}

/// Forward ///

/* Sums of up to four outputs beside each other: an input is read once for four weights, and the sums wait for each
 * other less. As in mt_dot each has four lanes, which run on through all rows of the window. */
#define MT_CONV_SIDE 4u

/* lane[o][i % 4] += x[i] * w[o * apart + i], o < count. Inlined with a constant count, the lanes live in registers. */
static inline void mt_conv2d_row(float lane[MT_CONV_SIDE][4], const float *MT_RESTRICT x, const float *MT_RESTRICT w,
                                 uint32_t apart, uint32_t count, uint32_t size)
{
    uint32_t i = 0;
    for (; i + 4 <= size; i += 4) {
        MT_UNROLL
        for (uint32_t o = 0; o < count; ++o) {
            const float *const row = w + o * apart + i;
            lane[o][0] += x[i] * row[0];
            lane[o][1] += x[i + 1] * row[1];
            lane[o][2] += x[i + 2] * row[2];
            lane[o][3] += x[i + 3] * row[3];
        }
    }
    MT_UNROLL
    for (uint32_t o = 0; o < count; ++o) {
        const float *const row = w + o * apart;
        if (i < size) {
            lane[o][0] += x[i] * row[i];
        }
        if (i + 1 < size) {
            lane[o][1] += x[i + 1] * row[i + 1];
        }
        if (i + 2 < size) {
            lane[o][2] += x[i + 2] * row[i + 2];
        }
    }
}

static inline void mt_conv2d_row_int8(float lane[MT_CONV_SIDE][4], const float *MT_RESTRICT x,
                                      const int8_t *MT_RESTRICT w, uint32_t apart, uint32_t count, uint32_t size)
{
    uint32_t i = 0;
    for (; i + 4 <= size; i += 4) {
        MT_UNROLL
        for (uint32_t o = 0; o < count; ++o) {
            const int8_t *const row = w + o * apart + i;
            lane[o][0] += x[i] * (float)row[0];
            lane[o][1] += x[i + 1] * (float)row[1];
            lane[o][2] += x[i + 2] * (float)row[2];
            lane[o][3] += x[i + 3] * (float)row[3];
        }
    }
    MT_UNROLL
    for (uint32_t o = 0; o < count; ++o) {
        const int8_t *const row = w + o * apart;
        if (i < size) {
            lane[o][0] += x[i] * (float)row[i];
        }
        if (i + 1 < size) {
            lane[o][1] += x[i + 1] * (float)row[i + 1];
        }
        if (i + 2 < size) {
            lane[o][2] += x[i + 2] * (float)row[i + 2];
        }
    }
}

/* what one window x and the weights of `count` outputs have in common; the weight is `weight8` where that is given */
static inline void mt_conv2d_window(float *MT_RESTRICT y, const float *MT_RESTRICT x, const float *MT_RESTRICT weight,
                                    const int8_t *MT_RESTRICT weight8, mt_window down, uint32_t wide, uint32_t line,
                                    uint32_t tall, uint32_t apart, uint32_t count)
{
    float lane[MT_CONV_SIDE][4] = {{0.0f}};
    for (uint32_t row = down.first; row < down.end; ++row) {
        if (weight8 != NULL) {
            mt_conv2d_row_int8(lane, x, weight8 + row * tall, apart, count, wide);
        } else {
            mt_conv2d_row(lane, x, weight + row * tall, apart, count, wide);
        }
        x += line;
    }
    MT_UNROLL
    for (uint32_t o = 0; o < count; ++o) {
        y[o] = (lane[o][0] + lane[o][1]) + (lane[o][2] + lane[o][3]);
    }
}

/* all outputs (outputs) of all windows, without scale and bias */
static inline void mt_conv2d_sums(const float *MT_RESTRICT x, const float *MT_RESTRICT weight,
                                  const int8_t *MT_RESTRICT weight8, float *MT_RESTRICT y, MT_CONV_SIZES)
{
    const uint32_t tall = columns * channels, apart = rows * tall, line = width * channels;
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t at = (oy * stride_y + down.first - top) * width + ox * stride_x + across.first - left;
            const uint32_t skip = across.first * channels, wide = (across.end - across.first) * channels;
            const float *const from = x + at * channels;
            float *const to = y + (oy * out_width + ox) * outputs;
            uint32_t o = 0;
            for (; o + MT_CONV_SIDE <= outputs; o += MT_CONV_SIDE) {
                mt_conv2d_window(to + o, from, weight8 != NULL ? NULL : weight + o * apart + skip,
                                 weight8 != NULL ? weight8 + o * apart + skip : NULL, down, wide, line, tall, apart,
                                 MT_CONV_SIDE);
            }
            for (; o < outputs; ++o) {
                mt_conv2d_window(to + o, from, weight8 != NULL ? NULL : weight + o * apart + skip,
                                 weight8 != NULL ? weight8 + o * apart + skip : NULL, down, wide, line, tall, apart,
                                 1u);
            }
        }
    }
}

/* without a bias */
static inline void mt_conv2d_linear(const float *MT_RESTRICT x, const float *MT_RESTRICT weight, float *MT_RESTRICT y,
                                    MT_CONV_SIZES)
{
    mt_conv2d_sums(x, weight, NULL, y, MT_CONV_PASSED);
}

static inline void mt_conv2d(const float *MT_RESTRICT x, const float *MT_RESTRICT weight, const float *MT_RESTRICT bias,
                             float *MT_RESTRICT y, MT_CONV_SIZES)
{
    mt_conv2d_sums(x, weight, NULL, y, MT_CONV_PASSED);
    for (uint32_t i = 0; i < out_height * out_width; ++i) {
        mt_add_scaled(y + i * outputs, 1.0f, bias, outputs);
    }
}

/* y = scale * (weight x) + bias */
static inline void mt_conv2d_weight8(const float *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                     const float *MT_RESTRICT scale, const float *MT_RESTRICT bias,
                                     float *MT_RESTRICT y, MT_CONV_SIZES)
{
    mt_conv2d_sums(x, NULL, weight, y, MT_CONV_PASSED);
    for (uint32_t i = 0; i < out_height * out_width; ++i) {
        for (uint32_t o = 0; o < outputs; ++o) {
            y[i * outputs + o] = scale[o] * y[i * outputs + o] + bias[o];
        }
    }
}

/// Gradients ///

/* dx (height, width, channels) = what dy (out_height, out_width, outputs) gives back through the weight */
static inline void mt_conv2d_grad_input(const float *MT_RESTRICT dy, const float *MT_RESTRICT weight,
                                        float *MT_RESTRICT dx, MT_CONV_SIZES)
{
    MT_ZERO(dx, (size_t)height * width * channels * sizeof *dx);
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t count = (across.end - across.first) * channels;
            const float *const from = dy + (oy * out_width + ox) * outputs;
            for (uint32_t row = down.first; row < down.end; ++row) {
                const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + across.first - left;
                for (uint32_t o = 0; o < outputs; ++o) {
                    mt_add_scaled(dx + at * channels, from[o],
                                  weight + ((o * rows + row) * columns + across.first) * channels, count);
                }
            }
        }
    }
}

static inline void mt_conv2d_weight8_grad_input(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight,
                                                const float *MT_RESTRICT scale, float *MT_RESTRICT dx, MT_CONV_SIZES)
{
    MT_ZERO(dx, (size_t)height * width * channels * sizeof *dx);
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t count = (across.end - across.first) * channels;
            const float *const from = dy + (oy * out_width + ox) * outputs;
            for (uint32_t row = down.first; row < down.end; ++row) {
                const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + across.first - left;
                for (uint32_t o = 0; o < outputs; ++o) {
                    mt_add_scaled_int8(dx + at * channels, scale[o] * from[o],
                                       weight + ((o * rows + row) * columns + across.first) * channels, count);
                }
            }
        }
    }
}

/* gradient of the weight's row (o, row): `sums` (columns, channels) */
static inline void mt_conv2d_weight_row(const float *MT_RESTRICT dy, const float *MT_RESTRICT x, float *MT_RESTRICT sums,
                                        uint32_t o, uint32_t row, MT_CONV_SIZES)
{
    MT_ZERO(sums, (size_t)columns * channels * sizeof *sums);
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        if (row < down.first || row >= down.end) {
            continue;
        }
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + across.first - left;
            mt_add_scaled(sums + across.first * channels, dy[(oy * out_width + ox) * outputs + o],
                          x + at * channels, (across.end - across.first) * channels);
        }
    }
}

static inline void mt_conv2d_grad_weight(const float *MT_RESTRICT dy, const float *MT_RESTRICT x, float *MT_RESTRICT dw,
                                         MT_CONV_SIZES)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t row = 0; row < rows; ++row) {
            mt_conv2d_weight_row(dy, x, dw + (o * rows + row) * columns * channels, o, row, MT_CONV_PASSED);
        }
    }
}

/* sums (channels) over all of x (count, channels): the gradient of a bias */
static inline void mt_channel_sum(const float *MT_RESTRICT x, float *MT_RESTRICT sums, uint32_t count, uint32_t channels)
{
    MT_ZERO(sums, channels * sizeof *sums);
    for (uint32_t i = 0; i < count; ++i) {
        mt_add_scaled(sums, 1.0f, x + i * channels, channels);
    }
}

#endif
