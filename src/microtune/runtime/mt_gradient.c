/* mt_gradient.c: see mt_gradient.h. Sections from low to high: order, training, the rule. */
#include "mt_gradient.h"

#include "mt_answer.h"
#include "mt_judgement.h"
#include "mt_math.h"
#include "mt_random.h"

/// Order of the samples: a new permutation each epoch, without memory for it ///

/* a new one; places beyond the count, up to the mask, are skipped by the caller */
MT_COLD static void shuffle(mt_work *work, uint32_t count)
{
    uint32_t bits = 0;
    while ((1u << bits) < count) {
        ++bits;
    }
    work->mask = (1u << bits) - 1u;
    work->half = bits / 2u + 1u;
    work->add = mt_random_next(&work->random);
    work->factor = mt_random_next(&work->random) | 1u;
    work->position = 0;
}

/* Each step is a bijection of the numbers up to mask: adding, an odd factor, folding high bits into low ones. */
static uint32_t place(const mt_work *work, uint32_t position)
{
    uint32_t x = (position + work->add) & work->mask;
    x = (x * work->factor) & work->mask;
    x ^= x >> work->half;
    x = (x * 0x9E3779B1u) & work->mask;
    x ^= x >> work->half;
    return (x + (work->add >> 16)) & work->mask;
}

/// Training the candidate ///

MT_COLD static void begin_optimizer(const mt_model *model, float *optimizer)
{
    if (model->begin != NULL) {
        model->begin(optimizer);
    } else if (model->optimizer != 0) { /* else there is no memory: optimizer is NULL */
        MT_ZERO(optimizer, model->optimizer * sizeof *optimizer);
    }
}

/* learning in place, the candidate is the parameters */
MT_COLD static void put_parameters(const mt_learner *learner, void *to, const void *from)
{
    if (to != from && to != NULL) {
        MT_COPY(to, from, learner->model->parameters * 4u);
    }
}

MT_COLD static void put_optimizer(const mt_learner *learner, float *to, const float *from)
{
    if (to != from && learner->model->optimizer != 0) {
        MT_COPY(to, from, learner->model->optimizer * sizeof *to);
    }
}

MT_COLD static void begin_candidate(const mt_learner *learner, int from_base)
{
    const mt_model *model = learner->model;
    put_parameters(learner, learner->candidate, from_base ? model->base : learner->parameters);
    if (from_base) {
        begin_optimizer(model, learner->candidate_optimizer);
    } else {
        put_optimizer(learner, learner->candidate_optimizer, learner->optimizer);
    }
}

/* towards `to` by this share of the way */
static float pulled(float from, float to, float share)
{
    return from + share * (to - from);
}

/* One step on one sample, then the pulls: towards the base, all alike (L2-SP) or as the factory's samples need each
 * parameter (elastic weights), and towards what is in use, as what was learnt here needs it. A pull by the penalty
 * s/2 (p - to)^2 is its proximal step, s / (1 + s) of the way: stable however large s is. */
static void learn_sample(const mt_learner *learner, uint32_t index)
{
    const mt_model *model = learner->model;
    const mt_settings *settings = learner->settings;
    const float *sample = mt_samples_at(&learner->samples, index);
    model->step(sample, sample + model->cut, learner->candidate, learner->candidate_optimizer, learner->arena);
    ++learner->work->steps;
    if (settings->pull > 0.0f || model->pulls != NULL || learner->importance != NULL) {
        float *candidate = (float *)learner->candidate;
        const float *base = (const float *)model->base, *present = (const float *)learner->parameters;
        for (uint32_t i = 0; i < model->floats; ++i) {
            candidate[i] = pulled(candidate[i], base[i], settings->pull);
            if (model->pulls != NULL) {
                candidate[i] = pulled(candidate[i], base[i], model->pulls[i]);
            }
            if (learner->importance != NULL) {
                const float strength = settings->memory * learner->importance[i];
                candidate[i] = pulled(candidate[i], present[i], strength / (1.0f + strength));
            }
        }
    }
}

/* Does this pass take the sample? The share of passes it takes part in halves with every `recency` newer samples. */
MT_COLD static int takes_part(const mt_learner *learner, uint32_t index, uint32_t count)
{
    const float half_life = learner->settings->recency;
    if (!(half_life > 0.0f) || index < learner->samples.state->kept) {
        return 1;
    }
    const float share = mt_exp(-0.69314718f * ((float)(count - 1u - index) / half_life));
    return (float)(mt_random_next(&learner->work->random) >> 8) < 16777216.0f * share;
}

MT_COLD static void begin_training(const mt_learner *learner, int from_base)
{
    begin_candidate(learner, from_base);
    learner->work->epoch = 0;
    shuffle(learner->work, mt_samples_size(&learner->samples));
}

