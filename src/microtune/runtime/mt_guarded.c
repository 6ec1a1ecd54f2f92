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
    const uint32_t most = MT_GUARD_RUN, run = count < most ? count : most;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const mt_number *sample = mt_samples_at(&learner->samples, i);
        found += (uint32_t)is_suspect(learner, sample, sample + cut);
        if (i >= run) {
            const mt_number *left = mt_samples_at(&learner->samples, i - run);
            found -= (uint32_t)is_suspect(learner, left, left + cut);
        }
        if (found != 0 && MT_GUARD_SHARE * found >= run) {
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

static mt_number word_of(const mt_learner *learner, uint32_t index)
{
    return mt_samples_at(&learner->samples, index)[learner->model->cut - 1u];
}

/* Of the samples from `first` on the one after `last`, least like a fault first, of equal ones the older; none before
 * it: `last` is their number. Those of which the guard says no number come last; they are too wild to be learnt. */
MT_COLD static uint32_t next_of(const mt_learner *learner, uint32_t first, uint32_t last)
{
    const uint32_t count = mt_samples_size(&learner->samples);
    const mt_number after = last < count ? word_of(learner, last) : MT_NUMBER(0);
    uint32_t next = count, wild = first;
    mt_number least = MT_NUMBER(0);
    for (uint32_t i = first; i < count; ++i) {
        const mt_number word = word_of(learner, i);
        const int comes = last == count || word > after || (word == after && i > last);
        if (comes && word == word && (next == count || word < least)) {
            next = i;
            least = word;
        }
        wild = word == word ? wild : i;
    }
    return next < count ? next : wild;
}

/* The windows of each phase in the order of the guard's word: `epoch` is the phase, `mask` where it begins, `factor` the
 * sample that was the last. */
MT_COLD static int guarded_slice(const mt_learner *learner, mt_update *update)
{
    mt_work *work = learner->work;
    const uint32_t count = mt_samples_size(&learner->samples);
    if (!work->begun) {
        if (looks_faulty(learner)) {
            update->refused = 1;
            return 1;
        }
        mt_gradient_begin_update(learner);
    }
    const uint32_t position = work->position;
    if (position >= count) {
        return mt_gradient_rule.slice(learner, update); /* goes on to the next phase, or ends */
    }
    if (work->epoch != work->phase) {
        work->epoch = work->phase;
        work->mask = position;
        work->factor = count;
    }
    work->factor = work->position = next_of(learner, work->mask, work->factor);
    const int is_done = mt_gradient_rule.slice(learner, update);
    work->position = position + 1u;
    return is_done;
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
