/* mt_bayes.c: see mt_bayes.h for the calls; steps in brackets are those of docs/bayes.md. */
#include "mt_bayes.h"

#include "mt_math.h"

/* what runs once in many uses is compiled small, not fast */
#if defined(__clang__)
#define MT_BAYES_RARE __attribute__((minsize, noinline))
#elif defined(__GNUC__)
#define MT_BAYES_RARE __attribute__((cold, noinline))
#else
#define MT_BAYES_RARE
#endif

/* below this, the probability that a stranger has come counts as none; and there is never more than so much doubt in
 * the person known, so that a few uses can dispel it */
#define MT_BAYES_KNOWN 0.01f
#define MT_BAYES_DOUBT 0.9f
/* work of one slice of a refit: this / size^2 samples or pivots, and one */
#define MT_BAYES_SLICE 2500u

/// One sample of the buffer: input, target, age, change weight, robust weight, time ///

static float *sample_at(const mt_bayes *bayes, uint32_t index)
{
    return bayes->samples + index * MT_BAYES_STRIDE((uint32_t)bayes->settings->inputs);
}

static float *target_of(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs;
}

static float *age_of(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 1;
}

static float *change_weight_of(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 2;
}

static float *robust_weight_of(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 3;
}

static float *time_of(const mt_bayes *bayes, float *sample)
{
    return sample + bayes->settings->inputs + 4;
}

static float distance_squared(const float *a, const float *b, uint32_t size)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; ++i) {
        const float difference = a[i] - b[i];
        sum += difference * difference;
    }
    return sum;
}

/// Features ///

static uint32_t size_of(const mt_bayes_settings *settings)
{
    return MT_BAYES_FEATURES((uint32_t)settings->hidden, settings->inputs, settings->bumps);
}

/* inputs, 1 and trend come first: they are hardly ever zero */
static uint32_t dense_of(const mt_bayes_settings *settings)
{
    return settings->inputs + 2u;
}

static float prior_variance(const mt_bayes_settings *settings, uint32_t feature)
{
    const uint32_t bias = settings->inputs, dense = dense_of(settings), hidden = dense + settings->bumps;
    return feature < bias    ? settings->input_variance
           : feature == bias ? settings->bias_variance
           : feature < dense ? settings->trend_variance
           : feature < hidden ? settings->bump_variance
                              : settings->hidden_variance;
}

/* bumps that have a place: they are given out in order and stay */
static uint32_t placed_bumps(const mt_bayes *bayes)
{
    const uint32_t next = bayes->state->bump, all = bayes->settings->bumps;
    return next < all ? next : all;
}

/* phi of one context: `count` values, the others being zero, as half of a ReLU layer is; active[i] says which
 * feature values[i] is, in ascending order */
typedef struct mt_bayes_phi {
    float *values;
    const uint16_t *active;
    uint32_t count;
    float base_output;
} mt_bayes_phi;

/* input (inputs), `age` uses ago -> phi, in the workspace */
static mt_bayes_phi features_of(const mt_bayes *bayes, const float *input, float age)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t dense = dense_of(s), size = size_of(s), placed = placed_bumps(bayes);
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
        const float distance = distance_squared(input, bayes->centres + i * s->inputs, s->inputs);
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

static mt_bayes_phi features_of_sample(const mt_bayes *bayes, float *sample)
{
    return features_of(bayes, sample, *age_of(bayes, sample));
}

/* phi . d */
static float mean_along(const float *mean, const mt_bayes_phi *phi)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < phi->count; ++i) {
        sum += phi->values[i] * mean[phi->active[i]];
    }
    return sum;
}

/* phi' P phi, never below zero */
static float variance_along(const float *covariance, const mt_bayes_phi *phi)
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

/* the same of somebody nobody knows yet */
MT_BAYES_RARE static float prior_along(const mt_bayes_settings *settings, const mt_bayes_phi *phi)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < phi->count; ++i) {
        sum += phi->values[i] * prior_variance(settings, phi->active[i]) * phi->values[i];
    }
    return sum;
}

