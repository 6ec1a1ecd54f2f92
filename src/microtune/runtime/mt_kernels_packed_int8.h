/*
 * mt_kernels_packed_int8.h: int8 dense layers and convolutions over frozen weights that are stored without their zeros,
 * or in four bits each. How they are stored: mt_kernels_packed.h. Outputs are those of mt_kernels_int8_layers.h.
 */
#ifndef MT_KERNELS_PACKED_INT8_H
#define MT_KERNELS_PACKED_INT8_H

#include "mt_kernels_int8_layers.h"
#include "mt_kernels_packed.h"

/* everything that a packed int8 layer is told; `dense` rounds once, as mt_dense_int8 does */
typedef struct mt_packed_int8 {
    const int8_t *x, *codes, *values;
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int8_t *y;
    int32_t dense, x_zero, y_zero, low, high;
    mt_packed_sizes sizes;
} mt_packed_int8;

/* sum + the products of one line: element i of it with x[i], where 0 <= i < wide; the line begins at i = -skip */
MT_INLINE int32_t mt_packed_int8_line(int form, mt_packed_codes *codes, const int8_t **values, const int8_t *x,
    int32_t x_zero, uint32_t line, uint32_t skip, uint32_t wide, int32_t sum)
{
    const int8_t *value = *values;
    const uint32_t end = line - skip;
    uint32_t i = 0u - skip;
    if (form == MT_RUNS) {
        MT_NOT_UNROLLED
        while (i != end) {
            const uint32_t gap = mt_packed_nibble(codes);
            i += gap;
            if (gap == MT_LONGEST_RUN || i == end) {
                continue;
            }
            const int32_t weight = *value++;
            if (i < wide) {
                sum += (x[i] - x_zero) * weight;
            }
            ++i;
        }
    } else if (form == MT_BITMAP) {
        MT_NOT_UNROLLED
        for (uint32_t start = 0; start < line; start += 8) {
            uint32_t bits = (uint8_t)*codes->bytes++;
            i = start - skip;
            MT_NOT_UNROLLED
            for (; bits != 0; ++i, bits >>= 1) {
                if (bits & 1u) {
                    const int32_t weight = *value++;
                    if (i < wide) {
                        sum += (x[i] - x_zero) * weight;
                    }
                }
            }
        }
    } else {
        codes->left = 1u;
        MT_NOT_UNROLLED
        for (; i != end; ++i) {
            const int32_t weight = (int32_t)(mt_packed_nibble(codes) ^ 8u) - 8;
            if (i < wide) {
                sum += (x[i] - x_zero) * weight;
            }
        }
    }
    *values = value;
    return sum;
}

static MT_APART int8_t mt_packed_int8_output(const mt_packed_int8 *layer, uint32_t o, int32_t sum)
{
    const int32_t bias = layer->bias[o], multiplier = layer->multiplier[o], shift = layer->shift[o];
    if (layer->dense) {
        return mt_int8_dense_output(sum, bias, multiplier, shift, layer->y_zero, layer->low, layer->high);
    }
    sum = mt_saturating_sum(sum, bias);
    return mt_int8_output(sum, multiplier, shift, layer->y_zero, layer->low, layer->high);
}

MT_INLINE void mt_packed_int8_layer(int form, const mt_packed_int8 *layer)
{
    const mt_packed_sizes *const s = &layer->sizes;
    const uint32_t line = s->columns * s->channels, pitch = s->width * s->channels;
    int8_t *y = layer->y;
    MT_NOT_UNROLLED
    for (uint32_t oy = 0; oy < s->out_height; ++oy) {
        MT_NOT_UNROLLED
        for (uint32_t ox = 0; ox < s->out_width; ++ox) {
            const mt_packed_window window = mt_packed_window_of(s, oy, ox);
            mt_packed_codes codes = MT_PACKED_CODES(layer->codes);
            const int8_t *values = layer->values;
            MT_NOT_UNROLLED
            for (uint32_t o = 0; o < s->outputs; ++o) {
                const int8_t *from = layer->x + window.at;
                int32_t sum = 0;
                MT_NOT_UNROLLED
                for (uint32_t row = 0; row < s->rows; ++row) {
                    const int inside = row >= window.down.first && row < window.down.end;
                    uint32_t wide = inside ? window.wide : 0;
                    MT_OPAQUE(wide); /* or the compiler asks for each element whether it is inside */
                    sum = mt_packed_int8_line(
                        form, &codes, &values, from, layer->x_zero, line, window.skip, wide, sum);
                    from += inside && row + 1 < window.down.end ? pitch : 0;
                }
                *y++ = mt_packed_int8_output(layer, o, sum);
            }
        }
    }
}

static MT_APART void mt_int8_runs_layer(const mt_packed_int8 *layer)
{
    mt_packed_int8_layer(MT_RUNS, layer);
}

static MT_APART void mt_int8_bitmap_layer(const mt_packed_int8 *layer)
{
    mt_packed_int8_layer(MT_BITMAP, layer);
}

static MT_APART void mt_int8_halves_layer(const mt_packed_int8 *layer)
{
    mt_packed_int8_layer(MT_HALVES, layer);
}

#define MT_PACKED_INT8_TAKEN \
    const int8_t *x, const int8_t *codes, const int8_t *values, const int32_t *bias, const int32_t *multiplier, \
        const int8_t *shift, int8_t *y, MT_CONV_SIZES, int32_t dense, int32_t x_zero, int32_t y_zero, int32_t low, \
        int32_t high
#define MT_PACKED_INT8_PASSED \
    x, codes, values, bias, multiplier, shift, y, MT_CONV_PASSED, dense, x_zero, y_zero, low, high

static inline mt_packed_int8 mt_packed_int8_of(MT_PACKED_INT8_TAKEN)
{
    mt_packed_int8 layer;
    layer.x = x;
    layer.codes = codes;
    layer.values = values;
    layer.bias = bias;
    layer.multiplier = multiplier;
    layer.shift = shift;
    layer.y = y;
    layer.dense = dense;
    layer.x_zero = x_zero;
    layer.y_zero = y_zero;
    layer.low = low;
    layer.high = high;
    layer.sizes = mt_packed_sizes_of(MT_CONV_PASSED);
    return layer;
}

static inline void mt_conv2d_int8_runs(MT_PACKED_INT8_TAKEN)
{
    const mt_packed_int8 layer = mt_packed_int8_of(MT_PACKED_INT8_PASSED);
    mt_int8_runs_layer(&layer);
}

static inline void mt_conv2d_int8_bitmap(MT_PACKED_INT8_TAKEN)
{
    const mt_packed_int8 layer = mt_packed_int8_of(MT_PACKED_INT8_PASSED);
    mt_int8_bitmap_layer(&layer);
}

static inline void mt_conv2d_int8_halves(MT_PACKED_INT8_TAKEN)
{
    const mt_packed_int8 layer = mt_packed_int8_of(MT_PACKED_INT8_PASSED);
    mt_int8_halves_layer(&layer);
}

#endif
