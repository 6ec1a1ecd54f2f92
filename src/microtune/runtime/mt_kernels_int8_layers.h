/*
 * mt_kernels_int8_layers.h: int8 convolution, depthwise convolution and dense layers.
 *
 * x (height, width, channels), weight (outputs, rows, columns, channels), or (rows, columns, outputs) for
 * depthwise; bias, multiplier, shift (outputs). `rows` and `columns` are those of the window; `top` and `left` the
 * padding before. Padding counts as x_zero, which is to say it adds nothing.
 */
#ifndef MT_KERNELS_INT8_LAYERS_H
#define MT_KERNELS_INT8_LAYERS_H

#include "mt_kernels_int8.h"
#include "mt_kernels_int8_pairs.h"

/* windows of up to so many bytes are copied beside each other, so that each output is one long sum */
#define MT_INT8_PATCH 256u

#if defined(__thumb__) && !defined(MT_INT8_PAIRS) && !defined(__ARM_FEATURE_MVE)
/* Cortex-M0 and M3 read at a pointer plus a register, so one index serves all rows; by itself such a loop has registers
 * for that. The compiler, left alone, moves a pointer for each row. */
#define MT_INT8_BY_INDEX
#define MT_INT8_SHARED static MT_APART
#elif defined(__riscv)
#define MT_INT8_SHARED static MT_APART
#else
#define MT_INT8_SHARED static inline
#endif

/* sum of (x - x_zero) w; the difference fits into 16 bits, and compilers use their 16-bit products */
static inline int32_t mt_int8_dot(
    const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT w, int32_t x_zero, uint32_t size)
{
    const mt_int8_shifted zero = (mt_int8_shifted)x_zero;
    int32_t sum = 0;
    uint32_t i = 0;
#if defined(MT_INT8_PAIRS)
    const int16x2_t minus_zero = mt_int8_minus(x_zero);
    MT_NOT_UNROLLED
    for (; i + 4 <= size; i += 4) {
        sum = mt_int8_products(w + i, mt_int8_moved_pairs(mt_int8_four(x + i), minus_zero), sum);
    }
#elif defined(__ARM_FEATURE_MVE)
    /* products and weights summed apart are sixteen at a time in vectors, a difference first would be four */
    int32_t total = 0;
    for (; i < size; ++i) {
        sum += x[i] * w[i];
        total += w[i];
    }
    sum -= x_zero * total;
#endif
    MT_BY_EIGHT
    for (; i < size; ++i) {
        sum += (mt_int8_shifted)(x[i] - zero) * w[i];
    }
    return sum;
}

/* the same for four rows of weights `pitch` apart, added to sums: x is read once */
MT_INT8_SHARED void mt_int8_dot4(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT w, uint32_t pitch,
    int32_t x_zero, uint32_t size, int32_t *MT_RESTRICT sums)
{
    const int8_t *MT_RESTRICT w1 = w + pitch;
    const int8_t *MT_RESTRICT w2 = w1 + pitch;
    const int8_t *MT_RESTRICT w3 = w2 + pitch;
    const mt_int8_shifted zero = (mt_int8_shifted)x_zero;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t i = 0;
#if defined(MT_INT8_PAIRS)
    const int16x2_t minus_zero = mt_int8_minus(x_zero);
    const int8_t *v = w, *const end = x + (size & ~3u);
    MT_NOT_UNROLLED
    for (const int8_t *at = x; at != end; at += 4) {
        const mt_pairs pairs = mt_int8_moved_pairs(mt_int8_four(at), minus_zero);
        const int8_t *const half = v + 2 * pitch;
        s0 = mt_int8_products(v, pairs, s0);
        s1 = mt_int8_products(v + pitch, pairs, s1);
        s2 = mt_int8_products(half, pairs, s2);
        s3 = mt_int8_products(half + pitch, pairs, s3);
        v += 4;
        MT_OPAQUE(v); /* or the compiler keeps four pointers, for which it has no registers */
    }
    i = size & ~3u;
#elif defined(__ARM_FEATURE_MVE)
    int32_t t0 = 0, t1 = 0, t2 = 0, t3 = 0;
    for (; i < size; ++i) {
        s0 += x[i] * w[i];
        s1 += x[i] * w1[i];
        s2 += x[i] * w2[i];
        s3 += x[i] * w3[i];
        t0 += w[i];
        t1 += w1[i];
        t2 += w2[i];
        t3 += w3[i];
    }
    s0 -= x_zero * t0;
    s1 -= x_zero * t1;
    s2 -= x_zero * t2;
    s3 -= x_zero * t3;
#endif
#if defined(MT_INT8_BY_INDEX)
    (void)zero;
    x += size;
    w += size;
    w1 += size;
    w2 += size;
    w3 += size;
    MT_OPAQUE(w1);
    MT_OPAQUE(w2);
    MT_OPAQUE(w3);
    MT_NOT_UNROLLED
    for (int32_t left = -(int32_t)size; left != 0;) {
        const int32_t shifted = x[left] - x_zero;
        s0 += shifted * w[left];
        s1 += shifted * w1[left];
        s2 += shifted * w2[left];
        s3 += shifted * w3[left];
        ++left;
        MT_OPAQUE(left);
    }
    i = size;
#endif
    MT_BY_EIGHT
    for (; i < size; ++i) {
        const mt_int8_shifted shifted = (mt_int8_shifted)(x[i] - zero);
        s0 += shifted * w[i];
        s1 += shifted * w1[i];
        s2 += shifted * w2[i];
        s3 += shifted * w3[i];
    }
    sums[0] += s0;
    sums[1] += s1;
    sums[2] += s2;
    sums[3] += s3;
}

