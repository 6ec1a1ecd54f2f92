/*
 * mt_kernels_packed.h: dense layers and convolutions over frozen weights that are stored without their zeros, in float32.
 *
 * A weight (outputs, rows, columns, channels) is read from its first element to its last, once for each pixel of the
 * output, and nothing of it is unpacked into RAM. A line is a row of a kernel, columns * channels elements. `values`
 * are the elements that are not zero; `codes` say where they lie:
 *
 *   runs    a nibble, lower half of a byte first, is how many zeros come before the next value; 15 stands for 15
 *           zeros and no value; nibbles go on from line to line
 *   bitmap  a bit for each element, lowest first; each line begins a byte
 *   halves  integers of -8 .. 7, two to a byte, lower half first; each line begins a byte; there are no other values
 *
 * Sums are those of the dense kernels bit for bit: what a zero would add to a finite number changes nothing.
 */
#ifndef MT_KERNELS_PACKED_H
#define MT_KERNELS_PACKED_H

#include "mt_kernels_conv.h"

#define MT_RUNS 0
#define MT_BITMAP 1
#define MT_HALVES 2
#define MT_LONGEST_RUN 15u

/* what a packed layer is told of its sizes, in the order of MT_CONV_SIZES */
typedef struct mt_packed_sizes {
    uint32_t height, width, out_height, out_width, rows, columns, stride_y, stride_x, top, left, channels, outputs;
} mt_packed_sizes;

static inline mt_packed_sizes mt_packed_sizes_of(MT_CONV_SIZES)
{
    mt_packed_sizes s;
    s.height = height;
    s.width = width;
    s.out_height = out_height;
    s.out_width = out_width;
    s.rows = rows;
    s.columns = columns;
    s.stride_y = stride_y;
    s.stride_x = stride_x;
    s.top = top;
    s.left = left;
    s.channels = channels;
    s.outputs = outputs;
    return s;
}

/* one window: `down` and `across` are what of it is inside the image, x begins at the first element inside */
typedef struct mt_packed_window {
    mt_window down;
    uint32_t skip, wide, at;
} mt_packed_window;

static MT_APART mt_packed_window mt_packed_window_of(const mt_packed_sizes *s, uint32_t oy, uint32_t ox)
{
    mt_packed_window found;
    const mt_window across = mt_window_of(ox * s->stride_x, s->left, s->width, s->columns);
    found.down = mt_window_of(oy * s->stride_y, s->top, s->height, s->rows);
    found.skip = across.first * s->channels;
    found.wide = (across.end - across.first) * s->channels;
    found.at = (oy * s->stride_y + found.down.first - s->top) * s->width + ox * s->stride_x + across.first - s->left;
    found.at *= s->channels;
    return found;
}

/* where in the codes a layer is; `left` are the nibbles of a byte that are not read yet, below a one */
typedef struct mt_packed_codes {
    const int8_t *bytes;
    uint32_t left;
} mt_packed_codes;

#define MT_PACKED_CODES(codes) {(codes), 1u}

MT_INLINE uint32_t mt_packed_nibble(mt_packed_codes *codes)
{
    if (codes->left == 1u) {
        codes->left = (uint32_t)(uint8_t)*codes->bytes++ | 0x100u;
    }
    const uint32_t nibble = codes->left & 15u;
    codes->left >>= 4;
    return nibble;
}

/* The products of one line: element i of it with x[i], where 0 <= i < wide; the line begins at i = -skip. As in
 * mt_conv2d_row, lanes are counted from the first element inside. */
MT_INLINE const float *mt_packed_line(int form, mt_packed_codes *codes, const float *values, const float *x,
                                      uint32_t line, uint32_t skip, uint32_t wide, float lane[4])
{
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
            const float value = *values++;
            if (i < wide) {
                lane[i & 3u] += x[i] * value;
            }
            ++i;
        }
    } else {
        MT_NOT_UNROLLED
        for (uint32_t start = 0; start < line; start += 8) {
            uint32_t bits = (uint8_t)*codes->bytes++;
            i = start - skip;
            MT_NOT_UNROLLED
            for (; bits != 0; ++i, bits >>= 1) {
                if (bits & 1u) {
                    const float value = *values++;
                    if (i < wide) {
                        lane[i & 3u] += x[i] * value;
                    }
                }
            }
        }
    }
    return values;
}

MT_INLINE void mt_packed_layer(int form, const float *x, const int8_t *code, const float *value, const float *bias,
                               float *y, const mt_packed_sizes *s)
{
    const uint32_t line = s->columns * s->channels, pitch = s->width * s->channels;
    MT_NOT_UNROLLED
    for (uint32_t oy = 0; oy < s->out_height; ++oy) {
        MT_NOT_UNROLLED
        for (uint32_t ox = 0; ox < s->out_width; ++ox) {
            const mt_packed_window window = mt_packed_window_of(s, oy, ox);
            mt_packed_codes codes = MT_PACKED_CODES(code);
            const float *values = value;
            MT_NOT_UNROLLED
            for (uint32_t o = 0; o < s->outputs; ++o) {
                float lane[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                const float *from = x + window.at;
                MT_NOT_UNROLLED
                for (uint32_t row = 0; row < s->rows; ++row) {
                    const int inside = row >= window.down.first && row < window.down.end;
                    uint32_t wide = inside ? window.wide : 0;
                    MT_OPAQUE(wide); /* or the compiler asks for each element whether it is inside */
                    values = mt_packed_line(form, &codes, values, from, line, window.skip, wide, lane);
                    from += inside && row + 1 < window.down.end ? pitch : 0;
                }
                *y++ = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + bias[o];
            }
        }
    }
}

static MT_APART void mt_runs_layer(const float *x, const int8_t *codes, const float *values, const float *bias,
                                   float *y, const mt_packed_sizes *sizes)
{
    mt_packed_layer(MT_RUNS, x, codes, values, bias, y, sizes);
}

static MT_APART void mt_bitmap_layer(const float *x, const int8_t *codes, const float *values, const float *bias,
                                     float *y, const mt_packed_sizes *sizes)
{
    mt_packed_layer(MT_BITMAP, x, codes, values, bias, y, sizes);
}

/* a dense layer is a convolution of one pixel */
static inline void mt_conv2d_runs(const float *x, const int8_t *codes, const float *values, const float *bias, float *y,
                                  MT_CONV_SIZES)
{
    const mt_packed_sizes sizes = mt_packed_sizes_of(MT_CONV_PASSED);
    mt_runs_layer(x, codes, values, bias, y, &sizes);
}

static inline void mt_conv2d_bitmap(const float *x, const int8_t *codes, const float *values, const float *bias,
                                    float *y, MT_CONV_SIZES)
{
    const mt_packed_sizes sizes = mt_packed_sizes_of(MT_CONV_PASSED);
    mt_bitmap_layer(x, codes, values, bias, y, &sizes);
}

#endif
