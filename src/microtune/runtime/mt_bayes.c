/* mt_bayes.c: see mt_bayes.h for the calls and docs/bayes.md for the numbered steps that comments refer to. */
#include "mt_bayes.h"

#include "mt_kernels.h"
#include "mt_math.h"

/// One sample of the buffer: input, target, age, change weight, robust weight ///

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

static float prior_variance(const mt_bayes_settings *settings, uint32_t feature)
{
    const uint32_t inputs = settings->hidden, bias = inputs + settings->inputs, trend = bias + 1 + settings->bumps;
    return feature < inputs  ? settings->hidden_variance
           : feature < bias  ? settings->input_variance
           : feature == bias ? settings->bias_variance
           : feature < trend ? settings->bump_variance
                             : settings->trend_variance;
}

/* bumps that have a place: they are given out in order and stay */
static uint32_t placed_bumps(const mt_bayes *bayes)
{
    const uint32_t next = bayes->state->bump, all = bayes->settings->bumps;
    return next < all ? next : all;
}

/* input (inputs), `age` uses ago -> phi (features); returns the base model's output */
static float features_of(const mt_bayes *bayes, const float *input, float age, float *phi)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t placed = placed_bumps(bayes);
    float base_output;
    bayes->features(bayes->model, input, phi, &base_output, bayes->arena);
    MT_COPY(phi + s->hidden, input, s->inputs * sizeof(float));
    float *bumps = phi + s->hidden + s->inputs;
    *bumps++ = 1.0f;
    for (uint32_t i = 0; i < s->bumps; ++i) {
        bumps[i] = i < placed ? mt_exp(-0.5f * distance_squared(input, bayes->centres + i * s->inputs, s->inputs)
                                       / s->bump_width_squared)
                              : 0.0f;
    }
    bumps[s->bumps] = -age / s->trend_unit;
    return base_output;
}

/* a sample of the buffer -> phi (features); returns what the base model left over */
static float residual_of(const mt_bayes *bayes, float *sample, float *phi)
{
    return *target_of(bayes, sample) - features_of(bayes, sample, *age_of(bayes, sample), phi);
}

/// Only the features that are not zero: half of a ReLU layer is, and bumps that have no place ///

/* phi (features) -> its non-zero values moved to the front, and which they were; returns how many */
static uint32_t compact(const mt_bayes *bayes, float *phi)
{
    const uint32_t size = size_of(bayes->settings);
    uint32_t count = 0;
    for (uint32_t i = 0; i < size; ++i) {
        if (phi[i] != 0.0f) {
            phi[count] = phi[i];
            bayes->active[count++] = (uint16_t)i;
        }
    }
    return count;
}

/* phi . d */
static float mean_along(const mt_bayes *bayes, const float *values, uint32_t count)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < count; ++i) {
        sum += values[i] * bayes->mean[bayes->active[i]];
    }
    return sum;
}

/* phi' P phi, never below zero */
static float variance_along(const mt_bayes *bayes, const float *values, uint32_t count)
{
    const uint16_t *active = bayes->active;
    float sum = 0.0f;
    for (uint32_t i = 0; i < count; ++i) {
        const float *row = bayes->covariance + MT_BAYES_TRIANGLE((uint32_t)active[i]);
        float beside = 0.0f;
        for (uint32_t j = 0; j < i; ++j) {
            beside += row[active[j]] * values[j];
        }
        sum += values[i] * (2.0f * beside + row[active[i]] * values[i]);
    }
    return sum > 0.0f ? sum : 0.0f;
}

/// Symmetric matrices: the lower triangle by rows, packed ///

/* A = L L' in place, with 1 / L_ii on the diagonal. A is diag(precision) plus something positive semi-definite,
 * so no pivot lies below its prior precision: where rounding says so, it is wrong. */
static void factorise(float *matrix, const float *precision, uint32_t size)
{
    float *row = matrix;
    for (uint32_t i = 0; i < size; row += ++i) {
        const float *other = matrix;
        for (uint32_t j = 0; j < i; other += ++j) {
            row[j] = (row[j] - mt_dot(row, other, j)) * other[j];
        }
        const float pivot = row[i] - mt_dot(row, row, i);
        row[i] = 1.0f / mt_sqrt(pivot > precision[i] ? pivot : precision[i]);
    }
}

