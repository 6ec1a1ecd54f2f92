/* mt_bayes_rule.c: see mt_bayes_rule.h. */
#include "mt_bayes_rule.h"

static const mt_bayes *bayes_of(const mt_learner *learner)
{
    return (const mt_bayes *)learner->own;
}

static void bayes_begin(const mt_learner *learner)
{
    mt_bayes_init(bayes_of(learner));
}

static float bayes_predict(const mt_learner *learner, const float *cut, float *output)
{
    float variance;
    mt_bayes_predict(bayes_of(learner), cut, output, &variance);
    return variance;
}

static void bayes_observe(const mt_learner *learner, const float *cut, const float *target)
{
    mt_bayes_observe(bayes_of(learner), cut, target[0], 0, 1.0f);
    learner->state->count = bayes_of(learner)->state->count;
}

static void bayes_update(const mt_learner *learner, mt_update *update)
{
    mt_bayes_judgement judgement;
    mt_bayes_refit(bayes_of(learner), &judgement);
    update->accepted = (uint8_t)bayes_of(learner)->state->standing;
    update->loss_before = judgement.base;
    update->loss_after = judgement.personal;
    update->steps = 1;
}

static void bayes_forget(const mt_learner *learner, uint32_t samples)
{
    mt_bayes_judgement judgement;
    mt_bayes_drop_newest(bayes_of(learner), samples);
    learner->state->count = bayes_of(learner)->state->count;
    mt_bayes_refit(bayes_of(learner), &judgement);
}

const mt_rule mt_bayes_rule = {bayes_begin, bayes_predict, bayes_observe, bayes_update, bayes_forget};
