/* mt_kernels_map.h: the maximum a posteriori softmax layer, one sample after the other. */
#ifndef MT_KERNELS_MAP_H
#define MT_KERNELS_MAP_H

#include "mt_kernels_covariance.h"

/* an answer that is sure of itself still tells a little of what its weights are */
#define MT_MAP_LEAST_CURVATURE 0.05f

MT_INLINE float mt_map_largest(const float *y, uint32_t outputs)
{
    float largest = y[0];
    for (uint32_t o = 1; o < outputs; ++o) {
        largest = y[o] > largest ? y[o] : largest;
    }
    return largest;
}

/* the probabilities (outputs) of logits y (outputs) that are uncertain by a variance; returns the curvature of the loss */
MT_INLINE float mt_map_probabilities(const float *MT_RESTRICT y, float *MT_RESTRICT probability, float largest,
                                     float variance, uint32_t outputs)
{
    const float moderation = mt_moderation(variance);
    float sum = 0.0f, curvature = MT_MAP_LEAST_CURVATURE;
    for (uint32_t o = 0; o < outputs; ++o) {
        probability[o] = mt_exp((y[o] - largest) * moderation);
        sum += probability[o];
    }
    for (uint32_t o = 0; o < outputs; ++o) {
        const float p = probability[o] / sum;
        curvature = p * (1.0f - p) > curvature ? p * (1.0f - p) : curvature;
        probability[o] = p;
    }
    return curvature;
}

/*
 * A Newton step from the prior, as in an extended Kalman filter whose outputs share one covariance: the error of the
 * moderated probabilities over the curvature of the loss. weight (outputs, inputs), bias (outputs), covariance packed,
 * x (inputs), y (outputs) the logits of x, target[0] the true class; scratch (inputs + 1 + outputs).
 */
static inline void mt_map(float *MT_RESTRICT weight, float *MT_RESTRICT bias, float *MT_RESTRICT covariance,
                          const float *MT_RESTRICT x, const float *MT_RESTRICT y, const float *MT_RESTRICT target,
                          float *MT_RESTRICT scratch, uint32_t inputs, uint32_t outputs)
{
    const uint32_t label = (uint32_t)target[0];
    float *gain = scratch, *probability = scratch + inputs + 1;
    const float variance = mt_covariance_gain(covariance, x, gain, inputs);
    const float largest = mt_map_largest(y, outputs);
    if (!mt_covariance_sound(variance) || !mt_is_finite(largest)) {
        return;
    }
    const float curvature = mt_map_probabilities(y, probability, largest, variance, outputs);
    const float spread = 1.0f + curvature * variance;
    for (uint32_t o = 0; o < outputs; ++o) {
        const float step = ((o == label ? 1.0f : 0.0f) - probability[o]) / spread;
        mt_covariance_step(weight + o * inputs, bias + o, gain, step, inputs);
    }
    mt_covariance_learn(covariance, gain, curvature / spread, inputs);
}

#endif