/* One step of the epochs over all samples outside a fold (folds = 0: over all); 0: there is none left. */
MT_COLD static int train(const mt_learner *learner, uint32_t folds, uint32_t left_out)
{
    mt_work *work = learner->work;
    const uint32_t count = mt_samples_size(&learner->samples);
    while (work->epoch < learner->settings->epochs) {
        while (work->position <= work->mask) {
            const uint32_t index = place(work, work->position++);
            if (index < count && (folds == 0 || index % folds != left_out) && takes_part(learner, index, count)) {
                learn_sample(learner, index);
                return 1;
            }
        }
        if (++work->epoch < learner->settings->epochs) {
            shuffle(work, count);
        }
    }
    return 0;
}

/// The rule ///

/* samples a sequential rule is judged on: the newest */
#define MT_GRADIENT_JUDGED 32u
/* elastic weights: samples looked at in one update, and those that the running mean of squared gradients is over */
#define MT_GRADIENT_REMEMBERED 8u
#define MT_GRADIENT_MEMORY 32.0f

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
    put_parameters(learner, learner->parameters, model->base);
    put_parameters(learner, learner->previous, model->base);
    begin_optimizer(model, learner->optimizer);
    if (learner->importance != NULL) {
        MT_ZERO(learner->importance, model->floats * sizeof(float));
    }
    mt_samples_clear(&learner->samples);
    if (learner->change.state != NULL) {
        MT_ZERO(learner->change.state, sizeof *learner->change.state);
        mt_change_begin(&learner->change);
    }
}

static float gradient_predict(const mt_learner *learner, const float *cut, float *output)
{
    learner->model->head(cut, learner->parameters, output, learner->arena);
    return learner->person->error;
}

MT_COLD static uint32_t gradient_observe(const mt_learner *learner, const float *cut, const float *target)
{
    mt_samples_add(&learner->samples, cut, target, mt_learner_now(learner));
    return learner->model->change != NULL ? learner->model->change(learner) : 0u;
}

MT_COLD uint32_t mt_gradient_change(const mt_learner *learner)
{
    const uint32_t run = mt_change_observe(&learner->change, &learner->samples, mt_learner_evidence(learner));
    if (run == 0) {
        return 0;
    }
    /* what is gone is neither undone again nor judged by */
    mt_person *person = learner->person;
    const uint16_t others = (uint16_t)(learner->samples.state->count - 1u);
    uint16_t before[2];
    before[0] = person->undo < others ? person->undo : others;
    before[1] = person->since < others ? person->since : others;
    mt_change_forget(&learner->change, &learner->samples, run, before);
    person->undo = before[0];
    person->since = before[1];
    if (learner->importance != NULL) {
        MT_ZERO(learner->importance, learner->model->floats * sizeof(float)); /* it held on to what is over */
    }
    return run;
}

/* The samples not yet learnt once, in order: judged, those since the last accepted update, so what a dropped one had
 * to learn from is not lost; restart: all samples. */
MT_COLD static void begin_in_order(const mt_learner *learner)
{
    const mt_person *person = learner->person;
    const int judged = learner->settings->folds != 0 && person->since > person->fresh;
    const uint32_t count = mt_samples_size(&learner->samples), rest = judged ? person->since : person->fresh;
    begin_candidate(learner, learner->settings->restart);
    learner->work->position = learner->settings->restart || rest > count ? 0u : count - rest;
    learner->work->phase = TRAIN_NEW;
}

MT_COLD static void begin_final(const mt_learner *learner)
{
    if (learner->settings->sequential) {
        begin_in_order(learner);
    } else {
        begin_training(learner, learner->settings->restart);
        learner->work->phase = TRAIN;
    }
}

MT_COLD static void begin_work(const mt_learner *learner)
{
    mt_work *work = learner->work;
    const uint32_t count = mt_samples_size(&learner->samples);
    const uint16_t set = work->set;
    MT_ZERO(work, sizeof *work);
    work->begun = 1;
    work->set = set;
    work->random = learner->person->random;
    if (learner->settings->folds == 0) {
        begin_final(learner);
    } else if (learner->settings->sequential) {
        work->phase = IN_ORDER;
        work->position = count > MT_GRADIENT_JUDGED ? count - MT_GRADIENT_JUDGED : 0u;
        begin_candidate(learner, 1);
    } else {
        work->phase = FOLD;
        begin_training(learner, learner->settings->restart);
    }
}

MT_COLD void mt_gradient_remember(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    const uint32_t count = mt_samples_size(&learner->samples), fresh = learner->person->fresh;
    const uint32_t looked_at = fresh < MT_GRADIENT_REMEMBERED ? fresh : MT_GRADIENT_REMEMBERED;
    const float *present = (const float *)learner->parameters, *stepped = (const float *)learner->candidate;
    for (uint32_t index = count > looked_at ? count - looked_at : 0u; index < count; ++index) {
        const float *sample = mt_samples_at(&learner->samples, index);
        put_parameters(learner, learner->candidate, learner->parameters);
        begin_optimizer(model, learner->candidate_optimizer);
        model->step(sample, sample + model->cut, learner->candidate, learner->candidate_optimizer, learner->arena);
        for (uint32_t i = 0; i < model->floats; ++i) {
            const float gradient = mt_clamp((present[i] - stepped[i]) / learner->settings->rate, -1e6f, 1e6f);
            learner->importance[i] += (gradient * gradient - learner->importance[i]) / MT_GRADIENT_MEMORY;
        }
    }
}

