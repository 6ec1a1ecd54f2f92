/* mt_gradient.c: see mt_gradient.h. */
#include "mt_gradient.h"

#include "mt_answer.h"
#include "mt_judgement.h"
#include "mt_training.h"

/// The rule ///

/* samples a sequential rule is judged on: the newest */
#define MT_GRADIENT_JUDGED 32u

/* cross-validation folds: one per sample while there are fewer than two samples per fold */
MT_COLD static uint32_t folds_of(const mt_learner *learner)
{
    const uint32_t count = mt_samples_size(&learner->samples), folds = learner->settings->folds;
    return count < 2u * folds ? count : folds;
}

/* what the slices of an update do, in this order; not judged, it begins with TRAIN */
enum {
    FOLD = 0,    /* a step on the samples outside a fold */
    LEFT_OUT,    /* one sample of the fold is judged */
    IN_ORDER,    /* sequential: one of the newest samples is judged, then learnt (progressive validation: Blum,
                  * Kalai and Langford 1999) */
    TRAIN,       /* a step on all samples */
    TRAIN_NEW,   /* sequential: the next of the samples not yet learnt is held against what is in use, then learnt */
    COMPARE      /* dropped: one sample is answered by the parameters in use and by the base */
};

MT_COLD static void gradient_begin(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    mt_training_put_parameters(learner, learner->parameters, model->base);
    mt_training_put_parameters(learner, learner->previous, model->base);
    mt_training_begin_optimizer(model, learner->optimizer);
    if (learner->importance != NULL) {
        MT_ZERO(learner->importance, model->floats * sizeof *learner->importance);
    }
    mt_samples_clear(&learner->samples);
    if (learner->change.state != NULL) {
        MT_ZERO(learner->change.state, sizeof *learner->change.state);
        mt_change_begin(&learner->change);
    }
}

static mt_number gradient_predict(const mt_learner *learner, const mt_number *cut, mt_number *output)
{
    learner->model->head(cut, learner->parameters, output, learner->arena);
    return learner->person->error;
}

MT_COLD static uint32_t gradient_observe(const mt_learner *learner, const mt_number *cut, const mt_number *target)
{
    mt_samples_add(&learner->samples, cut, target, mt_learner_now(learner));
    return learner->model->change != NULL ? learner->model->change(learner) : 0u;
}

/* The samples not yet learnt once, in order: judged, those since the last accepted update, so what a dropped one had
 * to learn from is not lost; restart: all samples. */
MT_COLD static void begin_in_order(const mt_learner *learner)
{
    const mt_person *person = learner->person;
    const int judged = learner->settings->folds != 0 && person->since > person->fresh;
    const uint32_t count = mt_samples_size(&learner->samples), rest = judged ? person->since : person->fresh;
    mt_training_begin_candidate(learner, learner->settings->restart);
    learner->work->position = learner->settings->restart || rest > count ? 0u : count - rest;
    learner->work->phase = TRAIN_NEW;
}

MT_COLD static void begin_final(const mt_learner *learner)
{
    if (learner->settings->sequential) {
        begin_in_order(learner);
    } else {
        mt_training_begin(learner, learner->settings->restart);
        learner->work->phase = TRAIN;
    }
}

MT_COLD void mt_gradient_begin_update(const mt_learner *learner)
{
    mt_work *work = learner->work;
    const uint16_t set = work->set;
    MT_ZERO(work, sizeof *work);
    work->begun = 1;
    work->set = set;
    work->random = learner->person->random;
    if (learner->settings->folds == 0) {
        begin_final(learner);
    } else if (learner->settings->sequential) {
        const uint32_t count = mt_samples_size(&learner->samples);
        work->phase = IN_ORDER;
        work->position = count > MT_GRADIENT_JUDGED ? count - MT_GRADIENT_JUDGED : 0u;
        mt_training_begin_candidate(learner, 1);
    } else {
        work->phase = FOLD;
        mt_training_begin(learner, learner->settings->restart);
    }
}

/* after the last step: the candidate is taken as a whole, or not at all */
MT_COLD static int take(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    const int sound = mt_answer_check((const mt_number *)learner->candidate, NULL, NULL, model->floats) == MT_OK &&
                      mt_answer_check(learner->candidate_optimizer, NULL, NULL, model->optimizer) == MT_OK;
    if (!sound || !mt_judgement_is_better(learner)) {
        return 0;
    }
    mt_training_put_parameters(learner, learner->previous, learner->parameters);
    mt_training_put_parameters(learner, learner->parameters, learner->candidate);
    mt_training_put_optimizer(learner, learner->optimizer, learner->candidate_optimizer);
    if (model->remember != NULL) {
        model->remember(learner);
    }
    return 1;
}

MT_COLD static void back_to_base(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    mt_training_put_parameters(learner, learner->parameters, model->base);
    mt_training_put_parameters(learner, learner->previous, model->base);
    mt_training_begin_optimizer(model, learner->optimizer);
}

MT_COLD static int finished(const mt_learner *learner, mt_update *update, int accepted)
{
    const mt_work *work = learner->work;
    learner->person->random = work->random;
    update->accepted = (uint8_t)accepted;
    update->steps = work->steps;
    if (work->measured != 0) {
        update->loss_before = mt_number_share(work->base.loss, work->measured);
        update->loss_after = mt_number_share(work->candidate.loss, work->measured);
    }
    return 1;
}

