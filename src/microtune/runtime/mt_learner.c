/* mt_learner.c: the policy around an update rule: who is it, what is refused, paired, counted, learnt and saved. */
#include "mt_learner.h"

#include "mt_answer.h"
#include "mt_kernels_elementwise.h"
#include "mt_math.h"

/* observations and predictions that running means look back on */
#define MT_LEARNER_MEMORY 32u
/* an error counts as at most this many tolerances in the running mean square */
#define MT_LEARNER_WORST 10.0f
/* seconds without a use that are an absence, and the observations after it in which a change of habits is likelier */
#define MT_LEARNER_DAY (24u * 3600u)
#define MT_LEARNER_ABSENCE (14u * MT_LEARNER_DAY)
#define MT_LEARNER_RETURNED 8u

/// Who it is ///

static uint32_t sets_of(const mt_learner *learner)
{
    return (uint32_t)learner->model->profiles * learner->model->contexts;
}

static void turn_to(mt_learner *learner, uint32_t set)
{
    learner->set = (uint16_t)set;
    learner->model->person(learner, set);
}

/* whose input this is, and in which context; nothing is learnt of people from a suspect input */
static uint32_t set_of(const mt_learner *learner, const void *input, uint8_t suspect)
{
    const mt_model *model = learner->model;
    const uint32_t chosen = learner->state->profile;
    const int asks = model->recognise != NULL && (suspect == 0 || chosen == MT_RECOGNISE);
    const uint32_t profile = asks ? model->recognise(learner, input, chosen) : chosen;
    return profile * model->contexts + (model->context != NULL ? model->context(input) : 0u);
}

static void tell(const mt_learner *learner, mt_log_kind kind, uint32_t detail)
{
    if (learner->model->log != NULL) {
        learner->model->log(learner, kind, detail < 255u ? detail : 255u);
    }
}

/// Time ///

MT_COLD uint32_t mt_learner_now(const mt_learner *learner)
{
    const mt_port *port = learner->port;
    return port != NULL && port->now != NULL ? port->now(port->context) : 0u;
}

MT_COLD float mt_learner_evidence(const mt_learner *learner)
{
    return learner->state->teaching != 0 || learner->person->returned != 0 ? 0.5f : 1.0f;
}

/* After an absence: what was learnt has faded a little, and whoever comes back may be somebody else. */
MT_COLD static void wake(mt_learner *learner)
{
    mt_person *person = learner->person;
    const uint32_t now = mt_learner_now(learner);
    /* a clock that was set back tells nothing */
    const uint32_t away = person->seen != 0 && now > person->seen ? now - person->seen : 0u;
    person->seen = now;
    if (away < MT_LEARNER_ABSENCE || person->uses == 0) {
        return;
    }
    person->returned = MT_LEARNER_RETURNED;
    tell(learner, MT_LOG_RETURN, away / MT_LEARNER_DAY);
    if (learner->settings->disuse > 0.0f) {
        /* 1 - 2^(-away / half-life) */
        const float share = 1.0f - mt_exp(-0.69314718f * ((float)away / learner->settings->disuse));
        learner->model->rule->fade(learner, share);
        person->eager = 1;
        learner->work->begun = 0;
    }
}

/// State ///

/* seed of sample orders: never zero, where xorshift would stay */
MT_COLD static uint32_t seed_of(const mt_model *model, uint32_t set)
{
    const uint32_t seed = model->identity + set * 0x9E3779B9u;
    return seed != 0 ? seed : 0x9E3779B9u;
}

/* all but the metrics as it left the factory */
MT_COLD static void begin_state(mt_learner *learner)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    const mt_metrics metrics = state->metrics;
    MT_ZERO(state, sizeof *state);
    state->version = MT_STATE_VERSION;
    state->profiles = model->profiles;
    state->contexts = model->contexts;
    state->people_at = model->people_at;
    state->person_bytes = model->person_bytes;
    state->parameters_at = model->parameters_at;
    state->parameters = model->parameters;
    state->structure = model->structure;
    state->metrics = metrics;
    if (model->begin_shared != NULL) {
        model->begin_shared(learner);
    }
    for (uint32_t set = sets_of(learner); set-- > 0;) {
        turn_to(learner, set);
        MT_ZERO(learner->person, sizeof *learner->person);
        learner->person->random = seed_of(model, set);
        learner->person->error = learner->settings->tolerance * learner->settings->tolerance;
        model->rule->begin(learner);
    }
    *learner->pending = 0;
    learner->work->begun = 0;
}

