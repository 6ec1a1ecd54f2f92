/*
 * mt_kernels_block_products.h: products of what learns, in integers alone: a layer of one output whose inputs have gains
 * that learn too, and a product of two sums.
 */
#ifndef MT_KERNELS_BLOCK_PRODUCTS_H
#define MT_KERNELS_BLOCK_PRODUCTS_H

#include "mt_kernels_block_move.h"

/// Forward ///

/* y = sum of weight[i] gain[i] (x[start + i] - x_zero) + bias, with 16 binary places; at most 255 inputs */
static inline void mt_gained_int8_logits(const int8_t *MT_RESTRICT x, const int8_t *MT_RESTRICT weight,
                                         const int8_t *MT_RESTRICT gain, const int32_t *MT_RESTRICT bias,
                                         const int32_t *MT_RESTRICT multiplier, const int8_t *MT_RESTRICT shift,
                                         mt_fixed *MT_RESTRICT y, int32_t x_zero, uint32_t start,
                                         uint32_t size)
{
    int32_t sum = 0;
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < size; ++i) {
        sum += weight[i] * gain[i] * (x[start + i] - x_zero);
    }
    y[0] = mt_rescale_once(mt_fixed_add(sum, bias[0]), multiplier[0], shift[0]);
}

static inline void mt_multiply_fixed(const mt_fixed *a, const mt_fixed *b, mt_fixed *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_fixed_multiply(a[i], b[i]);
    }
}

/// Backward ///

/* dx = dy times the other factor, of 16 binary places, of which the 15 highest count */
static inline void mt_block_multiply_fixed_grad(const mt_int16 *MT_RESTRICT dy, const mt_fixed *MT_RESTRICT other,
                                                mt_int16 *MT_RESTRICT dx, uint32_t size)
{
    const int32_t exponent = dy[0];
    uint32_t bits = 0;
    for (uint32_t i = 0; i < size; ++i) {
        bits |= (uint32_t)(other[i] ^ (other[i] >> 31));
    }
    if (exponent == MT_BLOCK_ZERO) {
        mt_block_clear(dx, size);
        return;
    }
    const int32_t length = mt_bit_length(bits), down = length > 15 ? length - 15 : 0;
    mt_block_writer writer = mt_block_begin(dx);
    for (uint32_t i = 0; i < size; ++i) {
        mt_block_put(&writer, i, dy[MT_BLOCK_HEAD + i] * (other[i] >> down));
    }
    mt_block_end(&writer, dx, size, exponent + down - 16);
}

/// Updates ///

/* what a product of two bytes, one less a zero point, is multiplied by: the move then fits 30 digits */
static inline int32_t mt_gained_factor(const mt_int16 *dy, const mt_int16 *factors)
{
    const int32_t down = mt_clamp_int32(-(dy[0] + factors[0] + MT_MOVE_PLACES), 0, 31);
    return mt_clamp_int32((dy[MT_BLOCK_HEAD] * factors[MT_BLOCK_HEAD]) >> down, -16383, 16383);
}

/* weight and gain (size) each down by their factor times the product of the other, as it was, and x less x_zero, from
 * start on */
MT_INLINE void mt_block_gained_step(int8_t *MT_RESTRICT w, int8_t *MT_RESTRICT rest, mt_int16 *MT_RESTRICT velocity,
                                    int8_t *MT_RESTRICT gain, int8_t *MT_RESTRICT gain_rest,
                                    mt_int16 *MT_RESTRICT gain_velocity, const mt_int16 *MT_RESTRICT dy,
                                    const int8_t *MT_RESTRICT x, const mt_int16 *MT_RESTRICT factors,
                                    const mt_int16 *MT_RESTRICT gain_factors, uint32_t noise, uint32_t salt,
                                    int32_t momentum, int32_t x_zero, uint32_t start, uint32_t size)
{
    if (dy[0] == MT_BLOCK_ZERO && velocity == NULL) {
        return;
    }
    const int32_t factor = mt_gained_factor(dy, factors), gain_factor = mt_gained_factor(dy, gain_factors);
    const uint32_t seed = mt_dither_begin(noise, salt);
    const mt_block_dither dither = mt_block_dither_of(seed), gain_dither = mt_block_dither_of(seed + MT_GOLDEN);
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < size; ++i) {
        const int32_t away = x[start + i] - x_zero;
        if (away != 0 || velocity != NULL) {
            const int32_t towards_gain = w[i] * away;
            mt_block_step(w + i, rest + i, velocity != NULL ? velocity + i : NULL, factor * (gain[i] * away),
                          momentum, &dither);
            mt_block_step(gain + i, gain_rest + i, velocity != NULL ? gain_velocity + i : NULL,
                          gain_factor * towards_gain, momentum, &gain_dither);
        }
    }
}

static inline void mt_sgd_block_gained(int8_t *w, int8_t *rest, int8_t *gain, int8_t *gain_rest, const mt_int16 *dy,
                                       const int8_t *x, const mt_int16 *factors, const mt_int16 *gain_factors,
                                       uint32_t noise, uint32_t salt, int32_t x_zero, uint32_t start, uint32_t size)
{
    mt_block_gained_step(w, rest, NULL, gain, gain_rest, NULL, dy, x, factors, gain_factors, noise, salt, 0, x_zero,
                         start, size);
}

static inline void mt_momentum_block_gained(int8_t *w, int8_t *rest, mt_int16 *velocity, int8_t *gain,
                                            int8_t *gain_rest, mt_int16 *gain_velocity, const mt_int16 *dy,
                                            const int8_t *x, const mt_int16 *factors, const mt_int16 *gain_factors,
                                            uint32_t noise, uint32_t salt, int32_t momentum, int32_t x_zero,
                                            uint32_t start, uint32_t size)
{
    mt_block_gained_step(w, rest, velocity, gain, gain_rest, gain_velocity, dy, x, factors, gain_factors, noise, salt,
                         momentum, x_zero, start, size);
}

#endif
