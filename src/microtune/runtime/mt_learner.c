/* mt_learner.c: the policy around an update rule: what is refused, paired, counted, trusted and saved. */
#include "mt_learner.h"

#include "mt_kernels_elementwise.h"
#include "mt_math.h"
#include "mt_store.h"

/* observations and predictions that running means look back on */
#define MT_LEARNER_MEMORY 32u
/* an error counts as at most this many tolerances in the running mean square */
#define MT_LEARNER_WORST 10.0f

/// The border: what is refused ///

MT_COLD static mt_status check_values(const float *values, const float *low, const float *high, uint32_t size)
{
    /* adding one to a full exponent, that of NaN and infinity, carries into the sign bit */
    uint32_t carried = 0;
    for (uint32_t i = 0; i < size; ++i) {
        carried |= (mt_float_bits(values[i]) & 0x7FFFFFFFu) + 0x00800000u;
    }
    if (carried >> 31 != 0) {
        return MT_INPUT_NOT_FINITE;
    }
    if (low == NULL && high == NULL) {
        return MT_OK;
    }
    for (uint32_t i = 0; i < size; ++i) {
        if ((low != NULL && values[i] < low[i]) || (high != NULL && values[i] > high[i])) {
            return MT_INPUT_OUT_OF_RANGE;
        }
    }
    return MT_OK;
}

MT_COLD static int is_valid_target(const mt_model *model, const float *target)
{
    if (model->task == MT_REGRESSION) {
        return check_values(target, model->target_low, model->target_high, model->targets) == MT_OK;
    }
    const float highest = model->task == MT_MULTICLASS ? (float)model->outputs - 1.0f : 1.0f;
    for (uint32_t i = 0; i < model->targets; ++i) {
        /* NaN fails both comparisons */
        if (!(target[i] >= 0.0f && target[i] <= highest)) {
            return 0;
        }
        if (model->task == MT_MULTICLASS && target[i] != (float)(uint32_t)target[i]) {
            return 0;
        }
    }
    return 1;
}

/// Answers: values or probabilities ///

MT_COLD static void to_probabilities(const mt_model *model, float *output)
{
    if (model->task == MT_MULTICLASS) {
        mt_softmax(output, output, model->outputs);
    } else if (model->task == MT_BINARY) {
        mt_sigmoid_all(output, output, model->outputs);
    }
}

MT_COLD static uint32_t best_class(const float *output, uint32_t outputs)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < outputs; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    return best;
}

/* Probability that the answer is right: of the chosen class, of the least sure of several questions, or that a
 * normal error of this variance stays within the tolerance, 2 Phi(t) - 1 with Phi(t) about sigmoid(1.702 t), at most
 * 0.01 off (Bowling and others 2009). */
MT_COLD static float confidence_of(const mt_learner *learner, const float *answer, float variance)
{
    const mt_model *model = learner->model;
    if (model->task == MT_MULTICLASS) {
        return answer[best_class(answer, model->outputs)];
    }
    if (model->task == MT_BINARY) {
        float least = 1.0f;
        for (uint32_t i = 0; i < model->outputs; ++i) {
            const float sure = answer[i] >= 0.5f ? answer[i] : 1.0f - answer[i];
            least = sure < least ? sure : least;
        }
        return least;
    }
    const float deviation = mt_sqrt(variance);
    return deviation > 0.0f ? 2.0f * mt_sigmoid(1.702f * (learner->settings->tolerance / deviation)) - 1.0f : 1.0f;
}

/* Would the person leave this answer as it is? */
MT_COLD static int is_right(const mt_learner *learner, const float *answer, const float *target)
{
    const mt_model *model = learner->model;
    if (model->task == MT_MULTICLASS) {
        return best_class(answer, model->outputs) == (uint32_t)target[0];
    }
    for (uint32_t i = 0; i < model->outputs; ++i) {
        if (model->task == MT_BINARY ? (answer[i] >= 0.5f) != (target[i] >= 0.5f)
                                     : !(mt_absolute(answer[i] - target[i]) <= learner->settings->tolerance)) {
            return 0;
        }
    }
    return 1;
}

/* The model's own answer, or, where that is not finite, the base model's. Returns the confidence; below zero: even
 * the base model has no answer to this input. */
MT_COLD static float answer_of(const mt_learner *learner, const float *cut, float *answer)
{
    const mt_model *model = learner->model;
    const float variance = model->rule->predict(learner, cut, answer);
    if (check_values(answer, NULL, NULL, model->outputs) == MT_OK) {
        to_probabilities(model, answer);
        return confidence_of(learner, answer, variance);
    }
    model->head(cut, model->base, answer, learner->arena);
    if (check_values(answer, NULL, NULL, model->outputs) != MT_OK) {
        return -1.0f;
    }
    to_probabilities(model, answer);
    return 0.0f;
}

