/*
 * mt_kernels_int8_depthwise.h: int8 depthwise convolution, also over its own input.
 *
 * x (height, width, channels), weight (rows, columns, outputs); bias, multiplier, shift (outputs). Output channel
 * c * m + j reads input channel c, with m = outputs / channels. A block of channels is summed side by side.
 */
#ifndef MT_KERNELS_INT8_DEPTHWISE_H
#define MT_KERNELS_INT8_DEPTHWISE_H

#include "mt_kernels_int8.h"
#include "mt_kernels_int8_pairs.h"

/* sums += (x - x_zero) w for `count` channels beside each other */
static inline void mt_int8_tap(int32_t *MT_RESTRICT sums, const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT w,
    int32_t x_zero, uint32_t count)
{
    const mt_int8_shifted zero = (mt_int8_shifted)x_zero;
    uint32_t i = 0;
#if defined(MT_INT8_PAIRS)
    const int16x2_t minus_zero = mt_int8_minus(x_zero);
    MT_NOT_UNROLLED
    for (; i + 4 <= count; i += 4) {
        const mt_pairs from = mt_int8_moved_pairs(mt_int8_four(x + i), minus_zero);
        const mt_pairs weights = mt_int8_pairs_of(mt_int8_four(w + i));
        sums[i] = __smlabb(from.even, weights.even, sums[i]);
        sums[i + 1] = __smlabb(from.odd, weights.odd, sums[i + 1]);
        sums[i + 2] = __smlatt(from.even, weights.even, sums[i + 2]);
        sums[i + 3] = __smlatt(from.odd, weights.odd, sums[i + 3]);
    }
#else
    if (count == MT_INT8_BLOCK) {
        for (; i < MT_INT8_BLOCK; ++i) {
            sums[i] += (mt_int8_shifted)(x[i] - zero) * w[i];
        }
    }
#endif
    for (; i < count; ++i) {
        sums[i] += (mt_int8_shifted)(x[i] - zero) * w[i];
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
                const int32_t sum = mt_saturating_sum(sums[i], bias[first + i]);
                to[i] = mt_int8_output(sum, multiplier[first + i], shift[first + i], y_zero, low, high);
            }
        }
    }
}

#if defined(MT_INT8_PAIRS)
/* the longest side of a window that is taken four channels at a time: 392 bytes of stack */
#define MT_INT8_SIDE 7u

/* a line of the image: its pixels are `pitch` apart */
typedef struct {
    const int8_t *from;
    uint32_t pitch;
} mt_int8_line;

/* sums += (x - x_zero) w of four channels */
static inline void mt_int8_tap4(int32_t *sums, const int8_t *x, const mt_int8_lane *weights, int16x2_t minus_zero)
{
    const mt_pairs w = mt_int8_read_lane(weights), from = mt_int8_moved_pairs(mt_int8_four(x), minus_zero);
    sums[0] = __smlabb(from.even, w.even, sums[0]);
    sums[1] = __smlabb(from.odd, w.odd, sums[1]);
    sums[2] = __smlatt(from.even, w.even, sums[2]);
    sums[3] = __smlatt(from.odd, w.odd, sums[3]);
}

/* the same for three pixels beside each other */
static inline void mt_int8_tap3x4(
    int32_t *sums, const mt_int8_line *line, uint32_t at, const mt_int8_lane *weights, int16x2_t minus_zero)
{
    const uint32_t pitch = line->pitch;
    const int8_t *x = line->from + at * pitch;
    mt_int8_tap4(sums, x, weights, minus_zero);
    mt_int8_tap4(sums, x + pitch, weights + 1, minus_zero);
    mt_int8_tap4(sums, x + 2 * pitch, weights + 2, minus_zero);
}

/* Channels first .. first + 3, one input channel for each: their weights are widened once. `kept` as below, but for
 * four channels. */
