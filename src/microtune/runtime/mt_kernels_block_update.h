/*
 * mt_kernels_block_update.h: SGD and momentum on the int8 weights of dense layers and on int32 biases, from gradients
 * as blocks (mt_kernels_block_move.h). Channels whose gradient is zero are skipped without momentum.
 */
#ifndef MT_KERNELS_BLOCK_UPDATE_H
#define MT_KERNELS_BLOCK_UPDATE_H

#include "mt_kernels_block_move.h"

/// Dense ///

/* w (outputs, taken) meets the inputs start .. start + taken of x; rest, velocity like w. b (outputs) with factors of
 * its own learns too, or is NULL. */
MT_INLINE void mt_dense_block_step(int8_t *MT_RESTRICT w, int8_t *MT_RESTRICT rest, mt_int16 *MT_RESTRICT velocity,
                                   int32_t *MT_RESTRICT b, int32_t *MT_RESTRICT b_velocity,
                                   const mt_int16 *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                   const mt_int16 *MT_RESTRICT factors, const mt_int16 *MT_RESTRICT b_factors,
                                   uint32_t noise, uint32_t salt, int32_t momentum, int32_t x_zero,
                                   uint32_t outputs, uint32_t start, uint32_t taken)
{
    if (dy[0] == MT_BLOCK_ZERO && velocity == NULL) {
        return;
    }
    /* of a gradient not all zero the largest products have 26 digits at the least: above 2^0 they saturate */
    const int32_t down = mt_clamp_int32(-(dy[0] + factors[0] + MT_MOVE_PLACES), 0, 31);
    const int32_t b_down = mt_clamp_int32(b != NULL ? -(dy[0] + b_factors[0]) : 0, 0, 60);
    const int32_t b_places = b_down < 30 ? b_down : 30;
    uint32_t seed = mt_dither_begin(noise, salt);
    MT_NOT_UNROLLED
    for (uint32_t o = 0; o < outputs; ++o) {
        const int32_t g = dy[MT_BLOCK_HEAD + o];
        if (g != 0 || velocity != NULL) {
            if (b != NULL) {
                const int32_t product = (g * b_factors[MT_BLOCK_HEAD + o]) >> (b_down - b_places);
                const int32_t move = (product + (int32_t)((seed >> 1) >> (31 - b_places))) >> b_places;
                mt_block_bias_step(b + o, b_velocity != NULL ? b_velocity + o : NULL, move, momentum, seed);
            }
            const int32_t factor = mt_block_factor(g * factors[MT_BLOCK_HEAD + o], down);
            const mt_block_dither dither = mt_block_dither_of(seed);
            if (velocity == NULL) {
                mt_block_row(w, rest, x + start, taken, factor, &dither, x_zero);
            }
            MT_NOT_UNROLLED
            for (uint32_t i = 0; velocity != NULL && i < taken; ++i) {
                mt_block_step(w + i, rest + i, velocity + i, factor * (x[start + i] - x_zero), momentum, &dither);
            }
        }
        seed += MT_GOLDEN;
        w += taken;
        rest += taken;
        velocity = velocity != NULL ? velocity + taken : NULL;
    }
}

MT_INLINE void mt_sgd_block_dense(int8_t *w, int8_t *rest, const mt_int16 *dy, const int8_t *x,
                                  const mt_int16 *factors, uint32_t noise, uint32_t salt, int32_t x_zero,
                                  uint32_t outputs, uint32_t start, uint32_t taken)
{
    mt_dense_block_step(w, rest, NULL, NULL, NULL, dy, x, factors, NULL, noise, salt, 0, x_zero, outputs, start,
                        taken);
}

MT_INLINE void mt_sgd_block_dense_bias(int8_t *w, int8_t *rest, int32_t *b, const mt_int16 *dy, const int8_t *x,
                                       const mt_int16 *factors, const mt_int16 *b_factors, uint32_t noise,
                                       uint32_t salt, int32_t x_zero, uint32_t outputs, uint32_t start,
                                       uint32_t taken)
{
    mt_dense_block_step(w, rest, NULL, b, NULL, dy, x, factors, b_factors, noise, salt, 0, x_zero, outputs, start,
                        taken);
}

MT_INLINE void mt_momentum_block_dense(int8_t *w, int8_t *rest, mt_int16 *velocity, const mt_int16 *dy,
                                       const int8_t *x, const mt_int16 *factors, uint32_t noise, uint32_t salt,
                                       int32_t momentum, int32_t x_zero, uint32_t outputs, uint32_t start,
                                       uint32_t taken)
{
    mt_dense_block_step(w, rest, velocity, NULL, NULL, dy, x, factors, NULL, noise, salt, momentum, x_zero, outputs,
                        start, taken);
}

MT_INLINE void mt_momentum_block_dense_bias(int8_t *w, int8_t *rest, mt_int16 *velocity, int32_t *b,
                                            int32_t *b_velocity, const mt_int16 *dy, const int8_t *x,
                                            const mt_int16 *factors, const mt_int16 *b_factors, uint32_t noise,
                                            uint32_t salt, int32_t momentum, int32_t x_zero, uint32_t outputs,
                                            uint32_t start, uint32_t taken)
{
    mt_dense_block_step(w, rest, velocity, b, b_velocity, dy, x, factors, b_factors, noise, salt, momentum, x_zero,
                        outputs, start, taken);
}

/// Biases ///

/* b (outputs) of a layer with so many positions, at most 2^15 */
static inline void mt_bias_block_step(int32_t *MT_RESTRICT b, int32_t *MT_RESTRICT velocity,
                                      const mt_int16 *MT_RESTRICT dy, const mt_int16 *MT_RESTRICT factors,
                                      uint32_t noise, uint32_t salt, int32_t momentum, uint32_t positions,
                                      uint32_t outputs)
{
    if (dy[0] == MT_BLOCK_ZERO && velocity == NULL) {
        return;
    }
    const mt_block_bias_scaling scaling
        = mt_block_bias_scaling_of(dy[0] + factors[0] + (positions == 1u ? 0 : 15));
    uint32_t seed = mt_dither_begin(noise, salt);
    MT_NOT_UNROLLED
    for (uint32_t o = 0; o < outputs; ++o) {
        int32_t sum = dy[MT_BLOCK_HEAD + o];
        for (uint32_t position = 1; position < positions; ++position) {
            sum += dy[MT_BLOCK_HEAD + position * outputs + o];
        }
        if (sum != 0 || velocity != NULL) {
            const int32_t factor = factors[MT_BLOCK_HEAD + o];
            const int32_t product = positions == 1u ? sum * factor : mt_block_product(sum, factor);
            const int32_t move = mt_block_bias_move(product, &scaling, seed);
            mt_block_bias_step(b + o, velocity != NULL ? velocity + o : NULL, move, momentum, seed);
        }
        seed += MT_GOLDEN;
    }
}

static inline void mt_sgd_block_bias(int32_t *b, const mt_int16 *dy, const mt_int16 *factors, uint32_t noise,
                                     uint32_t salt, uint32_t positions, uint32_t outputs)
{
    mt_bias_block_step(b, NULL, dy, factors, noise, salt, 0, positions, outputs);
}

static inline void mt_momentum_block_bias(int32_t *b, int32_t *velocity, const mt_int16 *dy, const mt_int16 *factors,
                                          uint32_t noise, uint32_t salt, int32_t momentum, uint32_t positions,
                                          uint32_t outputs)
{
    mt_bias_block_step(b, velocity, dy, factors, noise, salt, momentum, positions, outputs);
}

#endif