/* the last step is done: take it, or see what to go on with */
MT_COLD static int end_training(const mt_learner *learner, mt_update *update)
{
    mt_work *work = learner->work;
    if (take(learner)) {
        return finished(learner, update, 1);
    }
    if (learner->previous == NULL) {
        back_to_base(learner); /* learnt in place, and not finite: there is nothing else to return to */
        return finished(learner, update, 0);
    }
    if (learner->settings->folds == 0) {
        return finished(learner, update, 0);
    }
    work->phase = COMPARE;
    work->position = 0;
    MT_ZERO(&work->newest, sizeof work->newest);
    MT_ZERO(&work->present, sizeof work->present);
    return 0;
}

/* The parameters stay, unless the base answers the samples better than they do, which learnt them. */
MT_COLD static int compare(const mt_learner *learner, mt_update *update)
{
    mt_work *work = learner->work;
    if (work->position < mt_samples_size(&learner->samples)) {
        mt_judgement_measure(learner, work->position, learner->parameters, &work->present);
        mt_judgement_measure(learner, work->position++, learner->model->base, &work->newest);
        return 0;
    }
    if (work->newest.faults < work->present.faults) {
        back_to_base(learner);
    }
    return finished(learner, update, 0);
}

/* One step, or one sample judged, at most. (With elastic weights the last slice takes a few steps more.) */
MT_COLD static int gradient_slice(const mt_learner *learner, mt_update *update)
{
    mt_work *work = learner->work;
    if (!work->begun) {
        mt_gradient_begin_update(learner);
    }
    const int any = work->phase != TRAIN && work->position < mt_samples_size(&learner->samples);
    switch (work->phase) {
    case FOLD:
        if (!mt_training_step(learner, folds_of(learner), work->fold)) {
            work->phase = LEFT_OUT;
            work->position = work->fold;
        }
        return 0;
    case LEFT_OUT:
        if (any) {
            mt_judgement_add(learner, work->position);
            mt_judgement_compare(learner, work->position);
            work->position += folds_of(learner);
        } else if (++work->fold < folds_of(learner)) {
            work->phase = FOLD;
            mt_training_begin(learner, learner->settings->restart);
        } else {
            begin_final(learner);
        }
        return 0;
    case IN_ORDER:
        if (any) {
            mt_judgement_add(learner, work->position);
            mt_training_learn(learner, work->position++);
        } else {
            begin_final(learner);
        }
        return 0;
    case TRAIN:
        return mt_training_step(learner, 0, 0) ? 0 : end_training(learner, update);
    case TRAIN_NEW:
        if (any) {
            if (learner->settings->folds != 0) {
                mt_judgement_compare(learner, work->position);
            }
            mt_training_learn(learner, work->position++);
            return 0;
        }
        return end_training(learner, update);
    default:
        return compare(learner, update);
    }
}

MT_COLD static void gradient_forget(const mt_learner *learner, uint32_t samples, int undo, const uint32_t *time)
{
    mt_samples_drop_newest(&learner->samples, samples);
    if (time != NULL) {
        mt_samples_drop_since(&learner->samples, *time, mt_learner_now(learner));
    }
    if (undo) {
        mt_training_put_parameters(learner, learner->parameters, learner->previous);
        /* the optimiser's state belonged to what is undone */
        mt_training_begin_optimizer(learner->model, learner->optimizer);
    } else {
        back_to_base(learner);
    }
    if (learner->importance != NULL) {
        MT_ZERO(learner->importance, learner->model->floats * sizeof *learner->importance);
    }
    if (learner->change.state != NULL) {
        mt_change_begin(&learner->change);
    }
}

MT_COLD static uint32_t gradient_since(const mt_learner *learner, uint32_t time)
{
    return mt_samples_since(&learner->samples, time, mt_learner_now(learner));
}

MT_COLD static void gradient_fade(const mt_learner *learner, mt_number share)
{
    const mt_model *model = learner->model;
    mt_number *parameters = (mt_number *)learner->parameters, *optimizer = learner->optimizer;
    const mt_number *base = (const mt_number *)model->base, *begun = learner->candidate_optimizer;
    if (model->floats < model->parameters) {
        /* integers cannot go part of the way, and floats must not go without them: all of it, once most would */
        if (share >= MT_NUMBER(0.5)) {
            mt_training_put_parameters(learner, parameters, base);
            mt_training_begin_optimizer(model, optimizer);
        }
        return;
    }
    for (uint32_t i = 0; i < model->floats; ++i) {
        parameters[i] = mt_training_pulled(parameters[i], base[i], share);
    }
    /* what a closed-form head has counted fades too, or its next sample brings all of it back. (Not in place: there is
     * no room to begin another one beside it.) */
    if (model->begin != NULL && begun != optimizer) {
        model->begin(learner->candidate_optimizer);
        for (uint32_t i = 0; i < model->optimizer; ++i) {
            optimizer[i] = mt_training_pulled(optimizer[i], begun[i], share);
        }
    }
}

const mt_rule mt_gradient_rule = {gradient_begin, gradient_predict, gradient_observe, gradient_slice,
                                  gradient_forget, gradient_since, gradient_fade};