/// The posterior ///

/* what is known before the first use: d = 0 +- the prior's width */
MT_BAYES_RARE static void take_prior(const mt_bayes_settings *s, float *mean, float *covariance)
{
    const uint32_t size = size_of(s);
    MT_ZERO(mean, size * sizeof(float));
    MT_ZERO(covariance, MT_BAYES_TRIANGLE(size) * sizeof(float));
    for (uint32_t i = 0; i < size; ++i) {
        covariance[MT_BAYES_TRIANGLE(i) + i] = prior_variance(s, i);
    }
}

/*
 * A (lower triangle by rows, packed) -> -A^-1 and d -> A^-1 d, in place, after a call for each pivot k in order:
 * Gauss-Jordan elimination, which is as accurate as Cholesky's on such matrices (Higham 2002, 14.4). A is
 * diag(precision) plus something positive semi-definite, so no pivot lies below its prior precision: where rounding
 * says so, it is wrong. column (size) is scratch.
 */
static void eliminate(float *matrix, float *d, const float *precision, float *column, uint32_t size, uint32_t k)
{
    float *pivot_row = matrix + MT_BAYES_TRIANGLE(k);
    for (uint32_t i = 0; i < size; ++i) {
        column[i] = i < k ? pivot_row[i] : matrix[MT_BAYES_TRIANGLE(i) + k];
    }
    const float inverse = 1.0f / (column[k] > precision[k] ? column[k] : precision[k]);
    const float d_k = d[k] * inverse;
    column[k] = 0.0f; /* keeps the pivot's own column out of the sums below */
    float *row = matrix;
    for (uint32_t i = 0; i < size; row += ++i) {
        const float factor = column[i] * inverse;
        if (factor == 0.0f) {
            continue;
        }
        d[i] -= column[i] * d_k;
        for (uint32_t j = 0; j <= i; ++j) {
            row[j] -= factor * column[j];
        }
        if (i < k) {
            pivot_row[i] = factor;
        } else {
            row[k] = factor;
        }
    }
    d[k] = d_k;
    pivot_row[k] = -inverse;
}

/* No d is known less well than before the fit, and none is far out: otherwise inputs beyond all scale have
 * left nothing but rounding. Not-a-number fails both comparisons. */
static int is_sound(const float *mean, const float *covariance, const float *precision, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        const float variance = covariance[MT_BAYES_TRIANGLE(i) + i];
        if (!(variance * precision[i] < 2.0f && mt_absolute(mean[i]) < 1000.0f)) {
            return 0;
        }
    }
    return 1;
}

/// Init and predict ///

void mt_bayes_init(const mt_bayes *bayes)
{
    const mt_bayes_settings *s = bayes->settings;
    MT_ZERO(bayes->state, sizeof *bayes->state);
    MT_ZERO(bayes->samples, (uint32_t)s->buffer * MT_BAYES_STRIDE(s->inputs) * sizeof(float));
    MT_ZERO(bayes->centres, (uint32_t)s->bumps * s->inputs * sizeof(float));
    bayes->state->standing = 1;
    bayes->state->noise = s->noise;
    take_prior(s, bayes->mean, bayes->covariance);
    MT_ZERO(bayes->former, size_of(s) * sizeof(float));
    for (uint32_t i = 0; i < size_of(s); ++i) {
        bayes->precision[i] = 1.0f / prior_variance(s, i);
    }
}

