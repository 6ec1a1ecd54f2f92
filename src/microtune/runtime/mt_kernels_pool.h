/*
 * mt_kernels_pool.h: pooling, channels last: x (height, width, channels), y (out_height, out_width, channels).
 *
 * The window slides as that of a convolution does; what lies outside the image is never a maximum.
 */
#ifndef MT_KERNELS_POOL_H
#define MT_KERNELS_POOL_H

#include "mt_kernels_conv.h"

#define MT_POOL_SIZES \
    uint32_t height, uint32_t width, uint32_t out_height, uint32_t out_width, uint32_t rows, uint32_t columns, \
        uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels

/* mean over the window; `whole` = 1: padding counts as zeros, 0: it does not count */
static inline void mt_average_pool2d(const float *MT_RESTRICT x, float *MT_RESTRICT y, MT_POOL_SIZES, uint32_t whole)
{
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t inside = (down.end - down.first) * (across.end - across.first);
            const float count = (float)(whole ? rows * columns : inside);
            float *const to = y + (oy * out_width + ox) * channels;
            MT_ZERO(to, channels * sizeof *to);
            for (uint32_t row = down.first; row < down.end; ++row) {
                for (uint32_t column = across.first; column < across.end; ++column) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                    mt_add_scaled(to, 1.0f, x + at * channels, channels);
                }
            }
            for (uint32_t c = 0; c < channels; ++c) {
                to[c] /= count;
            }
        }
    }
}

static inline void mt_average_pool2d_grad(const float *MT_RESTRICT dy, float *MT_RESTRICT dx, MT_POOL_SIZES,
                                          uint32_t whole)
{
    MT_ZERO(dx, (size_t)height * width * channels * sizeof *dx);
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t inside = (down.end - down.first) * (across.end - across.first);
            const float share = 1.0f / (float)(whole ? rows * columns : inside);
            for (uint32_t row = down.first; row < down.end; ++row) {
                for (uint32_t column = across.first; column < across.end; ++column) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                    mt_add_scaled(dx + at * channels, share, dy + (oy * out_width + ox) * channels, channels);
                }
            }
        }
    }
}

static inline void mt_max_pool2d(const float *MT_RESTRICT x, float *MT_RESTRICT y, MT_POOL_SIZES)
{
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            float *const to = y + (oy * out_width + ox) * channels;
            for (uint32_t row = down.first; row < down.end; ++row) {
                for (uint32_t column = across.first; column < across.end; ++column) {
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                    const float *const from = x + at * channels;
                    const int start = row == down.first && column == across.first;
                    for (uint32_t c = 0; c < channels; ++c) {
                        to[c] = start || from[c] > to[c] ? from[c] : to[c];
                    }
                }
            }
        }
    }
}

/* dy goes to the first element of each window that equals its maximum y */
static inline void mt_max_pool2d_grad(const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                      const float *MT_RESTRICT y, float *MT_RESTRICT dx, MT_POOL_SIZES)
{
    MT_ZERO(dx, (size_t)height * width * channels * sizeof *dx);
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        const mt_window down = mt_window_of(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            const mt_window across = mt_window_of(ox * stride_x, left, width, columns);
            const uint32_t out = (oy * out_width + ox) * channels, taps = (across.end - across.first);
            for (uint32_t c = 0; c < channels; ++c) {
                for (uint32_t i = 0; i < (down.end - down.first) * taps; ++i) {
                    const uint32_t row = down.first + i / taps, column = across.first + i % taps;
                    const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                    if (x[at * channels + c] == y[out + c]) {
                        dx[at * channels + c] += dy[out + c];
                        break;
                    }
                }
            }
        }
    }
}

/* mean over positions: x (count, channels) -> y (channels) */
static inline void mt_global_average(const float *MT_RESTRICT x, float *MT_RESTRICT y, uint32_t count,
                                     uint32_t channels)
{
    mt_channel_sum(x, y, count, channels);
    for (uint32_t c = 0; c < channels; ++c) {
        y[c] /= (float)count;
    }
}

static inline void mt_global_average_grad(const float *MT_RESTRICT dy, float *MT_RESTRICT dx, uint32_t count,
                                          uint32_t channels)
{
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t c = 0; c < channels; ++c) {
            dx[i * channels + c] = dy[c] / (float)count;
        }
    }
}

#endif
