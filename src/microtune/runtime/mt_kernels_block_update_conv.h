/*
 * mt_kernels_block_update_conv.h: SGD and momentum on the int8 weights of convolutions, from gradients as blocks
 * (mt_kernels_block_move.h). Weights whose sum over all positions is zero are skipped without momentum.
 */
#ifndef MT_KERNELS_BLOCK_UPDATE_CONV_H
#define MT_KERNELS_BLOCK_UPDATE_CONV_H

#include "mt_kernels_block_move.h"

/// Convolution ///

/* w (outputs, rows, columns, taken) meets the input channels start .. start + taken of x (height, width, channels).
 * `down`: digits that the gradient loses, so that a sum over all positions stays within 2^30 */
static inline void mt_conv2d_block_step(int8_t *MT_RESTRICT w, int8_t *MT_RESTRICT rest,
                                        mt_int16 *MT_RESTRICT velocity, const mt_int16 *MT_RESTRICT dy,
                                        const int8_t *MT_RESTRICT x, const mt_int16 *MT_RESTRICT factors,
                                        uint32_t noise, uint32_t salt, int32_t momentum, int32_t x_zero,
                                        uint32_t height, uint32_t width, uint32_t out_height, uint32_t out_width,
                                        uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
                                        uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs,
                                        uint32_t start, uint32_t taken, uint32_t down)
{
    if (dy[0] == MT_BLOCK_ZERO && velocity == NULL) {
        return;
    }
    const mt_block_scaling scaling = mt_block_scaling_of(dy[0] + factors[0] + (int32_t)down + 15 + MT_MOVE_PLACES, 0);
    /* rounded down, all positions would err to the same side */
    const int32_t half = (int32_t)((1u << down) >> 1);
    uint32_t seed = mt_dither_begin(noise, salt);
    for (uint32_t o = 0; o < outputs; ++o) {
        const int32_t factor = factors[MT_BLOCK_HEAD + o];
        const mt_block_dither dither = mt_block_dither_of(seed);
        /* the taps one by one, so that nothing is divided: row by row, `across` in the row */
        uint32_t row = 0, across = 0;
        for (uint32_t tap = 0; tap < rows * columns; ++tap) {
            for (uint32_t c = 0; c < taken; c += MT_BLOCK_COLUMNS) {
                const uint32_t count = mt_smaller(taken - c, MT_BLOCK_COLUMNS);
                const mt_int16 *from_dy = dy + MT_BLOCK_HEAD + o;
                int32_t sums[MT_BLOCK_COLUMNS] = {0};
                for (uint32_t oy = 0; oy < out_height; ++oy) {
                    /* outside the image the difference wraps around, or is beyond its size */
                    const uint32_t y = oy * stride_y + row - top;
                    for (uint32_t ox = 0; ox < out_width; ++ox) {
                        const int32_t g = (*from_dy + half) >> down;
                        const uint32_t column = ox * stride_x + across - left;
                        from_dy += outputs;
                        if (g == 0 || y >= height || column >= width) {
                            continue;
                        }
                        const int8_t *from = x + (size_t)(y * width + column) * channels + start + c;
                        for (uint32_t b = 0; b < count; ++b) {
                            sums[b] += g * (from[b] - x_zero);
                        }
                    }
                }
                for (uint32_t b = 0; b < count; ++b) {
                    if (sums[b] != 0 || velocity != NULL) {
                        const int32_t units = mt_block_units(mt_block_product(sums[b], factor), &scaling);
                        mt_block_step(w + b, rest + b, velocity, units, momentum, &dither);
                    }
                    velocity = velocity != NULL ? velocity + 1 : velocity;
                }
                w += count;
                rest += count;
            }
            across = across + 1 < columns ? across + 1 : 0;
            row += across == 0;
        }
        seed += MT_GOLDEN;
    }
}

static inline void mt_sgd_block_conv2d(int8_t *w, int8_t *rest, const mt_int16 *dy, const int8_t *x,
                                       const mt_int16 *factors, uint32_t noise, uint32_t salt, int32_t x_zero,
                                       uint32_t height, uint32_t width, uint32_t out_height, uint32_t out_width,
                                       uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
                                       uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs,
                                       uint32_t start, uint32_t taken, uint32_t down)
{
    mt_conv2d_block_step(w, rest, NULL, dy, x, factors, noise, salt, 0, x_zero, height, width, out_height, out_width,
                         rows, columns, stride_y, stride_x, top, left, channels, outputs, start, taken, down);
}

static inline void mt_momentum_block_conv2d(int8_t *w, int8_t *rest, mt_int16 *velocity, const mt_int16 *dy,
                                            const int8_t *x, const mt_int16 *factors, uint32_t noise, uint32_t salt,
                                            int32_t momentum, int32_t x_zero, uint32_t height, uint32_t width,
                                            uint32_t out_height, uint32_t out_width, uint32_t rows, uint32_t columns,
                                            uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left,
                                            uint32_t channels, uint32_t outputs, uint32_t start, uint32_t taken,
                                            uint32_t down)
{
    mt_conv2d_block_step(w, rest, velocity, dy, x, factors, noise, salt, momentum, x_zero, height, width, out_height,
                         out_width, rows, columns, stride_y, stride_x, top, left, channels, outputs, start, taken,
                         down);
}

