/*
 * mt_kernels_int8_pairs.h: int8 convolution on cores that multiply two pairs of 16 bits at once (Cortex-M4, M7, M33).
 *
 * Four pixels at a time: what their windows see is widened to 16 bits once, with the zero point taken off, and laid
 * out so that each weight is read and widened once for the four. A window that is longer than the room for it comes in
 * pieces. One function serves all layers of a network, so its code is in flash once.
 *
 * Lai, Suda, Chandra: CMSIS-NN, Efficient Neural Network Kernels for Arm Cortex-M CPUs (2018), has the order in which
 * bytes are widened and products paired.
 */
#ifndef MT_KERNELS_INT8_PAIRS_H
#define MT_KERNELS_INT8_PAIRS_H

#include "mt_kernels_int8.h"

#if defined(MT_INT8_PAIRS)

/* 1 KB of stack: all terms of four windows, where they are no more than these, */
#define MT_INT8_WHOLE 128u
/* else a piece of them, beside sums of so many outputs that are kept from piece to piece */
#define MT_INT8_PIECE 96u
#define MT_INT8_KEPT 16u

/* everything a convolution is told; sizes as in mt_kernels_int8_layers.h */
typedef struct {
    const int8_t *x, *weight;
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int8_t *y;
    uint32_t height, width, y_height, y_width, rows, columns, stride_y, stride_x, top, left, channels, outputs;
    int32_t x_zero, y_zero, low, high;
} mt_int8_convolution;

static inline mt_int8_convolution mt_int8_convolution_of(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int8_t *shift, int8_t *y, uint32_t height, uint32_t width, uint32_t y_height,
    uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left,
    uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
    mt_int8_convolution layer;
    layer.x = x;
    layer.weight = weight;
    layer.bias = bias;
    layer.multiplier = multiplier;
    layer.shift = shift;
    layer.y = y;
    layer.height = height;
    layer.width = width;
    layer.y_height = y_height;
    layer.y_width = y_width;
    layer.rows = rows;
    layer.columns = columns;
    layer.stride_y = stride_y;
    layer.stride_x = stride_x;
    layer.top = top;
    layer.left = left;
    layer.channels = channels;
    layer.outputs = outputs;
    layer.x_zero = x_zero;
    layer.y_zero = y_zero;
    layer.low = low;
    layer.high = high;
    return layer;
}

/* four terms of one pixel: two pairs in 64 bits, which are read by one instruction; those of the four pixels lie
 * beside each other */
typedef uint64_t mt_int8_lane;
#define MT_INT8_LANES 4u

static inline mt_int8_lane mt_int8_lane_of(mt_pairs pairs)
{
    return (uint32_t)pairs.even | (mt_int8_lane)(uint32_t)pairs.odd << 32;
}

/* left to itself, the compiler reads the halves where it needs them */
static inline mt_pairs mt_int8_read_lane(const mt_int8_lane *lane)
{
    const mt_int8_lane both = *(const volatile mt_int8_lane *)lane;
    mt_pairs pairs;
    pairs.even = (int16x2_t)(uint32_t)both;
    pairs.odd = (int16x2_t)(uint32_t)(both >> 32);
    return pairs;
}

/* the rest of less than four bytes, filled up with zeros */
static inline uint32_t mt_int8_few(const int8_t *x, uint32_t count)
{
    uint32_t four = 0;
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < count; ++i) {
        four |= (uint32_t)(uint8_t)x[i] << (8 * i);
    }
    return four;
}

/* x - x_zero for `count` bytes; what fills up a last group of fewer than four meets weights of zero */
static inline void mt_int8_widen(mt_int8_lane *to, const int8_t *x, uint32_t count, int16x2_t minus_zero)
{
    const int8_t *const end = x + (count & ~3u);
    MT_NOT_UNROLLED
    for (; x != end; x += 4, to += MT_INT8_LANES) {
        *to = mt_int8_lane_of(mt_int8_moved_pairs(mt_int8_four(x), minus_zero));
    }
    if (count % 4 != 0) {
        *to = mt_int8_lane_of(mt_int8_moved_pairs(mt_int8_few(x, count % 4), minus_zero));
    }
}

/* Terms start .. end - 1 of the window of output (oy, ox). Lines of the window that are whole words go straight to
 * their place; others are put beside each other first, since pairs are of four. */
