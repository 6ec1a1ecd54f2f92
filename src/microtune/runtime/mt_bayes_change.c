/* mt_bayes_change.c: see mt_bayes_change.h; steps in brackets are those of docs/bayes.md. */
#include "mt_bayes_change.h"

#include "mt_math.h"

/* below this, the probability that a stranger has come counts as none; and there is never more than so much doubt in
 * the person known, so that a few uses can dispel it */
#define MT_BAYES_KNOWN 0.01f
#define MT_BAYES_DOUBT 0.9f

MT_BAYES_RARE float mt_bayes_log_density(const mt_bayes_settings *s, float z_squared, float variance)
{
    const float usual = 0.398942280f * mt_exp(-0.5f * z_squared) / mt_sqrt(variance);
    return mt_log((1.0f - s->wild_share) * usual + s->wild_share * s->wild_density);
}

/* How much better the last `length` uses are explained by somebody unknown than by what was learnt.
 * gram (RUN, RUN) and residuals (RUN) belong to the last RUN uses, newest last. */
MT_BAYES_RARE static float evidence_of_jump(const mt_bayes *bayes, const float *gram, const float *residuals,
                                            uint32_t length)
{
    const uint32_t first = MT_BAYES_RUN - length;
    float lower[MT_BAYES_RUN][MT_BAYES_RUN], u[MT_BAYES_RUN];
    float gain = 0.0f;
    for (uint32_t i = 0; i < length; ++i) {
        const float *row = gram + (first + i) * MT_BAYES_RUN + first;
        float innovation = residuals[first + i], variance = row[i];
        for (uint32_t j = 0; j < i; ++j) {
            float entry = row[j];
            for (uint32_t k = 0; k < j; ++k) {
                entry -= lower[i][k] * lower[j][k];
            }
            lower[i][j] = entry * lower[j][j];
            variance -= lower[i][j] * lower[i][j];
            innovation -= lower[i][j] * u[j];
        }
        /* the noise is part of every pivot */
        variance = variance > bayes->state->noise ? variance : bayes->state->noise;
        lower[i][i] = 1.0f / mt_sqrt(variance);
        u[i] = innovation * lower[i][i];
        gain += mt_bayes_log_density(bayes->settings, u[i] * u[i], variance) - bayes->state->evidence[first + i];
    }
    return gain;
}

/* likewise by who was known before the last jump; errors (RUN) are those of their d */
MT_BAYES_RARE static float evidence_of_return(const mt_bayes *bayes, const float *errors, uint32_t length)
{
    /* as much is not known of d as of a single use */
    const float variance = 2.0f * bayes->state->noise;
    float gain = 0.0f;
    for (uint32_t i = MT_BAYES_RUN - length; i < MT_BAYES_RUN; ++i) {
        gain += mt_bayes_log_density(bayes->settings, errors[i] * errors[i] / variance, variance) - bayes->state->evidence[i];
    }
    return gain;
}

/* The number of last uses that were a jump to other habits, 0 for none; *returned: to those before the last one
 * (step 4). */
MT_BAYES_RARE static uint32_t jump_length(const mt_bayes *bayes, float evidence, int *returned)
{
    const mt_bayes_settings *s = bayes->settings;
    const mt_bayes_state *state = bayes->state;
    const uint32_t size = mt_bayes_size(s), first = MT_BAYES_RUN - state->run;
    float gram[MT_BAYES_RUN * MT_BAYES_RUN], residuals[MT_BAYES_RUN], errors[MT_BAYES_RUN];
    for (uint32_t i = first; i < MT_BAYES_RUN; ++i) {
        float *sample = mt_bayes_sample(bayes, state->count - MT_BAYES_RUN + i);
        const mt_bayes_phi phi = mt_bayes_features_of_sample(bayes, sample);
        float *full = bayes->workspace + (i + 1) * size;
        residuals[i] = *mt_bayes_target(bayes, sample) - phi.base_output;
        errors[i] = residuals[i] - mt_bayes_mean_along(bayes->former, &phi);
        MT_ZERO(full, size * sizeof(float));
        for (uint32_t k = 0; k < phi.count; ++k) {
            full[phi.active[k]] = phi.values[k];
        }
        for (uint32_t j = first; j <= i; ++j) {
            const float *other = bayes->workspace + (j + 1) * size;
            float sum = i == j ? state->noise : 0.0f;
            for (uint32_t k = 0; k < phi.count; ++k) {
                sum += phi.values[k] * mt_bayes_prior_variance(s, phi.active[k]) * other[phi.active[k]];
            }
            gram[i * MT_BAYES_RUN + j] = sum;
        }
    }
    float best = s->jump_evidence * evidence;
    uint32_t found = 0;
    for (uint32_t length = 2; length <= state->run; ++length) {
        if (mt_absolute(state->surprises[MT_BAYES_RUN - length]) > s->surprise) {
            const float gain = evidence_of_jump(bayes, gram, residuals, length);
            if (gain > best) {
                best = gain;
                found = length;
                *returned = 0;
            }
            const float again = state->jumps > 0 ? evidence_of_return(bayes, errors, length) : 0.0f;
            if (again > best) {
                best = again;
                found = length;
                *returned = 1;
            }
        }
    }
    return found;
}

