/*
 * mt_kernels_fixed_covariance.h: the covariance of a dense layer's weights in integers, for its recursive updates.
 *
 * phi = [x - x_zero, 2^one] is what one output is a weighted sum of: `inputs` steps and a constant near to 1 / scale,
 * which the bias goes with. P is the packed lower triangle of inputs + 1 rows; its largest variance begins as 2^30, and
 * `unit` is what 1 stands for, in (output per step)^2. It only shrinks from there, but for what is added on purpose.
 *
 * P stays positive semidefinite, whatever comes. What is subtracted is gain gain' factor with a factor never above that
 * of exact arithmetic; what rounding adds to an element is bounded, and each diagonal element gets that bound n times,
 * which makes of any such error a semidefinite matrix (Gershgorin). It is like a little forgetting: 2 n 2^-30 of the
 * largest prior variance a sample.
 */
#ifndef MT_KERNELS_FIXED_COVARIANCE_H
#define MT_KERNELS_FIXED_COVARIANCE_H

#include "mt_kernels_fixed_dense.h"

/* independent weights whose variance begins as `weight`, and a bias with `bias`; `outputs` covariances in a row */
static inline void mt_fixed_covariance_begin(int32_t *covariance, int32_t weight, int32_t bias, uint32_t inputs,
                                             uint32_t outputs)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t row = 0; row <= inputs; ++row) {
            MT_ZERO(covariance, row * sizeof *covariance);
            covariance += row;
            *covariance++ = row < inputs ? weight : bias;
        }
    }
}

/* all `outputs` covariances begin as one, of inputs + 1 rows */
static inline void mt_fixed_covariance_copy(int32_t *MT_RESTRICT covariance, const int32_t *MT_RESTRICT prior,
                                            uint32_t inputs, uint32_t outputs)
{
    const uint32_t size = (inputs + 1) * (inputs + 2) / 2;
    for (uint32_t o = 0; o < outputs; ++o) {
        MT_COPY(covariance + o * size, prior, size * sizeof *prior);
    }
}

/* what P makes of a sample: P phi = values 2^exponent, and phi' P phi, no less than it is: 0 where nothing is left */
typedef struct {
    int32_t *values;
    int32_t exponent;
    mt_scaled variance;
} mt_fixed_gain;

/* gain: 2 (inputs + 1), of which the first inputs + 1 are the result: 31 bits and a sign */
static inline mt_fixed_gain mt_fixed_covariance_gain(const int32_t *MT_RESTRICT covariance, const int8_t *MT_RESTRICT x,
                                                     int32_t x_zero, uint32_t one, int32_t *MT_RESTRICT gain,
                                                     uint32_t inputs)
{
    const int32_t *last = covariance + inputs * (inputs + 1) / 2;
    uint64_t bits = 0;
    for (uint32_t row = 0; row <= inputs; ++row) {
        /* the row up to the diagonal; below it the column, which is the rest of the row */
        int64_t sum = (int64_t)last[row] * ((int64_t)1 << one);
        sum += mt_fixed_sum(covariance, 1, 0, x, x_zero, row < inputs ? row + 1 : inputs);
        covariance += row + 1;
        if (row + 1 < inputs) {
            sum += mt_fixed_sum(covariance + row, row + 2, 1, x + row + 1, x_zero, inputs - row - 1);
        }
        bits |= (uint64_t)(sum < 0 ? ~sum : sum);
        gain[row] = (int32_t)(sum >> 32);
        gain[inputs + 1 + row] = (int32_t)(uint32_t)((uint64_t)sum & 0xFFFFFFFFu);
    }
    mt_fixed_gain found = {gain, -31, {0, 0}};
    for (uint32_t places = 32u; places != 0u; places >>= 1) {
        if (bits >> places != 0u) {
            bits >>= places;
            found.exponent += (int32_t)places;
        }
    }
    found.exponent += (int32_t)bits;
    if (bits == 0u) {
        return found;
    }
    const uint32_t right = found.exponent > 0 ? (uint32_t)found.exponent : 0u;
    const uint32_t left = found.exponent < 0 ? (uint32_t)-found.exponent : 0u;
    /* each gain was cut by less than one: so much may be missing of the variance */
    int64_t variance = (int64_t)(255u * inputs) + ((int64_t)1 << one);
    for (uint32_t row = 0; row <= inputs; ++row) {
        const int64_t sum = (int64_t)gain[row] * 0x100000000 + (uint32_t)gain[inputs + 1 + row];
        gain[row] = (int32_t)((sum >> right) * ((int64_t)1 << left));
        variance += gain[row] * (row < inputs ? (int64_t)(x[row] - x_zero) : (int64_t)1 << one);
    }
    found.variance = mt_scaled_of(variance > 0 ? variance : 0, found.exponent);
    return found;
}