static MT_APART void mt_int8_gather(const mt_int8_convolution *layer, uint32_t oy, uint32_t ox, uint32_t start,
    uint32_t end, mt_int8_lane *to)
{
    const int16x2_t minus_zero = mt_int8_minus(layer->x_zero);
    const uint32_t channels = layer->channels;
    const int8_t *const x = layer->x;
    if (layer->rows * layer->columns == 1) {
        const uint32_t pixel = oy * layer->stride_y * layer->width + ox * layer->stride_x;
        mt_int8_widen(to, x + (size_t)pixel * channels + start, end - start, minus_zero);
        return;
    }
    const uint32_t line = layer->columns * channels;
    const mt_taps down = mt_taps_inside(oy * layer->stride_y, layer->top, layer->height, layer->rows);
    const mt_taps across = mt_taps_inside(ox * layer->stride_x, layer->left, layer->width, layer->columns);
    const uint32_t inside = across.first * channels, outside = across.end * channels;
    const int whole = channels % 4 == 0;
    int8_t bytes[MT_INT8_WHOLE];
    if (down.end - down.first < layer->rows || outside - inside < line) {
        for (uint32_t i = 0; i < end - start; i += 4) {
            to[i] = 0;
        }
        if (!whole) {
            for (uint32_t i = 0; i < end - start; ++i) {
                bytes[i] = (int8_t)layer->x_zero;
            }
        }
    }
    /* in x, the first column of the window, were it not for the padding, of its first row inside */
    uint32_t from = (oy * layer->stride_y + down.first - layer->top) * layer->width;
    from = (from + ox * layer->stride_x - layer->left) * channels;
    for (uint32_t at = down.first * line; at < down.end * line; at += line, from += layer->width * channels) {
        const uint32_t first = at + inside > start ? at + inside : start;
        const uint32_t last = mt_smaller(at + outside, end);
        if (first >= last) {
            continue;
        }
        if (whole) {
            /* four terms are as far apart as there are lanes */
            mt_int8_widen(to + (first - start), x + (from + (first - at)), last - first, minus_zero);
        } else {
            mt_int8_copy(bytes + (first - start), x + (from + (first - at)), last - first);
        }
    }
    if (!whole) {
        mt_int8_widen(to, bytes, end - start, minus_zero);
    }
}

/* sum + products of four weights with four terms of a pixel */
static inline int32_t mt_int8_lane_products(const mt_int8_lane *lane, mt_pairs weights, int32_t sum)
{
    const mt_pairs x = mt_int8_read_lane(lane);
    return __smlad(weights.odd, x.odd, __smlad(weights.even, x.even, sum));
}

/* `count` outputs of three or four pixels that lie beside each other in y, from terms start .. end - 1 of their
 * windows; before the last piece what is summed so far is kept */
static MT_APART void mt_int8_four_pixels(const mt_int8_convolution *layer, const mt_int8_lane *lanes,
    uint32_t pixels, uint32_t first, uint32_t count, uint32_t start, uint32_t end, mt_int8_lane *kept, int8_t *y)
{
    const uint32_t outputs = layer->outputs, terms = layer->rows * layer->columns * layer->channels;
    /* the fourth of three is the third once more, and goes there */
    int8_t *const second = y + outputs, *const third = second + outputs, *const fourth = y + (pixels - 1) * outputs;
    const uint32_t size = end - start;
    const int8_t *from = layer->weight + (size_t)first * terms + start;
    MT_NOT_UNROLLED
    for (uint32_t o = first; o < first + count; ++o, from += terms) {
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        mt_int8_lane *const sums = kept + 2 * (o - first);
        if (start > 0) {
            s0 = (int32_t)(uint32_t)sums[0];
            s1 = (int32_t)(uint32_t)(sums[0] >> 32);
            s2 = (int32_t)(uint32_t)sums[1];
            s3 = (int32_t)(uint32_t)(sums[1] >> 32);
        }
        const mt_int8_lane *x = lanes;
        const int8_t *w = from;
        const int8_t *const end_of_eights = w + (size & ~7u);
        mt_pairs weights;
#define MT_FOUR_LANES(four) \
    do { \
        weights = mt_int8_pairs_of(four); \
        s0 = mt_int8_lane_products(x, weights, s0); \
        s1 = mt_int8_lane_products(x + 1, weights, s1); \
        s2 = mt_int8_lane_products(x + 2, weights, s2); \
        s3 = mt_int8_lane_products(x + 3, weights, s3); \
        x += MT_INT8_LANES; \
    } while (0)
        MT_NOT_UNROLLED
        for (; w != end_of_eights; w += 8) {
            MT_FOUR_LANES(mt_int8_four(w));
            MT_FOUR_LANES(mt_int8_four(w + 4));
        }
        if (size & 4) {
            MT_FOUR_LANES(mt_int8_four(w));
            w += 4;
        }
        if (size & 3) {
            MT_FOUR_LANES(mt_int8_few(w, size & 3));
        }
#undef MT_FOUR_LANES
        if (end < terms) {
            sums[0] = (uint32_t)s0 | (mt_int8_lane)(uint32_t)s1 << 32;
            sums[1] = (uint32_t)s2 | (mt_int8_lane)(uint32_t)s3 << 32;
            continue;
        }
        const mt_int8_factor factor = mt_int8_factor_of(layer->multiplier[o], layer->shift[o]);
        const int32_t bias = layer->bias[o], y_zero = layer->y_zero;
        s0 = __qadd(s0, bias);
        s1 = __qadd(s1, bias);
        s2 = __qadd(s2, bias);
        s3 = __qadd(s3, bias);
        if (factor.places >= 0) {
            y[o] = mt_int8_scaled(s0, factor, y_zero);
            second[o] = mt_int8_scaled(s1, factor, y_zero);
            third[o] = mt_int8_scaled(s2, factor, y_zero);
            fourth[o] = mt_int8_scaled(s3, factor, y_zero);
        } else {
            y[o] = (int8_t)mt_int8_scaled_up(s0, factor.multiplier, factor.shift, y_zero);
            second[o] = (int8_t)mt_int8_scaled_up(s1, factor.multiplier, factor.shift, y_zero);
            third[o] = (int8_t)mt_int8_scaled_up(s2, factor.multiplier, factor.shift, y_zero);
            fourth[o] = (int8_t)mt_int8_scaled_up(s3, factor.multiplier, factor.shift, y_zero);
        }
    }
}

