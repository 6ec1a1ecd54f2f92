/*
 * mt_kernels_int8_update.h: training of int8 weights and int32 biases where they lie,
 by SGD with stochastic rounding.
 *
 * A stored weight w stands for scale * w. A step of -rate * gradient in real units is -rate * gradient / scale steps
 * of its grid: what quantisation-aware scaling (Lin et al., On-Device Training Under 256KB Memory, 2022) amounts to.
 * That is seldom a whole number; it is rounded up or down at random with the mean kept (Gupta et al. 2015), so that
 * small gradients are not lost. A weight's gradient is formed when it is used and never stored.
 *
 * The random numbers are a hash of (noise, salt, element): noise changes with each step, salt with each tensor. Same
 * numbers in, same weights out, on every target. A gradient that is not finite leaves its weight as it is.
 */
#ifndef MT_KERNELS_INT8_UPDATE_H
#define MT_KERNELS_INT8_UPDATE_H

#include "mt_kernels_int8_weight.h"
#include "mt_kernels_update.h"
#include "mt_math.h"

/// Counter-based noise ///

/* the finaliser of MurmurHash3 (Appleby, public domain): a bijection in which every bit depends on every bit */
static inline uint32_t mt_noise_mix(uint32_t h)
{
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    return h;
}

static inline uint32_t mt_noise_key(uint32_t noise, uint32_t salt)
{
    return mt_noise_mix(noise ^ mt_noise_mix(salt + 0x9E3779B9u));
}

/* in [0, 1), a multiple of 2^-24; for each element it takes every such value equally often over all noise */
static inline float mt_noise_fraction(uint32_t key, uint32_t element)
{
    return (float)(mt_noise_mix(key ^ (element * 0x9E3779B9u)) >> 8) * (1.0f / 16777216.0f);
}

/* move rounded up with the probability of its fraction (to 2^-24); |move| below 2^30 */
static inline int32_t mt_round_at_random(float move, float fraction)
{
    int32_t whole = (int32_t)move;
    whole -= (float)whole > move;
    return whole + (fraction < move - (float)whole);
}

/* the number of this step. The count lies among the optimiser's floats, but it is a whole number */
static inline uint32_t mt_noise_begin(float *place)
{
    uint32_t count;
    MT_COPY(&count, place, sizeof count);
    ++count;
    MT_COPY(place, &count, sizeof count);
    return count;
}

/// One element ///

/* how many grid steps a weight goes down; steps = rate / scale: grid steps per unit of gradient */
static inline int32_t mt_grid_move(float gradient, float steps, float clip, float most, uint32_t key, uint32_t element)
{
    const float move = steps * mt_clip(gradient, clip);
    /* written so that NaN moves nothing; no hash where there is no gradient */
    if (!mt_is_finite(gradient) || !(mt_absolute(move) > 0.0f)) {
        return 0;
    }
    return mt_round_at_random(mt_clamp(move, -most, most), mt_noise_fraction(key, element));
}

static inline void mt_grid_step(int8_t *w, float gradient, float steps, float clip, uint32_t key, uint32_t element)
{
    const int32_t down = mt_grid_move(gradient, steps, clip, 255.0f, key, element);
    if (down != 0) {
        const int32_t moved = *w - down;
        *w = (int8_t)(moved < -127 ? -127 : (moved > 127 ? 127 : moved));
    }
}

/// Steps ///

/* from a gradient in memory,
for weights that several layers share; element e belongs to channel (e / inner) % channels */
static inline void mt_sgd_int8(int8_t *MT_RESTRICT w, const float *MT_RESTRICT gradient,
                               const float *MT_RESTRICT scale,
                               float rate, uint32_t noise, float clip, uint32_t salt, uint32_t inner,
                               uint32_t channels, uint32_t size)
{
    const uint32_t key = mt_noise_key(noise, salt);
    for (uint32_t e = 0; e < size; ++e) {
        mt_grid_step(w + e, gradient[e], rate / scale[(e / inner) % channels], clip, key, e);
    }
}

/* int32 biases, kept within +-(2^30 - 1): their layer's sum then fits as well */
static inline void mt_sgd_int32(int32_t *MT_RESTRICT b, const float *MT_RESTRICT gradient,
                                const float *MT_RESTRICT scale, float rate, uint32_t noise, float clip, uint32_t salt,
                                uint32_t size)
{
    const int32_t most = 1073741823;
    const uint32_t key = mt_noise_key(noise, salt);
    for (uint32_t e = 0; e < size; ++e) {
        /* 2^30 - 64 is the largest float below 2^30: the difference cannot overflow */
        const int32_t down = mt_grid_move(gradient[e], rate / scale[e], clip, 1073741760.0f, key, e);
        if (down != 0) {
            const int32_t moved = (b[e] < -most ? -most : (b[e] > most ? most : b[e])) - down;
            b[e] = moved < -most ? -most : (moved > most ? most : moved);
        }
    }
}