/* P -= factor (P phi) (P phi)', and what keeps it positive semidefinite */
static inline void mt_fixed_covariance_learn(int32_t *MT_RESTRICT covariance, mt_fixed_gain gain, mt_scaled factor,
                                             uint32_t inputs)
{
    /* 30 places go with the product: below P's last place, and no bit above 2^31 */
    factor.exponent += 2 * gain.exponent + 30;
    /* an element is off by 1/2 (beside 1/2 that all have in common, which harms nothing), by 1 for the factor times its
     * row's gain, and by 2 for gains cut off, at most, where 2^30 is subtracted */
    const int64_t rounding = (2 + (mt_scaled_times(factor, MT_FIXED_LARGEST) >> 27)) * (int64_t)(inputs + 1);
    for (uint32_t row = 0; row <= inputs; ++row) {
        const int32_t scaled = mt_scaled_times(factor, gain.values[row]);
        for (uint32_t column = 0; column < row; ++column) {
            const uint32_t less = (uint32_t)mt_fixed_product(scaled, gain.values[column]);
            covariance[column] = (int32_t)((uint32_t)covariance[column] - less);
        }
        const int64_t left = covariance[row] - ((int64_t)scaled * gain.values[row] >> 30) + rounding;
        covariance[row] = left < 0 ? 0 : mt_fixed_saturated(left);
        covariance += row + 1;
    }
}

/* weights (inputs) and bias of one output move by step times P phi; step in outputs per unit of P times steps */
static inline void mt_fixed_covariance_step(int32_t *MT_RESTRICT weight, int32_t *MT_RESTRICT bias, mt_fixed_gain gain,
                                            mt_scaled step, uint32_t one, uint32_t inputs)
{
    step.exponent += gain.exponent + MT_FIXED_WEIGHT_PLACES;
    const int32_t half = step.mantissa >> 1, places = -(step.exponent + 31);
    if (places < 1) {
        for (uint32_t i = 0; i < inputs; ++i) {
            weight[i] = mt_fixed_add(weight[i], mt_scaled_times(step, gain.values[i]));
        }
    } else if (places < 32) {
        /* the same to 29 places, where that is more than the weight has */
        for (uint32_t i = 0; i < inputs; ++i) {
            const int32_t move = mt_fixed_product(half, gain.values[i]);
            weight[i] = mt_fixed_add(weight[i], ((move >> (places - 1)) + 1) >> 1);
        }
    }
    step.exponent += (int32_t)one - MT_FIXED_WEIGHT_FINER;
    *bias = mt_fixed_add(*bias, mt_scaled_times(step, gain.values[inputs]));
}

/* 1 / sqrt(1 + pi / 8 variance): see mt_moderation */
static inline mt_scaled mt_fixed_moderation(mt_scaled variance)
{
    const mt_scaled one = {1 << 30, -30};
    const mt_scaled eighth = {1686629713, -32};
    return mt_scaled_root(mt_scaled_divide(one, mt_scaled_add(one, mt_scaled_multiply(eighth, variance))));
}

#endif
