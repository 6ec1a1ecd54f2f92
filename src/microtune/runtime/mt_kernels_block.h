/*
 * mt_kernels_block.h: gradients as blocks, for learning with integers only.
 *
 * A block is an int16_t array: an exponent of two, a place left empty (the mantissas begin at a word), then one
 * mantissa for each element. Element i stands for block[2 + i] * 2^block[0], in real units. (Block floating point, one
 * scale to a tensor: Wang et al., NITI: Training Integer Neural Networks Using Integer-only Arithmetic, 2020.)
 *
 * Sums are exact in 32 bits; a block keeps the 15 highest bits of the largest, rounded down. That is the same whether a
 * sum is shifted at once or in parts: a block is written in one pass, and shifted again when a larger sum comes. Where
 * fewer than 11 bits are in use it is shifted up. A block of zeros has the exponent MT_BLOCK_ZERO, and what reads it
 * ends early.
 */
#ifndef MT_KERNELS_BLOCK_H
#define MT_KERNELS_BLOCK_H

#include "mt_fixed.h"
#include "mt_kernels_int8.h"

#define MT_BLOCK_ZERO (-32768)
/* elements before the mantissas */
#define MT_BLOCK_HEAD 2u
/* input channels that are summed side by side */
#define MT_BLOCK_COLUMNS 8u

/// Writing ///

/* Of the mantissas written so far: their magnitudes together (bit by bit), and how far the sums were shifted. */
typedef struct {
    mt_int16 *block;
    uint32_t bits;
    int32_t shift;
} mt_block_writer;

static inline mt_block_writer mt_block_begin(mt_int16 *block)
{
    mt_block_writer writer;
    writer.block = block;
    writer.bits = 0;
    writer.shift = 0;
    return writer;
}

/* binary digits of x */
MT_COLD static inline int32_t mt_bit_length(uint32_t x)
{
    int32_t length = 0;
    for (uint32_t half = 16u; half != 0u; half >>= 1) {
        if (x >> half != 0u) {
            x >>= half;
            length += (int32_t)half;
            MT_OPAQUE(x); /* a branch, which is shorter than doing both */
        }
    }
    return length + (int32_t)x;
}

MT_COLD static inline void mt_block_shift(mt_int16 *block, uint32_t size, int32_t shift)
{
    for (uint32_t i = MT_BLOCK_HEAD; i < MT_BLOCK_HEAD + size; ++i) {
        block[i] = (int16_t)(shift < 0 ? block[i] * (1 << -shift) : block[i] >> shift);
    }
}

/* a value at the place behind the last */
static inline void mt_block_put(mt_block_writer *writer, uint32_t place, int32_t value)
{
    int32_t mantissa = value >> writer->shift;
    const uint32_t magnitude = (uint32_t)(mantissa ^ (mantissa >> 31));
    writer->bits |= magnitude;
    if (magnitude >> 15 != 0u) {
        const int32_t more = mt_bit_length(writer->bits) - 15;
        mt_block_shift(writer->block, place, more);
        writer->bits >>= more;
        writer->shift += more;
        mantissa >>= more;
    }
    writer->block[MT_BLOCK_HEAD + place] = (int16_t)mantissa;
}

/* a mantissa as it is */
static inline void mt_block_keep(mt_block_writer *writer, uint32_t place, int32_t mantissa)
{
    writer->bits |= (uint32_t)(mantissa ^ (mantissa >> 31));
    writer->block[MT_BLOCK_HEAD + place] = (int16_t)mantissa;
}

static inline void mt_block_clear(mt_int16 *block, uint32_t size)
{
    MT_ZERO(block, (MT_BLOCK_HEAD + size) * sizeof *block);
    block[0] = MT_BLOCK_ZERO;
}

/* shift up to the top */
MT_COLD static inline void mt_block_raise(mt_int16 *block, uint32_t size, uint32_t bits)
{
    int any = bits != 0u;
    for (uint32_t i = 0; !any && i < size; ++i) {
        any = block[MT_BLOCK_HEAD + i] != 0;
    }
    if (any) {
        const int32_t up = 15 - mt_bit_length(bits);
        mt_block_shift(block, size, -up);
        block[0] = (int16_t)(block[0] - up);
    } else {
        block[0] = MT_BLOCK_ZERO;
    }
}

