/*
 * mt_kernels_block_products.h: products of what learns, in integers alone: a layer of one output whose inputs have
 * gains that learn too, and a product of two sums.
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

/* What a product of two bytes, one less a zero point, is multiplied by: 14 digits and a sign, times 2^up where the move
 * is large. */
typedef struct {
    int32_t factor;
    int32_t up;
} mt_gained_scaling;

static inline mt_gained_scaling mt_gained_scaling_of(const mt_int16 *dy, const mt_int16 *factors)
{
    const int32_t exponent = dy[0] + factors[0] + MT_MOVE_PLACES;
    const int32_t factor = (dy[MT_BLOCK_HEAD] * factors[MT_BLOCK_HEAD]) >> mt_clamp_int32(-exponent, 0, 31);
    const int32_t length = mt_bit_length((uint32_t)(factor ^ (factor >> 31)));
    const int32_t more = length > 14 ? length - 14 : 0;
    mt_gained_scaling scaling;
    /* beyond 2^8 all is 64 grid steps: a factor not zero has 25 digits before it loses any */
    scaling.up = more + mt_clamp_int32(exponent, 0, 8);
    scaling.factor = factor >> more;
    if (scaling.up == 1) { /* twice such a product is within the bound as it is: below 2^30 */
        scaling.factor *= 2;
        scaling.up = 0;
    }
    return scaling;
}

/* a move in 2^-24 of a grid step, within 64 of them */
MT_INLINE int32_t mt_gained_units(const mt_gained_scaling *by, int32_t product)
{
    const int32_t units = by->factor * product;
    if (MT_RARELY(by->up != 0)) {
        const uint32_t most = 1073741823u >> by->up;
        const int beyond = (uint32_t)units + most > 2u * most;
        return (MT_RARELY(beyond) ? (units < 0 ? -(int32_t)most : (int32_t)most) : units) * (1 << by->up);
    }
    return units;
}

/* one weight down by units / 2^24 of a grid step, as mt_block_step has it; most moves of a product are more than what
 * is left of a weight, which is taken whole here */
MT_INLINE void mt_gained_move(int8_t *w, int8_t *rest, int32_t units, int32_t dither)
{
    const int32_t total = *w * 256 + *rest - ((units + dither) >> MT_MOVE_PLACES);
    const int32_t whole = (total + 128) >> 8;
    int32_t kept = (int8_t)((uint32_t)whole & 0xFFu);
    *rest = (int8_t)((uint32_t)total & 0xFFu);
    *w = (int8_t)kept;
    MT_OPAQUE(kept); /* compared as it is, and not by another number that waits on the stack */
    if (MT_RARELY(kept != whole)) {
        *w = whole < 0 ? -128 : 127;
        *rest = *w;
    }
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
    const mt_gained_scaling by = mt_gained_scaling_of(dy, factors), gain_by = mt_gained_scaling_of(dy, gain_factors);
    const uint32_t seed = mt_dither_begin(noise, salt);
    const mt_block_dither dither = mt_block_dither_of(seed), gain_dither = mt_block_dither_of(seed + MT_GOLDEN);
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < size; ++i) {
        const int32_t away = x[start + i] - x_zero, product = gain[i] * away, gain_product = w[i] * away;
        if (velocity != NULL) {
            mt_block_step(w + i, rest + i, velocity + i, mt_gained_units(&by, product), momentum, &dither);
            mt_block_step(gain + i, gain_rest + i, gain_velocity + i, mt_gained_units(&gain_by, gain_product), momentum,
                          &gain_dither);
        } else {
            mt_gained_move(w + i, rest + i, mt_gained_units(&by, product), dither.moves);
            mt_gained_move(gain + i, gain_rest + i, mt_gained_units(&gain_by, gain_product), gain_dither.moves);
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