/* one output pixel: `lines` runs of `run` elements, `x_pitch` apart in x and `w_pitch` apart in each output's
 * `terms` weights */
static inline void mt_int8_pixel(const int8_t *x, const int8_t *MT_RESTRICT weight, const int32_t *MT_RESTRICT bias,
    const int32_t *MT_RESTRICT multiplier, const int8_t *MT_RESTRICT shift, int8_t *MT_RESTRICT y, uint32_t outputs,
    uint32_t terms, uint32_t lines, uint32_t run, uint32_t x_pitch, uint32_t w_pitch, int32_t x_zero, int32_t y_zero,
    int32_t low, int32_t high)
{
    uint32_t o = 0;
    for (; o + 4 <= outputs; o += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        MT_NOT_UNROLLED
        for (uint32_t line = 0; line < lines; ++line) {
            mt_int8_dot4(x + line * x_pitch, weight + o * terms + line * w_pitch, terms, x_zero, run, sums);
        }
        MT_NOT_UNROLLED
        for (uint32_t i = 0; i < 4; ++i) {
            const int32_t sum = mt_saturating_sum(sums[i], bias[o + i]);
            y[o + i] = mt_int8_output(sum, multiplier[o + i], shift[o + i], y_zero, low, high);
        }
    }
    for (; o < outputs; ++o) {
        int32_t sum = 0;
        MT_NOT_UNROLLED
        for (uint32_t line = 0; line < lines; ++line) {
            sum += mt_int8_dot(x + line * x_pitch, weight + o * terms + line * w_pitch, x_zero, run);
        }
        sum = mt_saturating_sum(sum, bias[o]);
        y[o] = mt_int8_output(sum, multiplier[o], shift[o], y_zero, low, high);
    }
}

/* inputs so few that a loop over them costs more than they do: their number known when compiling, it is written out */
#define MT_INT8_FEW 8u

/* mt_rescale_once; of a factor below 2^-2 the lower word of the product is of no consequence */
static inline int32_t mt_int8_rescaled_once(int32_t x, int32_t multiplier, int32_t shift)
{
    int32_t places = -1 - shift;
#if defined(__ARM_ARCH_6M__)
    MT_OPAQUE(places); /* compared with zero, for which it needs no constant */
#endif
    if (places <= 0) {
        return mt_rescale_once(x, multiplier, shift);
    }
    return (mt_long_product(x, multiplier).upper + ((int32_t)1 << (places - 1))) >> places;
}

/* a dense layer's output, which is rounded once */
static inline int8_t mt_int8_dense_output(int32_t sum, int32_t bias, int32_t multiplier, int32_t shift, int32_t y_zero,
    int32_t low, int32_t high)
{
    sum = mt_saturating_sum(sum, bias);
    if (low >= y_zero && sum <= 0) {
        /* behind a ReLU half of them */
        return (int8_t)low;
    }
    const int32_t scaled = mt_int8_rescaled_once(sum, multiplier, shift);
    return (int8_t)(y_zero + mt_clamp_int32(scaled, low - y_zero, high - y_zero));
}

