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

/* bias (outputs) or NULL */
static inline void mt_conv2d(const float *MT_RESTRICT x, const float *MT_RESTRICT weight, const float *MT_RESTRICT bias,
                             float *MT_RESTRICT y, MT_CONV_SIZES)
{
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t count = (across.end - across.first) * channels;
            float *const to = y + (oy * out_width + ox) * outputs;
            MT_ONE_BY_ONE
            for (uint32_t o = 0; o < outputs; ++o) {
                float sum = 0.0f;
                for (uint32_t row = down.first; row < down.end; ++row) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + across.first - left;
                    sum += mt_dot(x + at * channels,
                                  weight + ((o * rows + row) * columns + across.first) * channels, count);
                }
                to[o] = bias != NULL ? sum + bias[o] : sum;
            }
        }
    }
}

/* without a bias */
static inline void mt_conv2d_linear(const float *MT_RESTRICT x, const float *MT_RESTRICT weight, float *MT_RESTRICT y,
                                 MT_CONV_SIZES)
{
    mt_conv2d(x, weight, NULL, y, MT_CONV_PASSED);
}

/* y = scale * (weight x) + bias */
static inline void mt_conv2d_weight8(const float *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                     const float *MT_RESTRICT scale, const float *MT_RESTRICT bias,
                                     float *MT_RESTRICT y, MT_CONV_SIZES)
{
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t count = (across.end - across.first) * channels;
            float *const to = y + (oy * out_width + ox) * outputs;
            MT_ONE_BY_ONE
            for (uint32_t o = 0; o < outputs; ++o) {
                float sum = 0.0f;
                for (uint32_t row = down.first; row < down.end; ++row) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + across.first - left;
                    sum += mt_dot_int8(x + at * channels,
                                       weight + ((o * rows + row) * columns + across.first) * channels, count);
                }
                to[o] = scale[o] * sum + bias[o];
            }
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
