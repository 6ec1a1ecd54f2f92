/* mt_learner.c: the policy around an update rule: who is it, what is refused, paired, counted, learnt and saved. */
#include "mt_learner.h"

#include "mt_answer.h"
#include "mt_people.h"

/* observations and predictions that running means look back on */
#define MT_LEARNER_MEMORY 32u
/* an error counts as at most this many tolerances in the running mean square */
#define MT_LEARNER_WORST MT_NUMBER(10)

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
    state->numbers = MT_NUMBER_KIND;
    state->metrics = metrics;
    if (model->begin_shared != NULL) {
        model->begin_shared(learner);
    }
    for (uint32_t set = mt_people_count(learner); set-- > 0;) {
        mt_people_turn_to(learner, set);
        MT_ZERO(learner->person, sizeof *learner->person);
        learner->person->random = seed_of(model, set);
        learner->person->error = mt_number_multiply(learner->settings->tolerance, learner->settings->tolerance);
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

MT_COLD mt_status mt_learner_save_everywhere(mt_learner *learner)
{
    mt_status status = mt_learner_save(learner);
    const mt_port *port = learner->port;
    const uint32_t slots = port != NULL && port->size != 0 ? mt_store_slots(port, learner->saved_bytes) : 0u;
    for (uint32_t others = 1; others < slots && status == MT_OK; ++others) {
        status = mt_learner_save(learner);
    }
    return status;
}

/* whole, and written by this build: could it have written this? */
MT_COLD static int is_possible(const mt_learner *learner)
{
    const mt_state *state = learner->state;
    const mt_model *model = learner->model;
    return state->version == MT_STATE_VERSION && state->numbers == MT_NUMBER_KIND &&
           state->profiles == model->profiles && state->contexts == model->contexts &&
           state->last < mt_people_count(learner) &&
           (state->profile < model->profiles || (state->profile == MT_RECOGNISE && model->recognise != NULL));
}

/* what was taken over is what `forget` goes back to */
MT_COLD static void keep_as_previous(mt_learner *learner)
{
    for (uint32_t set = mt_people_count(learner); set-- > 0;) {
        mt_people_turn_to(learner, set);
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
    MT_ZERO(learner->pending, 4);
    MT_ZERO(learner->work, sizeof *learner->work);
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
        if (state->profile == MT_RECOGNISE && learner->model->recognise == NULL) {
            state->profile = 0;
        }
        if (status == MT_OK && is_possible(learner)) {
            status = MT_STATE_MIGRATED;
            keep_as_previous(learner);
        } else {
            status = status == MT_OK ? MT_STATE_FOREIGN : status;
            begin_state(learner);
        }
    }
    if (!found && status != MT_STATE_MIGRATED) {
        state->metrics.recoveries += status != MT_OK && status != MT_INVALID_ARGUMENT;
    }
    mt_people_turn_to(learner, state->last);
    mt_people_tell(learner, MT_LOG_START, (uint32_t)status);
    return status;
}

/// Predict ///

MT_COLD mt_status mt_learner_predict(mt_learner *learner, const void *input, mt_number *output,
                                     mt_prediction *prediction)
{
    const mt_model *model = learner->model;
    mt_state *state = learner->state;
    if (input == NULL || output == NULL || prediction == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    const mt_status status = mt_answer_check((const mt_number *)input, model->low, model->high, model->inputs);
    if (status != MT_OK) {
        ++state->metrics.refused;
        return status;
    }
    const uint8_t suspect = model->suspect != NULL ? (uint8_t)model->suspect(learner, input) : 0u;
    mt_people_turn_to(learner, mt_people_set_of(learner, input, suspect));
    mt_people_wake(learner);
    model->backbone(input, learner->pending_cut, learner->arena);
    const mt_number confidence = mt_answer_of(learner, learner->pending_cut, output);
    if (confidence < MT_NUMBER(0)) {
        /* so large that arithmetic overflows; the prediction that waited is lost with its cut */
        *learner->pending = 0;
        ++state->metrics.refused;
        return MT_INPUT_OUT_OF_RANGE;
    }
    if (suspect != 0 && learner->pending[2] == 0) {
        mt_people_tell(learner, MT_LOG_SENSOR, suspect);
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
    MT_COPY(learner->pending_output, output, model->outputs * sizeof *output);
    learner->pending[0] = 1;
    learner->pending[1] = (uint8_t)learner->set;
    learner->pending[2] = suspect;
    learner->pending[3] = prediction->fallback;
    state->last = learner->set;
    ++state->metrics.predictions;
    mt_person *person = learner->person;
    const uint32_t seen = person->uses < MT_LEARNER_MEMORY ? person->uses + 1u : MT_LEARNER_MEMORY;
    person->confidence = mt_number_mean(person->confidence, confidence, seen);
    return MT_OK;
}

/// Observe ///

/* running means of how wrong the model's own answer was, made before it learns this sample */
MT_COLD static void count_error(const mt_learner *learner, const mt_number *answer, const mt_number *target, int right)
{
    const mt_model *model = learner->model;
    mt_person *person = learner->person;
    mt_metrics *metrics = &learner->state->metrics;
    mt_number wrong = right ? MT_NUMBER(0) : MT_NUMBER(1);
    if (model->task == MT_REGRESSION) {
        const mt_number worst = mt_number_multiply(MT_LEARNER_WORST, learner->settings->tolerance);
        mt_number sum = MT_NUMBER(0), squares = MT_NUMBER(0);
        for (uint32_t i = 0; i < model->outputs; ++i) {
            const mt_number apart = mt_number_absolute(mt_number_subtract(answer[i], target[i]));
            const mt_number error = apart < MT_NUMBER_LARGE ? apart : MT_NUMBER_LARGE; /* NaN too */
            const mt_number limited = error < worst ? error : worst;
            sum = mt_number_add(sum, mt_number_share(error, model->outputs));
            squares = mt_number_add(squares, mt_number_share(mt_number_multiply(limited, limited), model->outputs));
        }
        wrong = sum;
        /* the first guess, tolerance^2, counts as one observation */
        person->error = mt_number_mean(person->error, squares, person->recent + 2u);
    }
    metrics->mean_error = mt_number_mean(metrics->mean_error, wrong, metrics->observations - metrics->suspect);
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

MT_COLD mt_status mt_learner_observe(mt_learner *learner, const mt_number *target)
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
    mt_people_turn_to(learner, learner->pending[1]);
    mt_person *person = learner->person;
    learner->pending[0] = 0;
    ++state->metrics.observations;
    int right = mt_answer_is_right(learner, learner->pending_output, target);
    state->metrics.overrides += !right;
    if (learner->pending[2] != 0) {
        ++state->metrics.suspect; /* what a broken sensor says of a context teaches nothing */
        mt_people_tell(learner, MT_LOG_USE, 0);
        return MT_OK;
    }
    ++person->uses;
    const mt_number *answer = learner->pending_output;
    if (learner->pending[3] != 0) {
        /* what was suggested was the safe default, or something was learnt since */
        mt_answer_of(learner, learner->pending_cut, learner->output);
        answer = learner->output;
        right = mt_answer_is_right(learner, answer, target);
    }
    count_error(learner, answer, target, right);
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
    mt_people_tell(learner, changed != 0 ? MT_LOG_CHANGE : MT_LOG_USE, changed);
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
        mt_people_turn_to(learner, work->set);
        return 1;
    }
    const uint32_t count = mt_people_count(learner);
    for (uint32_t set = 0; set < count; ++set) {
        mt_people_turn_to(learner, set);
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
    mt_people_tell(learner, update->accepted ? MT_LOG_TAKEN : MT_LOG_DROPPED, 0);
    /* whoever was just learnt from has no cause for more */
    update->more = (uint8_t)(mt_people_count(learner) > 1u && find_work(learner));
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
    if (!find_work(learner)) {
        return MT_OK;
    }
    update->more = 1;
    for (uint32_t done = 0; most == 0 || done < most; ++done) {
        if (port != NULL && port->may_learn != NULL && port->may_learn(port->context) == 0) {
            break;
        }
        learner->pending[3] = 1;
        if (learner->model->rule->slice(learner, update)) {
            return finish(learner, update);
        }
    }
    return MT_OK;
}

mt_status mt_learner_check(const mt_model *model, mt_state *state, const void *input, const mt_number *target)
{
    const mt_status status = mt_answer_check((const mt_number *)input, model->low, model->high, model->inputs);
    if (status != MT_OK || !mt_answer_is_valid_target(model, target)) {
        ++state->metrics.refused;
        return status != MT_OK ? status : MT_TARGET_INVALID;
    }
    return MT_OK;
}

MT_COLD mt_status mt_learner_step(mt_learner *learner, const void *input, const mt_number *target, mt_number *loss)
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
    mt_people_turn_to(learner, learner->state->last);
    learner->work->begun = 0;
    model->backbone(input, learner->pending_cut, learner->arena);
    *loss = model->step(learner->pending_cut, target, learner->parameters, learner->optimizer, learner->arena);
    return MT_OK;
}

/// Start again ///

MT_COLD mt_status mt_learner_reset(mt_learner *learner)
{
    begin_state(learner);
    ++learner->state->metrics.resets;
    const mt_status status = mt_learner_save_everywhere(learner);
    mt_people_tell(learner, MT_LOG_RESET, 0);
    return status;
}
