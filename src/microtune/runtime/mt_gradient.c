/* mt_gradient.c: see mt_gradient.h. Sections from low to high: samples, order, training, judgement, the rule. */
#include "mt_gradient.h"

#include "mt_math.h"

/// Samples: a ring, here counted from the oldest ///

static const float *sample_at(const mt_learner *learner, uint32_t index)
{
    const mt_model *model = learner->model;
    const uint32_t buffer = learner->settings->buffer, stride = model->cut + model->targets;
    const uint32_t slot = (learner->state->next + buffer - learner->state->count + index) % buffer;
    return learner->samples + slot * stride;
}

static void keep_sample(const mt_learner *learner, const float *cut, const float *target)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    const uint32_t buffer = learner->settings->buffer, stride = model->cut + model->targets;
    float *sample = learner->samples + state->next * stride;
    MT_COPY(sample, cut, model->cut * sizeof *cut);
    MT_COPY(sample + model->cut, target, model->targets * sizeof *target);
    state->next = (uint16_t)((state->next + 1u) % buffer);
    if (state->count < buffer) {
        ++state->count;
    }
}

/// Order of the samples: a new permutation each epoch, without memory for it ///

/* xorshift32 (Marsaglia 2003); the state is never zero */
static uint32_t draw(mt_state *state)
{
    uint32_t x = state->random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return state->random = x;
}

typedef struct permutation {
    uint32_t mask; /* 2^bits - 1, at least count - 1: places beyond the count are skipped by the caller */
    uint32_t half; /* half of the bits, at least 1 */
    uint32_t add, factor;
} permutation;

static permutation shuffle(mt_state *state, uint32_t count)
{
    permutation order;
    uint32_t bits = 0;
    while ((1u << bits) < count) {
        ++bits;
    }
    order.mask = (1u << bits) - 1u;
    order.half = bits / 2u + 1u;
    order.add = draw(state);
    order.factor = draw(state) | 1u;
    return order;
}

/* Each step is a bijection of the numbers up to mask: adding, an odd factor, folding high bits into low ones. */
static uint32_t place(permutation order, uint32_t position)
{
    uint32_t x = (position + order.add) & order.mask;
    x = (x * order.factor) & order.mask;
    x ^= x >> order.half;
    x = (x * 0x9E3779B1u) & order.mask;
    x ^= x >> order.half;
    return (x + (order.add >> 16)) & order.mask;
}

/// Training the candidate ///

static void begin_optimizer(const mt_model *model, float *optimizer)
{
    if (model->begin != NULL) {
        model->begin(optimizer);
    } else if (model->optimizer != 0) { /* else there is no memory: optimizer is NULL */
        MT_ZERO(optimizer, model->optimizer * sizeof *optimizer);
    }
}

/* learning in place, the candidate is the parameters */
static void put_parameters(const mt_learner *learner, void *to, const void *from)
{
    if (to != from && to != NULL) {
        MT_COPY(to, from, learner->model->parameters * 4u);
    }
}

static void put_optimizer(const mt_learner *learner, float *to, const float *from)
{
    if (to != from && learner->model->optimizer != 0) {
        MT_COPY(to, from, learner->model->optimizer * sizeof *to);
    }
}

static void begin_candidate(const mt_learner *learner, int from_base)
{
    const mt_model *model = learner->model;
    put_parameters(learner, learner->candidate, from_base ? model->base : learner->parameters);
    if (from_base) {
        begin_optimizer(model, learner->candidate_optimizer);
    } else {
        put_optimizer(learner, learner->candidate_optimizer, learner->optimizer);
    }
}

/* one step on one sample, then the pull towards the base */
static void learn_sample(const mt_learner *learner, uint32_t index, mt_update *update)
{
    const mt_model *model = learner->model;
    const float *sample = sample_at(learner, index);
    const float pull = learner->settings->pull;
    model->step(sample, sample + model->cut, learner->candidate, learner->candidate_optimizer, learner->arena);
    ++update->steps;
    if (pull > 0.0f) {
        float *candidate = (float *)learner->candidate;
        const float *base = (const float *)model->base;
        for (uint32_t i = 0; i < model->floats; ++i) {
            candidate[i] += pull * (base[i] - candidate[i]);
        }
    }
}

