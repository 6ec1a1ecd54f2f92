/* mt_kernels_rls.h: recursive least squares with forgetting on a dense layer (Haykin, Adaptive Filter Theory). */
#ifndef MT_KERNELS_RLS_H
#define MT_KERNELS_RLS_H

#include "mt_kernels_covariance.h"

/*
 * weight (outputs, inputs), bias (outputs), covariance packed, x (inputs), dy = dL/dy of the mean squared error
 * (outputs); gain (inputs + 1) is scratch.
 */
static inline void mt_rls(float *MT_RESTRICT weight, float *MT_RESTRICT bias, float *MT_RESTRICT covariance,
                          const float *MT_RESTRICT x, const float *MT_RESTRICT dy, float *MT_RESTRICT gain,
                          float forgetting, float prior, uint32_t inputs, uint32_t outputs)
{
    const float variance = mt_covariance_gain(covariance, x, gain, inputs);
    if (!mt_covariance_sound(variance)) {
        return;
    }
    const float spread = forgetting + variance;
    /* dy = 2 (y - t) / outputs, so the error t - y is -dy outputs / 2 */
    for (uint32_t o = 0; o < outputs; ++o) {
        const float step = dy[o] * (0.5f * (float)outputs) / spread;
        mt_covariance_step(weight + o * inputs, bias + o, gain, -step, inputs);
    }
    /* P = (P - gain gain' / spread) / forgetting; a direction never seen would grow for ever (wind-up), so
     * forgetting pauses while any variance has reached the prior */
    mt_covariance_learn(covariance, gain, 1.0f / spread, inputs);
    float largest = 0.0f;
    for (uint32_t row = 0, k = 0; row <= inputs; ++row, k += row + 1) {
        largest = covariance[k] > largest ? covariance[k] : largest;
    }
    if (largest < prior * forgetting) {
        const float grow = 1.0f / forgetting;
        for (uint32_t k = 0; k < (inputs + 1) * (inputs + 2) / 2; ++k) {
            covariance[k] *= grow;
        }
    }
}

#endif
