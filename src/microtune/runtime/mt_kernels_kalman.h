/*
 * mt_kernels_kalman.h: an extended Kalman filter on one logit, over all that learns.
 *
 * phi is the gradient of the logit to each of `size` parameters. Their covariance P is the packed lower triangle of
 * `size` rows. Two rows are read at once, and each sum runs in the order of its elements: the bits are the same
 * everywhere, and an element of P costs seven instructions on a core with a floating-point unit, five more to learn.
 */
#ifndef MT_KERNELS_KALMAN_H
#define MT_KERNELS_KALMAN_H

#include "mt_kernels_covariance.h"
#include "mt_kernels_layout.h"

/* independent parameters of these prior variances (size) */
static inline void mt_kalman_begin(float *MT_RESTRICT covariance, const float *MT_RESTRICT prior, uint32_t size)
{
    for (uint32_t row = 0; row < size; ++row) {
        for (uint32_t column = 0; column < row; ++column) {
            *covariance++ = 0.0f;
        }
        *covariance++ = prior[row];
    }
}

/* a variance after rounding, which may have taken more than there was */
MT_INLINE float mt_kalman_variance(float variance)
{
    return variance > 0.0f ? variance : 0.0f;
}

/* column i of two rows of P, of which phi has the elements a and b: the sums of the rows, and what stands above the
 * diagonal */
MT_INLINE void mt_kalman_column(const float *MT_RESTRICT row, const float *MT_RESTRICT next,
                                const float *MT_RESTRICT phi, float *MT_RESTRICT gain, uint32_t i, float a, float b,
                                float *MT_RESTRICT sum, float *MT_RESTRICT next_sum)
{
    const float p = row[i], q = next[i], x = phi[i];
    *sum += p * x;
    *next_sum += q * x;
    gain[i] += p * a + q * b;
}

/* variances walk; then gain (size) = P phi; returns phi' P phi, the variance of the logit */
static inline float mt_kalman_gain(float *MT_RESTRICT covariance, const float *MT_RESTRICT prior,
                                   const float *MT_RESTRICT phi, float *MT_RESTRICT gain, float walk, uint32_t size)
{
    uint32_t r = 0;
    for (; r + 2 <= size; r += 2) {
        float *const row = covariance, *const next = covariance + r + 1;
        const float a = phi[r], b = phi[r + 1];
        float sum = 0.0f, next_sum = 0.0f;
        uint32_t i = r & 2u;
        if (i != 0) {
            mt_kalman_column(row, next, phi, gain, 0, a, b, &sum, &next_sum);
            mt_kalman_column(row, next, phi, gain, 1, a, b, &sum, &next_sum);
        }
        MT_NOT_UNROLLED
        for (; i < r; i += 4) {
            mt_kalman_column(row, next, phi, gain, i, a, b, &sum, &next_sum);
            mt_kalman_column(row, next, phi, gain, i + 1, a, b, &sum, &next_sum);
            mt_kalman_column(row, next, phi, gain, i + 2, a, b, &sum, &next_sum);
            mt_kalman_column(row, next, phi, gain, i + 3, a, b, &sum, &next_sum);
        }
        row[r] = mt_covariance_walk(row[r], prior[r], walk);
        next[r + 1] = mt_covariance_walk(next[r + 1], prior[r + 1], walk);
        gain[r] = sum + (row[r] * a + next[r] * b);
        gain[r + 1] = next_sum + (next[r] * a + next[r + 1] * b);
        covariance = next + r + 2;
    }
    if (r < size) {
        const float a = phi[r];
        covariance[r] = mt_covariance_walk(covariance[r], prior[r], walk);
        gain[r] = mt_dot(covariance, phi, r) + covariance[r] * a;
        mt_add_scaled(gain, a, covariance, r);
    }
    return mt_dot(gain, phi, size);
}

/* column i of two rows of P less a and b of the gain */
MT_INLINE void mt_kalman_lessen(float *MT_RESTRICT row, float *MT_RESTRICT next, const float *MT_RESTRICT gain,
                                uint32_t i, float a, float b)
{
    row[i] -= a * gain[i];
    next[i] -= b * gain[i];
}

/* P -= factor gain gain' */
static inline void mt_kalman_learn(float *MT_RESTRICT covariance, const float *MT_RESTRICT gain, float factor,
                                   uint32_t size)
{
    uint32_t r = 0;
    for (; r + 2 <= size; r += 2) {
        float *const row = covariance, *const next = covariance + r + 1;
        const float a = factor * gain[r], b = factor * gain[r + 1];
        uint32_t i = r & 2u;
        if (i != 0) {
            mt_kalman_lessen(row, next, gain, 0, a, b);
            mt_kalman_lessen(row, next, gain, 1, a, b);
        }
        MT_NOT_UNROLLED
        for (; i < r; i += 4) {
            mt_kalman_lessen(row, next, gain, i, a, b);
            mt_kalman_lessen(row, next, gain, i + 1, a, b);
            mt_kalman_lessen(row, next, gain, i + 2, a, b);
            mt_kalman_lessen(row, next, gain, i + 3, a, b);
        }
        row[r] = mt_kalman_variance(row[r] - a * gain[r]);
        next[r] -= b * gain[r];
        next[r + 1] = mt_kalman_variance(next[r + 1] - b * gain[r + 1]);
        covariance = next + r + 2;
    }
    if (r < size) {
        mt_add_scaled(covariance, -(factor * gain[r]), gain, r);
        covariance[r] = mt_kalman_variance(covariance[r] - factor * gain[r] * gain[r]);
    }
}

/*
 * covariance packed, prior (size) variances, phi (size), y (1) the logit, target (1) in 0..1. Each parameter moves by
 * its element of gain (size + 1) times the last one. walk is the share of its prior that a variance grows by.
 */
static inline void mt_kalman(float *MT_RESTRICT covariance, const float *MT_RESTRICT prior,
                             const float *MT_RESTRICT phi, const float *MT_RESTRICT y,
                             const float *MT_RESTRICT target, float *MT_RESTRICT gain, float walk, uint32_t size)
{
    const float variance = mt_kalman_gain(covariance, prior, phi, gain, walk, size);
    if (!mt_covariance_sound(variance)) {
        MT_ZERO(gain, (size + 1u) * sizeof *gain);
        return;
    }
    const float p = mt_sigmoid(y[0] * mt_moderation(variance));
    const float curvature = p * (1.0f - p), spread = 1.0f + curvature * variance;
    mt_kalman_learn(covariance, gain, curvature / spread, size);
    gain[size] = (target[0] - p) / spread;
}

/* parameter (size) moves by its part of a gain of so many elements, from start on */
static inline void mt_kalman_move(float *MT_RESTRICT parameter, const float *MT_RESTRICT gain, uint32_t start,
                                  uint32_t size, uint32_t elements)
{
    mt_add_scaled(parameter, gain[elements], gain + start, size);
}

#endif
