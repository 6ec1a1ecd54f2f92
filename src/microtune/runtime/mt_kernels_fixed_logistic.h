/* mt_kernels_fixed_logistic.h: Bayesian logistic outputs, in integers; mt_kernels_logistic.h has them in floats. */
#ifndef MT_KERNELS_FIXED_LOGISTIC_H
#define MT_KERNELS_FIXED_LOGISTIC_H

#include "mt_kernels_fixed_covariance.h"

/* what is liked changes: every variance grows by a share of its prior (of 31 places), and not above it by that */
static inline void mt_fixed_logistic_walk(int32_t *MT_RESTRICT covariance, const int32_t *MT_RESTRICT prior,
                                          int32_t walk, uint32_t inputs)
{
    for (uint32_t row = 0; row <= inputs; ++row, covariance += row) {
        const int64_t more = covariance[row] + (((int64_t)prior[row] * walk + (1 << 30)) >> 31);
        if (covariance[row] < prior[row]) {
            covariance[row] = more < prior[row] ? (int32_t)more : prior[row];
        }
    }
}

/*
 * weight (outputs, inputs), bias (outputs), covariance (outputs) packed, prior (inputs + 1) variances, x (inputs), y
 * (outputs) the logits of x, target (outputs) in 0..1; scratch 2 (inputs + 1). unit * 2^unit_exponent is that of the
 * covariances and the prior.
 */
static inline void mt_fixed_logistic(int32_t *MT_RESTRICT weight, int32_t *MT_RESTRICT bias,
                                     int32_t *MT_RESTRICT covariance, const int32_t *MT_RESTRICT prior,
                                     const int8_t *MT_RESTRICT x, const int32_t *MT_RESTRICT y,
                                     const int32_t *MT_RESTRICT target, int32_t *MT_RESTRICT scratch, int32_t x_zero,
                                     uint32_t one, int32_t unit, int32_t unit_exponent, int32_t walk, uint32_t inputs,
                                     uint32_t outputs)
{
    const mt_scaled units = {unit, unit_exponent};
    const mt_scaled one_more = {1 << 30, -30};
    for (uint32_t o = 0; o < outputs; ++o, covariance += (inputs + 1) * (inputs + 2) / 2) {
        mt_fixed_logistic_walk(covariance, prior, walk, inputs);
        const mt_fixed_gain gain = mt_fixed_covariance_gain(covariance, x, x_zero, one, scratch, inputs);
        if (gain.variance.mantissa == 0) {
            continue;
        }
        const mt_scaled variance = mt_scaled_multiply(units, gain.variance);
        const int32_t p = mt_fixed_sigmoid(mt_scaled_times(mt_fixed_moderation(variance), y[o]));
        const mt_scaled curved = mt_scaled_of((int64_t)p * (MT_FIXED_ONE - p), -32);
        const mt_scaled factor
            = mt_scaled_divide(units, mt_scaled_add(one_more, mt_scaled_multiply(curved, variance)));
        const mt_scaled step = mt_scaled_multiply(factor, mt_scaled_of(mt_fixed_subtract(target[o], p), -16));
        mt_fixed_covariance_step(weight + o * inputs, bias + o, gain, step, one, inputs);
        mt_fixed_covariance_learn(covariance, gain, mt_scaled_multiply(curved, factor), inputs);
    }
}

#endif
