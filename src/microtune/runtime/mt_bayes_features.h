/*
 * mt_bayes_features.h: what the residual head sees: samples of its buffer, phi of a context, and what it makes of it.
 */
#ifndef MT_BAYES_FEATURES_H
#define MT_BAYES_FEATURES_H

#include "mt_bayes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* what runs once in many uses is compiled small, not fast */
#if defined(__clang__)
#define MT_BAYES_RARE __attribute__((minsize, noinline))
#elif defined(__GNUC__)
#define MT_BAYES_RARE __attribute__((cold, noinline))
#else
#define MT_BAYES_RARE
#endif

/// One sample of the buffer: input, target, age, change weight, robust weight, time ///

static inline float *mt_bayes_sample(const mt_bayes *bayes, uint32_t index)
{
    return bayes->samples + index * MT_BAYES_STRIDE((uint32_t)bayes->settings->inputs);
}

static inline float *mt_bayes_target(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs;
}

static inline float *mt_bayes_age(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 1;
}

static inline float *mt_bayes_change_weight(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 2;
}

static inline float *mt_bayes_robust_weight(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 3;
}

static inline float *mt_bayes_time(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 4;
}

/// Features ///

static inline uint32_t mt_bayes_size(const mt_bayes_settings *settings)
{
    return MT_BAYES_FEATURES((uint32_t)settings->hidden, settings->inputs, settings->bumps);
}

/* phi of one context: `count` values, the others being zero, as half of a ReLU layer is; active[i] says which
 * feature values[i] is, in ascending order */
typedef struct mt_bayes_phi {
    float *values;
    const uint16_t *active;
    uint32_t count;
    float base_output;
} mt_bayes_phi;

float mt_bayes_distance_squared(const float *a, const float *b, uint32_t size);
float mt_bayes_prior_variance(const mt_bayes_settings *settings, uint32_t feature);

/* bumps that have a place: they are given out in order and stay */
uint32_t mt_bayes_placed_bumps(const mt_bayes *bayes);

/* input (inputs), `age` uses ago -> phi, in the workspace */
mt_bayes_phi mt_bayes_features_of(const mt_bayes *bayes, const float *input, float age);
mt_bayes_phi mt_bayes_features_of_sample(const mt_bayes *bayes, float *sample);

/* phi . d */
float mt_bayes_mean_along(const float *mean, const mt_bayes_phi *phi);

/* phi' P phi, never below zero */
float mt_bayes_variance_along(const float *covariance, const mt_bayes_phi *phi);

/* the same of somebody nobody knows yet */
float mt_bayes_prior_along(const mt_bayes_settings *settings, const mt_bayes_phi *phi);

#ifdef __cplusplus
}
#endif

#endif
