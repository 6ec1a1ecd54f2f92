/* mt_bayes_features.c: see mt_bayes_features.h. */
#include "mt_bayes_features.h"

#include "mt_math.h"

float mt_bayes_distance_squared(const float *a, const float *b, uint32_t size)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        const float difference = a[i] - b[i];
        sum += difference * difference;
    }
    return sum;
}

/* inputs, 1 and trend come first: they are hardly ever zero */
static uint32_t mt_bayes_dense(const mt_bayes_settings *settings)
{
    return settings->inputs + 2u;
}

float mt_bayes_prior_variance(const mt_bayes_settings *settings, uint32_t feature)
{
    const uint32_t bias = settings->inputs, dense = mt_bayes_dense(settings), hidden = dense + settings->bumps;
    return feature < bias    ? settings->input_variance
           : feature == bias ? settings->bias_variance
           : feature < dense ? settings->trend_variance
           : feature < hidden ? settings->bump_variance
                              : settings->hidden_variance;
}

uint32_t mt_bayes_placed_bumps(const mt_bayes *bayes)
{
    const uint32_t next = bayes->state->bump, all = bayes->settings->bumps;
    return next < all ? next : all;
}

mt_bayes_phi mt_bayes_features_of(const mt_bayes *bayes, const float *input, float age)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t dense = mt_bayes_dense(s), size = mt_bayes_size(s), placed = mt_bayes_placed_bumps(bayes);
    mt_bayes_phi phi = {bayes->workspace, bayes->active, dense, 0.0f};
    for (uint32_t i = 0; i < dense; ++i) {
        bayes->active[i] = (uint16_t)i;
    }
    bayes->features(bayes->model, input, phi.values + dense + s->bumps, &phi.base_output, bayes->arena);
    for (uint32_t i = 0; i < s->inputs; ++i) {
        phi.values[i] = input[i];
    }
    phi.values[s->inputs] = 1.0f;
    phi.values[s->inputs + 1] = -age / s->trend_unit;
    for (uint32_t i = 0; i < placed; ++i) {
        const float distance = mt_bayes_distance_squared(input, bayes->centres + i * s->inputs, s->inputs);
        phi.values[phi.count] = mt_exp(-0.5f * distance / s->bump_width_squared);
        bayes->active[phi.count++] = (uint16_t)(dense + i);
    }
    for (uint32_t i = dense + s->bumps; i < size; ++i) {
        if (phi.values[i] != 0.0f) {
            phi.values[phi.count] = phi.values[i];
            bayes->active[phi.count++] = (uint16_t)i;
        }
    }
    return phi;
}

mt_bayes_phi mt_bayes_features_of_sample(const mt_bayes *bayes, float *sample)
{
    return mt_bayes_features_of(bayes, sample, *mt_bayes_age(bayes, sample));
}

float mt_bayes_mean_along(const float *mean, const mt_bayes_phi *phi)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < phi->count; ++i) {
        sum += phi->values[i] * mean[phi->active[i]];
    }
    return sum;
}

float mt_bayes_variance_along(const float *covariance, const mt_bayes_phi *phi)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < phi->count; ++i) {
        const uint32_t feature = phi->active[i];
        const float *row = covariance + MT_BAYES_TRIANGLE(feature);
        float beside = 0.0f;
        for (uint32_t j = 0; j < i; ++j) {
            beside += row[phi->active[j]] * phi->values[j];
        }
        sum += phi->values[i] * (2.0f * beside + row[feature] * phi->values[i]);
    }
    return sum > 0.0f ? sum : 0.0f;
}

MT_BAYES_RARE float mt_bayes_prior_along(const mt_bayes_settings *settings, const mt_bayes_phi *phi)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < phi->count; ++i) {
        sum += phi->values[i] * mt_bayes_prior_variance(settings, phi->active[i]) * phi->values[i];
    }
    return sum;
}
