/* mt_bayes_rule.c: see mt_bayes_rule.h. */
#include "mt_bayes_rule.h"

static const mt_bayes *bayes_of(const mt_learner *learner)
{
    return (const mt_bayes *)learner->own;
}

/* the learner counts samples where it does for every rule */
static void tell_count(const mt_learner *learner)
{
    learner->person->samples.count = bayes_of(learner)->state->count;
}

static void bayes_begin(const mt_learner *learner)
{
    mt_bayes_init(bayes_of(learner));
    tell_count(learner);
}

static float bayes_predict(const mt_learner *learner, const float *cut, float *output)
{
    float variance;
    mt_bayes_predict(bayes_of(learner), cut, output, &variance);
    return variance;
}

static uint32_t bayes_observe(const mt_learner *learner, const float *cut, const float *target)
{
    const uint32_t run = mt_bayes_observe(bayes_of(learner), cut, target[0], mt_learner_now(learner),
                                          mt_learner_evidence(learner));
    tell_count(learner);
    return run;
}

static int bayes_slice(const mt_learner *learner, mt_update *update)
{
    const mt_bayes *bayes = bayes_of(learner);
    mt_bayes_judgement judgement;
    if (!learner->work->begun) {
        MT_ZERO(bayes->cursor, sizeof *bayes->cursor);
        learner->work->begun = 1;
    }
    if (!mt_bayes_refit_slice(bayes, bayes->cursor, &judgement)) {
        return 0;
    }
    update->accepted = (uint8_t)bayes->state->standing;
    update->loss_before = judgement.base;
    update->loss_after = judgement.personal;
    update->steps = 1;
    return 1;
}

/* d belongs to the samples: what is undone is refitted to those left */
static void bayes_forget(const mt_learner *learner, uint32_t samples, int undo, const uint32_t *time)
{
    mt_bayes_judgement judgement;
    (void)undo, (void)time; /* there are no older ones */
    mt_bayes_drop_newest(bayes_of(learner), samples);
    tell_count(learner);
    mt_bayes_refit(bayes_of(learner), &judgement);
}

static uint32_t bayes_since(const mt_learner *learner, uint32_t time)
{
    return mt_bayes_since(bayes_of(learner), time, mt_learner_now(learner));
}

static void bayes_fade(const mt_learner *learner, float share)
{
    mt_bayes_fade(bayes_of(learner), share);
}

const mt_rule mt_bayes_rule = {bayes_begin, bayes_predict, bayes_observe, bayes_slice,
                               bayes_forget, bayes_since, bayes_fade};
