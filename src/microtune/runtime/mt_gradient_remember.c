/* mt_gradient_remember.c: see mt_gradient.h. */
#include "mt_gradient.h"

#include "mt_math.h"
#include "mt_training.h"

/* elastic weights: samples looked at in one update, and those that the running mean of squared gradients is over */
#define MT_GRADIENT_REMEMBERED 8u
#define MT_GRADIENT_MEMORY 32.0f

MT_COLD void mt_gradient_remember(const mt_learner *learner)
{
    const mt_model *model = learner->model;
    const uint32_t count = mt_samples_size(&learner->samples), fresh = learner->person->fresh;
    const uint32_t looked_at = fresh < MT_GRADIENT_REMEMBERED ? fresh : MT_GRADIENT_REMEMBERED;
    const float *present = (const float *)learner->parameters, *stepped = (const float *)learner->candidate;
    for (uint32_t index = count > looked_at ? count - looked_at : 0u; index < count; ++index) {
        const float *sample = mt_samples_at(&learner->samples, index);
        mt_training_put_parameters(learner, learner->candidate, learner->parameters);
        mt_training_begin_optimizer(model, learner->candidate_optimizer);
        model->step(sample, sample + model->cut, learner->candidate, learner->candidate_optimizer, learner->arena);
        for (uint32_t i = 0; i < model->floats; ++i) {
            const float gradient = mt_clamp((present[i] - stepped[i]) / learner->settings->rate, -1e6f, 1e6f);
            learner->importance[i] += (gradient * gradient - learner->importance[i]) / MT_GRADIENT_MEMORY;
        }
    }
}
