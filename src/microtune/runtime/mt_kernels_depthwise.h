/*
 * mt_kernels_depthwise.h: depthwise convolution, channels last.
 *
 * x (height, width, channels), y (out_height, out_width, outputs), weight (rows, columns, outputs). Output channel
 * c * m + j reads input channel c, with m = outputs / channels. Inner loops run over channels. Of an int8 weight,
 * `scale` (outputs) times it is meant.
 */
#ifndef MT_KERNELS_DEPTHWISE_H
#define MT_KERNELS_DEPTHWISE_H

#include "mt_kernels_conv.h"

/* channels that a gradient is formed for side by side */
#define MT_DEPTHWISE_BLOCK 16u

/* sums += x w for all outputs of one kernel place */
static inline void mt_depthwise_tap(float *MT_RESTRICT sums, const float *MT_RESTRICT x, const float *MT_RESTRICT w,
                                    uint32_t channels, uint32_t outputs)
{
    if (channels == outputs) {
        for (uint32_t c = 0; c < channels; ++c) {
            sums[c] += x[c] * w[c];
        }
        return;
    }
    const uint32_t m = outputs / channels;
    for (uint32_t c = 0; c < channels; ++c) {
        for (uint32_t j = 0; j < m; ++j) {
            sums[c * m + j] += x[c] * w[c * m + j];
        }
    }
}

static inline void mt_depthwise_tap8(float *MT_RESTRICT sums, const float *MT_RESTRICT x, const int8_t *MT_RESTRICT w,
                                     uint32_t channels, uint32_t outputs)
{
    const uint32_t m = outputs / channels;
    for (uint32_t c = 0; c < channels; ++c) {
        for (uint32_t j = 0; j < m; ++j) {
            sums[c * m + j] += x[c] * (float)w[c * m + j];
        }
    }
}

/// Forward ///

/* bias (outputs) or NULL */
static inline void mt_depthwise_conv2d(const float *MT_RESTRICT x, const float *MT_RESTRICT weight,
                                       const float *MT_RESTRICT bias, float *MT_RESTRICT y, MT_CONV_SIZES)
{
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            float *const to = y + (oy * out_width + ox) * outputs;
            MT_ZERO(to, outputs * sizeof *to);
            for (uint32_t row = down.first; row < down.end; ++row) {
                for (uint32_t column = across.first; column < across.end; ++column) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                    mt_depthwise_tap(to, x + at * channels, weight + (row * columns + column) * outputs, channels, outputs);
                }
            }
            if (bias != NULL) {
                mt_add_scaled(to, 1.0f, bias, outputs);
            }
        }
    }
}

/* without a bias */
static inline void mt_depthwise_conv2d_linear(const float *MT_RESTRICT x, const float *MT_RESTRICT weight, float *MT_RESTRICT y,
                                 MT_CONV_SIZES)
{
    mt_depthwise_conv2d(x, weight, NULL, y, MT_CONV_PASSED);
}

/* y = scale * (weight x) + bias */
static inline void mt_depthwise_conv2d_weight8(const float *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                               const float *MT_RESTRICT scale, const float *MT_RESTRICT bias,
                                               float *MT_RESTRICT y, MT_CONV_SIZES)
{
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            float *const to = y + (oy * out_width + ox) * outputs;
            MT_ZERO(to, outputs * sizeof *to);
            for (uint32_t row = down.first; row < down.end; ++row) {
                for (uint32_t column = across.first; column < across.end; ++column) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                    mt_depthwise_tap8(to, x + at * channels, weight + (row * columns + column) * outputs, channels, outputs);
                }
            }
            for (uint32_t o = 0; o < outputs; ++o) {
                to[o] = scale[o] * to[o] + bias[o];
            }
        }
    }
}

/// Gradients ///

/*
 * dx (height, width, channels), one block of channels at a time: each element gathers what its outputs give back. Where
 * dx has the size of dy and stride is 1, dx may be dy: `kept` (rows - top, width, block) holds the rows of dy that are
 * written over but still read. `weight8` and `scale` stand for `weight` where that is NULL.
 */