#if defined(MT_INT8_PAIRS)
/* y_zero + x rescaled once, saturated to a byte */
static inline int8_t mt_int8_scaled_once(int32_t x, int32_t multiplier, int32_t shift, int32_t y_zero)
{
    return (int8_t)mt_clamp_int32(__qadd(mt_int8_rescaled_once(x, multiplier, shift), y_zero), INT8_MIN, INT8_MAX);
}

/* one function for all dense layers; `channels` are the inputs */
static MT_APART void mt_int8_dense(const mt_int8_convolution *layer)
{
    const uint32_t inputs = layer->channels, outputs = layer->outputs;
    const int32_t *bias = layer->bias, *multiplier = layer->multiplier;
    const int8_t *shift = layer->shift, *weight = layer->weight;
    int8_t *y = layer->y, *const end = y + outputs;
    MT_NOT_UNROLLED
    while (y != end) {
        int32_t sums[4] = {0, 0, 0, 0};
        const uint32_t count = end - y >= 4 ? 4 : 1;
        if (count == 4) {
            mt_int8_dot4(layer->x, weight, inputs, layer->x_zero, inputs, sums);
        } else {
            sums[0] = mt_int8_dot(layer->x, weight, layer->x_zero, inputs);
        }
        MT_NOT_UNROLLED
        for (uint32_t i = 0; i < count; ++i) {
            *y++ = mt_int8_scaled_once(__qadd(sums[i], *bias++), *multiplier++, *shift++, layer->y_zero);
        }
        weight += count * inputs;
    }
    mt_int8_limit(layer->y, outputs, layer->low, layer->high);
}
#endif

static inline void mt_dense_int8(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
    const int32_t *MT_RESTRICT bias, const int32_t *MT_RESTRICT multiplier, const int8_t *MT_RESTRICT shift,
    int8_t *MT_RESTRICT y, uint32_t inputs, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
#if defined(MT_INT8_PAIRS)
    const mt_int8_convolution layer = mt_int8_convolution_of(x, weight, bias, multiplier, shift, y, 1, 1, 1, 1, 1, 1, 1,
        1, 0, 0, inputs, outputs, x_zero, y_zero, low, high);
    mt_int8_dense(&layer);
#else
    uint32_t o = 0;
    MT_NOT_UNROLLED
    for (const int8_t *w = weight; inputs <= MT_INT8_FEW && o < outputs; ++o) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < inputs; ++i) {
            sum += (x[i] - x_zero) * w[i];
        }
        y[o] = mt_int8_dense_output(sum, bias[o], multiplier[o], shift[o], y_zero, low, high);
        w += inputs;
        MT_OPAQUE(w);
    }
    for (; o + 4 <= outputs; o += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        mt_int8_dot4(x, weight + (size_t)o * inputs, inputs, x_zero, inputs, sums);
        for (uint32_t i = 0; i < 4; ++i) {
            y[o + i] = mt_int8_dense_output(sums[i], bias[o + i], multiplier[o + i], shift[o + i], y_zero, low, high);
        }
    }
    for (; o < outputs; ++o) {
        const int32_t sum = mt_int8_dot(x, weight + (size_t)o * inputs, x_zero, inputs);
        y[o] = mt_int8_dense_output(sum, bias[o], multiplier[o], shift[o], y_zero, low, high);
    }
#endif
}