/* w (outputs, taken) meets the inputs start..start + taken of x */
static inline void mt_sgd_dense_int8(int8_t *MT_RESTRICT w, const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                     const float *MT_RESTRICT scale, float rate, uint32_t noise, float clip,
                                     uint32_t salt, float x_scale, int32_t x_zero, uint32_t outputs, uint32_t start,
                                     uint32_t taken)
{
    const uint32_t key = mt_noise_key(noise, salt);
    for (uint32_t o = 0; o < outputs; ++o) {
        const float steps = rate / scale[o];
        for (uint32_t i = 0; i < taken; ++i) {
            const uint32_t e = o * taken + i;
            mt_grid_step(w + e, x_scale * (dy[o] * (float)(x[start + i] - x_zero)), steps, clip, key, e);
        }
    }
}

/* w (outputs, kernel_height, kernel_width, taken) meets the input channels start..start + taken of x */
static inline void mt_sgd_conv2d_int8(int8_t *MT_RESTRICT w, const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                      const float *MT_RESTRICT scale, float rate, uint32_t noise, float clip,
                                      uint32_t salt, float x_scale, int32_t x_zero, uint32_t height,
                                      uint32_t width, uint32_t out_height, uint32_t out_width,
                                      uint32_t kernel_height, uint32_t kernel_width, uint32_t stride_height,
                                      uint32_t stride_width, uint32_t top, uint32_t left, uint32_t channels,
                                      uint32_t outputs, uint32_t start,
                                      uint32_t taken)
{
    const mt_conv_sizes s = mt_conv_sizes_of(height, width, out_height, out_width, kernel_height, kernel_width,
                                             stride_height, stride_width, top, left, channels, outputs);
    const uint32_t key = mt_noise_key(noise, salt);
    float sum[MT_BLOCK][MT_BLOCK] = {{0.0f}};
    float steps[MT_BLOCK] = {0.0f};
    for (uint32_t o = 0; o < outputs; o += MT_BLOCK) {
        const uint32_t rows = mt_block_size(outputs - o);
        for (uint32_t a = 0; a < rows; ++a) {
            steps[a] = rate / scale[o + a];
        }
        for (uint32_t tap = 0; tap < kernel_height * kernel_width; ++tap) {
            for (uint32_t c = 0; c < taken; c += MT_BLOCK) {
                const uint32_t columns = mt_block_size(taken - c);
                mt_weight_block_at(dy, x, &s, x_zero, tap / kernel_width, tap % kernel_width, o, start + c, rows,
                                   columns, sum);
                for (uint32_t a = 0; a < rows; ++a) {
                    for (uint32_t b = 0; b < columns; ++b) {
                        const uint32_t e = ((o + a) * kernel_height * kernel_width + tap) * taken + c + b;
                        mt_grid_step(w + e, x_scale * sum[a][b], steps[a], clip, key, e);
                    }
                }
            }
        }
    }
}

/* w (kernel_height, kernel_width, outputs), outputs a multiple of channels */
static inline void mt_sgd_depthwise_conv2d_int8(int8_t *MT_RESTRICT w, const float *MT_RESTRICT dy,
                                                const int8_t *MT_RESTRICT x, const float *MT_RESTRICT scale,
                                                float rate, uint32_t noise, float clip, uint32_t salt, float x_scale,
                                                int32_t x_zero, uint32_t height, uint32_t width,
                                                uint32_t out_height, uint32_t out_width, uint32_t kernel_height,
                                                uint32_t kernel_width, uint32_t stride_height,
                                                uint32_t stride_width, uint32_t top, uint32_t left,
                                                uint32_t channels, uint32_t outputs)
{
    const mt_conv_sizes s = mt_conv_sizes_of(height, width, out_height, out_width, kernel_height, kernel_width,
                                             stride_height, stride_width, top, left, channels, outputs);
    const uint32_t key = mt_noise_key(noise, salt);
    float sum[MT_BLOCK] = {0.0f};
    for (uint32_t tap = 0; tap < kernel_height * kernel_width; ++tap) {
        for (uint32_t c = 0; c < outputs; c += MT_BLOCK) {
            const uint32_t columns = mt_block_size(outputs - c);
            mt_depthwise_weight_block_at(dy, x, &s, x_zero, tap / kernel_width, tap % kernel_width, c, columns,
                                         outputs / channels, sum);
            for (uint32_t b = 0; b < columns; ++b) {
                const uint32_t e = tap * outputs + c + b;
                mt_grid_step(w + e, x_scale * sum[b], rate / scale[c + b], clip, key, e);
            }
        }
    }
}

#endif
