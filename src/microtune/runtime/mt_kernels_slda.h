/* mt_kernels_slda.h: streaming linear discriminant analysis (Hayes and Kanan, CVPR Workshops 2020). */
#ifndef MT_KERNELS_SLDA_H
#define MT_KERNELS_SLDA_H

#include "mt_kernels_covariance.h"

/* the discriminant of one class: weight (inputs) = precision mean, bias = prior - mean' precision mean / 2 */
static inline void mt_slda_class(float *MT_RESTRICT weight, float *MT_RESTRICT bias, const float *MT_RESTRICT mean,
                                 const float *MT_RESTRICT precision, float prior, uint32_t inputs)
{
    (void)mt_triangle_multiply(precision, mean, weight, inputs);
    *bias = prior - 0.5f * mt_dot(weight, mean, inputs);
}

/*
 * The mean of the sample's class moves, and its discriminant with it. weight (outputs, inputs), bias (outputs); state:
 * means (outputs, inputs), samples each is worth (outputs), and 1 once all of the layer is discriminants: until the
 * first sample it is the base's, and after disuse in part. precision (inputs) packed and prior (outputs), logarithms, are
 * the factory's; x (inputs), target[0] the true class; a mean is worth at most `memory` samples.
 */
static inline void mt_slda(float *MT_RESTRICT weight, float *MT_RESTRICT bias, float *MT_RESTRICT state,
                           const float *MT_RESTRICT precision, const float *MT_RESTRICT prior,
                           const float *MT_RESTRICT x, const float *MT_RESTRICT target, float memory, uint32_t inputs,
                           uint32_t outputs)
{
    const uint32_t label = (uint32_t)target[0];
    float *mean = state + label * inputs, *worth = state + outputs * inputs + label;
    float *discriminants = state + outputs * (inputs + 1);
    const float size = mt_dot(x, x, inputs);
    if (!(size < MT_COVARIANCE_LARGE)) {
        return; /* wild or not a number */
    }
    const float share = 1.0f / (*worth + 1.0f);
    for (uint32_t i = 0; i < inputs; ++i) {
        mean[i] += share * (x[i] - mean[i]);
    }
    *worth = *worth + 1.0f < memory ? *worth + 1.0f : memory;
    for (uint32_t o = 0; o < outputs; ++o) {
        if (o == label || *discriminants < 1.0f) {
            mt_slda_class(weight + o * inputs, bias + o, state + o * inputs, precision, prior[o], inputs);
        }
    }
    *discriminants = 1.0f;
}

#endif
