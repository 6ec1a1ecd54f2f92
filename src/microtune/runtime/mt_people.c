/* mt_people.c: see mt_people.h. */
#include "mt_people.h"

/* seconds without a use that are an absence, and the observations after it in which a change of habits is likelier */
#define MT_LEARNER_DAY (24u * 3600u)
#define MT_LEARNER_ABSENCE (14u * MT_LEARNER_DAY)
#define MT_LEARNER_RETURNED 8u

/// Who it is ///

uint32_t mt_people_count(const mt_learner *learner)
{
    return (uint32_t)learner->model->profiles * learner->model->contexts;
}

void mt_people_turn_to(mt_learner *learner, uint32_t set)
{
    learner->set = (uint16_t)set;
    learner->model->person(learner, set);
}

uint32_t mt_people_set_of(const mt_learner *learner, const void *input, uint8_t suspect)
{
    const mt_model *model = learner->model;
    const uint32_t chosen = learner->state->profile;
    /* asked again before an observation, it is no other context of whoever was chosen */
    const int teaches = suspect == 0 && !learner->pending[0];
    const int asks = model->recognise != NULL && (chosen == MT_RECOGNISE || teaches);
    const uint32_t profile = asks ? model->recognise(learner, input, chosen) : chosen;
    return profile * model->contexts + (model->context != NULL ? model->context(input) : 0u);
}

void mt_people_tell(const mt_learner *learner, mt_log_kind kind, uint32_t detail)
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

MT_COLD mt_number mt_learner_evidence(const mt_learner *learner)
{
    return learner->state->teaching != 0 || learner->person->returned != 0 ? MT_NUMBER(0.5) : MT_NUMBER(1);
}

MT_COLD void mt_people_wake(mt_learner *learner)
{
    mt_person *person = learner->person;
    const uint32_t now = mt_learner_now(learner);
    /* a clock that was set back, or not yet set, tells nothing */
    const uint32_t away = person->seen != 0 && now > person->seen ? now - person->seen : 0u;
    person->seen = now != 0 ? now : person->seen;
    if (away < MT_LEARNER_ABSENCE || person->uses == 0) {
        return;
    }
    person->returned = MT_LEARNER_RETURNED;
    mt_people_tell(learner, MT_LOG_RETURN, away / MT_LEARNER_DAY);
    if (learner->settings->disuse > 0) {
        /* 1 - 2^(-away / half-life) */
        const mt_number lives = mt_number_lives(away, learner->settings->disuse);
        const mt_number share = MT_NUMBER(1) - mt_number_exp(mt_number_multiply(MT_NUMBER(-0.69314718), lives));
        learner->model->rule->fade(learner, share);
        person->eager = 1;
        learner->work->begun = 0;
    }
}

/// Choose, undo ///

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
    mt_people_turn_to(learner, state->last);
    mt_people_tell(learner, MT_LOG_PROFILE, 0);
    return MT_OK;
}

MT_COLD mt_status mt_learner_learning_mode(mt_learner *learner, uint32_t uses)
{
    learner->state->teaching = uses;
    mt_people_turn_to(learner, learner->state->last);
    mt_people_tell(learner, MT_LOG_TEACHING, uses != 0);
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
    person->error = mt_number_multiply(learner->settings->tolerance, learner->settings->tolerance);
    person->since = person->undo = 0;
    /* from the base on, what is left must be learnt again */
    person->fresh = undo ? 0u : (uint16_t)(person->samples.count + person->samples.kept);
    person->eager = (uint16_t)!undo;
    *learner->pending = 0;
    learner->work->begun = 0;
    ++learner->state->metrics.forgets;
    const mt_status status = mt_learner_save_everywhere(learner);
    mt_people_tell(learner, MT_LOG_FORGET, dropped);
    return status;
}

/* Is there something to go back to? Not where learning is in place; nor where parameters come from the optimiser's
 * state and that goes on from update to update: there is one copy of it. Both learn anew from the samples left. */
MT_COLD static int can_undo(const mt_learner *learner)
{
    const mt_settings *settings = learner->settings;
    if (learner->samples.words == NULL) {
        return 1; /* a rule that keeps its own fits what is left by itself */
    }
    return learner->previous != NULL && (settings->sequential < 2 || settings->restart);
}

MT_COLD mt_status mt_learner_forget(mt_learner *learner)
{
    mt_people_turn_to(learner, learner->state->last);
    return forget(learner, learner->person->undo, can_undo(learner), NULL);
}

MT_COLD mt_status mt_learner_forget_last(mt_learner *learner, uint32_t uses)
{
    mt_people_turn_to(learner, learner->state->last);
    return forget(learner, uses < learner->person->samples.count ? uses : learner->person->samples.count, 0, NULL);
}

MT_COLD mt_status mt_learner_forget_since(mt_learner *learner, uint32_t seconds)
{
    if (learner->port == NULL || learner->port->now == NULL) {
        return MT_INVALID_ARGUMENT;
    }
    mt_people_turn_to(learner, learner->state->last);
    const uint32_t now = mt_learner_now(learner), time = now > seconds ? now - seconds : 0u;
    return forget(learner, learner->model->rule->since(learner, time), 0, &time);
}

/// Report ///

MT_COLD void mt_learner_report(mt_learner *learner, mt_report *report)
{
    const mt_model *model = learner->model;
    mt_people_turn_to(learner, learner->state->last);
    const mt_person *person = learner->person;
    uint32_t right = 0;
    for (uint32_t bits = person->hits; bits != 0; bits &= bits - 1u) {
        ++right;
    }
    report->learnt = mt_number_share(mt_number_of(right), 32u);
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