/* after the last step: the candidate is taken as a whole, or not at all */
MT_COLD static int take(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    const int sound = mt_answer_check((const float *)learner->candidate, NULL, NULL, model->floats) == MT_OK &&
                      mt_answer_check(learner->candidate_optimizer, NULL, NULL, model->optimizer) == MT_OK;
    if (!sound || !mt_judgement_is_better(learner)) {
        return 0;
    }
    put_parameters(learner, learner->previous, learner->parameters);
    put_parameters(learner, learner->parameters, learner->candidate);
    put_optimizer(learner, learner->optimizer, learner->candidate_optimizer);
    if (model->remember != NULL) {
        model->remember(learner);
    }
    return 1;
}

MT_COLD static void back_to_base(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    put_parameters(learner, learner->parameters, model->base);
    put_parameters(learner, learner->previous, model->base);
    begin_optimizer(model, learner->optimizer);
}

MT_COLD static int finished(const mt_learner *learner, mt_update *update, int accepted)
{
    const mt_work *work = learner->work;
    const float measured = work->measured != 0 ? (float)work->measured : 1.0f;
    learner->person->random = work->random;
    update->accepted = (uint8_t)accepted;
    update->loss_before = work->base.loss / measured;
    update->loss_after = work->candidate.loss / measured;
    update->steps = work->steps;
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
    const uint32_t count = mt_samples_size(&learner->samples);
    if (!work->begun) {
        begin_work(learner);
    }
    switch (work->phase) {
    case FOLD:
        if (!train(learner, folds_of(learner), work->fold)) {
            work->phase = LEFT_OUT;
            work->position = work->fold;
        }
        return 0;
    case LEFT_OUT:
        if (work->position < count) {
            mt_judgement_add(learner, work->position);
            mt_judgement_compare(learner, work->position);
            work->position += folds_of(learner);
        } else if (++work->fold < folds_of(learner)) {
            work->phase = FOLD;
            begin_training(learner, learner->settings->restart);
        } else {
            begin_final(learner);
        }
        return 0;
    case IN_ORDER:
        if (work->position < count) {
            mt_judgement_add(learner, work->position);
            learn_sample(learner, work->position++);
        } else {
            begin_final(learner);
        }
        return 0;
    case TRAIN:
        return train(learner, 0, 0) ? 0 : end_training(learner, update);
    case TRAIN_NEW:
        if (work->position < count) {
            if (learner->settings->folds != 0) {
                mt_judgement_compare(learner, work->position);
            }
            learn_sample(learner, work->position++);
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
        put_parameters(learner, learner->parameters, learner->previous);
        /* the optimiser's state belonged to what is undone */
        begin_optimizer(learner->model, learner->optimizer);
    } else {
        back_to_base(learner);
    }
    if (learner->importance != NULL) {
        MT_ZERO(learner->importance, learner->model->floats * sizeof(float));
    }
    if (learner->change.state != NULL) {
        mt_change_begin(&learner->change);
    }
}

MT_COLD static uint32_t gradient_since(const mt_learner *learner, uint32_t time)
{
    return mt_samples_since(&learner->samples, time, mt_learner_now(learner));
}

MT_COLD static void gradient_fade(const mt_learner *learner, float share)
{
    const mt_model *model = learner->model;
    float *parameters = (float *)learner->parameters, *optimizer = learner->optimizer;
    const float *base = (const float *)model->base, *begun = learner->candidate_optimizer;
    if (model->floats < model->parameters) {
        /* integers cannot go part of the way, and floats must not go without them: all of it, once most would */
        if (share >= 0.5f) {
            put_parameters(learner, parameters, base);
        }
        return;
    }
    for (uint32_t i = 0; i < model->floats; ++i) {
        parameters[i] = pulled(parameters[i], base[i], share);
    }
    /* what a closed-form head has counted fades too, or its next sample brings all of it back. (Not in place: there is
     * no room to begin another one beside it.) */
    if (model->begin != NULL && begun != optimizer) {
        model->begin(learner->candidate_optimizer);
        for (uint32_t i = 0; i < model->optimizer; ++i) {
            optimizer[i] = pulled(optimizer[i], begun[i], share);
        }
    }
}

const mt_rule mt_gradient_rule = {gradient_begin, gradient_predict, gradient_observe, gradient_slice,
                                  gradient_forget, gradient_since, gradient_fade};
