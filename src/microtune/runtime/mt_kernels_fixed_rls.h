/* mt_kernels_fixed_rls.h: recursive least squares with forgetting, in integers; mt_kernels_rls.h has it in floats. */
#ifndef MT_KERNELS_FIXED_RLS_H
#define MT_KERNELS_FIXED_RLS_H

#include "mt_kernels_fixed_covariance.h"

/* P = P / forgetting, `grow` being its inverse with 30 places, unless a variance would pass where it began */
static inline void mt_fixed_covariance_forget(int32_t *covariance, int32_t grow, int32_t most_weight, int32_t most_bias,
                                              uint32_t inputs)
{
    for (uint32_t row = 0, k = 0; row <= inputs; ++row, k += row + 1) {
        if (covariance[k] >= (row < inputs ? most_weight : most_bias)) {
            return;
        }
    }
    for (uint32_t row = 0; row <= inputs; ++row) {
        for (uint32_t column = 0; column <= row; ++column) {
            covariance[column] = (int32_t)(((int64_t)covariance[column] * grow + (1 << 29)) >> 30);
        }
        /* each element is off by 1/2 */
        covariance[row] = mt_fixed_saturated((int64_t)covariance[row] + inputs + 1);
        covariance += row + 1;
    }
}

/*
 * weight (outputs, inputs), bias (outputs), covariance packed, x (inputs), y the outputs and target what they should be
 * (outputs); scratch 2 (inputs + 1). unit * 2^unit_exponent is the covariance's; forgetting has 30 places, and so has
 * its inverse, grow; most_weight and most_bias are where variances began, times the forgetting.
 */
static inline void mt_fixed_rls(int32_t *MT_RESTRICT weight, int32_t *MT_RESTRICT bias, int32_t *MT_RESTRICT covariance,
                                const int8_t *MT_RESTRICT x, const int32_t *MT_RESTRICT y,
                                const int32_t *MT_RESTRICT target, int32_t *MT_RESTRICT scratch, int32_t x_zero,
                                uint32_t one, int32_t unit, int32_t unit_exponent, int32_t forgetting, int32_t grow,
                                int32_t most_weight, int32_t most_bias, uint32_t inputs, uint32_t outputs)
{
    const mt_fixed_gain gain = mt_fixed_covariance_gain(covariance, x, x_zero, one, scratch, inputs);
    if (gain.variance.mantissa == 0) {
        return;
    }
    const mt_scaled units = {unit, unit_exponent};
    const mt_scaled spread
        = mt_scaled_add(mt_scaled_of(forgetting, -30), mt_scaled_multiply(units, gain.variance));
    const mt_scaled factor = mt_scaled_divide(units, spread);
    for (uint32_t o = 0; o < outputs; ++o) {
        const mt_scaled step = mt_scaled_multiply(factor, mt_scaled_of(mt_fixed_subtract(target[o], y[o]), -16));
        mt_fixed_covariance_step(weight + o * inputs, bias + o, gain, step, one, inputs);
    }
    mt_fixed_covariance_learn(covariance, gain, factor, inputs);
    mt_fixed_covariance_forget(covariance, grow, most_weight, most_bias, inputs);
}

#endif