/* all epochs over the samples outside one fold; folds = 0: over all samples */
static void train(const mt_learner *learner, uint32_t folds, uint32_t left_out, mt_update *update)
{
    const uint32_t count = learner->state->count;
    begin_candidate(learner, learner->settings->restart);
    for (uint32_t epoch = 0; epoch < learner->settings->epochs; ++epoch) {
        const permutation order = shuffle(learner->state, count);
        for (uint32_t position = 0; position <= order.mask; ++position) {
            const uint32_t index = place(order, position);
            if (index < count && (folds == 0 || index % folds != left_out)) {
                learn_sample(learner, index, update);
            }
        }
    }
}

/* the newest samples once, in order; restart: all of them */
static void train_in_order(const mt_learner *learner, mt_update *update)
{
    const mt_state *state = learner->state;
    const uint32_t count = state->count;
    const int restart = learner->settings->restart;
    begin_candidate(learner, restart);
    for (uint32_t i = restart || state->fresh > count ? 0u : count - state->fresh; i < count; ++i) {
        learn_sample(learner, i, update);
    }
}

static int all_finite(const float *values, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        if (!mt_is_finite(values[i])) {
            return 0;
        }
    }
    return 1;
}

/// Judgement: sums over samples that were not trained on ///

/* more than any loss or error that matters; keeps sums finite */
#define MT_GRADIENT_LARGE 1e30f
/* samples a sequential rule is judged on: the newest */
#define MT_GRADIENT_JUDGED 32u

typedef struct score {
    float faults; /* each sample counts between 0, right, and 1 */
    float loss;
} score;

/* not above LARGE; NaN counts as LARGE */
static float bounded(float value)
{
    return value < MT_GRADIENT_LARGE ? value : MT_GRADIENT_LARGE;
}

/*
 * How wrong an output is. Classification: 0 or 1. Regression: e^2 / (e^2 + tolerance^2), e^2 the mean square
 * error of the outputs (Geman and McClure 1987): close to the squared error in tolerances where it is small, a half
 * where the error equals the tolerance, never above 1. So a single wild sample weighs no more than one plainly
 * wrong answer, while being less wrong always counts, however far off both models still are.
 */
static float fault_of(const mt_learner *learner, const float *output, const float *target)
{
    const mt_model *model = learner->model;
    const uint32_t outputs = model->outputs;
    if (!all_finite(output, outputs)) {
        return 1.0f;
    }
    if (model->task == MT_MULTICLASS) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < outputs; ++i) {
            best = output[i] > output[best] ? i : best;
        }
        return best == (uint32_t)target[0] ? 0.0f : 1.0f;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < outputs; ++i) {
        if (model->task == MT_BINARY && (output[i] >= 0.0f) != (target[i] >= 0.5f)) {
            return 1.0f;
        }
        const float error = output[i] - target[i];
        sum += bounded(error * error);
    }
    if (model->task == MT_BINARY) {
        return 0.0f;
    }
    const float square = bounded(sum / (float)outputs);
    const float tolerance = learner->settings->tolerance * learner->settings->tolerance;
    return square / (square + (tolerance > 1e-30f ? tolerance : 1e-30f));
}

static void measure(const mt_learner *learner, uint32_t index, const void *parameters, score *sum)
{
    const mt_model *model = learner->model;
    const float *sample = sample_at(learner, index), *target = sample + model->cut;
    model->head(sample, parameters, learner->output, learner->arena);
    sum->faults += fault_of(learner, learner->output, target);
    sum->loss += bounded(model->loss(learner->output, target));
}

/* cross-validation: each sample is measured by a candidate trained without its fold */
static uint32_t judge_folds(const mt_learner *learner, score *candidate, score *base, mt_update *update)
{
    const uint32_t count = learner->state->count;
    uint32_t folds = learner->settings->folds;
    folds = count < 2u * folds ? count : folds;
    for (uint32_t fold = 0; fold < folds; ++fold) {
        train(learner, folds, fold, update);
        for (uint32_t i = fold; i < count; i += folds) {
            measure(learner, i, learner->candidate, candidate);
            measure(learner, i, learner->model->base, base);
        }
    }
    return count;
}