static inline void mt_depthwise_gather(const float *dy, const float *weight, const int8_t *weight8, const float *scale,
                                       float *dx, float *kept, MT_CONV_SIZES)
{
    const uint32_t m = outputs / channels, behind = rows - top;
    float sums[MT_DEPTHWISE_BLOCK];
    for (uint32_t first = 0; first < channels; first += MT_DEPTHWISE_BLOCK) {
        const uint32_t count = channels - first < MT_DEPTHWISE_BLOCK ? channels - first : MT_DEPTHWISE_BLOCK;
        for (uint32_t y = 0; y < height; ++y) {
            if (kept != NULL) {
                float *const row = kept + (y % behind) * width * count;
                for (uint32_t x = 0; x < width; ++x) {
                    MT_COPY(row + x * count, dy + (y * width + x) * channels + first, count * sizeof *row);
                }
            }
            for (uint32_t x = 0; x < width; ++x) {
                MT_ZERO(sums, sizeof sums);
                for (uint32_t row = 0; row < rows; ++row) {
                    /* y = oy * stride_y + row - top */
                    const uint32_t down = y + top - row;
                    if (y + top < row || down % stride_y != 0 || down / stride_y >= out_height) {
                        continue;
                    }
                    const uint32_t oy = down / stride_y;
                    for (uint32_t column = 0; column < columns; ++column) {
                        const uint32_t across = x + left - column;
                        if (x + left < column || across % stride_x != 0 || across / stride_x >= out_width) {
                            continue;
                        }
                        const uint32_t ox = across / stride_x;
                        const float *const from = kept != NULL && oy <= y
                                                      ? kept + ((oy % behind) * width + ox) * count
                                                      : dy + (oy * out_width + ox) * outputs + first * m;
                        const uint32_t w = (row * columns + column) * outputs + first * m;
                        for (uint32_t c = 0; c < count; ++c) {
                            for (uint32_t j = 0; j < m; ++j) {
                                const uint32_t o = c * m + j;
                                sums[c] += from[o] * (weight != NULL ? weight[w + o]
                                                                     : scale[first * m + o] * (float)weight8[w + o]);
                            }
                        }
                    }
                }
                MT_COPY(dx + (y * width + x) * channels + first, sums, count * sizeof *sums);
            }
        }
    }
}

/* dx beside dy */
static inline void mt_depthwise_conv2d_grad_input(const float *dy, const float *weight, float *dx, MT_CONV_SIZES)
{
    mt_depthwise_gather(dy, weight, NULL, NULL, dx, NULL, MT_CONV_PASSED);
}

static inline void mt_depthwise_conv2d_weight8_grad_input(const float *dy, const int8_t *weight, const float *scale,
                                                          float *dx, MT_CONV_SIZES)
{
    mt_depthwise_gather(dy, NULL, weight, scale, dx, NULL, MT_CONV_PASSED);
}

/* dx may be dy: same size, stride 1; kept (rows - top, width, at most 16 channels) */
static inline void mt_depthwise_conv2d_grad_input_rows(const float *dy, const float *weight, float *dx, float *kept,
                                                       MT_CONV_SIZES)
{
    mt_depthwise_gather(dy, weight, NULL, NULL, dx, kept, MT_CONV_PASSED);
}

static inline void mt_depthwise_conv2d_weight8_grad_input_rows(const float *dy, const int8_t *weight,
                                                               const float *scale, float *dx, float *kept,
                                                               MT_CONV_SIZES)
{
    mt_depthwise_gather(dy, NULL, weight, scale, dx, kept, MT_CONV_PASSED);
}

/* dx has another shape than dy but as many elements, and may be dy, which is copied first */
static inline void mt_depthwise_conv2d_grad_input_copied(const float *dy, const float *weight, float *dx, float *copy,
                                                         MT_CONV_SIZES)
{
    MT_COPY(copy, dy, (size_t)out_height * out_width * outputs * sizeof *copy);
    mt_depthwise_gather(copy, weight, NULL, NULL, dx, NULL, MT_CONV_PASSED);
}

static inline void mt_depthwise_conv2d_weight8_grad_input_copied(const float *dy, const int8_t *weight,
                                                                 const float *scale, float *dx, float *copy,
                                                                 MT_CONV_SIZES)
{
    MT_COPY(copy, dy, (size_t)out_height * out_width * outputs * sizeof *copy);
    mt_depthwise_gather(copy, NULL, weight, scale, dx, NULL, MT_CONV_PASSED);
}

/* gradient of the weights of one kernel place: `sums` (outputs) */
static inline void mt_depthwise_weight_row(const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                           float *MT_RESTRICT sums, uint32_t row, uint32_t column, MT_CONV_SIZES)
{
    const uint32_t m = outputs / channels;
    MT_ZERO(sums, outputs * sizeof *sums);
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            if (row < down.first || row >= down.end || column < across.first || column >= across.end) {
                continue;
            }
            const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
            const float *const from = x + at * channels, *const g = dy + (oy * out_width + ox) * outputs;
            for (uint32_t c = 0; c < channels; ++c) {
                for (uint32_t j = 0; j < m; ++j) {
                    sums[c * m + j] += g[c * m + j] * from[c];
                }
            }
        }
    }
}

static inline void mt_depthwise_conv2d_grad_weight(const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                                   float *MT_RESTRICT dw, MT_CONV_SIZES)
{
    for (uint32_t row = 0; row < rows; ++row) {
        for (uint32_t column = 0; column < columns; ++column) {
            mt_depthwise_weight_row(dy, x, dw + (row * columns + column) * outputs, row, column, MT_CONV_PASSED);
        }
    }
}

#endif