/* L L' d = b, with b in d */
static void solve(const float *factor, float *d, uint32_t size)
{
    const float *row = factor;
    for (uint32_t i = 0; i < size; row += ++i) {
        d[i] = (d[i] - mt_dot(row, d, i)) * row[i];
    }
    for (uint32_t i = size; i-- > 0;) {
        row -= i + 1;
        d[i] *= row[i];
        for (uint32_t j = 0; j < i; ++j) {
            d[j] -= row[j] * d[i];
        }
    }
}

/* L -> (L L')^-1, in place */
static void invert(float *matrix, uint32_t size)
{
    /* M = L^-1, row by row: L_ii M_ij = - sum over k from j to i - 1 of L_ik M_kj */
    float *row = matrix;
    for (uint32_t i = 0; i < size; row += ++i) {
        for (uint32_t j = 0; j < i; ++j) {
            const float *column = matrix + MT_BAYES_TRIANGLE(j) + j;
            float sum = 0.0f;
            for (uint32_t k = j; k < i; column += ++k) {
                sum += row[k] * *column;
            }
            row[j] = -sum * row[i];
        }
    }
    /* P_ij = sum over k from i on of M_ki M_kj: row i of M is not needed below row i */
    row = matrix;
    for (uint32_t i = 0; i < size; row += ++i) {
        for (uint32_t j = 0; j <= i; ++j) {
            const float *below = row;
            float sum = 0.0f;
            for (uint32_t k = i; k < size; below += ++k) {
                sum += below[i] * below[j];
            }
            row[j] = sum;
        }
    }
}

/// Init and predict ///

void mt_bayes_init(const mt_bayes *bayes)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t size = size_of(s);
    MT_ZERO(bayes->state, sizeof *bayes->state);
    MT_ZERO(bayes->samples, (uint32_t)s->buffer * MT_BAYES_STRIDE(s->inputs) * sizeof(float));
    MT_ZERO(bayes->centres, (uint32_t)s->bumps * s->inputs * sizeof(float));
    MT_ZERO(bayes->mean, size * sizeof(float));
    MT_ZERO(bayes->covariance, MT_BAYES_TRIANGLE(size) * sizeof(float));
    bayes->state->standing = 1;
    bayes->state->noise = s->noise;
    for (uint32_t i = 0; i < size; ++i) {
        bayes->precision[i] = 1.0f / prior_variance(s, i);
        bayes->covariance[MT_BAYES_TRIANGLE(i) + i] = prior_variance(s, i);
    }
}

void mt_bayes_predict(const mt_bayes *bayes, const float *input, float *output, float *variance)
{
    const mt_bayes_state *state = bayes->state;
    float *phi = bayes->workspace;
    *output = features_of(bayes, input, 0.0f, phi);
    const uint32_t count = compact(bayes, phi);
    *variance = variance_along(bayes, phi, count) + state->noise;
    if (state->standing) {
        *output += mean_along(bayes, phi, count);
    } else if (state->base_loss > *variance) {
        *variance = state->base_loss;
    }
}

/// Change ///

/* log of the density of an error: Gaussian of this variance, but a share of settings may be anything */
static float log_density(const mt_bayes_settings *s, float z_squared, float variance)
{
    const float usual = 0.398942280f * mt_exp(-0.5f * z_squared) / mt_sqrt(variance);
    return mt_log((1.0f - s->wild_share) * usual + s->wild_share * s->wild_density);
}

/* How much better the last `length` uses are explained by somebody unknown than by what was learnt.
 * gram (RUN, RUN) and residuals (RUN) belong to the last RUN uses, newest last. */
static float evidence_of_jump(const mt_bayes *bayes, const float *gram, const float *residuals, uint32_t length)
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

/* The number of last uses that were a jump to other habits, 0 for none (step 4). */
static uint32_t jump_length(const mt_bayes *bayes)
{
    const mt_bayes_settings *s = bayes->settings;
    const mt_bayes_state *state = bayes->state;
    const uint32_t size = size_of(s), first = MT_BAYES_RUN - state->run;
    float gram[MT_BAYES_RUN * MT_BAYES_RUN], residuals[MT_BAYES_RUN];
    for (uint32_t i = first; i < MT_BAYES_RUN; ++i) {
        float *sample = sample_at(bayes, state->count - MT_BAYES_RUN + i);
        float *phi = bayes->workspace + i * size;
        residuals[i] = residual_of(bayes, sample, phi);
        for (uint32_t j = first; j <= i; ++j) {
            const float *other = bayes->workspace + j * size;
            float sum = i == j ? state->noise : 0.0f;
            for (uint32_t k = 0; k < size; ++k) {
                sum += phi[k] * prior_variance(s, k) * other[k];
            }
            gram[i * MT_BAYES_RUN + j] = sum;
        }
    }
    float best = s->jump_evidence;
    uint32_t found = 0;
    for (uint32_t length = 2; length <= state->run; ++length) {
        if (mt_absolute(state->surprises[MT_BAYES_RUN - length]) > s->surprise) {
            const float gain = evidence_of_jump(bayes, gram, residuals, length);
            if (gain > best) {
                best = gain;
                found = length;
            }
        }
    }
    return found;
}