/* values written so far were in units of 2^exponent */
static inline void mt_block_end(const mt_block_writer *writer, mt_int16 *block, uint32_t size, int32_t exponent)
{
    block[0] = (int16_t)(exponent + writer->shift);
    block[1] = 0;
    if (writer->bits >> 10 == 0u) {
        mt_block_raise(block, size, writer->bits);
    }
}

/* divide all by a whole number */
static inline void mt_block_divide(mt_int16 *block, uint32_t size, uint32_t divisor)
{
    uint32_t power = 0;
    while (divisor >> (power + 1u) != 0u) {
        ++power;
    }
    if (block[0] == MT_BLOCK_ZERO) {
        return;
    }
    block[0] = (int16_t)(block[0] - (int32_t)power);
    if (divisor != 1u << power) {
        /* 2^power / divisor in 15 binary places */
        const int32_t factor = (int32_t)(((1u << (power + 15u)) + divisor / 2u) / divisor);
        for (uint32_t i = 0; i < size; ++i) {
            block[MT_BLOCK_HEAD + i] = (int16_t)((block[MT_BLOCK_HEAD + i] * factor) >> 15);
        }
    }
}

/// Element by element ///

/* dx[i] = dy[i] where y[i] lies strictly between low and high, else 0; dx may be dy */
static inline void mt_block_inside_grad(const mt_int16 *dy, const int8_t *y, mt_int16 *dx, int32_t low, int32_t high,
                                        uint32_t size)
{
    const int32_t exponent = dy[0];
    if (exponent == MT_BLOCK_ZERO) {
        mt_block_clear(dx, size);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    const uint32_t inside = high > low ? (uint32_t)(high - low - 1) : 0u;
    for (uint32_t i = 0; i < size; ++i) {
        mt_block_keep(&writer, i, (uint32_t)(y[i] - low - 1) < inside ? dy[MT_BLOCK_HEAD + i] : 0);
    }
    mt_block_end(&writer, dx, size, exponent);
}

/* the same by a mask (see mt_saturation_mask) */
static inline void mt_block_saturation_grad(const mt_int16 *dy, const int8_t *mask, mt_int16 *dx, uint32_t size)
{
    const uint8_t *const bytes = (const uint8_t *)mask;
    const int32_t exponent = dy[0];
    if (exponent == MT_BLOCK_ZERO) {
        mt_block_clear(dx, size);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t i = 0; i < size; ++i) {
        mt_block_keep(&writer, i, ((uint32_t)bytes[i / 8] >> (i % 8) & 1u) != 0u ? dy[MT_BLOCK_HEAD + i] : 0);
    }
    mt_block_end(&writer, dx, size, exponent);
}

/* dx = rate dy, rate of 16 binary places and at most 1; dx may be dy */
static inline void mt_block_scale(const mt_int16 *dy, mt_int16 *dx, int32_t rate, uint32_t size)
{
    const int32_t exponent = dy[0];
    if (exponent == MT_BLOCK_ZERO) {
        mt_block_clear(dx, size);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t i = 0; i < size; ++i) {
        mt_block_put(&writer, i, dy[MT_BLOCK_HEAD + i] * rate);
    }
    mt_block_end(&writer, dx, size, exponent - 16);
}

/* 1 / (1 + decay steps), decay of 31 binary places, with 16 of them; never below 2 / 65536 */
static inline int32_t mt_decay_fixed(uint32_t steps, int32_t decay)
{
    const uint64_t grown = ((uint64_t)steps * (uint32_t)decay >> 15) + (uint32_t)MT_FIXED_ONE;
    return mt_fixed_divide(MT_FIXED_ONE, grown < (uint32_t)MT_FIXED_LARGEST ? (mt_fixed)grown : MT_FIXED_LARGEST);
}

/* one addend at 14 places below the larger exponent */
static inline int32_t mt_block_addend(int16_t mantissa, int32_t below)
{
    return below <= 14 ? mantissa * (1 << (14 - below)) : mantissa >> (below - 14 < 31 ? below - 14 : 31);
}

/* y = a + b; y may be a or b */
static inline void mt_block_add(const mt_int16 *a, const mt_int16 *b, mt_int16 *y, uint32_t size)
{
    const int32_t a_exponent = a[0];
    const int32_t b_exponent = b[0];
    const int32_t larger = a_exponent > b_exponent ? a_exponent : b_exponent;
    if (larger == MT_BLOCK_ZERO) {
        mt_block_clear(y, size);
        return;
    }
    mt_block_writer writer = mt_block_begin(y);
    for (uint32_t i = MT_BLOCK_HEAD; i < MT_BLOCK_HEAD + size; ++i) {
        mt_block_put(&writer, i - MT_BLOCK_HEAD,
                     mt_block_addend(a[i], larger - a_exponent) + mt_block_addend(b[i], larger - b_exponent));
    }
    mt_block_end(&writer, y, size, larger - 14);
}

/* gradient of y = table[x + 128]: slopes is a block of 256, dy/dx of each value of x; dx may be dy */
static inline void mt_block_lookup_grad(const mt_int16 *dy, const int8_t *x, const mt_int16 *slopes, mt_int16 *dx,
                                        uint32_t size)
{
    const int32_t exponent = dy[0];
    if (exponent == MT_BLOCK_ZERO) {
        mt_block_clear(dx, size);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t i = 0; i < size; ++i) {
        mt_block_put(&writer, i, dy[MT_BLOCK_HEAD + i] * slopes[(int32_t)MT_BLOCK_HEAD + x[i] + 128]);
    }
    mt_block_end(&writer, dx, size, exponent + slopes[0]);
}

/* gradient of a product to one factor: dy times the real value of the other, factor 2^exponent (other - zero), where
 * 0 <= factor < 2^15; dx may be dy */
static inline void mt_block_multiply_grad(const mt_int16 *dy, const int8_t *other, mt_int16 *dx, int32_t factor,
                                          int32_t exponent, int32_t zero, uint32_t size)
{
    const int32_t given = dy[0];
    if (given == MT_BLOCK_ZERO) {
        mt_block_clear(dx, size);
        return;
    }
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t i = 0; i < size; ++i) {
        const int32_t scaled = (dy[MT_BLOCK_HEAD + i] * factor + 128) >> 8;
        mt_block_put(&writer, i, scaled * (other[i] - zero));
    }
    mt_block_end(&writer, dx, size, given + exponent + 8);
}

