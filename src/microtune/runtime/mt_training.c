/* mt_training.c: see mt_training.h. */
#include "mt_training.h"

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

/// The candidate ///

MT_COLD void mt_training_begin_optimizer(const mt_model *model, mt_number *optimizer)
{
    if (model->begin != NULL) {
        model->begin(optimizer);
    } else if (model->optimizer != 0) { /* else there is no memory: optimizer is NULL */
        MT_ZERO(optimizer, model->optimizer * sizeof *optimizer);
    }
}

/* learning in place, the candidate is the parameters */
MT_COLD void mt_training_put_parameters(const mt_learner *learner, void *to, const void *from)
{
    if (to != from && to != NULL) {
        MT_COPY(to, from, learner->model->parameters * 4u);
    }
}

MT_COLD void mt_training_put_optimizer(const mt_learner *learner, mt_number *to, const mt_number *from)
{
    if (to != from && learner->model->optimizer != 0) {
        MT_COPY(to, from, learner->model->optimizer * sizeof *to);
    }
}

MT_COLD void mt_training_begin_candidate(const mt_learner *learner, int from_base)
{
    const mt_model *model = learner->model;
    mt_training_put_parameters(learner, learner->candidate, from_base ? model->base : learner->parameters);
    if (from_base) {
        mt_training_begin_optimizer(model, learner->candidate_optimizer);
    } else {
        mt_training_put_optimizer(learner, learner->candidate_optimizer, learner->optimizer);
    }
}

#if MT_NUMBER_KIND == 0
/* The pulls: towards the base, all alike (L2-SP) or as the factory's samples need each parameter (elastic weights), and
 * towards what is in use, as what was learnt here needs it. A pull by the penalty s/2 (p - to)^2 is its proximal step,
 * s / (1 + s) of the way: stable however large s is. */
static void pull_back(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    const mt_settings *settings = learner->settings;
    if (settings->pull > 0.0f || model->pulls != NULL || learner->importance != NULL) {
        float *candidate = (float *)learner->candidate;
        const float *base = (const float *)model->base, *present = (const float *)learner->parameters;
        for (uint32_t i = 0; i < model->floats; ++i) {
            candidate[i] = mt_training_pulled(candidate[i], base[i], settings->pull);
            if (model->pulls != NULL) {
                candidate[i] = mt_training_pulled(candidate[i], base[i], model->pulls[i]);
            }
            if (learner->importance != NULL) {
                const float strength = settings->memory * learner->importance[i];
                candidate[i] = mt_training_pulled(candidate[i], present[i], strength / (1.0f + strength));
            }
        }
    }
}
#else
static void pull_back(const mt_learner *learner)
{
    if (learner->model->pull != NULL) {
        learner->model->pull(learner->candidate, learner->candidate_optimizer);
    }
}
#endif

void mt_training_learn(const mt_learner *learner, uint32_t index)
{
    const mt_model *model = learner->model;
    const mt_number *sample = mt_samples_at(&learner->samples, index);
    model->step(sample, sample + model->cut, learner->candidate, learner->candidate_optimizer, learner->arena);
    ++learner->work->steps;
    pull_back(learner);
}

/* Does this pass take the sample? The share of passes it takes part in halves with every `recency` newer samples. */
MT_COLD static int takes_part(const mt_learner *learner, uint32_t index, uint32_t count)
{
    const mt_number half_life = learner->settings->recency;
    if (!(half_life > MT_NUMBER(0)) || index < learner->samples.state->kept) {
        return 1;
    }
    const mt_number lives = mt_number_divide(mt_number_of(count - 1u - index), half_life);
    const mt_number share = mt_number_exp(mt_number_multiply(MT_NUMBER(-0.69314718), lives));
    return mt_number_chance(share, mt_random_next(&learner->work->random));
}

MT_COLD void mt_training_begin(const mt_learner *learner, int from_base)
{
    mt_training_begin_candidate(learner, from_base);
    learner->work->epoch = 0;
    shuffle(learner->work, mt_samples_size(&learner->samples));
}

/* One step of the epochs over all samples outside a fold (folds = 0: over all); 0: there is none left. */
MT_COLD int mt_training_step(const mt_learner *learner, uint32_t folds, uint32_t left_out)
{
    mt_work *work = learner->work;
    const uint32_t count = mt_samples_size(&learner->samples);
    while (work->epoch < learner->settings->epochs) {
        while (work->position <= work->mask) {
            const uint32_t index = place(work, work->position++);
            if (index < count && (folds == 0 || index % folds != left_out) && takes_part(learner, index, count)) {
                mt_training_learn(learner, index);
                return 1;
            }
        }
        if (++work->epoch < learner->settings->epochs) {
            shuffle(work, count);
        }
    }
    return 0;
}
