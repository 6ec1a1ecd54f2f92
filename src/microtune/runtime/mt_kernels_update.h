/*
 * mt_kernels_update.h: optimisers, as PyTorch defines them.
 *
 * Each comes twice: for a gradient held in memory (biases, scales) and for the weight of a dense layer,
 * whose gradient dy x' is formed element by element and never stored. clip > 0 limits every element of
 * the gradient to +-clip (torch.nn.utils.clip_grad_value_); 0 means no limit.
 */
#ifndef MT_KERNELS_UPDATE_H
#define MT_KERNELS_UPDATE_H

#include "mt_kernels.h"
#include "mt_math.h"

/* bias corrections of Adam, advanced once a step; both start at zero */
typedef struct mt_adam_correction {
    float first;  /* 1 - beta1^t */
    float second; /* sqrt(1 - beta2^t) */
} mt_adam_correction;

static inline float mt_clip(float gradient, float clip)
{
    return clip > 0.0f ? mt_clamp(gradient, -clip, clip) : gradient;
}

/* learning rate of this step, rate / (1 + decay t), t = 0, 1, ...; counts the step */
static inline float mt_decayed_rate(float *steps, float rate, float decay)
{
    const float now = rate / (1.0f + decay * steps[0]);
    /* beyond 2^24 a float no longer counts; the rate then stays where it is */
    steps[0] += 1.0f;
    return now;
}

/// Stochastic gradient descent ///

static inline void mt_sgd(float *MT_RESTRICT p, const float *MT_RESTRICT g, float rate, float clip, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        p[i] -= rate * mt_clip(g[i], clip);
    }
}

/* a row whose gradient is zero stays as it is */
static inline void mt_sgd_dense(float *MT_RESTRICT w, const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                float rate, float clip, uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o, w += inputs) {
        if (dy[o] != 0.0f) {
            const float step = rate * dy[o];
            MT_UNROLL
            for (uint32_t i = 0; i < inputs; ++i) {
                w[i] -= clip > 0.0f ? rate * mt_clip(dy[o] * x[i], clip) : step * x[i];
            }
        }
    }
}

/// SGD with momentum: v = momentum v + g, p -= rate v ///

static inline void mt_momentum_one(float *p, float *v, float g, float rate, float momentum)
{
    *v = momentum * *v + g;
    *p -= rate * *v;
}

static inline void mt_momentum(float *MT_RESTRICT p, float *MT_RESTRICT v, const float *MT_RESTRICT g, float rate,
                               float momentum, float clip, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        mt_momentum_one(p + i, v + i, mt_clip(g[i], clip), rate, momentum);
    }
}

static inline void mt_momentum_dense(float *MT_RESTRICT w, float *MT_RESTRICT v, const float *MT_RESTRICT dy,
                                     const float *MT_RESTRICT x, float rate, float momentum, float clip,
                                     uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t i = 0; i < inputs; ++i) {
            const uint32_t k = o * inputs + i;
            mt_momentum_one(w + k, v + k, mt_clip(dy[o] * x[i], clip), rate, momentum);
        }
    }
}

/// RMSProp (Tieleman and Hinton 2012): v = smoothing v + (1 - smoothing) g^2, p -= rate g / (sqrt(v) + epsilon) ///

static inline void mt_rmsprop_one(float *p, float *v, float g, float rate, float smoothing, float epsilon)
{
    *v = smoothing * *v + (1.0f - smoothing) * (g * g);
    *p -= rate * (g / (mt_sqrt(*v) + epsilon));
}

static inline void mt_rmsprop(float *MT_RESTRICT p, float *MT_RESTRICT v, const float *MT_RESTRICT g, float rate,
                              float smoothing, float epsilon, float clip, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        mt_rmsprop_one(p + i, v + i, mt_clip(g[i], clip), rate, smoothing, epsilon);
    }
}

static inline void mt_rmsprop_dense(float *MT_RESTRICT w, float *MT_RESTRICT v, const float *MT_RESTRICT dy,
                                    const float *MT_RESTRICT x, float rate, float smoothing, float epsilon,
                                    float clip, uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t i = 0; i < inputs; ++i) {
            const uint32_t k = o * inputs + i;
            mt_rmsprop_one(w + k, v + k, mt_clip(dy[o] * x[i], clip), rate, smoothing, epsilon);
        }
    }
}

/// Adam (Kingma and Ba 2015) ///

/* state[0] = 1 - beta1^t, state[1] = 1 - beta2^t: grown by recurrence, exact from the first step on */
static inline mt_adam_correction mt_adam_begin(float *state, float beta1, float beta2)
{
    mt_adam_correction correction;
    state[0] = beta1 * state[0] + (1.0f - beta1);
    state[1] = beta2 * state[1] + (1.0f - beta2);
    correction.first = state[0];
    correction.second = mt_sqrt(state[1]);
    return correction;
}

static inline void mt_adam_one(float *p, float *m, float *v, float g, mt_adam_correction correction, float rate,
                               float beta1, float beta2, float epsilon)
{
    *m = beta1 * *m + (1.0f - beta1) * g;
    *v = beta2 * *v + (1.0f - beta2) * (g * g);
    *p -= (rate / correction.first) * (*m / (mt_sqrt(*v) / correction.second + epsilon));
}

static inline void mt_adam(float *MT_RESTRICT p, float *MT_RESTRICT m, float *MT_RESTRICT v,
                           const float *MT_RESTRICT g, mt_adam_correction correction, float rate, float beta1,
                           float beta2, float epsilon, float clip, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        mt_adam_one(p + i, m + i, v + i, mt_clip(g[i], clip), correction, rate, beta1, beta2, epsilon);
    }
}

static inline void mt_adam_dense(float *MT_RESTRICT w, float *MT_RESTRICT m, float *MT_RESTRICT v,
                                 const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                 mt_adam_correction correction, float rate, float beta1, float beta2,
                                 float epsilon, float clip, uint32_t inputs, uint32_t outputs)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t i = 0; i < inputs; ++i) {
            const uint32_t k = o * inputs + i;
            mt_adam_one(w + k, m + k, v + k, mt_clip(dy[o] * x[i], clip), correction, rate, beta1, beta2, epsilon);
        }
    }
}

#endif
