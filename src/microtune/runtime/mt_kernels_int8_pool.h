/*
 * mt_kernels_int8_pool.h: int8 average, maximum and mean over positions.
 *
 * x (height, width, channels), y (y_height, y_width, channels); input and output of a window's pool share a scale.
 */
#ifndef MT_KERNELS_INT8_POOL_H
#define MT_KERNELS_INT8_POOL_H

#include "mt_kernels_int8.h"

/* sum / count, half away from zero */
static inline int32_t mt_rounded_mean(int32_t sum, int32_t count)
{
    return (sum >= 0 ? sum + count / 2 : sum - count / 2) / count;
}

/* sums[i] += x[i], a block of channels beside each other */
static inline void mt_int8_sum(int32_t *MT_RESTRICT sums, const int8_t *MT_RESTRICT x, uint32_t count)
{
    if (count == MT_INT8_BLOCK) {
        for (uint32_t i = 0; i < MT_INT8_BLOCK; ++i) {
            sums[i] += x[i];
        }
    } else {
        for (uint32_t i = 0; i < count; ++i) {
            sums[i] += x[i];
        }
    }
}

/* padding does not count */
static inline void mt_average_pool2d_int8(const int8_t *MT_RESTRICT x, int8_t *MT_RESTRICT y, uint32_t height,
    uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y,
    uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, int32_t low, int32_t high)
{
    for (uint32_t oy = 0; oy < y_height; ++oy) {
        const mt_taps down = mt_taps_inside(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < y_width; ++ox) {
            const mt_taps across = mt_taps_inside(ox * stride_x, left, width, columns);
            const uint32_t corner = (oy * stride_y + down.first - top) * width + ox * stride_x + across.first - left;
            const int32_t taps = (int32_t)((down.end - down.first) * (across.end - across.first));
            for (uint32_t first = 0; first < channels; first += MT_INT8_BLOCK) {
                const uint32_t count = mt_smaller(MT_INT8_BLOCK, channels - first);
                int32_t sums[MT_INT8_BLOCK] = {0};
                for (uint32_t row = 0; row < down.end - down.first; ++row) {
                    const int8_t *from = x + (size_t)(corner + row * width) * channels + first;
                    for (uint32_t column = across.first; column < across.end; ++column) {
                        mt_int8_sum(sums, from, count);
                        from += channels;
                    }
                }
                for (uint32_t i = 0; i < count; ++i) {
                    *y++ = (int8_t)mt_clamp_int32(mt_rounded_mean(sums[i], taps), low, high);
                }
            }
        }
    }
}

static inline void mt_max_pool2d_int8(const int8_t *MT_RESTRICT x, int8_t *MT_RESTRICT y, uint32_t height,
    uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y,
    uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, int32_t low, int32_t high)
{
    for (uint32_t oy = 0; oy < y_height; ++oy) {
        const mt_taps down = mt_taps_inside(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < y_width; ++ox) {
            const mt_taps across = mt_taps_inside(ox * stride_x, left, width, columns);
            const uint32_t corner = (oy * stride_y + down.first - top) * width + ox * stride_x + across.first - left;
            /* starting from `low` and clamping below it are the same */
            for (uint32_t i = 0; i < channels; ++i) {
                y[i] = (int8_t)low;
            }
            for (uint32_t row = 0; row < down.end - down.first; ++row) {
                const int8_t *from = x + (size_t)(corner + row * width) * channels;
                for (uint32_t column = across.first; column < across.end; ++column) {
                    for (uint32_t i = 0; i < channels; ++i) {
                        y[i] = from[i] > y[i] ? from[i] : y[i];
                    }
                    from += channels;
                }
            }
            for (uint32_t i = 0; i < channels; ++i) {
                y[i] = y[i] < high ? y[i] : (int8_t)high;
            }
            y += channels;
        }
    }
}

/* x (positions, channels), y (channels); 1 / positions is part of the multiplier */
static inline void mt_global_average_int8(const int8_t *MT_RESTRICT x, int8_t *MT_RESTRICT y, uint32_t positions,
    uint32_t channels, int32_t x_zero, int32_t y_zero, int32_t multiplier, int32_t shift, int32_t low, int32_t high)
{
    for (uint32_t first = 0; first < channels; first += MT_INT8_BLOCK) {
        const uint32_t count = mt_smaller(MT_INT8_BLOCK, channels - first);
        int32_t sums[MT_INT8_BLOCK] = {0};
        for (uint32_t position = 0; position < positions; ++position) {
            mt_int8_sum(sums, x + (size_t)position * channels + first, count);
        }
        for (uint32_t i = 0; i < count; ++i) {
            const int32_t sum = sums[i] - x_zero * (int32_t)positions;
            y[first + i] = mt_int8_output(sum, multiplier, shift, y_zero, low, high);
        }
    }
}

#endif