MT_COLD mt_status mt_learner_save(mt_learner *learner)
{
    if (learner->port == NULL || learner->port->size == 0) {
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

/* whole, and written by this build: could it have written this? */
MT_COLD static int is_possible(const mt_learner *learner)
{
    const mt_state *state = learner->state;
    const mt_model *model = learner->model;
    return state->version == MT_STATE_VERSION && state->profiles == model->profiles &&
           state->contexts == model->contexts && state->last < sets_of(learner) &&
           (state->profile < model->profiles || (state->profile == MT_RECOGNISE && model->recognise != NULL));
}

/* what was taken over is what `forget` goes back to */
MT_COLD static void keep_as_previous(mt_learner *learner)
{
    for (uint32_t set = sets_of(learner); set-- > 0;) {
        turn_to(learner, set);
        if (learner->previous != NULL) {
            MT_COPY(learner->previous, learner->parameters, learner->model->parameters * 4u);
        }
    }
}

MT_COLD mt_status mt_learner_init(mt_learner *learner)
{
    mt_state *state = learner->state;
    const mt_port *port = learner->port;
    mt_status status = MT_OK;
    int found = 0;
    *learner->sequence = 0;
    *learner->pending = 0;
    learner->work->begun = 0;
    if (port != NULL && port->size != 0) {
        status = mt_store_load(port, learner->model->identity, state, learner->saved_bytes, learner->sequence, &found);
    }
    if (found && !is_possible(learner)) {
        found = 0;
        status = MT_STATE_CORRUPT;
    }
    if (!found) {
        MT_ZERO(&state->metrics, sizeof state->metrics);
        begin_state(learner);
    }
    if (status == MT_STATE_FOREIGN && learner->model->migrate != NULL) {
        status = mt_store_migrate(port, learner->model->identity, learner->model->migrate, state, learner->saved_bytes);
        if (status == MT_OK) {
            status = MT_STATE_MIGRATED;
            keep_as_previous(learner);
        } else {
            begin_state(learner);
        }
    }
    if (!found && status != MT_STATE_MIGRATED) {
        state->metrics.recoveries += status != MT_OK && status != MT_INVALID_ARGUMENT;
    }
    turn_to(learner, state->last);
    tell(learner, MT_LOG_START, (uint32_t)status);
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
    const mt_status status = mt_answer_check((const float *)input, model->low, model->high, model->inputs);
    if (status != MT_OK) {
        ++state->metrics.refused;
        return status;
    }
    const uint8_t suspect = model->suspect != NULL ? (uint8_t)model->suspect(learner, input) : 0u;
    turn_to(learner, set_of(learner, input, suspect));
    wake(learner);
    model->backbone(input, learner->pending_cut, learner->arena);
    const float confidence = mt_answer_of(learner, learner->pending_cut, output);
    if (confidence < 0.0f) {
        /* so large that arithmetic overflows; the prediction that waited is lost with its cut */
        *learner->pending = 0;
        ++state->metrics.refused;
        return MT_INPUT_OUT_OF_RANGE;
    }
    if (suspect != 0 && learner->pending[2] == 0) {
        tell(learner, MT_LOG_SENSOR, suspect);
    }
    prediction->confidence = confidence;
    prediction->suspect = suspect;
    prediction->profile = (uint16_t)(learner->set / model->contexts);
    prediction->fallback = confidence < learner->settings->threshold;
    if (prediction->fallback) {
        mt_answer_default(learner, learner->pending_cut, output);
        ++state->metrics.fallbacks;
    }
    prediction->best =
        (uint16_t)(model->task == MT_MULTICLASS ? mt_answer_best_class(output, model->outputs) : 0u);
    mt_copy(output, learner->pending_output, model->outputs);
    learner->pending[0] = 1;
    learner->pending[1] = (uint8_t)learner->set;
    learner->pending[2] = suspect;
    state->last = learner->set;
    ++state->metrics.predictions;
    mt_person *person = learner->person;
    const uint32_t seen = person->uses < MT_LEARNER_MEMORY ? person->uses + 1u : MT_LEARNER_MEMORY;
    person->confidence += (confidence - person->confidence) / (float)seen;
    return MT_OK;
}

/// Observe ///

/* running means of how wrong the model's own answer was, made before it learns this sample */
MT_COLD static void count_error(const mt_learner *learner, const float *answer, const float *target, int right)
{
    const mt_model *model = learner->model;
    mt_person *person = learner->person;
    mt_metrics *metrics = &learner->state->metrics;
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
        person->error += (squares - person->error) / (float)(person->recent + 2u);
    }
    metrics->mean_error += (wrong - metrics->mean_error) / (float)(metrics->observations - metrics->suspect);
    person->hits = person->hits << 1 | (uint32_t)right;
    person->recent += person->recent < MT_LEARNER_MEMORY;
}

/* Not above what is kept: older samples are gone anyway. */
MT_COLD static void count_sample(uint16_t *counter, uint16_t kept)
{
    if (*counter < kept) {
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
    if (!learner->pending[0]) {
        return MT_NO_PREDICTION;
    }
    if (!mt_answer_is_valid_target(model, target)) {
        ++state->metrics.refused;
        return MT_TARGET_INVALID;
    }
    turn_to(learner, learner->pending[1]);
    mt_person *person = learner->person;
    learner->pending[0] = 0;
    ++state->metrics.observations;
    state->metrics.overrides += !mt_answer_is_right(learner, learner->pending_output, target);
    if (learner->pending[2] != 0) {
        ++state->metrics.suspect; /* what a broken sensor says of a context teaches nothing */
        tell(learner, MT_LOG_USE, 0);
        return MT_OK;
    }
    ++person->uses;
    /* what was suggested may have been the safe default */
    mt_answer_of(learner, learner->pending_cut, learner->output);
    count_error(learner, learner->output, target, mt_answer_is_right(learner, learner->output, target));
    const uint32_t changed = model->rule->observe(learner, learner->pending_cut, target);
    count_sample(&person->fresh, learner->samples.ring);
    count_sample(&person->since, learner->samples.ring);
    count_sample(&person->undo, learner->samples.ring);
    person->eager |= (uint16_t)(changed != 0 || state->teaching != 0);
    state->teaching -= state->teaching != 0;
    person->returned = (uint16_t)(person->returned - (person->returned != 0));
    state->metrics.changes += changed != 0;
    if (learner->work->set == learner->set) {
        learner->work->begun = 0; /* there is more to learn from than it began with */
    }
    tell(learner, changed != 0 ? MT_LOG_CHANGE : MT_LOG_USE, changed);
    return MT_OK;
}

/// Learn ///

static int has_cause(const mt_learner *learner)
{
    const mt_person *person = learner->person;
    return person->fresh != 0 && (person->eager || person->fresh >= learner->settings->every);
}

/* Turn to the person whose update is under way, or else to the first with cause for one; 0: there is none. */
MT_COLD static int find_work(mt_learner *learner)
{
    mt_work *work = learner->work;
    if (work->begun) {
        turn_to(learner, work->set);
        return 1;
    }
    for (uint32_t set = 0; set < sets_of(learner); ++set) {
        turn_to(learner, set);
        if (has_cause(learner)) {
            work->set = (uint16_t)set;
            return 1;
        }
    }
    return 0;
}

MT_COLD static mt_status finish(mt_learner *learner, mt_update *update)
{
    mt_person *person = learner->person;
    mt_metrics *metrics = &learner->state->metrics;
    learner->work->begun = 0;
    update->ran = 1;
    person->fresh = 0;
    person->eager = 0;
    if (update->accepted) {
        ++metrics->accepted;
        person->undo = person->since;
        person->since = 0;
    } else {
        ++metrics->rolled_back;
    }
    const mt_status status = mt_learner_save(learner);
    tell(learner, update->accepted ? MT_LOG_TAKEN : MT_LOG_DROPPED, 0);
    update->more = (uint8_t)find_work(learner);
    return status;
}

MT_COLD mt_status mt_learner_idle(mt_learner *learner, mt_update *update)
{
    const mt_port *port = learner->port;
    const uint32_t most = learner->settings->slice;
    if (update == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    MT_ZERO(update, sizeof *update);
    for (uint32_t done = 0; find_work(learner); ++done) {
        update->more = 1;
        if ((most != 0 && done == most) ||
            (port != NULL && port->may_learn != NULL && port->may_learn(port->context) == 0)) {
            break;
        }
        if (learner->model->rule->slice(learner, update)) {
            return finish(learner, update);
        }
    }
    return MT_OK;
}

mt_status mt_learner_check(const mt_model *model, mt_state *state, const void *input, const float *target)
{
    const mt_status status = mt_answer_check((const float *)input, model->low, model->high, model->inputs);
    if (status != MT_OK || !mt_answer_is_valid_target(model, target)) {
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
    turn_to(learner, learner->state->last);
    learner->work->begun = 0;
    model->backbone(input, learner->pending_cut, learner->arena);
    *loss = model->step(learner->pending_cut, target, learner->parameters, learner->optimizer, learner->arena);
    return MT_OK;
}

/// Choose, undo, start again ///

MT_COLD mt_status mt_learner_select_profile(mt_learner *learner, uint32_t profile)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    if (profile == MT_RECOGNISE && model->recognise != NULL) {
        state->profile = MT_RECOGNISE;
        return MT_OK;
    }
    if (profile >= model->profiles) {
        return MT_INVALID_ARGUMENT;
    }
    state->profile = (uint16_t)profile;
    state->last = (uint16_t)(profile * model->contexts + state->last % model->contexts);
    turn_to(learner, state->last);
    tell(learner, MT_LOG_PROFILE, 0);
    return MT_OK;
}

MT_COLD mt_status mt_learner_learning_mode(mt_learner *learner, uint32_t uses)
{
    learner->state->teaching = uses;
    tell(learner, MT_LOG_TEACHING, uses != 0);
    return MT_OK;
}

/* Drop the newest samples of the person of the last prediction, and their answers; where `since` is given, also
 * what the reservoir has of that time. */
MT_COLD static mt_status forget(mt_learner *learner, uint32_t dropped, int undo, const uint32_t *since)
{
    mt_person *person = learner->person;
    learner->model->rule->forget(learner, dropped, undo, since);
    /* their answers are forgotten too, and how large errors are must be found out anew */
    person->hits = dropped < 32u ? person->hits >> dropped : 0u;
    person->recent = dropped < person->recent ? person->recent - dropped : 0u;
    person->error = learner->settings->tolerance * learner->settings->tolerance;
    person->since = person->undo = 0;
    /* from the base on, what is left must be learnt again */
    person->fresh = undo ? 0u : (uint16_t)(person->samples.count + person->samples.kept);
    person->eager = (uint16_t)!undo;
    *learner->pending = 0;
    learner->work->begun = 0;
    ++learner->state->metrics.forgets;
    const mt_status status = mt_learner_save(learner);
    tell(learner, MT_LOG_FORGET, dropped);
    return status;
}

MT_COLD mt_status mt_learner_forget(mt_learner *learner)
{
    turn_to(learner, learner->state->last);
    return forget(learner, learner->person->undo, 1, NULL);
}

MT_COLD mt_status mt_learner_forget_last(mt_learner *learner, uint32_t uses)
{
    turn_to(learner, learner->state->last);
    return forget(learner, uses < learner->person->samples.count ? uses : learner->person->samples.count, 0, NULL);
}

MT_COLD mt_status mt_learner_forget_since(mt_learner *learner, uint32_t seconds)
{
    if (learner->port == NULL || learner->port->now == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    turn_to(learner, learner->state->last);
    const uint32_t now = mt_learner_now(learner), time = now > seconds ? now - seconds : 0u;
    return forget(learner, learner->model->rule->since(learner, time), 0, &time);
}

MT_COLD mt_status mt_learner_reset(mt_learner *learner)
{
    begin_state(learner);
    ++learner->state->metrics.resets;
    const mt_status status = mt_learner_save(learner);
    tell(learner, MT_LOG_RESET, 0);
    return status;
}

/// Report ///

MT_COLD void mt_learner_report(mt_learner *learner, mt_report *report)
{
    const mt_model *model = learner->model;
    turn_to(learner, learner->state->last);
    const mt_person *person = learner->person;
    uint32_t right = 0;
    for (uint32_t bits = person->hits; bits != 0; bits &= bits - 1u) {
        ++right;
    }
    report->learnt = (float)right / 32.0f;
    report->sure = person->confidence;
    report->uses = person->uses;
    report->samples = (uint16_t)(person->samples.count + person->samples.kept);
    report->waiting = person->fresh;
    report->profile = (uint16_t)(learner->set / model->contexts);
    report->stage = (uint16_t)(person->uses == 0                                              ? MT_STRANGER
                               : person->recent >= 10u && 10u * right >= 8u * person->recent ? MT_ACQUAINTED
                                                                                             : MT_GETTING_TO_KNOW);
    report->teaching = learner->state->teaching;
    report->suspect = model->suspect != NULL ? model->suspect(learner, NULL) : 0u;
}