static inline void mt_conv2d_int8(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
    const int32_t *MT_RESTRICT bias, const int32_t *MT_RESTRICT multiplier, const int8_t *MT_RESTRICT shift,
    int8_t *MT_RESTRICT y, uint32_t height, uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows,
    uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels,
    uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
#if defined(MT_INT8_PAIRS)
    const mt_int8_convolution layer = mt_int8_convolution_of(x, weight, bias, multiplier, shift, y, height, width,
        y_height, y_width, rows, columns, stride_y, stride_x, top, left, channels, outputs, x_zero, y_zero, low, high);
    mt_int8_convolve(&layer);
#else
    const uint32_t line = columns * channels;
    const uint32_t terms = rows * line;
    const int gathered = rows > 1 && terms <= MT_INT8_PATCH;
    int8_t patch[MT_INT8_PATCH];
    for (uint32_t oy = 0; oy < y_height; ++oy) {
        const mt_taps down = mt_taps_inside(oy * stride_y, top, height, rows);
        const int8_t *from_row = x + (size_t)(oy * stride_y + down.first - top) * width * channels;
        for (uint32_t ox = 0; ox < y_width; ++ox) {
            const mt_taps across = mt_taps_inside(ox * stride_x, left, width, columns);
            const int8_t *from = from_row + (ox * stride_x + across.first - left) * channels;
            const uint32_t lines = down.end - down.first;
            const uint32_t run = (across.end - across.first) * channels;
            const uint32_t skipped = down.first * line + across.first * channels;
            if (gathered) {
                if (lines < rows || run < line) {
                    for (uint32_t i = 0; i < terms; ++i) {
                        patch[i] = (int8_t)x_zero;
                    }
                }
                for (uint32_t i = 0; i < lines; ++i) {
                    MT_COPY(patch + skipped + i * line, from + i * width * channels, run);
                }
                mt_int8_pixel(patch, weight, bias, multiplier, shift, y, outputs, terms, 1, terms, 0, 0, x_zero, y_zero,
                    low, high);
            } else {
                mt_int8_pixel(from, weight + skipped, bias, multiplier, shift, y, outputs, terms, lines, run,
                    width * channels, line, x_zero, y_zero, low, high);
            }
            y += outputs;
        }
    }
#endif
}

/* a row of weights of which `count` from `start` on are taken from `learnt` */
static inline int32_t mt_int8_dot_learnt(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT w,
    const int8_t *MT_RESTRICT learnt, int32_t x_zero, uint32_t size, uint32_t start, uint32_t count)
{
    const uint32_t end = start + count;
    return mt_int8_dot(x, w, x_zero, start) + mt_int8_dot(x + start, learnt, x_zero, count)
        + mt_int8_dot(x + end, w + end, x_zero, size - end);
}

/* mt_dense_int8 with learnt (outputs, count) in the place of the weights of inputs start .. start + count */
static inline void mt_dense_int8_learnt(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
    const int32_t *MT_RESTRICT bias, const int32_t *MT_RESTRICT multiplier, const int8_t *MT_RESTRICT shift,
    const int8_t *MT_RESTRICT learnt, int8_t *MT_RESTRICT y, uint32_t inputs, uint32_t outputs, uint32_t start,
    uint32_t count, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        const int32_t sum
            = mt_int8_dot_learnt(x, weight + o * inputs, learnt + o * count, x_zero, inputs, start, count);
        y[o] = mt_int8_dense_output(sum, bias[o], multiplier[o], shift[o], y_zero, low, high);
    }
}

/* mt_conv2d_int8 with learnt (outputs, rows, columns, count) in the place of the weights of channels
 * start .. start + count */
static inline void mt_conv2d_int8_learnt(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
    const int32_t *MT_RESTRICT bias, const int32_t *MT_RESTRICT multiplier, const int8_t *MT_RESTRICT shift,
    const int8_t *MT_RESTRICT learnt, int8_t *MT_RESTRICT y, uint32_t height, uint32_t width, uint32_t y_height,
    uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left,
    uint32_t channels, uint32_t outputs, uint32_t start, uint32_t count, int32_t x_zero, int32_t y_zero, int32_t low,
    int32_t high)
{
    for (uint32_t oy = 0; oy < y_height; ++oy) {
        const mt_taps down = mt_taps_inside(oy * stride_y, top, height, rows);
        for (uint32_t ox = 0; ox < y_width; ++ox) {
            const mt_taps across = mt_taps_inside(ox * stride_x, left, width, columns);
            for (uint32_t o = 0; o < outputs; ++o) {
                int32_t sum = 0;
                for (uint32_t row = down.first; row < down.end; ++row) {
                    for (uint32_t column = across.first; column < across.end; ++column) {
                        const uint32_t tap = (o * rows + row) * columns + column;
                        const uint32_t pixel
                            = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
                        sum += mt_int8_dot_learnt(x + (size_t)pixel * channels, weight + (size_t)tap * channels,
                            learnt + (size_t)tap * count, x_zero, channels, start, count);
                    }
                }
                sum = mt_saturating_sum(sum, bias[o]);
                *y++ = mt_int8_output(sum, multiplier[o], shift[o], y_zero, low, high);
            }
        }
    }
}

#endif