/* the same for one pixel, of which one sum is kept */
static inline void mt_int8_one_pixel(const mt_int8_convolution *layer, const mt_int8_lane *lanes, uint32_t first,
    uint32_t count, uint32_t start, uint32_t end, mt_int8_lane *kept, int8_t *y)
{
    const uint32_t terms = layer->rows * layer->columns * layer->channels, size = end - start;
    const int8_t *from = layer->weight + (size_t)first * terms + start;
    MT_NOT_UNROLLED
    for (uint32_t o = first; o < first + count; ++o, from += terms) {
        const mt_int8_lane *x = lanes;
        const int8_t *w = from;
        const int8_t *const end_of_fours = w + (size & ~3u);
        int32_t sum = start > 0 ? (int32_t)(uint32_t)kept[o - first] : 0;
        MT_NOT_UNROLLED
        for (; w != end_of_fours; w += 4, x += MT_INT8_LANES) {
            sum = mt_int8_lane_products(x, mt_int8_pairs_of(mt_int8_four(w)), sum);
        }
        if (size & 3) {
            sum = mt_int8_lane_products(x, mt_int8_pairs_of(mt_int8_few(w, size & 3)), sum);
        }
        if (end < terms) {
            kept[o - first] = (uint32_t)sum;
        } else {
            const mt_int8_factor factor = mt_int8_factor_of(layer->multiplier[o], layer->shift[o]);
            y[o] = mt_int8_scaled_any(__qadd(sum, layer->bias[o]), factor, layer->y_zero);
        }
    }
}

static MT_APART void mt_int8_convolve(const mt_int8_convolution *layer)
{
    const uint32_t terms = layer->rows * layer->columns * layer->channels, outputs = layer->outputs;
    const int in_pieces = terms > MT_INT8_WHOLE;
    const uint32_t most = in_pieces ? MT_INT8_KEPT : outputs, step = in_pieces ? MT_INT8_PIECE : terms;
    mt_int8_lane patch[MT_INT8_WHOLE];
    mt_int8_lane *const kept = patch + MT_INT8_PIECE;
    int8_t *y = layer->y;
    uint32_t oy = 0, ox = 0;
    for (uint32_t left = layer->y_height * layer->y_width; left > 0;) {
        /* of two, each by itself; three are computed as four, the last one twice */
        const uint32_t pixels = left > 2 ? mt_smaller(left, MT_INT8_LANES) : 1;
        uint32_t next_oy = oy, next_ox = ox;
        for (uint32_t first = 0; first < outputs; first += most) {
            for (uint32_t start = 0; start < terms; start += step) {
                const uint32_t end = mt_smaller(start + step, terms);
                if (first == 0 || in_pieces) {
                    next_oy = oy;
                    next_ox = ox;
                    for (uint32_t lane = 0; lane < pixels; ++lane) {
                        mt_int8_gather(layer, next_oy, next_ox, start, end, patch + lane);
                        if (++next_ox == layer->y_width) {
                            next_ox = 0;
                            ++next_oy;
                        }
                    }
                    if (pixels == 3) {
                        for (uint32_t i = 0; i < end - start; i += 4) {
                            patch[i + 3] = patch[i + 2];
                        }
                    }
                }
                const uint32_t count = mt_smaller(most, outputs - first);
                if (pixels == 1) {
                    mt_int8_one_pixel(layer, patch, first, count, start, end, kept, y);
                } else {
                    mt_int8_four_pixels(layer, patch, pixels, first, count, start, end, kept, y);
                }
            }
        }
        mt_int8_limit(y, pixels * outputs, layer->low, layer->high);
        y += pixels * outputs;
        left -= pixels;
        oy = next_oy;
        ox = next_ox;
    }
}

#endif
#endif