MT_COLD static void safe_default(const mt_learner *learner, const float *cut, float *answer)
{
    const mt_model *model = learner->model;
    if (learner->settings->fallback != NULL) {
        mt_copy(learner->settings->fallback, answer, model->outputs);
    } else {
        model->head(cut, model->base, answer, learner->arena);
        to_probabilities(model, answer);
    }
}

/// State ///

/* seed of sample orders: never zero, where xorshift would stay */
MT_COLD static uint32_t seed_of(const mt_model *model)
{
    return model->identity != 0 ? model->identity : 0x9E3779B9u;
}

/* all but the metrics as it left the factory */
MT_COLD static void begin_state(const mt_learner *learner)
{
    mt_state *state = learner->state;
    const mt_metrics metrics = state->metrics;
    MT_ZERO(state, sizeof *state);
    state->metrics = metrics;
    state->random = seed_of(learner->model);
    state->error = learner->settings->tolerance * learner->settings->tolerance;
    learner->model->rule->begin(learner);
    *learner->pending = 0;
}

MT_COLD mt_status mt_learner_save(mt_learner *learner)
{
    if (learner->port == NULL) {
        return MT_OK;
    }
    /* counted first, so that what is saved counts itself */
    ++learner->state->metrics.saves;
    const mt_status status = mt_store_save(learner->port, learner->model->identity, learner->state,
                                           learner->saved_bytes, learner->sequence);
    if (status != MT_OK) {
        --learner->state->metrics.saves;
    }
    return status;
}

MT_COLD mt_status mt_learner_init(mt_learner *learner)
{
    mt_state *state = learner->state;
    mt_status status = MT_OK;
    int found = 0;
    *learner->sequence = 0;
    *learner->pending = 0;
    if (learner->port != NULL) {
        status = mt_store_load(learner->port, learner->model->identity, state, learner->saved_bytes,
                               learner->sequence, &found);
    }
    if (found && (state->count > learner->settings->buffer || state->next >= learner->settings->buffer)) {
        found = 0; /* whole, but no state this build could have written */
        status = MT_STATE_CORRUPT;
    }
    if (!found) {
        MT_ZERO(&state->metrics, sizeof state->metrics);
        begin_state(learner);
        state->metrics.recoveries = status != MT_OK && status != MT_INVALID_ARGUMENT;
    }
    return status;
}

/// Predict ///

MT_COLD mt_status mt_learner_predict(mt_learner *learner, const void *input, float *output, mt_prediction *prediction)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    if (input == NULL || output == NULL || prediction == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    const mt_status status = check_values((const float *)input, model->low, model->high, model->inputs);
    if (status != MT_OK) {
        ++state->metrics.refused;
        return status;
    }
    model->backbone(input, learner->pending_cut, learner->arena);
    const float confidence = answer_of(learner, learner->pending_cut, output);
    if (confidence < 0.0f) {
        /* so large that arithmetic overflows; the prediction that waited is lost with its cut */
        *learner->pending = 0;
        ++state->metrics.refused;
        return MT_INPUT_OUT_OF_RANGE;
    }
    prediction->confidence = confidence;
    prediction->fallback = confidence < learner->settings->threshold;
    if (prediction->fallback) {
        safe_default(learner, learner->pending_cut, output);
        ++state->metrics.fallbacks;
    }
    prediction->best = (uint16_t)(model->task == MT_MULTICLASS ? best_class(output, model->outputs) : 0u);
    mt_copy(output, learner->pending_output, model->outputs);
    *learner->pending = 1;
    ++state->metrics.predictions;
    const uint32_t seen = state->uses < MT_LEARNER_MEMORY ? state->uses + 1u : MT_LEARNER_MEMORY;
    state->confidence += (confidence - state->confidence) / (float)seen;
    return MT_OK;
}

/// Observe ///

/* running means of how wrong the model's own answer was, made before it learns this sample */
MT_COLD static void count_error(const mt_learner *learner, const float *answer, const float *target, int right)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    float wrong = right ? 0.0f : 1.0f;
    if (model->task == MT_REGRESSION) {
        const float worst = MT_LEARNER_WORST * learner->settings->tolerance;
        float sum = 0.0f, squares = 0.0f;
        for (uint32_t i = 0; i < model->outputs; ++i) {
            const float error = mt_clamp(answer[i] - target[i], -1e30f, 1e30f);
            const float limited = mt_clamp(error, -worst, worst);
            sum += mt_absolute(error) / (float)model->outputs;
            squares += limited * limited / (float)model->outputs;
        }
        wrong = sum;
        /* the first guess, tolerance^2, counts as one observation */
        state->error += (squares - state->error) / (float)(state->recent + 2u);
    }
    state->metrics.mean_error += (wrong - state->metrics.mean_error) / (float)state->metrics.observations;
    state->hits = state->hits << 1 | (uint32_t)right;
    state->recent += state->recent < MT_LEARNER_MEMORY;
}

