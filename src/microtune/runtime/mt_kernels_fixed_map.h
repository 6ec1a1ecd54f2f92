/* mt_kernels_fixed_map.h: the maximum a posteriori softmax layer, in integers; mt_kernels_map.h has it in floats. */
#ifndef MT_KERNELS_FIXED_MAP_H
#define MT_KERNELS_FIXED_MAP_H

#include "mt_kernels_fixed_covariance.h"

/* an answer that is sure of itself still tells a little of what its weights are: 0.05, with 32 places */
#define MT_FIXED_MAP_LEAST_CURVATURE 214748365

/*
 * weight (outputs, inputs), bias (outputs), covariance packed, x (inputs), y (outputs) the logits of x, target[0] the
 * true class; scratch 2 (inputs + 1) + outputs. unit * 2^unit_exponent is the covariance's.
 */
static inline void mt_fixed_map(int32_t *MT_RESTRICT weight, int32_t *MT_RESTRICT bias, int32_t *MT_RESTRICT covariance,
                                const int8_t *MT_RESTRICT x, const int32_t *MT_RESTRICT y,
                                const int32_t *MT_RESTRICT target, int32_t *MT_RESTRICT scratch, int32_t x_zero,
                                uint32_t one, int32_t unit, int32_t unit_exponent, uint32_t inputs, uint32_t outputs)
{
    const uint32_t label = (uint32_t)target[0] >> 16;
    int32_t *probability = scratch + 2 * (inputs + 1);
    const mt_fixed_gain gain = mt_fixed_covariance_gain(covariance, x, x_zero, one, scratch, inputs);
    if (gain.variance.mantissa == 0) {
        return;
    }
    const mt_scaled units = {unit, unit_exponent};
    const mt_scaled variance = mt_scaled_multiply(units, gain.variance);
    const mt_scaled moderation = mt_fixed_moderation(variance);
    int32_t largest = y[0];
    for (uint32_t o = 1; o < outputs; ++o) {
        largest = y[o] > largest ? y[o] : largest;
    }
    int64_t sum = 0;
    for (uint32_t o = 0; o < outputs; ++o) {
        probability[o] = mt_fixed_exp(mt_scaled_times(moderation, mt_fixed_subtract(y[o], largest)));
        sum += probability[o];
    }
    const mt_scaled one_of_sum = mt_scaled_divide(mt_scaled_of(MT_FIXED_ONE, 0), mt_scaled_of(sum, 0));
    uint32_t curvature = MT_FIXED_MAP_LEAST_CURVATURE;
    for (uint32_t o = 0; o < outputs; ++o) {
        const uint32_t p = (uint32_t)mt_scaled_times(one_of_sum, probability[o]);
        curvature = p * (MT_FIXED_ONE - p) > curvature ? p * (MT_FIXED_ONE - p) : curvature;
        probability[o] = (int32_t)p;
    }
    const mt_scaled one_more = {1 << 30, -30};
    const mt_scaled curved = mt_scaled_of(curvature, -32);
    const mt_scaled factor
        = mt_scaled_divide(units, mt_scaled_add(one_more, mt_scaled_multiply(curved, variance)));
    for (uint32_t o = 0; o < outputs; ++o) {
        const int32_t error = (o == label ? MT_FIXED_ONE : 0) - probability[o];
        const mt_scaled step = mt_scaled_multiply(factor, mt_scaled_of(error, -16));
        mt_fixed_covariance_step(weight + o * inputs, bias + o, gain, step, one, inputs);
    }
    mt_fixed_covariance_learn(covariance, gain, mt_scaled_multiply(curved, factor), inputs);
}

#endif