/* Take the weight from what the uses from `first` on have overtaken: everything before them if their contexts
 * have nothing in common, else what lies near one of them (step 5). Returns 1 if it was near only. */
static int forget(const mt_bayes *bayes, uint32_t first)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t count = bayes->state->count;
    int local = 1;
    for (uint32_t i = first; i < count; ++i) {
        for (uint32_t j = i + 1; j < count; ++j) {
            if (distance_squared(sample_at(bayes, i), sample_at(bayes, j), s->inputs) > s->apart_squared) {
                local = 0;
            }
        }
    }
    for (uint32_t i = 0; i < first; ++i) {
        float *sample = sample_at(bayes, i);
        int affected = !local;
        for (uint32_t j = first; j < count && !affected; ++j) {
            affected = distance_squared(sample, sample_at(bayes, j), s->inputs) < s->affected_squared;
        }
        if (affected) {
            *change_weight_of(bayes, sample) = 0.0f;
        }
    }
    return local;
}

/* A bump at the mean of the contexts from `first` on, unless one is there. */
static void place_bump(const mt_bayes *bayes, uint32_t first)
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
    bayes->state->bump = (uint16_t)(bayes->state->bump + 1u < 2u * s->bumps ? bayes->state->bump + 1u : s->bumps);
}

static void watch_for_jump(const mt_bayes *bayes)
{
    mt_bayes_state *state = bayes->state;
    const uint32_t count = state->count, length = jump_length(bayes);
    if (length == 0) {
        *change_weight_of(bayes, sample_at(bayes, count - 1)) = bayes->settings->probation;
        return;
    }
    if (forget(bayes, count - length)) {
        place_bump(bayes, count - length);
    }
    for (uint32_t i = count - length; i < count; ++i) {
        *change_weight_of(bayes, sample_at(bayes, i)) = 1.0f;
    }
    state->run = 0;
    ++state->jumps;
}

/// Observe ///

/* Room for one more: what is forgotten goes first, then what is crowded around the input, then the oldest. */
static void make_room(const mt_bayes *bayes, const float *input)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t count = bayes->state->count, stride = MT_BAYES_STRIDE((uint32_t)s->inputs);
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
    for (float *to = sample_at(bayes, victim); to < sample_at(bayes, count - 1); ++to) {
        *to = to[stride];
    }
    --bayes->state->count;
}

void mt_bayes_observe(const mt_bayes *bayes, const float *input, float target)
{
    const mt_bayes_settings *s = bayes->settings;
    mt_bayes_state *state = bayes->state;
    float *phi = bayes->workspace;
    /* the personal layer is tested for change whether it stands or not (step 1) */
    const float base_output = features_of(bayes, input, 0.0f, phi);
    const uint32_t active = compact(bayes, phi);
    const float error = target - base_output - mean_along(bayes, phi, active);
    const float variance = variance_along(bayes, phi, active) + state->noise;
    const float z = error / mt_sqrt(variance);
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
    for (uint32_t i = 1; i < MT_BAYES_RUN; ++i) {
        state->surprises[i - 1] = state->surprises[i];
        state->evidence[i - 1] = state->evidence[i];
    }
    state->surprises[MT_BAYES_RUN - 1] = z;
    state->evidence[MT_BAYES_RUN - 1] = log_density(s, z * z, variance);
    state->run = (uint16_t)(state->run < MT_BAYES_RUN ? state->run + 1u : MT_BAYES_RUN);
    if (mt_absolute(z) > s->surprise) {
        watch_for_jump(bayes);
    }
}

/// Refit ///

