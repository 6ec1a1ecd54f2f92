/*
 * mt_kernels_block_layers.h: from int8 to fixed-point outputs, and gradients back through int8 layers as blocks.
 *
 * Weights are those of mt_kernels_int8_layers.h, with a scale for each output channel, which is folded into the
 * gradient first: scale (2 + outputs) is a block of its own, and `fold` the places that the product of two mantissas
 * loses, as many as the sum that follows needs to stay within 2^30. An element of the gradient that is zero, as half of
 * them are behind a ReLU, costs nothing further.
 */
#ifndef MT_KERNELS_BLOCK_LAYERS_H
#define MT_KERNELS_BLOCK_LAYERS_H

#include "mt_fixed.h"
#include "mt_kernels_block.h"
#include "mt_kernels_int8_layers.h"

/// Outputs in fixed point ///

/* a dense layer that keeps its sums, in 16 binary places: finer than int8, and wider */
static inline void mt_dense_int8_logits(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                        const int32_t *MT_RESTRICT bias, const int32_t *MT_RESTRICT multiplier,
                                        const int8_t *MT_RESTRICT shift, mt_fixed *MT_RESTRICT y, uint32_t inputs,
                                        uint32_t outputs, int32_t x_zero)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        const int32_t sum = mt_int8_dot(x, weight + (size_t)o * inputs, x_zero, inputs);
        y[o] = mt_rescale_once(mt_fixed_add(sum, bias[o]), multiplier[o], shift[o]);
    }
}

/* the same, with learnt (outputs, count) in the place of the weights of inputs start .. start + count */
static inline void mt_dense_int8_learnt_logits(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                               const int32_t *MT_RESTRICT bias, const int32_t *MT_RESTRICT multiplier,
                                               const int8_t *MT_RESTRICT shift, const int8_t *MT_RESTRICT learnt,
                                               mt_fixed *MT_RESTRICT y, uint32_t inputs, uint32_t outputs,
                                               uint32_t start, uint32_t count, int32_t x_zero)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        const int32_t sum
            = mt_int8_dot_learnt(x, weight + (size_t)o * inputs, learnt + o * count, x_zero, inputs, start, count);
        y[o] = mt_rescale_once(mt_fixed_add(sum, bias[o]), multiplier[o], shift[o]);
    }
}

/* real values in 16 binary places: (x - zero) times a scale, as a multiplier and a shift */
static inline void mt_fixed_from_int8(const int8_t *MT_RESTRICT x, mt_fixed *MT_RESTRICT y, int32_t multiplier,
                                      int32_t shift, int32_t zero, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_rescale_once(x[i] - zero, multiplier, shift);
    }
}

/// Gradients to the input ///

/* an element of the gradient times its channel's scale */
static inline int32_t mt_block_folded(int16_t dy, int16_t scale, uint32_t fold)
{
    return (dy * scale + (1 << (fold - 1u))) >> fold;
}

/* Some channels of a row of weights, which learn, in memory of their own: `taken` from `start` on; NULL for none. */
typedef struct {
    const int8_t *weight;
    uint32_t start;
    uint32_t taken;
} mt_block_learnt;

/* a row's weight of one channel */
MT_INLINE int32_t mt_block_weight(const int8_t *row, const mt_block_learnt *learnt, uint32_t number, uint32_t channel)
{
    /* before the first the difference wraps around, and so is beyond the last too */
    const uint32_t place = channel - learnt->start;
    return learnt->weight != NULL && place < learnt->taken ? learnt->weight[(size_t)number * learnt->taken + place]
                                                           : row[channel];
}

/* dy (outputs), weight (outputs, inputs) -> dx (inputs); 0 where y (inputs), unless it is NULL, does not lie strictly
 * between low and high */
