/*
 * mt_kernels_covariance.h: the covariance of the weights of a dense layer, shared by its recursive updates.
 *
 * phi = [x, 1] is what one output is a weighted sum of: `inputs` numbers and the bias, which is last. A covariance is
 * the packed lower triangle of inputs + 1 rows.
 */
#ifndef MT_KERNELS_COVARIANCE_H
#define MT_KERNELS_COVARIANCE_H

#include "mt_kernels.h"
#include "mt_math.h"

/* variances above this say nothing, and a sample that has one teaches nothing: keeps products finite */
#define MT_COVARIANCE_LARGE 1e18f

/* independent weights of one prior variance; `outputs` covariances in a row */
static inline void mt_covariance_begin(float *covariance, float prior, uint32_t inputs, uint32_t outputs)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t row = 0; row <= inputs; ++row) {
            for (uint32_t column = 0; column < row; ++column) {
                *covariance++ = 0.0f;
            }
            *covariance++ = prior;
        }
    }
}

/* all `outputs` covariances begin as one, of inputs + 1 rows */
static inline void mt_covariance_copy(float *MT_RESTRICT covariance, const float *MT_RESTRICT prior, uint32_t inputs,
                                      uint32_t outputs)
{
    const uint32_t size = (inputs + 1) * (inputs + 2) / 2;
    for (uint32_t o = 0; o < outputs; ++o) {
        MT_COPY(covariance + o * size, prior, size * sizeof *prior);
    }
}

/* habits change: a variance grows by a share of its prior, and never above it */
MT_INLINE float mt_covariance_walk(float variance, float prior, float walk)
{
    const float more = variance + walk * prior;
    return more < prior ? more : prior;
}

/* y (size) = A x, A symmetric, its lower triangle packed; returns what stands behind the triangle */
static inline const float *mt_triangle_multiply(const float *MT_RESTRICT triangle, const float *MT_RESTRICT x,
                                                float *MT_RESTRICT y, uint32_t size)
{
    for (uint32_t row = 0; row < size; ++row) {
        y[row] = mt_dot(triangle, x, row) + triangle[row] * x[row];
        mt_add_scaled(y, x[row], triangle, row); /* the same numbers above the diagonal */
        triangle += row + 1;
    }
    return triangle;
}

/* gain (inputs + 1) = P phi; returns phi' P phi, the variance of the output before its noise */
static inline float mt_covariance_gain(const float *MT_RESTRICT covariance, const float *MT_RESTRICT x,
                                       float *MT_RESTRICT gain, uint32_t inputs)
{
    const float *last = mt_triangle_multiply(covariance, x, gain, inputs);
    gain[inputs] = mt_dot(last, x, inputs) + last[inputs];
    mt_add_scaled(gain, 1.0f, last, inputs);
    return mt_dot(gain, x, inputs) + gain[inputs];
}

/* whether phi' P phi is sound: rounding may have left none of it, and wild inputs too much */
static inline int mt_covariance_sound(float variance)
{
    return variance > 0.0f && variance < MT_COVARIANCE_LARGE;
}

/* P -= factor gain gain' */
static inline void mt_covariance_learn(float *MT_RESTRICT covariance, const float *MT_RESTRICT gain, float factor,
                                       uint32_t inputs)
{
    for (uint32_t row = 0; row <= inputs; ++row) {
        mt_add_scaled(covariance, -(factor * gain[row]), gain, row + 1);
        if (covariance[row] < 0.0f) {
            covariance[row] = 0.0f; /* only rounding can say so */
        }
        covariance += row + 1;
    }
}

/*
 * Logits that are uncertain by a variance say as much, on average, as certain ones that are this much smaller
 * (MacKay, "The Evidence Framework Applied to Classification Networks", 1992).
 */
static inline float mt_moderation(float variance)
{
    return 1.0f / mt_sqrt(1.0f + 0.39269908f * variance); /* pi / 8 */
}

/* weight (inputs) and bias of one output move by step times gain */
static inline void mt_covariance_step(float *MT_RESTRICT weight, float *MT_RESTRICT bias,
                                      const float *MT_RESTRICT gain, float step, uint32_t inputs)
{
    mt_add_scaled(weight, step, gain, inputs);
    *bias += step * gain[inputs];
}

#endif
