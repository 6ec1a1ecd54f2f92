/*
 * mt_kernels_loss.h: losses of one sample with their gradients, as PyTorch defines them (reduction 'mean').
 *
 * y are the outputs of the network (for the cross-entropies: logits), t the target; the gradient dy may take
 * the memory of y, or be NULL when only the loss is wanted. Each returns the loss.
 */
#ifndef MT_KERNELS_LOSS_H
#define MT_KERNELS_LOSS_H

#include "mt_kernels.h"
#include "mt_math.h"

/* mean of (y - t)^2 */
static inline float mt_mse(const float *y, const float *t, float *dy, uint32_t size)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        const float error = y[i] - t[i];
        sum += error * error;
        if (dy != NULL) {
            dy[i] = error * (2.0f / (float)size);
        }
    }
    return sum * (1.0f / (float)size);
}

/* mean of e^2 / 2 where |e| <= delta, delta (|e| - delta / 2) beyond (Huber 1964) */
static inline float mt_huber(const float *y, const float *t, float *dy, float delta, uint32_t size)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        const float error = y[i] - t[i];
        const float clipped = mt_clamp(error, -delta, delta);
        sum += clipped * (error - 0.5f * clipped);
        if (dy != NULL) {
            dy[i] = clipped * (1.0f / (float)size);
        }
    }
    return sum * (1.0f / (float)size);
}

/* t in 0..1; mean of -t ln p - (1 - t) ln(1 - p), p = sigmoid(y) */
static inline float mt_binary_cross_entropy(const float *y, const float *t, float *dy, uint32_t size)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        const float positive = y[i] > 0.0f ? y[i] : 0.0f;
        sum += (positive - y[i] * t[i]) + mt_log(1.0f + mt_exp(-mt_absolute(y[i])));
        if (dy != NULL) {
            dy[i] = (mt_sigmoid(y[i]) - t[i]) * (1.0f / (float)size);
        }
    }
    return sum * (1.0f / (float)size);
}

/* t[0] is the index of the true class; -ln softmax(y)[t] */
static inline float mt_cross_entropy(const float *y, const float *t, float *dy, uint32_t size)
{
    const uint32_t label = (uint32_t)t[0];
    float largest = y[0];
    for (uint32_t i = 1; i < size; ++i) {
        largest = y[i] > largest ? y[i] : largest;
    }
    const float true_logit = y[label] - largest;
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        const float e = mt_exp(y[i] - largest);
        sum += e;
        if (dy != NULL) {
            dy[i] = e;
        }
    }
    if (dy != NULL) {
        for (uint32_t i = 0; i < size; ++i) {
            dy[i] = dy[i] / sum - (i == label ? 1.0f : 0.0f);
        }
    }
    return mt_log(sum) - true_logit;
}

#endif
