/* mt_bayes.c: see mt_bayes.h for the calls; steps in brackets are those of docs/bayes.md. */
#include "mt_bayes.h"

#include "mt_bayes_change.h"
#include "mt_bayes_features.h"
#include "mt_bayes_refit.h"
#include "mt_math.h"

/// Init and predict ///

void mt_bayes_init(const mt_bayes *bayes)
{
    const mt_bayes_settings *s = bayes->settings;
    MT_ZERO(bayes->state, sizeof *bayes->state);
    MT_ZERO(bayes->samples, (uint32_t)s->buffer * MT_BAYES_STRIDE(s->inputs) * sizeof(float));
    MT_ZERO(bayes->centres, (uint32_t)s->bumps * s->inputs * sizeof(float));
    bayes->state->standing = 1;
    bayes->state->noise = s->noise;
    mt_bayes_take_prior(s, bayes->mean, bayes->covariance);
    MT_ZERO(bayes->former, mt_bayes_size(s) * sizeof(float));
    for (uint32_t i = 0; i < mt_bayes_size(s); ++i) {
        bayes->precision[i] = 1.0f / mt_bayes_prior_variance(s, i);
    }
}

void mt_bayes_predict(const mt_bayes *bayes, const float *input, float *output, float *variance)
{
    const mt_bayes_state *state = bayes->state;
    const mt_bayes_phi phi = mt_bayes_features_of(bayes, input, 0.0f);
    *output = phi.base_output;
    *variance = mt_bayes_variance_along(bayes->covariance, &phi) + state->noise;
    if (state->standing) {
        const float personal = mt_bayes_mean_along(bayes->mean, &phi), stranger = state->stranger;
        *output += personal;
        if (stranger > 0.0f) {
            /* mean and variance of the mixture of the two who may have come */
            const float unknown = mt_bayes_prior_along(bayes->settings, &phi) + state->noise;
            *output -= stranger * personal;
            *variance += stranger * (unknown - *variance + (1.0f - stranger) * personal * personal);
        }
    } else if (state->base_loss > *variance) {
        *variance = state->base_loss;
    }
}

/// Observe ///

/* Room for one more: what is forgotten goes first, then what is crowded around the input, then the oldest. */
MT_BAYES_RARE static void make_room(const mt_bayes *bayes, const float *input)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t count = bayes->state->count;
    uint32_t victim = count, crowd = 0, oldest = 0;
    for (uint32_t i = count; i-- > 0;) {
        float *sample = mt_bayes_sample(bayes, i);
        if (*mt_bayes_change_weight(bayes, sample) <= 0.0f) {
            victim = i;
        }
        if (mt_bayes_distance_squared(sample, input, s->inputs) < s->crowded_squared) {
            ++crowd;
            oldest = i;
        }
    }
    if (victim == count) {
        victim = crowd >= 4 ? oldest : 0;
    }
    /* one by one, as bits: time stamps are no floats */
    for (uint32_t i = victim; i + 1 < count; ++i) {
        MT_COPY(mt_bayes_sample(bayes, i), mt_bayes_sample(bayes, i + 1), MT_BAYES_STRIDE((uint32_t)s->inputs) * sizeof(float));
    }
    --bayes->state->count;
}

uint32_t mt_bayes_observe(const mt_bayes *bayes, const float *input, float target, uint32_t time, float evidence)
{
    const mt_bayes_settings *s = bayes->settings;
    mt_bayes_state *state = bayes->state;
    /* the personal layer is tested for change whether it stands or not (step 1) */
    const mt_bayes_phi phi = mt_bayes_features_of(bayes, input, 0.0f);
    const float residual = target - phi.base_output;
    const float error = residual - mt_bayes_mean_along(bayes->mean, &phi);
    const float variance = mt_bayes_variance_along(bayes->covariance, &phi) + state->noise;
    const float z = error / mt_sqrt(variance), expected = mt_bayes_log_density(s, z * z, variance);
    if (state->stranger > 0.0f) {
        mt_bayes_meet(bayes, &phi, residual, expected);
    }
    if (state->count == s->buffer) {
        make_room(bayes, input);
    }
    for (uint32_t i = 0; i < state->count; ++i) {
        float *age = mt_bayes_age(bayes, mt_bayes_sample(bayes, i));
        *age = *age + 1.0f < s->trend_reach ? *age + 1.0f : s->trend_reach;
    }
    float *sample = mt_bayes_sample(bayes, state->count++);
    MT_COPY(sample, input, s->inputs * sizeof(float));
    *mt_bayes_target(bayes, sample) = target;
    *mt_bayes_age(bayes, sample) = 0.0f;
    *mt_bayes_change_weight(bayes, sample) = *mt_bayes_robust_weight(bayes, sample) = 1.0f;
    MT_COPY(mt_bayes_time(bayes, sample), &time, sizeof time);
    for (uint32_t i = 1; i < MT_BAYES_RUN; ++i) {
        state->surprises[i - 1] = state->surprises[i];
        state->evidence[i - 1] = state->evidence[i];
    }
    state->surprises[MT_BAYES_RUN - 1] = z;
    state->evidence[MT_BAYES_RUN - 1] = expected;
    /* a buffer may hold fewer than a run */
    const uint32_t most = state->count < MT_BAYES_RUN ? state->count : (uint32_t)MT_BAYES_RUN;
    state->run = (uint16_t)(state->run < most ? state->run + 1u : most);
    return mt_absolute(z) > s->surprise ? mt_bayes_watch_for_jump(bayes, evidence) : 0u;
}

/// Drop and fade ///

MT_BAYES_RARE void mt_bayes_drop_newest(const mt_bayes *bayes, uint32_t count)
{
    mt_bayes_state *state = bayes->state;
    state->count = (uint16_t)(count < state->count ? state->count - count : 0u);
    state->run = 0;
    MT_ZERO(mt_bayes_sample(bayes, state->count),
            (bayes->settings->buffer - (uint32_t)state->count) * MT_BAYES_STRIDE((uint32_t)bayes->settings->inputs) *
                sizeof(float));
}

MT_BAYES_RARE uint32_t mt_bayes_since(const mt_bayes *bayes, uint32_t time, uint32_t now)
{
    const uint32_t count = bayes->state->count;
    uint32_t since = 0, latest = now, stamp;
    for (; since < count; ++since) {
        MT_COPY(&stamp, mt_bayes_time(bayes, mt_bayes_sample(bayes, count - 1 - since)), sizeof stamp);
        if (stamp < time || stamp > latest) {
            break;
        }
        latest = stamp;
    }
    return since;
}

MT_BAYES_RARE void mt_bayes_fade(const mt_bayes *bayes, float share)
{
    mt_bayes_state *state = bayes->state;
    state->stranger = mt_bayes_doubt(state->stranger + share * (1.0f - state->stranger));
}
