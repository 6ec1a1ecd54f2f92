/* mt_kernels_logistic.h: Bayesian logistic outputs, each an extended Kalman filter of its own. */
#ifndef MT_KERNELS_LOGISTIC_H
#define MT_KERNELS_LOGISTIC_H

#include "mt_kernels_covariance.h"

/* what is liked changes: every variance grows by a share of its prior, and never above it */
static inline void mt_logistic_walk(float *MT_RESTRICT covariance, const float *MT_RESTRICT prior, float walk,
                                    uint32_t inputs)
{
    for (uint32_t row = 0; row <= inputs; ++row, covariance += row) {
        covariance[row] = mt_covariance_walk(covariance[row], prior[row], walk);
    }
}

/*
 * weight (outputs, inputs), bias (outputs), covariance (outputs) packed, prior (inputs + 1) variances, x (inputs), y
 * (outputs) the logits of x, target (outputs) in 0..1; gain (inputs + 1) is scratch.
 */
static inline void mt_logistic(float *MT_RESTRICT weight, float *MT_RESTRICT bias, float *MT_RESTRICT covariance,
                               const float *MT_RESTRICT prior, const float *MT_RESTRICT x,
                               const float *MT_RESTRICT y, const float *MT_RESTRICT target,
                               float *MT_RESTRICT gain, float walk, uint32_t inputs, uint32_t outputs)
{
    for (uint32_t o = 0; o < outputs; ++o, covariance += (inputs + 1) * (inputs + 2) / 2) {
        mt_logistic_walk(covariance, prior, walk, inputs);
        const float variance = mt_covariance_gain(covariance, x, gain, inputs);
        if (!mt_covariance_sound(variance)) {
            continue;
        }
        const float p = mt_sigmoid(y[o] * mt_moderation(variance));
        const float curvature = p * (1.0f - p), spread = 1.0f + curvature * variance;
        mt_covariance_step(weight + o * inputs, bias + o, gain, (target[o] - p) / spread, inputs);
        mt_covariance_learn(covariance, gain, curvature / spread, inputs);
    }
}

#endif