MT_INLINE void mt_dense_block_grad(const mt_int16 *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight,
                                   const mt_int16 *MT_RESTRICT scale, mt_block_learnt learnt,
                                   const int8_t *MT_RESTRICT y, mt_int16 *MT_RESTRICT dx, int32_t low, int32_t high,
                                   uint32_t inputs, uint32_t outputs, uint32_t fold)
{
    const uint32_t span = high > low ? (uint32_t)(high - low - 1) : 0u;
    const int32_t exponent = dy[0] + scale[0] + (int32_t)fold;
    if (dy[0] == MT_BLOCK_ZERO) {
        mt_block_clear(dx, inputs);
        return;
    }
    if (outputs == 1u) {
        /* the largest is known beforehand, give or take the weights: 15 digits and 7 */
        const int32_t g = mt_block_folded(dy[MT_BLOCK_HEAD], scale[MT_BLOCK_HEAD], fold);
        dx[0] = (int16_t)(exponent + 7);
        dx[1] = 0;
        mt_int16 *const to = dx + MT_BLOCK_HEAD;
        MT_NOT_UNROLLED
        for (uint32_t i = 0; i < inputs; ++i) {
            int32_t value = 0;
            MT_OPAQUE(i); /* one index for all, where the compiler would keep three */
            if (y == NULL || (uint32_t)(y[i] - low - 1) < span) {
                value = (g * mt_block_weight(weight, &learnt, 0, i)) >> 7;
            }
            to[i] = (int16_t)value;
        }
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t start = 0; start < inputs; start += MT_BLOCK_COLUMNS) {
        const uint32_t columns = mt_smaller(inputs - start, MT_BLOCK_COLUMNS);
        int32_t sums[MT_BLOCK_COLUMNS] = {0};
        for (uint32_t o = 0; o < outputs; ++o) {
            const int32_t g = mt_block_folded(dy[MT_BLOCK_HEAD + o], scale[MT_BLOCK_HEAD + o], fold);
            const int8_t *row = weight + (size_t)o * inputs;
            for (uint32_t c = 0; g != 0 && c < columns; ++c) {
                sums[c] += g * mt_block_weight(row, &learnt, o, start + c);
            }
        }
        for (uint32_t c = 0; c < columns; ++c) {
            const int inside = y == NULL || (uint32_t)(y[start + c] - low - 1) < span;
            mt_block_put(&writer, start + c, inside ? sums[c] : 0);
        }
    }
    mt_block_end(&writer, dx, inputs, exponent);
}

static inline void mt_dense_int8_block_grad(const mt_int16 *dy, const int8_t *weight, const mt_int16 *scale,
                                            mt_int16 *dx, uint32_t inputs, uint32_t outputs, uint32_t fold)
{
    const mt_block_learnt none = {NULL, 0, 0};
    mt_dense_block_grad(dy, weight, scale, none, NULL, dx, 0, 0, inputs, outputs, fold);
}

/* learnt (outputs, taken) in the place of the weights of inputs start .. start + taken */
static inline void mt_dense_int8_learnt_block_grad(const mt_int16 *dy, const int8_t *weight, const mt_int16 *scale,
                                                   const int8_t *learnt, mt_int16 *dx, uint32_t inputs,
                                                   uint32_t outputs, uint32_t fold, uint32_t start, uint32_t taken)
{
    const mt_block_learnt some = {learnt, start, taken};
    mt_dense_block_grad(dy, weight, scale, some, NULL, dx, 0, 0, inputs, outputs, fold);
}

static inline void mt_dense_int8_inside_block_grad(const mt_int16 *dy, const int8_t *weight, const mt_int16 *scale,
                                                   const int8_t *y, mt_int16 *dx, int32_t low, int32_t high,
                                                   uint32_t inputs, uint32_t outputs, uint32_t fold)
{
    const mt_block_learnt none = {NULL, 0, 0};
    mt_dense_block_grad(dy, weight, scale, none, y, dx, low, high, inputs, outputs, fold);
}

/* A place of an image or of a window. */
typedef struct {
    uint32_t y;
    uint32_t x;
} mt_block_pixel;