/* posterior mean and covariance from the buffer (refit 1) */
static void fit(const mt_bayes *bayes)
{
    const uint32_t size = size_of(bayes->settings);
    float *phi = bayes->workspace, *matrix = bayes->covariance, *right = bayes->mean;
    MT_ZERO(matrix, MT_BAYES_TRIANGLE(size) * sizeof(float));
    MT_ZERO(right, size * sizeof(float));
    for (uint32_t i = 0; i < size; ++i) {
        matrix[MT_BAYES_TRIANGLE(i) + i] = bayes->precision[i];
    }
    for (uint32_t n = 0; n < bayes->state->count; ++n) {
        float *sample = sample_at(bayes, n);
        const float weight =
            *change_weight_of(bayes, sample) * *robust_weight_of(bayes, sample) / bayes->state->noise;
        if (weight <= 0.0f) {
            continue;
        }
        const float residual = residual_of(bayes, sample, phi);
        const uint32_t count = compact(bayes, phi);
        const uint16_t *active = bayes->active;
        for (uint32_t i = 0; i < count; ++i) {
            const float scaled = weight * phi[i];
            float *row = matrix + MT_BAYES_TRIANGLE((uint32_t)active[i]);
            right[active[i]] += scaled * residual;
            for (uint32_t j = 0; j <= i; ++j) {
                row[active[j]] += scaled * phi[j];
            }
        }
    }
    factorise(matrix, bayes->precision, size);
    solve(matrix, right, size);
    invert(matrix, size);
}

/* one step of relevance determination; the bias keeps its wide prior (refit 2) */
static void relax_priors(const mt_bayes *bayes)
{
    const mt_bayes_settings *s = bayes->settings;
    const uint32_t size = size_of(s), bias = (uint32_t)s->hidden + s->inputs;
    for (uint32_t i = 0; i < size; ++i) {
        if (i != bias) {
            bayes->precision[i] = 2.0f / (prior_variance(s, i) + bayes->mean[i] * bayes->mean[i]);
        }
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

void mt_bayes_refit(const mt_bayes *bayes, mt_bayes_judgement *judgement)
{
    const mt_bayes_settings *s = bayes->settings;
    mt_bayes_state *state = bayes->state;
    const uint32_t count = state->count;
    const float noise = state->noise;
    float *phi = bayes->workspace, *noises = phi + size_of(s);
    uint32_t estimates = 0;
    float personal = 0.0f, base = 0.0f, spread = 0.0f, total = 0.0f;
    fit(bayes);
    relax_priors(bayes);
    judgement->samples = count < MT_BAYES_JUDGED ? count : MT_BAYES_JUDGED;
    for (uint32_t n = count - judgement->samples; n < count; ++n) {
        float *sample = sample_at(bayes, n);
        const float residual = residual_of(bayes, sample, phi);
        const float change_weight = *change_weight_of(bayes, sample);
        const float weight = change_weight * *robust_weight_of(bayes, sample);
        const uint32_t active = compact(bayes, phi);
        const float along = variance_along(bayes, phi, active);
        /* the fit with and without this sample differ by its leverage (refit 3) */
        const float leverage = mt_clamp(weight * along / noise, 0.0f, 0.95f);
        const float error = (residual - mean_along(bayes, phi, active)) / (1.0f - leverage);
        const float variance = along / (1.0f - leverage) + noise;
        const float squared = error * error, bound = s->outlier_squared * variance;
        if (change_weight > 0.5f) {
            insert(noises, estimates++, squared * noise / variance);
        }
        *robust_weight_of(bayes, sample) = squared > bound ? bound / squared : 1.0f;
        const float loss = change_weight * (squared < bound ? squared : bound);
        const float base_loss = change_weight * (residual * residual < bound ? residual * residual : bound);
        personal += loss;
        base += base_loss;
        spread += (loss - base_loss) * (loss - base_loss);
        total += change_weight;
    }
    if (estimates > 0) {
        /* 2.19 medians of squares are the variance of a Gaussian (refit 4) */
        const float median = 0.5f * (noises[(estimates - 1) / 2] + noises[estimates / 2]);
        const float n = (float)estimates;
        const float estimate = (s->noise_uses * s->noise + n * 2.19f * median) / (s->noise_uses + n);
        state->noise = estimate > s->noise_floor ? estimate : s->noise_floor;
    }
    judgement->personal = total > 0.0f ? personal / total : 0.0f;
    judgement->base = total > 0.0f ? base / total : 0.0f;
    /* worse by more than the standard error of the sum of differences (refit 6) */
    state->standing = personal - base <= mt_sqrt(spread);
    state->base_loss = judgement->base;
}