/* Not above what the buffer holds: older samples are gone anyway. */
MT_COLD static void count_sample(uint16_t *counter, uint16_t buffer)
{
    if (*counter < buffer) {
        ++*counter;
    }
}

MT_COLD mt_status mt_learner_observe(mt_learner *learner, const float *target)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    if (target == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    if (!*learner->pending) {
        return MT_NO_PREDICTION;
    }
    if (!is_valid_target(model, target)) {
        ++state->metrics.refused;
        return MT_TARGET_INVALID;
    }
    *learner->pending = 0;
    ++state->metrics.observations;
    ++state->uses;
    state->metrics.overrides += !is_right(learner, learner->pending_output, target);
    /* what was suggested may have been the safe default */
    answer_of(learner, learner->pending_cut, learner->output);
    count_error(learner, learner->output, target, is_right(learner, learner->output, target));
    model->rule->observe(learner, learner->pending_cut, target);
    count_sample(&state->fresh, learner->settings->buffer);
    count_sample(&state->since, learner->settings->buffer);
    count_sample(&state->undo, learner->settings->buffer);
    return MT_OK;
}

/// Learn, undo, start again ///

MT_COLD mt_status mt_learner_idle(mt_learner *learner, mt_update *update)
{
    mt_state *state = learner->state;
    if (update == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    MT_ZERO(update, sizeof *update);
    if (state->fresh == 0 || state->fresh < learner->settings->every) {
        return MT_OK;
    }
    update->ran = 1;
    learner->model->rule->update(learner, update);
    state->fresh = 0;
    if (update->accepted) {
        ++state->metrics.accepted;
        state->undo = state->since;
        state->since = 0;
    } else {
        ++state->metrics.rolled_back;
    }
    return mt_learner_save(learner);
}

mt_status mt_learner_check(const mt_model *model, mt_state *state, const void *input, const float *target)
{
    const mt_status status = check_values((const float *)input, model->low, model->high, model->inputs);
    if (status != MT_OK || !is_valid_target(model, target)) {
        ++state->metrics.refused;
        return status != MT_OK ? status : MT_TARGET_INVALID;
    }
    return MT_OK;
}

MT_COLD mt_status mt_learner_step(mt_learner *learner, const void *input, const float *target, float *loss)
{
    const mt_model *model = learner->model;
    if (input == NULL || target == NULL || loss == NULL || model->step == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    const mt_status status = mt_learner_check(model, learner->state, input, target);
    if (status != MT_OK) {
        return status;
    }
    /* pending_cut is the only room for a cut: a prediction that waits is given up */
    *learner->pending = 0;
    model->backbone(input, learner->pending_cut, learner->arena);
    *loss = model->step(learner->pending_cut, target, learner->parameters, learner->optimizer, learner->arena);
    return MT_OK;
}

MT_COLD mt_status mt_learner_forget(mt_learner *learner)
{
    mt_state *state = learner->state;
    const uint32_t dropped = state->undo;
    learner->model->rule->forget(learner, dropped);
    /* their answers are forgotten too, and how large errors are must be found out anew */
    state->hits = dropped < 32u ? state->hits >> dropped : 0u;
    state->recent = dropped < state->recent ? state->recent - dropped : 0u;
    state->error = learner->settings->tolerance * learner->settings->tolerance;
    state->fresh = state->since = state->undo = 0;
    *learner->pending = 0;
    ++state->metrics.forgets;
    return mt_learner_save(learner);
}

MT_COLD mt_status mt_learner_reset(mt_learner *learner)
{
    begin_state(learner);
    ++learner->state->metrics.resets;
    return mt_learner_save(learner);
}

/// Report ///

MT_COLD void mt_learner_report(const mt_learner *learner, mt_report *report)
{
    const mt_state *state = learner->state;
    uint32_t right = 0;
    for (uint32_t bits = state->hits; bits != 0; bits &= bits - 1u) {
        ++right;
    }
    report->learnt = (float)right / 32.0f;
    report->sure = state->confidence;
    report->uses = state->uses;
    report->samples = state->count;
    report->waiting = state->fresh;
}
