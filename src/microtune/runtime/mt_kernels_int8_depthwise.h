/*
 * mt_kernels_int8_depthwise.h: int8 depthwise convolution, also over its own input.
 *
 * x (height, width, channels), weight (rows, columns, outputs); bias, multiplier, shift (outputs). Output channel
 * c * m + j reads input channel c, with m = outputs / channels. A block of channels is summed side by side.
 */
#ifndef MT_KERNELS_INT8_DEPTHWISE_H
#define MT_KERNELS_INT8_DEPTHWISE_H

#include "mt_kernels_int8.h"

/* sums += (x - x_zero) w for `count` channels beside each other */
static inline void mt_int8_tap(int32_t *MT_RESTRICT sums, const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT w,
    int32_t x_zero, uint32_t count)
{
    const int16_t zero = (int16_t)x_zero;
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    MT_NOT_UNROLLED
    for (; i + 4 <= count; i += 4) {
        const mt_pairs from = mt_int8_shifted_pairs(x + i, zero);
        const mt_pairs weights = mt_int8_pairs(w + i);
        sums[i] = __smlabb(from.even, weights.even, sums[i]);
        sums[i + 1] = __smlabb(from.odd, weights.odd, sums[i + 1]);
        sums[i + 2] = __smlatt(from.even, weights.even, sums[i + 2]);
        sums[i + 3] = __smlatt(from.odd, weights.odd, sums[i + 3]);
    }
#else
    if (count == MT_INT8_BLOCK) {
        for (; i < MT_INT8_BLOCK; ++i) {
            sums[i] += (int16_t)(x[i] - zero) * w[i];
        }
    }
#endif
    for (; i < count; ++i) {
        sums[i] += (int16_t)(x[i] - zero) * w[i];
    }
}

/* the `count` elements that outputs first .. first + count read, each input channel m times */
static inline void mt_int8_repeat(
    const int8_t *x, int8_t *MT_RESTRICT repeated, uint32_t first, uint32_t count, uint32_t m)
{
    uint32_t channel = first / m;
    uint32_t copy = first % m;
    for (uint32_t i = 0; i < count; ++i) {
        repeated[i] = x[channel];
        if (++copy == m) {
            copy = 0;
            ++channel;
        }
    }
}

/* One block of channels. Where `kept` is not NULL, y is or may be x (stride 1, same size): each row's channels are
 * kept before outputs are written over them, top + 1 rows (width, count) in turn. */
static inline void mt_depthwise_int8_block(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, int8_t *kept, uint32_t height, uint32_t width,
    uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
    uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, uint32_t first, uint32_t count, int32_t x_zero,
    int32_t y_zero, int32_t low, int32_t high)
{
    const uint32_t m = outputs / channels;
    int8_t repeated[MT_INT8_BLOCK];
    for (uint32_t oy = 0; oy < y_height; ++oy) {
        const mt_taps down = mt_taps_inside(oy * stride_y, top, height, rows);
        if (kept != NULL) {
            int8_t *const row = kept + (size_t)(oy % (top + 1)) * width * count;
            for (uint32_t column = 0; column < width; ++column) {
                MT_COPY(row + column * count, x + (size_t)(oy * width + column) * channels + first, count);
            }
        }
        for (uint32_t ox = 0; ox < y_width; ++ox) {
            const mt_taps across = mt_taps_inside(ox * stride_x, left, width, columns);
            int32_t sums[MT_INT8_BLOCK] = {0};
            for (uint32_t row = down.first; row < down.end; ++row) {
                const uint32_t at = oy * stride_y + row - top;
                const int own = kept != NULL && at <= oy;
                const uint32_t pitch = own ? count : channels;
                const int8_t *from = own ? kept + (size_t)(at % (top + 1)) * width * count
                                         : x + (size_t)at * width * channels + (m == 1 ? first : 0);
                from += (ox * stride_x + across.first - left) * pitch;
                const int8_t *w = weight + (size_t)(row * columns + across.first) * outputs + first;
                for (uint32_t column = across.first; column < across.end; ++column) {
                    if (m > 1) {
                        mt_int8_repeat(from, repeated, first, count, m);
                    }
                    mt_int8_tap(sums, m > 1 ? repeated : from, w, x_zero, count);
                    from += pitch;
                    w += outputs;
                }
            }
            int8_t *const to = y + (size_t)(oy * y_width + ox) * outputs + first;
            for (uint32_t i = 0; i < count; ++i) {
                const int32_t sum = mt_saturate_int32((int64_t)sums[i] + bias[first + i]);
                to[i] = mt_int8_output(sum, multiplier[first + i], shift[first + i], y_zero, low, high);
            }
        }
    }
}

/* y keeps the size of x and may be x; kept (top + 1, width, at most 16 channels) */
static inline void mt_depthwise_conv2d_int8_rows(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, int8_t *kept, uint32_t height, uint32_t width,
    uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
    uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low,
    int32_t high)
{
    for (uint32_t first = 0; first < outputs; first += MT_INT8_BLOCK) {
        mt_depthwise_int8_block(x, weight, bias, multiplier, shift, y, kept, height, width, y_height, y_width, rows,
            columns, stride_y, stride_x, top, left, channels, outputs, first, mt_smaller(MT_INT8_BLOCK, outputs - first),
            x_zero, y_zero, low, high);
    }
}

/* y beside x */
static inline void mt_depthwise_conv2d_int8(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, uint32_t height, uint32_t width, uint32_t y_height,
    uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left,
    uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
    mt_depthwise_conv2d_int8_rows(x, weight, bias, multiplier, shift, y, NULL, height, width, y_height, y_width, rows,
        columns, stride_y, stride_x, top, left, channels, outputs, x_zero, y_zero, low, high);
}

/* y has another shape than x but as many bytes, and may be x, which is copied first */
static inline void mt_depthwise_conv2d_int8_copied(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, int8_t *copy, uint32_t height, uint32_t width,
    uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
    uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low,
    int32_t high)
{
    MT_COPY(copy, x, (size_t)height * width * channels);
    mt_depthwise_conv2d_int8(copy, weight, bias, multiplier, shift, y, height, width, y_height, y_width, rows, columns,
        stride_y, stride_x, top, left, channels, outputs, x_zero, y_zero, low, high);
}

#endif