void mt_bayes_predict(const mt_bayes *bayes, const float *input, float *output, float *variance)
{
    const mt_bayes_state *state = bayes->state;
    const mt_bayes_phi phi = features_of(bayes, input, 0.0f);
    *output = phi.base_output;
    *variance = variance_along(bayes->covariance, &phi) + state->noise;
    if (state->standing) {
        const float personal = mean_along(bayes->mean, &phi), stranger = state->stranger;
        *output += personal;
        if (stranger > 0.0f) {
            /* mean and variance of the mixture of the two who may have come */
            const float unknown = prior_along(bayes->settings, &phi) + state->noise;
            *output -= stranger * personal;
            *variance += stranger * (unknown - *variance + (1.0f - stranger) * personal * personal);
        }
    } else if (state->base_loss > *variance) {
        *variance = state->base_loss;
    }
}

/// Change ///

/* log of the density of an error: Gaussian of this variance, but a share of settings may be anything */
MT_BAYES_RARE static float log_density(const mt_bayes_settings *s, float z_squared, float variance)
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
        gain += log_density(bayes->settings, u[i] * u[i], variance) - bayes->state->evidence[first + i];
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
        gain += log_density(bayes->settings, errors[i] * errors[i] / variance, variance) - bayes->state->evidence[i];
    }
    return gain;
}

/* The number of last uses that were a jump to other habits, 0 for none; *returned: to those before the last one
 * (step 4). */