/* Take the weight from what the uses from `first` on have overtaken: everything before them if their contexts
 * have nothing in common, or if it is more likely than not that somebody else has come; otherwise what lies near one
 * of them (step 5). What had been overtaken by the last jump counts again if it was a return, or else never again:
 * a weight below zero is one that may come back. Returns 1 if it was near only. */
MT_BAYES_RARE static int forget(const mt_bayes *bayes, uint32_t first, int returned)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t count = bayes->state->count;
    int local = bayes->state->stranger <= 0.5f;
    for (uint32_t i = first; i < count; ++i) {
        for (uint32_t j = i + 1; j < count; ++j) {
            if (mt_bayes_distance_squared(mt_bayes_sample(bayes, i), mt_bayes_sample(bayes, j), s->inputs) > s->apart_squared) {
                local = 0;
            }
        }
    }
    for (uint32_t i = 0; i < first; ++i) {
        float *sample = mt_bayes_sample(bayes, i);
        float *weight = mt_bayes_change_weight(bayes, sample);
        int affected = !local;
        if (*weight <= 0.0f) {
            *weight = returned ? -*weight : 0.0f;
            continue;
        }
        for (uint32_t j = first; j < count && !affected; ++j) {
            affected = mt_bayes_distance_squared(sample, mt_bayes_sample(bayes, j), s->inputs) < s->affected_squared;
        }
        if (affected) {
            *weight = -*weight;
        }
    }
    return local;
}

/* A bump at the mean of the contexts from `first` on, unless one is there. */
MT_BAYES_RARE static void place_bump(const mt_bayes *bayes, uint32_t first)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t count = bayes->state->count, placed = mt_bayes_placed_bumps(bayes);
    float *centre = bayes->workspace;
    if (s->bumps == 0) {
        return;
    }
    for (uint32_t k = 0; k < s->inputs; ++k) {
        centre[k] = 0.0f;
        for (uint32_t i = first; i < count; ++i) {
            centre[k] += mt_bayes_sample(bayes, i)[k];
        }
        centre[k] /= (float)(count - first);
    }
    for (uint32_t i = 0; i < placed; ++i) {
        if (mt_bayes_distance_squared(centre, bayes->centres + i * s->inputs, s->inputs) < 0.25f) {
            return;
        }
    }
    MT_COPY(bayes->centres + bayes->state->bump % s->bumps * s->inputs, centre, s->inputs * sizeof(float));
    /* counts to `bumps`, then round again from there, so that placed_bumps stays right */
    const uint32_t next = bayes->state->bump + 1u;
    bayes->state->bump = (uint16_t)(next < 2u * s->bumps ? next : s->bumps);
}

MT_BAYES_RARE uint32_t mt_bayes_watch_for_jump(const mt_bayes *bayes, float evidence)
{
    mt_bayes_state *state = bayes->state;
    int returned = 0;
    const uint32_t count = state->count, length = jump_length(bayes, evidence, &returned);
    if (length == 0) {
        *mt_bayes_change_weight(bayes, mt_bayes_sample(bayes, count - 1)) = bayes->settings->probation;
        return 0;
    }
    if (forget(bayes, count - length, returned) && !returned) {
        place_bump(bayes, count - length);
    }
    for (uint32_t i = count - length; i < count; ++i) {
        *mt_bayes_change_weight(bayes, mt_bayes_sample(bayes, i)) = 1.0f;
    }
    MT_COPY(bayes->former, bayes->mean, mt_bayes_size(bayes->settings) * sizeof(float));
    state->run = 0;
    state->stranger = 0.0f; /* now known */
    ++state->jumps;
    return length;
}

float mt_bayes_doubt(float stranger)
{
    return stranger < MT_BAYES_KNOWN ? 0.0f : stranger < MT_BAYES_DOUBT ? stranger : MT_BAYES_DOUBT;
}

MT_BAYES_RARE void mt_bayes_meet(const mt_bayes *bayes, const mt_bayes_phi *phi, float residual, float evidence)
{
    mt_bayes_state *state = bayes->state;
    const float variance = mt_bayes_prior_along(bayes->settings, phi) + state->noise;
    const float unknown = mt_bayes_log_density(bayes->settings, residual * residual / variance, variance);
    const float odds = (1.0f - state->stranger) / state->stranger * mt_exp(evidence - unknown);
    state->stranger = mt_bayes_doubt(1.0f / (1.0f + odds));
}
