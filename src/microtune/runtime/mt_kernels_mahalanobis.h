/*
 * mt_kernels_mahalanobis.h: how far a window lies from what is normal, and normal learnt again from some windows.
 *
 * The scatter of normal windows about their mean is kept as its inverse, a packed lower triangle of `inputs` rows;
 * limits[0] times the quadratic form over it, less limits[1], is the logit that the window is a fault.
 */
#ifndef MT_KERNELS_MAHALANOBIS_H
#define MT_KERNELS_MAHALANOBIS_H

#include "mt_kernels_covariance.h"

/* logits beyond this say no more: keeps sums of losses finite */
#define MT_MAHALANOBIS_LARGE 1e6f

/* y (1) = limits[0] (x - mean)' precision (x - mean) - limits[1], at most LARGE, so too where it is not finite; gap
 * (inputs) is scratch */
static inline void mt_mahalanobis(const float *MT_RESTRICT x, const float *MT_RESTRICT mean,
                                  const float *MT_RESTRICT precision, const float *MT_RESTRICT limits,
                                  float *MT_RESTRICT y, float *MT_RESTRICT gap, uint32_t inputs)
{
    float square = 0.0f;
    for (uint32_t row = 0; row < inputs; ++row) {
        gap[row] = x[row] - mean[row];
        /* each number left of the diagonal stands for the one above it too */
        square += gap[row] * (2.0f * mt_dot(precision, gap, row) + precision[row] * gap[row]);
        precision += row + 1;
    }
    const float logit = limits[0] * square - limits[1];
    *y = logit < MT_MAHALANOBIS_LARGE ? logit : MT_MAHALANOBIS_LARGE;
}

/*
 * One window that is said to be well. mean (inputs), precision packed, limits (2), state[0] the windows learnt. x
 * (inputs); known[0] above 0: it looks like a known fault; target[0] a half or more: it was a fault. Neither is learnt.
 * The scatter begins as `worth` windows of the factory's, the mean as none; after `memory` windows the scatter stays,
 * and the mean follows a slow drift as if it were of the last `memory`. A window beyond the limit of those before it
 * counts the less the further it is, limit / distance of its way from the mean, so that few that are unlike the others do
 * not widen what is normal much. The limit is that of the next window from the same normal distribution, for as few
 * windows as there were: e^(c0 + c1 u + ... + c4 u^4) (1 + 1 / n), u = 1 / the degrees of freedom, fitted at build time
 * to the quantile of Hotelling's T^2. gap and gain, (2, inputs), are scratch.
 */
static inline void mt_mahalanobis_learn(float *MT_RESTRICT mean, float *MT_RESTRICT precision,
                                        float *MT_RESTRICT limits, float *MT_RESTRICT state,
                                        const float *MT_RESTRICT x, const float *MT_RESTRICT known,
                                        const float *MT_RESTRICT target, float *MT_RESTRICT gap, float worth,
                                        float memory, float c0, float c1, float c2, float c3, float c4,
                                        uint32_t inputs)
{
    float *gain = gap + inputs;
    if (known[0] > 0.0f || !(target[0] < 0.5f)) {
        return;
    }
    for (uint32_t i = 0; i < inputs; ++i) {
        gap[i] = x[i] - mean[i];
    }
    (void)mt_triangle_multiply(precision, gap, gain, inputs);
    const float square = mt_dot(gain, gap, inputs), distance = limits[0] * square;
    if (!(square >= 0.0f && square < MT_COVARIANCE_LARGE && mt_dot(gap, gap, inputs) < MT_COVARIANCE_LARGE)) {
        return; /* wild, or not a number */
    }
    const float before = state[0], count = before + 1.0f;
    const int is_full = count > memory;
    /* the first has none before it, and tells where the others are */
    const float share = before > 0.0f && distance > limits[1] ? limits[1] / distance : 1.0f;
    mt_add_scaled(mean, share / (is_full ? memory : count), gap, inputs);
    if (is_full) {
        return;
    }
    /* the scatter about a mean that moves (Welford 1962), its inverse by Sherman and Morrison (1950) */
    const float weight = share * share * (before / count);
    const float factor = weight / (1.0f + weight * square);
    for (uint32_t row = 0; row < inputs; ++row) {
        mt_add_scaled(precision, -(factor * gain[row]), gain, row + 1);
        precision += row + 1;
    }
    const float u = 1.0f / (worth + count - (float)inputs);
    const float fitted = c0 + u * (c1 + u * (c2 + u * (c3 + u * c4)));
    state[0] = count;
    limits[0] = 0.5f * (worth + count - 1.0f);
    limits[1] = 0.5f * mt_exp(fitted) * (1.0f + 1.0f / count);
}

#endif