MT_BAYES_RARE static uint32_t jump_length(const mt_bayes *bayes, float evidence, int *returned)
{
    const mt_bayes_settings *s = bayes->settings;
    const mt_bayes_state *state = bayes->state;
    const uint32_t size = size_of(s), first = MT_BAYES_RUN - state->run;
    float gram[MT_BAYES_RUN * MT_BAYES_RUN], residuals[MT_BAYES_RUN], errors[MT_BAYES_RUN];
    for (uint32_t i = first; i < MT_BAYES_RUN; ++i) {
        float *sample = sample_at(bayes, state->count - MT_BAYES_RUN + i);
        const mt_bayes_phi phi = features_of_sample(bayes, sample);
        float *full = bayes->workspace + (i + 1) * size;
        residuals[i] = *target_of(bayes, sample) - phi.base_output;
        errors[i] = residuals[i] - mean_along(bayes->former, &phi);
        MT_ZERO(full, size * sizeof(float));
        for (uint32_t k = 0; k < phi.count; ++k) {
            full[phi.active[k]] = phi.values[k];
        }
        for (uint32_t j = first; j <= i; ++j) {
            const float *other = bayes->workspace + (j + 1) * size;
            float sum = i == j ? state->noise : 0.0f;
            for (uint32_t k = 0; k < phi.count; ++k) {
                sum += phi.values[k] * prior_variance(s, phi.active[k]) * other[phi.active[k]];
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
            if (distance_squared(sample_at(bayes, i), sample_at(bayes, j), s->inputs) > s->apart_squared) {
                local = 0;
            }
        }
    }
    for (uint32_t i = 0; i < first; ++i) {
        float *sample = sample_at(bayes, i);
        float *weight = change_weight_of(bayes, sample);
        int affected = !local;
        if (*weight <= 0.0f) {
            *weight = returned ? -*weight : 0.0f;
            continue;
        }
        for (uint32_t j = first; j < count && !affected; ++j) {
            affected = distance_squared(sample, sample_at(bayes, j), s->inputs) < s->affected_squared;
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
    const uint32_t count = bayes->state->count, placed = placed_bumps(bayes);
    float *centre = bayes->workspace;
    if (s->bumps == 0) {
        return;
    }
    for (uint32_t k = 0; k < s->inputs; ++k) {
        centre[k] = 0.0f;
        for (uint32_t i = first; i < count; ++i) {
            centre[k] += sample_at(bayes, i)[k];
        }
        centre[k] /= (float)(count - first);
    }
    for (uint32_t i = 0; i < placed; ++i) {
        if (distance_squared(centre, bayes->centres + i * s->inputs, s->inputs) < 0.25f) {
            return;
        }
    }
    MT_COPY(bayes->centres + bayes->state->bump % s->bumps * s->inputs, centre, s->inputs * sizeof(float));
    /* counts to `bumps`, then round again from there, so that placed_bumps stays right */
    const uint32_t next = bayes->state->bump + 1u;
    bayes->state->bump = (uint16_t)(next < 2u * s->bumps ? next : s->bumps);
}

MT_BAYES_RARE static uint32_t watch_for_jump(const mt_bayes *bayes, float evidence)
{
    mt_bayes_state *state = bayes->state;
    int returned = 0;
    const uint32_t count = state->count, length = jump_length(bayes, evidence, &returned);
    if (length == 0) {
        *change_weight_of(bayes, sample_at(bayes, count - 1)) = bayes->settings->probation;
        return 0;
    }
    if (forget(bayes, count - length, returned) && !returned) {
        place_bump(bayes, count - length);
    }
    for (uint32_t i = count - length; i < count; ++i) {
        *change_weight_of(bayes, sample_at(bayes, i)) = 1.0f;
    }
    MT_COPY(bayes->former, bayes->mean, size_of(bayes->settings) * sizeof(float));
    state->run = 0;
    state->stranger = 0.0f; /* now known */
    ++state->jumps;
    return length;
}

static float doubt(float stranger)
{
    return stranger < MT_BAYES_KNOWN ? 0.0f : stranger < MT_BAYES_DOUBT ? stranger : MT_BAYES_DOUBT;
}

/* after disuse: which of the two was it? (fade) */
MT_BAYES_RARE static void meet(const mt_bayes *bayes, const mt_bayes_phi *phi, float residual, float evidence)
{
    mt_bayes_state *state = bayes->state;
    const float variance = prior_along(bayes->settings, phi) + state->noise;
    const float unknown = log_density(bayes->settings, residual * residual / variance, variance);
    const float odds = (1.0f - state->stranger) / state->stranger * mt_exp(evidence - unknown);
    state->stranger = doubt(1.0f / (1.0f + odds));
}

/// Observe ///

/* Room for one more: what is forgotten goes first, then what is crowded around the input, then the oldest. */
MT_BAYES_RARE static void make_room(const mt_bayes *bayes, const float *input)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t count = bayes->state->count;
    uint32_t victim = count, crowd = 0, oldest = 0;
    for (uint32_t i = count; i-- > 0;) {
        float *sample = sample_at(bayes, i);
        if (*change_weight_of(bayes, sample) <= 0.0f) {
            victim = i;
        }
        if (distance_squared(sample, input, s->inputs) < s->crowded_squared) {
            ++crowd;
            oldest = i;
        }
    }
    if (victim == count) {
        victim = crowd >= 4 ? oldest : 0;
    }
    /* one by one, as bits: time stamps are no floats */
    for (uint32_t i = victim; i + 1 < count; ++i) {
        MT_COPY(sample_at(bayes, i), sample_at(bayes, i + 1), MT_BAYES_STRIDE((uint32_t)s->inputs) * sizeof(float));
    }
    --bayes->state->count;
}

uint32_t mt_bayes_observe(const mt_bayes *bayes, const float *input, float target, uint32_t time, float evidence)
{
    const mt_bayes_settings *s = bayes->settings;
    mt_bayes_state *state = bayes->state;
    /* the personal layer is tested for change whether it stands or not (step 1) */
    const mt_bayes_phi phi = features_of(bayes, input, 0.0f);
    const float residual = target - phi.base_output;
    const float error = residual - mean_along(bayes->mean, &phi);
    const float variance = variance_along(bayes->covariance, &phi) + state->noise;
    const float z = error / mt_sqrt(variance), expected = log_density(s, z * z, variance);
    if (state->stranger > 0.0f) {
        meet(bayes, &phi, residual, expected);
    }
    if (state->count == s->buffer) {
        make_room(bayes, input);
    }
    for (uint32_t i = 0; i < state->count; ++i) {
        float *age = age_of(bayes, sample_at(bayes, i));
        *age = *age + 1.0f < s->trend_reach ? *age + 1.0f : s->trend_reach;
    }
    float *sample = sample_at(bayes, state->count++);
    MT_COPY(sample, input, s->inputs * sizeof(float));
    *target_of(bayes, sample) = target;
    *age_of(bayes, sample) = 0.0f;
    *change_weight_of(bayes, sample) = *robust_weight_of(bayes, sample) = 1.0f;
    MT_COPY(time_of(bayes, sample), &time, sizeof time);
    for (uint32_t i = 1; i < MT_BAYES_RUN; ++i) {
        state->surprises[i - 1] = state->surprises[i];
        state->evidence[i - 1] = state->evidence[i];
    }
    state->surprises[MT_BAYES_RUN - 1] = z;
    state->evidence[MT_BAYES_RUN - 1] = expected;
    state->run = (uint16_t)(state->run < MT_BAYES_RUN ? state->run + 1u : MT_BAYES_RUN);
    return mt_absolute(z) > s->surprise ? watch_for_jump(bayes, evidence) : 0u;
}

/// Refit: a piece at a time, in the workspace; what is in use changes at the end, all at once ///

/* the fit under way, behind what features and jumps are computed in */
typedef struct mt_bayes_fit {
    float *mean;       /* (size) */
    float *matrix;     /* (MT_BAYES_TRIANGLE) */
    float *noises;     /* (MT_BAYES_JUDGED): ascending */
    float *robust;     /* (MT_BAYES_JUDGED): weights, the oldest judged sample's first */
} mt_bayes_fit;

static mt_bayes_fit fit_of(const mt_bayes *bayes)
{
    const uint32_t size = size_of(bayes->settings);
    mt_bayes_fit fit;
    fit.mean = bayes->workspace + (MT_BAYES_RUN + 1) * size;
    fit.matrix = fit.mean + size;
    fit.noises = fit.matrix + MT_BAYES_TRIANGLE(size);
    fit.robust = fit.noises + MT_BAYES_JUDGED;
    return fit;
}

static void begin_fit(const mt_bayes *bayes, const mt_bayes_fit *fit)
{
    const uint32_t size = size_of(bayes->settings);
    MT_ZERO(fit->matrix, MT_BAYES_TRIANGLE(size) * sizeof(float));
    MT_ZERO(fit->mean, size * sizeof(float));
    for (uint32_t i = 0; i < size; ++i) {
        fit->matrix[MT_BAYES_TRIANGLE(i) + i] = bayes->precision[i];
    }
}

/* one sample's share of A and of the right side (refit 1) */
static void add_sample(const mt_bayes *bayes, const mt_bayes_fit *fit, uint32_t index)
{
    float *sample = sample_at(bayes, index);
    const float weight = *change_weight_of(bayes, sample) * *robust_weight_of(bayes, sample) / bayes->state->noise;
    if (weight <= 0.0f) {
        return;
    }
    const mt_bayes_phi phi = features_of_sample(bayes, sample);
    const float residual = *target_of(bayes, sample) - phi.base_output;
    for (uint32_t i = 0; i < phi.count; ++i) {
        const float scaled = weight * phi.values[i];
        float *row = fit->matrix + MT_BAYES_TRIANGLE((uint32_t)phi.active[i]);
        fit->mean[phi.active[i]] += scaled * residual;
        for (uint32_t j = 0; j <= i; ++j) {
            row[phi.active[j]] += scaled * phi.values[j];
        }
    }
}

/* posterior mean and covariance, or the prior where arithmetic failed */
static void end_fit(const mt_bayes *bayes, const mt_bayes_fit *fit)
{
    const uint32_t size = size_of(bayes->settings);
    for (uint32_t i = 0; i < MT_BAYES_TRIANGLE(size); ++i) {
        fit->matrix[i] = -fit->matrix[i];
    }
    if (!is_sound(fit->mean, fit->matrix, bayes->precision, size)) {
        take_prior(bayes->settings, fit->mean, fit->matrix);
    }
}

/* insert into an ascending list of `size` */
static void insert(float *list, uint32_t size, float value)
{
    for (; size > 0 && list[size - 1] > value; --size) {
        list[size] = list[size - 1];
    }
    list[size] = value;
}

static uint32_t judged_of(const mt_bayes *bayes)
{
    return bayes->state->count < MT_BAYES_JUDGED ? bayes->state->count : MT_BAYES_JUDGED;
}

/* one of the newest samples, left out: what the fit without it would have said (refit 3 to 6) */
static void judge_sample(const mt_bayes *bayes, const mt_bayes_fit *fit, uint32_t judged, mt_bayes_cursor *cursor)
{
    const mt_bayes_settings *s = bayes->settings;
    float *sample = sample_at(bayes, bayes->state->count - judged_of(bayes) + judged);
    const mt_bayes_phi phi = features_of_sample(bayes, sample);
    const float noise = bayes->state->noise, residual = *target_of(bayes, sample) - phi.base_output;
    const float kept = *change_weight_of(bayes, sample), change_weight = kept > 0.0f ? kept : 0.0f;
    const float weight = change_weight * *robust_weight_of(bayes, sample);
    const float along = variance_along(fit->matrix, &phi);
    /* the fit with and without this sample differ by its leverage */
    const float leverage = mt_clamp(weight * along / noise, 0.0f, 0.95f);
    const float error = (residual - mean_along(fit->mean, &phi)) / (1.0f - leverage);
    const float variance = along / (1.0f - leverage) + noise;
    const float squared = error * error, bound = s->outlier_squared * variance;
    if (change_weight > 0.5f) {
        insert(fit->noises, cursor->estimates++, squared * (noise / variance));
    }
    fit->robust[judged] = squared > bound ? bound / squared : 1.0f;
    const float loss = change_weight * (squared < bound ? squared : bound);
    const float base_loss = change_weight * (residual * residual < bound ? residual * residual : bound);
    cursor->personal += loss;
    cursor->base += base_loss;
    cursor->spread += (loss - base_loss) * (loss - base_loss);
    cursor->total += change_weight;
}

/* one step of relevance determination; the bias keeps its wide prior (refit 2) */
static void relax_priors(const mt_bayes *bayes)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t size = size_of(s), bias = s->inputs;
    for (uint32_t i = 0; i < size; ++i) {
        if (i != bias) {
            bayes->precision[i] = 2.0f / (prior_variance(s, i) + bayes->mean[i] * bayes->mean[i]);
        }
    }
}

/* what was fitted comes into use */
static void take_fit(const mt_bayes *bayes, const mt_bayes_fit *fit, const mt_bayes_cursor *cursor,
                     mt_bayes_judgement *judgement)
{
    const mt_bayes_settings *s = bayes->settings;
    mt_bayes_state *state = bayes->state;
    const uint32_t size = size_of(s), judged = judged_of(bayes), estimates = cursor->estimates;
    MT_COPY(bayes->mean, fit->mean, size * sizeof(float));
    MT_COPY(bayes->covariance, fit->matrix, MT_BAYES_TRIANGLE(size) * sizeof(float));
    relax_priors(bayes);
    for (uint32_t i = 0; i < judged; ++i) {
        *robust_weight_of(bayes, sample_at(bayes, state->count - judged + i)) = fit->robust[i];
    }
    if (estimates > 0) {
        /* 2.19 medians of squares are the variance of a Gaussian (refit 4) */
        const float median = 0.5f * (fit->noises[(estimates - 1) / 2] + fit->noises[estimates / 2]);
        const float n = (float)estimates;
        const float estimate = (s->noise_uses * s->noise + n * 2.19f * median) / (s->noise_uses + n);
        state->noise = mt_clamp(estimate, s->noise_floor, 1.0f / (s->wild_density * s->wild_density));
    }
    judgement->samples = judged;
    judgement->personal = cursor->total > 0.0f ? cursor->personal / cursor->total : 0.0f;
    judgement->base = cursor->total > 0.0f ? cursor->base / cursor->total : 0.0f;
    /* worse by more than the standard error of the sum of differences (refit 6) */
    state->standing = cursor->personal - cursor->base <= mt_sqrt(cursor->spread);
    state->base_loss = judgement->base;
}

int mt_bayes_refit_slice(const mt_bayes *bayes, mt_bayes_cursor *cursor, mt_bayes_judgement *judgement)
{
    const uint32_t size = size_of(bayes->settings), count = bayes->state->count, judged = judged_of(bayes);
    const mt_bayes_fit fit = fit_of(bayes);
    const uint32_t first = cursor->next;
    if (cursor->stage == 0) {
        if (first == 0) {
            begin_fit(bayes, &fit);
        }
        for (uint32_t end = first + 1u + MT_BAYES_SLICE / (size * size); cursor->next < count && cursor->next < end;) {
            add_sample(bayes, &fit, cursor->next++);
        }
        if (cursor->next < count) {
            return 0;
        }
    } else if (cursor->stage == 1) {
        for (uint32_t end = first + 1u + MT_BAYES_SLICE / (size * size); cursor->next < size && cursor->next < end;) {
            eliminate(fit.matrix, fit.mean, bayes->precision, bayes->workspace, size, cursor->next++);
        }
        if (cursor->next < size) {
            return 0;
        }
        end_fit(bayes, &fit);
    } else {
        for (uint32_t end = first + 1u + MT_BAYES_SLICE / (size * size); cursor->next < judged && cursor->next < end;) {
            judge_sample(bayes, &fit, cursor->next++, cursor);
        }
        if (cursor->next == judged) {
            take_fit(bayes, &fit, cursor, judgement);
            MT_ZERO(cursor, sizeof *cursor);
            return 1;
        }
        return 0;
    }
    ++cursor->stage;
    cursor->next = 0;
    return 0;
}

void mt_bayes_refit(const mt_bayes *bayes, mt_bayes_judgement *judgement)
{
    mt_bayes_cursor cursor = {0, 0, 0, 0, 0.0f, 0.0f, 0.0f, 0.0f};
    while (!mt_bayes_refit_slice(bayes, &cursor, judgement)) {
    }
}

/// Drop and fade ///

MT_BAYES_RARE void mt_bayes_drop_newest(const mt_bayes *bayes, uint32_t count)
{
    mt_bayes_state *state = bayes->state;
    state->count = (uint16_t)(count < state->count ? state->count - count : 0u);
    state->run = 0;
    MT_ZERO(sample_at(bayes, state->count),
            (bayes->settings->buffer - (uint32_t)state->count) * MT_BAYES_STRIDE((uint32_t)bayes->settings->inputs) *
                sizeof(float));
}

MT_BAYES_RARE uint32_t mt_bayes_since(const mt_bayes *bayes, uint32_t time)
{
    const uint32_t count = bayes->state->count;
    uint32_t since = 0, latest = UINT32_MAX, stamp;
    for (; since < count; ++since) {
        MT_COPY(&stamp, time_of(bayes, sample_at(bayes, count - 1 - since)), sizeof stamp);
        if (stamp < time || stamp > latest) {
            break;
        }
        latest = stamp;
    }
    return since;
}

MT_BAYES_RARE void mt_bayes_drop_since(const mt_bayes *bayes, uint32_t time)
{
    mt_bayes_drop_newest(bayes, mt_bayes_since(bayes, time));
}

MT_BAYES_RARE void mt_bayes_fade(const mt_bayes *bayes, float share)
{
    mt_bayes_state *state = bayes->state;
    state->stranger = doubt(state->stranger + share * (1.0f - state->stranger));
}