/* Progressive validation (Blum, Kalai and Langford 1999): begun at the base, each of the newest samples is
 * measured before it is learnt. */
static uint32_t judge_in_order(const mt_learner *learner, score *candidate, score *base, mt_update *update)
{
    const uint32_t count = learner->state->count;
    const uint32_t first = count > MT_GRADIENT_JUDGED ? count - MT_GRADIENT_JUDGED : 0u;
    begin_candidate(learner, 1);
    for (uint32_t i = first; i < count; ++i) {
        measure(learner, i, learner->candidate, candidate);
        measure(learner, i, learner->model->base, base);
        learn_sample(learner, i, update);
    }
    return count - first;
}

/* Does the base model answer the samples of the buffer better than the parameters in use, which learnt them? */
static int base_is_better(const mt_learner *learner)
{
    score present = {0.0f, 0.0f}, base = {0.0f, 0.0f};
    for (uint32_t i = 0; i < learner->state->count; ++i) {
        measure(learner, i, learner->parameters, &present);
        measure(learner, i, learner->model->base, &base);
    }
    return base.faults < present.faults;
}

/// The rule ///

static void gradient_begin(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    put_parameters(learner, learner->parameters, model->base);
    put_parameters(learner, learner->previous, model->base);
    begin_optimizer(model, learner->optimizer);
    MT_ZERO(learner->samples,
            learner->settings->buffer * (model->cut + model->targets) * sizeof(float));
    learner->state->count = learner->state->next = 0;
}

static float gradient_predict(const mt_learner *learner, const float *cut, float *output)
{
    learner->model->head(cut, learner->parameters, output, learner->arena);
    return learner->state->error;
}

/*
 * The candidate is taken when it answers at least one of the samples left out right that the base model does not, net
 * (classification), or its faults on them are no more than the base model's (regression). If not, the parameters stay, unless the base answers the buffer better than they do: then the base is taken
 * back. Learning in place there is nothing else to return to.
 */
static void gradient_update(const mt_learner *learner, mt_update *update)
{
    const mt_model *model = learner->model;
    score candidate = {0.0f, 0.0f}, base = {0.0f, 0.0f};
    const int sequential = learner->settings->sequential, judged = learner->settings->folds != 0;
    if (judged) {
        const uint32_t measured = (sequential ? judge_in_order : judge_folds)(learner, &candidate, &base, update);
        update->loss_before = base.loss / (float)measured;
        update->loss_after = candidate.loss / (float)measured;
    }
    if (sequential) {
        train_in_order(learner, update);
    } else {
        train(learner, 0, 0, update);
    }
    /* a right answer more than the base's, or luck alone would often do; a graded error need only be no worse */
    const float gain = judged && model->task != MT_REGRESSION ? 1.0f : 0.0f;
    if (candidate.faults + gain <= base.faults && all_finite((const float *)learner->candidate, model->floats) &&
        all_finite(learner->candidate_optimizer, model->optimizer)) {
        put_parameters(learner, learner->previous, learner->parameters);
        put_parameters(learner, learner->parameters, learner->candidate);
        put_optimizer(learner, learner->optimizer, learner->candidate_optimizer);
        update->accepted = 1;
    } else if (learner->previous == NULL || (judged && base_is_better(learner))) {
        put_parameters(learner, learner->parameters, model->base);
        put_parameters(learner, learner->previous, model->base);
        begin_optimizer(model, learner->optimizer);
    }
}

static void gradient_forget(const mt_learner *learner, uint32_t samples)
{
    mt_state *state = learner->state;
    const uint32_t buffer = learner->settings->buffer;
    const uint32_t dropped = samples < state->count ? samples : state->count;
    state->next = (uint16_t)((state->next + buffer - dropped) % buffer);
    state->count = (uint16_t)(state->count - dropped);
    put_parameters(learner, learner->parameters,
                   learner->previous != NULL ? learner->previous : learner->model->base);
    /* the optimiser's state belonged to what is undone */
    begin_optimizer(learner->model, learner->optimizer);
}

const mt_rule mt_gradient_rule = {gradient_begin, gradient_predict, keep_sample, gradient_update,
                                  gradient_forget};
