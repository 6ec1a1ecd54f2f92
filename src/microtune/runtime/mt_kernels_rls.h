/* mt_kernels_rls.h: recursive least squares with forgetting on a dense layer (Haykin, Adaptive Filter Theory). */
#ifndef MT_KERNELS_RLS_H
#define MT_KERNELS_RLS_H

#include "mt_kernels.h"

/* the covariance starts as prior * identity; packed lower triangle of (inputs + 1) rows, the bias last */
static inline void mt_rls_begin(float *covariance, float prior, uint32_t inputs)
{
    uint32_t k = 0;
    for (uint32_t row = 0; row <= inputs; ++row) {
        for (uint32_t column = 0; column <= row; ++column, ++k) {
            covariance[k] = row == column ? prior : 0.0f;
        }
    }
}

/*
 * weight (outputs, inputs), bias (outputs), covariance packed, x (inputs), y (outputs) what the layer gives now,
 * dy = dL/dy of the mean squared error (outputs); gain (inputs + 1) is scratch.
 */
static inline void mt_rls(float *MT_RESTRICT weight, float *MT_RESTRICT bias, float *MT_RESTRICT covariance,
                          const float *MT_RESTRICT x, const float *MT_RESTRICT y, const float *MT_RESTRICT dy,
                          float *MT_RESTRICT gain, float forgetting, float prior, uint32_t inputs, uint32_t outputs)
{
    (void)y;
    /* gain = P phi, phi = [x, 1] */
    for (uint32_t row = 0; row <= inputs; ++row) {
        float sum = 0.0f;
        for (uint32_t column = 0; column <= inputs; ++column) {
            const uint32_t k = row > column ? row * (row + 1) / 2 + column : column * (column + 1) / 2 + row;
            sum += covariance[k] * (column < inputs ? x[column] : 1.0f);
        }
        gain[row] = sum;
    }
    const float spread = forgetting + mt_dot(gain, x, inputs) + gain[inputs];
    /* dy = 2 (y - t) / outputs, so the error t - y is -dy outputs / 2 */
    for (uint32_t o = 0; o < outputs; ++o) {
        const float step = dy[o] * (0.5f * (float)outputs) / spread;
        for (uint32_t i = 0; i < inputs; ++i) {
            weight[o * inputs + i] -= step * gain[i];
        }
        bias[o] -= step * gain[inputs];
    }
    /* P = (P - gain gain' / spread) / forgetting; a direction never seen would grow for ever (wind-up), so
     * forgetting pauses while any variance has reached the prior */
    float largest = 0.0f;
    for (uint32_t row = 0, k = 0; row <= inputs; ++row) {
        for (uint32_t column = 0; column <= row; ++column, ++k) {
            covariance[k] -= gain[row] * (gain[column] / spread);
        }
        largest = covariance[k - 1] > largest ? covariance[k - 1] : largest;
    }
    if (largest < prior * forgetting) {
        const float grow = 1.0f / forgetting;
        for (uint32_t k = 0; k < (inputs + 1) * (inputs + 2) / 2; ++k) {
            covariance[k] *= grow;
        }
    }
}

#endif