/* w (rows, columns, outputs), outputs a multiple of channels */
static inline void mt_depthwise_block_step(int8_t *MT_RESTRICT w, int8_t *MT_RESTRICT rest,
                                           mt_int16 *MT_RESTRICT velocity, const mt_int16 *MT_RESTRICT dy,
                                           const int8_t *MT_RESTRICT x, const mt_int16 *MT_RESTRICT factors,
                                           uint32_t noise, uint32_t salt, int32_t momentum, int32_t x_zero,
                                           uint32_t height, uint32_t width, uint32_t out_height, uint32_t out_width,
                                           uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
                                           uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs,
                                           uint32_t down)
{
    if (dy[0] == MT_BLOCK_ZERO && velocity == NULL) {
        return;
    }
    const uint32_t each = outputs / channels;
    const mt_block_scaling scaling = mt_block_scaling_of(dy[0] + factors[0] + (int32_t)down + 15 + MT_MOVE_PLACES, 0);
    /* rounded down, all positions would err to the same side */
    const int32_t half = (int32_t)((1u << down) >> 1);
    uint32_t seed = mt_dither_begin(noise, salt);
    uint32_t row = 0, across = 0;
    for (uint32_t tap = 0; tap < rows * columns; ++tap) {
        for (uint32_t c = 0; c < outputs; c += MT_BLOCK_COLUMNS) {
            const uint32_t count = mt_smaller(outputs - c, MT_BLOCK_COLUMNS);
            int32_t sums[MT_BLOCK_COLUMNS] = {0};
            for (uint32_t oy = 0; oy < out_height; ++oy) {
                const uint32_t y = oy * stride_y + row - top;
                for (uint32_t ox = 0; y < height && ox < out_width; ++ox) {
                    const uint32_t column = ox * stride_x + across - left;
                    if (column >= width) {
                        continue;
                    }
                    const mt_int16 *g = dy + MT_BLOCK_HEAD + (oy * out_width + ox) * outputs + c;
                    const int8_t *from = x + (size_t)(y * width + column) * channels;
                    for (uint32_t b = 0; b < count; ++b) {
                        sums[b] += ((g[b] + half) >> down) * (from[each == 1u ? c + b : (c + b) / each] - x_zero);
                    }
                }
            }
            for (uint32_t b = 0; b < count; ++b) {
                if (sums[b] != 0 || velocity != NULL) {
                    const int32_t product = mt_block_product(sums[b], factors[MT_BLOCK_HEAD + c + b]);
                    const mt_block_dither dither = mt_block_dither_of(seed);
                    mt_block_step(w + b, rest + b, velocity, mt_block_units(product, &scaling), momentum, &dither);
                }
                velocity = velocity != NULL ? velocity + 1 : velocity;
                seed += MT_GOLDEN;
            }
            w += count;
            rest += count;
        }
        across = across + 1 < columns ? across + 1 : 0;
        row += across == 0;
    }
}

static inline void mt_sgd_block_depthwise_conv2d(int8_t *w, int8_t *rest, const mt_int16 *dy, const int8_t *x,
                                                 const mt_int16 *factors, uint32_t noise, uint32_t salt, int32_t x_zero,
                                                 uint32_t height, uint32_t width, uint32_t out_height,
                                                 uint32_t out_width, uint32_t rows, uint32_t columns,
                                                 uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left,
                                                 uint32_t channels, uint32_t outputs, uint32_t down)
{
    mt_depthwise_block_step(w, rest, NULL, dy, x, factors, noise, salt, 0, x_zero, height, width, out_height,
                            out_width, rows, columns, stride_y, stride_x, top, left, channels, outputs, down);
}

static inline void mt_momentum_block_depthwise_conv2d(int8_t *w, int8_t *rest, mt_int16 *velocity, const mt_int16 *dy,
                                                      const int8_t *x, const mt_int16 *factors, uint32_t noise,
                                                      uint32_t salt, int32_t momentum, int32_t x_zero, uint32_t height,
                                                      uint32_t width, uint32_t out_height, uint32_t out_width,
                                                      uint32_t rows, uint32_t columns, uint32_t stride_y,
                                                      uint32_t stride_x, uint32_t top, uint32_t left,
                                                      uint32_t channels, uint32_t outputs, uint32_t down)
{
    mt_depthwise_block_step(w, rest, velocity, dy, x, factors, noise, salt, momentum, x_zero, height, width,
                            out_height, out_width, rows, columns, stride_y, stride_x, top, left, channels, outputs,
                            down);
}

#endif
