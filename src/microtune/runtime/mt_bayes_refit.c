/* mt_bayes_refit.c: see mt_bayes.h for the calls; steps in brackets are those of docs/bayes.md. */
#include "mt_bayes_refit.h"

#include "mt_math.h"

/* work of one slice of a refit: this / size^2 samples or pivots, and one */
#define MT_BAYES_SLICE 2500u

/// The posterior ///

MT_BAYES_RARE void mt_bayes_take_prior(const mt_bayes_settings *s, float *mean, float *covariance)
{
    const uint32_t size = mt_bayes_size(s);
    MT_ZERO(mean, size * sizeof(float));
    MT_ZERO(covariance, MT_BAYES_TRIANGLE(size) * sizeof(float));
    for (uint32_t i = 0; i < size; ++i) {
        covariance[MT_BAYES_TRIANGLE(i) + i] = mt_bayes_prior_variance(s, i);
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
    const uint32_t size = mt_bayes_size(bayes->settings);
    mt_bayes_fit fit;
    fit.mean = bayes->workspace + (MT_BAYES_RUN + 1) * size;
    fit.matrix = fit.mean + size;
    fit.noises = fit.matrix + MT_BAYES_TRIANGLE(size);
    fit.robust = fit.noises + MT_BAYES_JUDGED;
    return fit;
}

static void begin_fit(const mt_bayes *bayes, const mt_bayes_fit *fit)
{
    const uint32_t size = mt_bayes_size(bayes->settings);
    MT_ZERO(fit->matrix, MT_BAYES_TRIANGLE(size) * sizeof(float));
    MT_ZERO(fit->mean, size * sizeof(float));
    for (uint32_t i = 0; i < size; ++i) {
        fit->matrix[MT_BAYES_TRIANGLE(i) + i] = bayes->precision[i];
    }
}

/* one sample's share of A and of the right side (refit 1) */
static void add_sample(const mt_bayes *bayes, const mt_bayes_fit *fit, uint32_t index)
{
    float *sample = mt_bayes_sample(bayes, index);
    const float weight = *mt_bayes_change_weight(bayes, sample) * *mt_bayes_robust_weight(bayes, sample) / bayes->state->noise;
    if (weight <= 0.0f) {
        return;
    }
    const mt_bayes_phi phi = mt_bayes_features_of_sample(bayes, sample);
    const float residual = *mt_bayes_target(bayes, sample) - phi.base_output;
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
    const uint32_t size = mt_bayes_size(bayes->settings);
    for (uint32_t i = 0; i < MT_BAYES_TRIANGLE(size); ++i) {
        fit->matrix[i] = -fit->matrix[i];
    }
    if (!is_sound(fit->mean, fit->matrix, bayes->precision, size)) {
        mt_bayes_take_prior(bayes->settings, fit->mean, fit->matrix);
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
    return bayes->state->count < MT_BAYES_JUDGED ? bayes->state->count : (uint32_t)MT_BAYES_JUDGED;
}

/* one of the newest samples, left out: what the fit without it would have said (refit 3 to 6) */
static void judge_sample(const mt_bayes *bayes, const mt_bayes_fit *fit, uint32_t judged, mt_bayes_cursor *cursor)
{
    const mt_bayes_settings *s = bayes->settings;
    float *sample = mt_bayes_sample(bayes, bayes->state->count - judged_of(bayes) + judged);
    const mt_bayes_phi phi = mt_bayes_features_of_sample(bayes, sample);
    const float noise = bayes->state->noise, residual = *mt_bayes_target(bayes, sample) - phi.base_output;
    const float kept = *mt_bayes_change_weight(bayes, sample), change_weight = kept > 0.0f ? kept : 0.0f;
    const float weight = change_weight * *mt_bayes_robust_weight(bayes, sample);
    const float along = mt_bayes_variance_along(fit->matrix, &phi);
    /* the fit with and without this sample differ by its leverage */
    const float leverage = mt_clamp(weight * along / noise, 0.0f, 0.95f);
    const float error = (residual - mt_bayes_mean_along(fit->mean, &phi)) / (1.0f - leverage);
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
    const uint32_t size = mt_bayes_size(s), bias = s->inputs;
    for (uint32_t i = 0; i < size; ++i) {
        if (i != bias) {
            bayes->precision[i] = 2.0f / (mt_bayes_prior_variance(s, i) + bayes->mean[i] * bayes->mean[i]);
        }
    }
}

/* what was fitted comes into use */
static void take_fit(const mt_bayes *bayes, const mt_bayes_fit *fit, const mt_bayes_cursor *cursor,
                     mt_bayes_judgement *judgement)
{
    const mt_bayes_settings *s = bayes->settings;
    mt_bayes_state *state = bayes->state;
    const uint32_t size = mt_bayes_size(s), judged = judged_of(bayes), estimates = cursor->estimates;
    MT_COPY(bayes->mean, fit->mean, size * sizeof(float));
    MT_COPY(bayes->covariance, fit->matrix, MT_BAYES_TRIANGLE(size) * sizeof(float));
    relax_priors(bayes);
    for (uint32_t i = 0; i < judged; ++i) {
        *mt_bayes_robust_weight(bayes, mt_bayes_sample(bayes, state->count - judged + i)) = fit->robust[i];
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
    const uint32_t size = mt_bayes_size(bayes->settings), count = bayes->state->count, judged = judged_of(bayes);
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
