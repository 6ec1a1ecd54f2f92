/* mt_guarded.c: see mt_guarded.h. */
#include "mt_guarded.h"

/* observed as well, and looks like a known fault */
MT_COLD static int is_suspect(const mt_learner *learner, const mt_number *cut, const mt_number *target)
{
    return cut[learner->model->cut - 1u] > MT_NUMBER(0) && target[0] < MT_NUMBER(0.5);
}

/* Is there a run of samples of which too many are suspect? */
MT_COLD static int looks_faulty(const mt_learner *learner)
{
    const uint32_t count = mt_samples_size(&learner->samples), cut = learner->model->cut;
    const uint32_t run = count < MT_GUARD_RUN ? count : MT_GUARD_RUN;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const mt_number *sample = mt_samples_at(&learner->samples, i);
        found += (uint32_t)is_suspect(learner, sample, sample + cut);
        if (i >= run) {
            const mt_number *left = mt_samples_at(&learner->samples, i - run);
            found -= (uint32_t)is_suspect(learner, left, left + cut);
        }
        if (MT_GUARD_SHARE * found > run) {
            return 1;
        }
    }
    return 0;
}

MT_COLD static void guarded_begin(const mt_learner *learner)
{
    mt_gradient_rule.begin(learner);
}

static mt_number guarded_predict(const mt_learner *learner, const mt_number *cut, mt_number *output)
{
    return mt_gradient_rule.predict(learner, cut, output);
}

/* It is kept all the same: what comes beside it is judged by it. */
MT_COLD static uint32_t guarded_observe(const mt_learner *learner, const mt_number *cut, const mt_number *target)
{
    learner->state->metrics.suspect += (uint32_t)is_suspect(learner, cut, target);
    return mt_gradient_rule.observe(learner, cut, target);
}

MT_COLD static int guarded_slice(const mt_learner *learner, mt_update *update)
{
    if (!learner->work->begun && looks_faulty(learner)) {
        update->refused = 1;
        return 1;
    }
    return mt_gradient_rule.slice(learner, update);
}

MT_COLD static void guarded_forget(const mt_learner *learner, uint32_t samples, int undo, const uint32_t *time)
{
    mt_gradient_rule.forget(learner, samples, undo, time);
}

MT_COLD static uint32_t guarded_since(const mt_learner *learner, uint32_t time)
{
    return mt_gradient_rule.since(learner, time);
}

MT_COLD static void guarded_fade(const mt_learner *learner, mt_number share)
{
    mt_gradient_rule.fade(learner, share);
}

const mt_rule mt_guarded_rule = {guarded_begin, guarded_predict, guarded_observe, guarded_slice,
                                 guarded_forget, guarded_since, guarded_fade};