/* the one behind it, in rows of so many */
static inline mt_block_pixel mt_block_next(mt_block_pixel pixel, uint32_t width)
{
    ++pixel.x;
    if (pixel.x == width) {
        pixel.x = 0;
        ++pixel.y;
    }
    return pixel;
}

/* the output position, of so many, from which a tap reads an input position; `positions` where there is none */
static inline uint32_t mt_block_reader(uint32_t place, uint32_t before, uint32_t tap, uint32_t stride,
                                       uint32_t positions)
{
    const uint32_t moved = place + before - tap;
    return place + before < tap || moved % stride != 0u || moved / stride >= positions ? positions : moved / stride;
}

/* dy (out_height, out_width, outputs), weight (outputs, rows, columns, channels) -> dx (height, width, channels) */
MT_INLINE void mt_conv2d_block_grad(const mt_int16 *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight,
                                    const mt_int16 *MT_RESTRICT scale, mt_block_learnt learnt,
                                    mt_int16 *MT_RESTRICT dx, uint32_t height, uint32_t width, uint32_t out_height,
                                    uint32_t out_width, uint32_t rows, uint32_t columns, uint32_t stride_y,
                                    uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels,
                                    uint32_t outputs, uint32_t fold)
{
    if (dy[0] == MT_BLOCK_ZERO) {
        mt_block_clear(dx, height * width * channels);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    mt_block_pixel pixel = {0, 0};
    uint32_t place = 0;
    for (; pixel.y < height; pixel = mt_block_next(pixel, width)) {
        for (uint32_t start = 0; start < channels; start += MT_BLOCK_COLUMNS) {
            const uint32_t count = mt_smaller(channels - start, MT_BLOCK_COLUMNS);
            int32_t sums[MT_BLOCK_COLUMNS] = {0};
            mt_block_pixel tap = {0, 0};
            for (; tap.y < rows; tap = mt_block_next(tap, columns)) {
                const uint32_t oy = mt_block_reader(pixel.y, top, tap.y, stride_y, out_height);
                const uint32_t ox = mt_block_reader(pixel.x, left, tap.x, stride_x, out_width);
                if (oy == out_height || ox == out_width) {
                    continue;
                }
                const mt_int16 *from = dy + MT_BLOCK_HEAD + (size_t)(oy * out_width + ox) * outputs;
                for (uint32_t o = 0; o < outputs; ++o) {
                    const int32_t g = mt_block_folded(from[o], scale[MT_BLOCK_HEAD + o], fold);
                    const uint32_t number = (o * rows + tap.y) * columns + tap.x;
                    const int8_t *row = weight + (size_t)number * channels;
                    for (uint32_t c = 0; g != 0 && c < count; ++c) {
                        sums[c] += g * mt_block_weight(row, &learnt, number, start + c);
                    }
                }
            }
            for (uint32_t c = 0; c < count; ++c) {
                mt_block_put(&writer, place++, sums[c]);
            }
        }
    }
    mt_block_end(&writer, dx, place, dy[0] + scale[0] + (int32_t)fold);
}

static inline void mt_conv2d_int8_block_grad(const mt_int16 *dy, const int8_t *weight, const mt_int16 *scale,
                                             mt_int16 *dx, uint32_t height, uint32_t width, uint32_t out_height,
                                             uint32_t out_width, uint32_t rows, uint32_t columns, uint32_t stride_y,
                                             uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels,
                                             uint32_t outputs, uint32_t fold)
{
    const mt_block_learnt none = {NULL, 0, 0};
    mt_conv2d_block_grad(dy, weight, scale, none, dx, height, width, out_height, out_width, rows, columns, stride_y,
                         stride_x, top, left, channels, outputs, fold);
}

/* learnt (outputs, rows, columns, taken) in the place of the weights of channels start .. start + taken */
static inline void mt_conv2d_int8_learnt_block_grad(const mt_int16 *dy, const int8_t *weight, const mt_int16 *scale,
                                                    const int8_t *learnt, mt_int16 *dx, uint32_t height,
                                                    uint32_t width, uint32_t out_height, uint32_t out_width,
                                                    uint32_t rows, uint32_t columns, uint32_t stride_y,
                                                    uint32_t stride_x, uint32_t top, uint32_t left,
                                                    uint32_t channels, uint32_t outputs, uint32_t fold,
                                                    uint32_t start, uint32_t taken)
{
    const mt_block_learnt some = {learnt, start, taken};
    mt_conv2d_block_grad(dy, weight, scale, some, dx, height, width, out_height, out_width, rows, columns, stride_y,
                         stride_x, top, left, channels, outputs, fold);
}

/* dy (out_height, out_width, outputs), weight (rows, columns, outputs), outputs a multiple of channels
 * -> dx (height, width, channels) */
static inline void mt_depthwise_conv2d_int8_block_grad(const mt_int16 *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight,
                                                       const mt_int16 *MT_RESTRICT scale, mt_int16 *MT_RESTRICT dx,
                                                       uint32_t height, uint32_t width, uint32_t out_height,
                                                       uint32_t out_width, uint32_t rows, uint32_t columns,
                                                       uint32_t stride_y, uint32_t stride_x, uint32_t top,
                                                       uint32_t left, uint32_t channels, uint32_t outputs,
                                                       uint32_t fold)
{
    if (dy[0] == MT_BLOCK_ZERO) {
        mt_block_clear(dx, height * width * channels);
        return;
    }
    const uint32_t each = outputs / channels;
    mt_block_writer writer = mt_block_begin(dx);
    mt_block_pixel pixel = {0, 0};
    uint32_t place = 0;
    for (; pixel.y < height; pixel = mt_block_next(pixel, width)) {
        for (uint32_t start = 0; start < channels; start += MT_BLOCK_COLUMNS) {
            const uint32_t count = mt_smaller(channels - start, MT_BLOCK_COLUMNS);
            int32_t sums[MT_BLOCK_COLUMNS] = {0};
            mt_block_pixel tap = {0, 0};
            for (; tap.y < rows; tap = mt_block_next(tap, columns)) {
                const uint32_t oy = mt_block_reader(pixel.y, top, tap.y, stride_y, out_height);
                const uint32_t ox = mt_block_reader(pixel.x, left, tap.x, stride_x, out_width);
                if (oy == out_height || ox == out_width) {
                    continue;
                }
                const uint32_t first = start * each;
                const mt_int16 *from = dy + MT_BLOCK_HEAD + (size_t)(oy * out_width + ox) * outputs + first;
                const int8_t *row = weight + (size_t)(tap.y * columns + tap.x) * outputs + first;
                for (uint32_t c = 0; c < count * each; ++c) {
                    const int32_t g = mt_block_folded(from[c], scale[MT_BLOCK_HEAD + first + c], fold);
                    sums[each == 1u ? c : c / each] += g * row[c];
                }
            }
            for (uint32_t c = 0; c < count; ++c) {
                mt_block_put(&writer, place++, sums[c]);
            }
        }
    }
    mt_block_end(&writer, dx, place, dy[0] + scale[0] + (int32_t)fold);
}

/// Pooling ///

/* dy (channels) -> dx (positions, channels), each 1 / positions of it */
static inline void mt_global_average_block_grad(const mt_int16 *MT_RESTRICT dy, mt_int16 *MT_RESTRICT dx,
                                                uint32_t positions, uint32_t channels)
{
    dx[0] = dy[0];
    dx[1] = 0;
    for (uint32_t position = 0; position < positions; ++position) {
        MT_COPY(dx + MT_BLOCK_HEAD + position * channels, dy + MT_BLOCK_HEAD, channels * sizeof *dx);
    }
    mt_block_divide(dx, positions * channels, positions);
}

/* The average over each window's elements that are no padding. dy (out_height, out_width, channels) -> dx (height,
 * width, channels). `divisors` holds 2^14 / n for windows of n elements. */
static inline void mt_average_pool2d_block_grad(const mt_int16 *MT_RESTRICT dy, const mt_int16 *MT_RESTRICT divisors,
                                                mt_int16 *MT_RESTRICT dx, uint32_t height, uint32_t width,
                                                uint32_t out_height, uint32_t out_width, uint32_t rows,
                                                uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top,
                                                uint32_t left, uint32_t channels)
{
    if (dy[0] == MT_BLOCK_ZERO) {
        mt_block_clear(dx, height * width * channels);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    mt_block_pixel pixel = {0, 0};
    uint32_t place = 0;
    for (; pixel.y < height; pixel = mt_block_next(pixel, width)) {
        for (uint32_t c = 0; c < channels; ++c) {
            int32_t sum = 0;
            mt_block_pixel tap = {0, 0};
            for (; tap.y < rows; tap = mt_block_next(tap, columns)) {
                const uint32_t oy = mt_block_reader(pixel.y, top, tap.y, stride_y, out_height);
                const uint32_t ox = mt_block_reader(pixel.x, left, tap.x, stride_x, out_width);
                if (oy == out_height || ox == out_width) {
                    continue;
                }
                const mt_taps down = mt_taps_inside(oy * stride_y, top, height, rows);
                const mt_taps across = mt_taps_inside(ox * stride_x, left, width, columns);
                const uint32_t elements = (down.end - down.first) * (across.end - across.first);
                /* 24 digits, so that 64 windows may reach an element */
                sum += (dy[MT_BLOCK_HEAD + (oy * out_width + ox) * channels + c] * divisors[elements] + 16) >> 5;
            }
            mt_block_put(&writer, place++, sum);
        }
    }
    mt_block_end(&writer, dx, place, dy[0] - 9);
}

/* To the first maximum of each window, unless the maximum sits on a limit: dy (out_height, out_width, channels), x
 * (height, width, channels) -> dx like x. What lies in the padding is no candidate. `down` are the digits that windows
 * which overlap need. */
static inline void mt_max_pool2d_block_grad(const mt_int16 *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                            mt_int16 *MT_RESTRICT dx, int32_t low, int32_t high, uint32_t height,
                                            uint32_t width, uint32_t out_height, uint32_t out_width, uint32_t rows,
                                            uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top,
                                            uint32_t left, uint32_t channels, uint32_t down)
{
    const uint32_t size = height * width * channels;
    mt_block_clear(dx, size);
    if (dy[0] == MT_BLOCK_ZERO) {
        return;
    }
    mt_block_pixel position = {0, 0};
    for (; position.y < out_height; position = mt_block_next(position, out_width)) {
        for (uint32_t c = 0; c < channels; ++c) {
            int32_t largest = -129;
            uint32_t at = 0;
            mt_block_pixel tap = {0, 0};
            for (; tap.y < rows; tap = mt_block_next(tap, columns)) {
                /* outside the image the difference wraps around, or is beyond its size */
                const uint32_t y = position.y * stride_y + tap.y - top;
                const uint32_t column = position.x * stride_x + tap.x - left;
                const uint32_t from = (y * width + column) * channels + c;
                if (y < height && column < width && x[from] > largest) {
                    largest = x[from];
                    at = from;
                }
            }
            if (largest > low && largest < high) {
                const uint32_t from = (position.y * out_width + position.x) * channels + c;
                dx[MT_BLOCK_HEAD + at]
                    = (int16_t)(dx[MT_BLOCK_HEAD + at] + (dy[MT_BLOCK_HEAD + from] >> down));
            }
        }
    }
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t i = 0; i < size; ++i) {
        mt_block_keep(&writer, i, dx[MT_BLOCK_HEAD + i]);
    }
    mt_block_end(&writer, dx, size, dy[0] + (int32_t)down);
}

#endif
