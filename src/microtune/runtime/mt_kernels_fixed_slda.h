/* mt_kernels_fixed_slda.h: streaming linear discriminant analysis, in integers; mt_kernels_slda.h has it in floats. */
#ifndef MT_KERNELS_FIXED_SLDA_H
#define MT_KERNELS_FIXED_SLDA_H

#include "mt_kernels_fixed_dense.h"

/* places of a mean, in steps of the input; those that a discriminant leaves out of it: 16 bits and a sign are left */
#define MT_FIXED_MEAN_PLACES 22
#define MT_FIXED_MEAN_COARSE 15
/* places of what a mean is worth, in samples */
#define MT_FIXED_WORTH_PLACES 8

/*
 * The discriminant of one class: weight = precision mean, bias = prior - mean' precision mean / 2. `places` turns
 * precision times mean into a weight.
 */
static inline void mt_fixed_slda_class(int32_t *MT_RESTRICT weight, int32_t *MT_RESTRICT bias,
                                       const int32_t *MT_RESTRICT mean, const int32_t *MT_RESTRICT precision,
                                       int32_t prior, uint32_t places, uint32_t inputs)
{
    int64_t reach = 0;
    for (uint32_t row = 0; row < inputs; ++row) {
        int64_t sum = 0, high = 0;
        /* along the row up to the diagonal, then down the column */
        for (uint32_t column = 0, at = 0; column < inputs; at += column < row ? 1 : column + 1, ++column) {
            const int32_t each = mean[column] >> MT_FIXED_MEAN_COARSE;
#if defined(MT_SHORT_PRODUCTS)
            high += (precision[at] >> 16) * each;
            sum += (precision[at] & 0xFFFF) * each;
#else
            sum += (int64_t)precision[at] * each;
#endif
        }
        sum += high * 65536;
        precision += row + 1;
        weight[row] = mt_fixed_saturated((sum + ((int64_t)1 << (places - 1))) >> places);
        reach += (int64_t)weight[row] * (mean[row] >> MT_FIXED_MEAN_COARSE);
    }
    const uint32_t halved = MT_FIXED_WEIGHT_FINER + MT_FIXED_MEAN_PLACES - MT_FIXED_MEAN_COARSE + 1;
    *bias = mt_fixed_saturated(prior - ((reach + ((int64_t)1 << (halved - 1))) >> halved));
}

/*
 * The mean of the sample's class moves, and its discriminant with it. weight (outputs, inputs), bias (outputs); state:
 * means (outputs, inputs), samples each is worth (outputs), and 1 once all of the layer is discriminants. precision
 * (inputs) packed and prior (outputs), logarithms, are the factory's; x (inputs), target[0] the true class; a mean is
 * worth at most `memory` samples.
 */
static inline void mt_fixed_slda(int32_t *MT_RESTRICT weight, int32_t *MT_RESTRICT bias, int32_t *MT_RESTRICT state,
                                 const int32_t *MT_RESTRICT precision, const int32_t *MT_RESTRICT prior,
                                 const int8_t *MT_RESTRICT x, const int32_t *MT_RESTRICT target, int32_t x_zero,
                                 uint32_t places, int32_t memory, uint32_t inputs, uint32_t outputs)
{
    const uint32_t label = (uint32_t)target[0] >> 16;
    int32_t *mean = state + label * inputs, *worth = state + outputs * inputs + label;
    int32_t *discriminants = state + outputs * (inputs + 1);
    const int32_t more = *worth + (1 << MT_FIXED_WORTH_PLACES);
    const mt_scaled share
        = mt_scaled_divide(mt_scaled_of(1 << MT_FIXED_WORTH_PLACES, 0), mt_scaled_of(more, 0));
    for (uint32_t i = 0; i < inputs; ++i) {
        mean[i] += mt_scaled_times(share, (x[i] - x_zero) * (1 << MT_FIXED_MEAN_PLACES) - mean[i]);
    }
    *worth = more < memory ? more : memory;
    for (uint32_t o = 0; o < outputs; ++o) {
        if (o == label || *discriminants < MT_FIXED_ONE) {
            mt_fixed_slda_class(weight + o * inputs, bias + o, state + o * inputs, precision, prior[o], places, inputs);
        }
    }
    *discriminants = MT_FIXED_ONE;
}

#endif