/// Moved ///

/* element (r, i) of dx, rows of `taken`, is element start + i of row r of dy, rows of `given`, where there is one, and
 * else 0: the gradient of concat takes some, that of slice puts them back */
static inline void mt_block_rows(const mt_int16 *MT_RESTRICT dy, mt_int16 *MT_RESTRICT dx, uint32_t rows,
                                 uint32_t given, uint32_t taken, int32_t start)
{
    mt_block_writer writer = mt_block_begin(dx);
    if (dy[0] == MT_BLOCK_ZERO) {
        mt_block_clear(dx, rows * taken);
        return;
    }
    for (uint32_t row = 0; row < rows; ++row) {
        for (uint32_t i = 0; i < taken; ++i) {
            /* before the first the difference wraps around, and so is beyond the last too */
            const uint32_t from = (uint32_t)start + i;
            mt_block_keep(&writer, row * taken + i, from < given ? dy[MT_BLOCK_HEAD + row * given + from] : 0);
        }
    }
    mt_block_end(&writer, dx, rows * taken, dy[0]);
}

/* axes in another order: dx has the sizes, `step` is how far apart their elements lie in dy */
static inline void mt_block_transpose(const mt_int16 *MT_RESTRICT dy, mt_int16 *MT_RESTRICT dx, uint32_t size0,
                                      uint32_t size1, uint32_t size2, uint32_t size3, uint32_t step0, uint32_t step1,
                                      uint32_t step2, uint32_t step3)
{
    mt_int16 *to = dx + MT_BLOCK_HEAD;
    dx[0] = dy[0];
    dx[1] = 0;
    for (uint32_t a = 0; a < size0; ++a) {
        for (uint32_t b = 0; b < size1; ++b) {
            for (uint32_t c = 0; c < size2; ++c) {
                for (uint32_t d = 0; d < size3; ++d) {
                    *to++ = dy[MT_BLOCK_HEAD + a * step0 + b * step1 + c * step2 + d * step3];
                }
            }
        }
    }
}

#endif