static MT_APART void mt_int8_depthwise4(const mt_int8_convolution *layer, uint32_t first, int8_t *kept)
{
    const uint32_t channels = layer->channels, columns = layer->columns, width = layer->width, top = layer->top;
    const int16x2_t minus_zero = mt_int8_minus(layer->x_zero);
    mt_int8_lane weights[MT_INT8_SIDE * MT_INT8_SIDE];
    mt_int8_line lines[MT_INT8_SIDE];
    mt_int8_factor factors[4];
    int8_t *y = layer->y + first;
    const int8_t *w = layer->weight + first;
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < layer->rows * columns; ++i, w += channels) {
        weights[i] = mt_int8_lane_of(mt_int8_pairs_of(mt_int8_four(w)));
    }
    const int limited = layer->low > INT8_MIN || layer->high < INT8_MAX;
    int32_t least = 0;
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < 4; ++i) {
        factors[i] = mt_int8_factor_of(layer->multiplier[first + i], layer->shift[first + i]);
        least = factors[i].places < least ? factors[i].places : least;
    }
    for (uint32_t oy = 0; oy < layer->y_height; ++oy) {
        const mt_taps down = mt_taps_inside(oy * layer->stride_y, top, layer->height, layer->rows);
        const uint32_t count = down.end - down.first;
        if (kept != NULL) {
            int8_t *to = kept + oy % (top + 1) * width * 4;
            const int8_t *x = layer->x + (size_t)oy * width * channels + first;
            MT_NOT_UNROLLED
            for (uint32_t column = 0; column < width; ++column, to += 4, x += channels) {
                MT_COPY(to, x, 4);
            }
        }
        MT_NOT_UNROLLED
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t at = oy * layer->stride_y + down.first + i - top;
            const int own = kept != NULL && at <= oy;
            lines[i].from = own ? kept + at % (top + 1) * width * 4 : layer->x + (size_t)at * width * channels + first;
            lines[i].pitch = own ? 4 : channels;
        }
        /* places of a window of 3 x 3 that lies inside as a whole, as most do */
        const uint32_t places = count == 3 && columns == 3 && width >= 3 ? width - 2 : 0;
        uint32_t place = 0u - layer->left;
        MT_NOT_UNROLLED
        for (uint32_t ox = 0; ox < layer->y_width; ++ox, y += channels, place += layer->stride_x) {
            int32_t sums[4] = {0, 0, 0, 0};
            if (place < places) {
                mt_int8_tap3x4(sums, lines, place, weights, minus_zero);
                mt_int8_tap3x4(sums, lines + 1, place, weights + 3, minus_zero);
                mt_int8_tap3x4(sums, lines + 2, place, weights + 6, minus_zero);
            } else {
                const mt_taps across = mt_taps_inside(ox * layer->stride_x, layer->left, width, columns);
                const mt_int8_lane *row = weights + down.first * columns;
                MT_NOT_UNROLLED
                for (uint32_t i = 0; i < count; ++i, row += columns) {
                    const int8_t *from = lines[i].from + (place + across.first) * lines[i].pitch;
                    MT_NOT_UNROLLED
                    for (uint32_t j = across.first; j < across.end; ++j, from += lines[i].pitch) {
                        mt_int8_tap4(sums, from, row + j, minus_zero);
                    }
                }
            }
            const int32_t *const bias = layer->bias + first, y_zero = layer->y_zero;
            sums[0] = __qadd(sums[0], bias[0]);
            sums[1] = __qadd(sums[1], bias[1]);
            sums[2] = __qadd(sums[2], bias[2]);
            sums[3] = __qadd(sums[3], bias[3]);
            if (least >= 0) {
                y[0] = mt_int8_scaled(sums[0], factors[0], y_zero);
                y[1] = mt_int8_scaled(sums[1], factors[1], y_zero);
                y[2] = mt_int8_scaled(sums[2], factors[2], y_zero);
                y[3] = mt_int8_scaled(sums[3], factors[3], y_zero);
            } else {
                y[0] = mt_int8_scaled_any(sums[0], factors[0], y_zero);
                y[1] = mt_int8_scaled_any(sums[1], factors[1], y_zero);
                y[2] = mt_int8_scaled_any(sums[2], factors[2], y_zero);
                y[3] = mt_int8_scaled_any(sums[3], factors[3], y_zero);
            }
            if (limited) {
                mt_int8_limit(y, 4, layer->low, layer->high);
            }
        }
    }
}
#endif

/* y keeps the size of x and may be x; kept (top + 1, width, at most 16 channels) */
MT_INLINE void mt_depthwise_conv2d_int8_rows(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, int8_t *kept, uint32_t height, uint32_t width,
    uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x,
    uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low,
    int32_t high)
{
    uint32_t first = 0;
#if defined(MT_INT8_PAIRS)
    if (outputs == channels && rows <= MT_INT8_SIDE && columns <= MT_INT8_SIDE) {
        const mt_int8_convolution layer
            = mt_int8_convolution_of(x, weight, bias, multiplier, shift, y, height, width, y_height, y_width, rows,
                columns, stride_y, stride_x, top, left, channels, outputs, x_zero, y_zero, low, high);
        for (; first + 4 <= channels; first += 4) {
            mt_int8_depthwise4(&layer, first, x == y ? kept : NULL);
        }
    }
#endif
    for (; first < outputs; first += MT_INT8_BLOCK) {
        mt_depthwise_int8_block(x, weight, bias, multiplier, shift, y, kept, height, width, y_height, y_width, rows,
            columns, stride_y, stride_x, top, left, channels, outputs, first, mt_smaller(MT_INT8_BLOCK, outputs - first),
            x_zero, y_zero, low, high);
    }
}

/* y beside x */
MT_INLINE void mt_depthwise_conv2d_int8(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, uint32_t height, uint32_t width, uint32_t y_height,
    uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left,
    uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
    mt_depthwise_conv2d_int8_rows(x, weight, bias, multiplier, shift, y, NULL, height, width, y_height, y_width, rows,
        columns, stride_y, stride_x, top, left, channels, outputs, x_zero, y_zero, low, high);
}

/* y has another shape than x but as many bytes, and may be x, which is copied first */
MT_INLINE void mt_depthwise_conv2d_int8_copied(const int8_t *x, const int8_t *weight, const int32_t *bias,
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
