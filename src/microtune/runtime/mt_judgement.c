/* mt_judgement.c: see mt_judgement.h. */
#include "mt_judgement.h"

#include "mt_answer.h"
#include "mt_math.h"

/* more than any loss or error that matters; keeps sums finite */
#define MT_JUDGEMENT_LARGE 1e30f

/* not above LARGE; NaN counts as LARGE */
MT_COLD static float bounded(float value)
{
    return value < MT_JUDGEMENT_LARGE ? value : MT_JUDGEMENT_LARGE;
}

/*
 * How wrong an output is. Classification: 0 or 1. Regression: e^2 / (e^2 + tolerance^2), e^2 the mean square
 * error of the outputs (Geman and McClure 1987): close to the squared error in tolerances where it is small, a half
 * where the error equals the tolerance, never above 1. So a single wild sample weighs no more than one plainly
 * wrong answer, while being less wrong always counts, however far off both models still are.
 */
MT_COLD static float fault_of(const mt_learner *learner, const float *output, const float *target)
{
    const mt_model *model = learner->model;
    const uint32_t outputs = model->outputs;
    if (mt_answer_check(output, NULL, NULL, outputs) != MT_OK) {
        return 1.0f;
    }
    if (model->task == MT_MULTICLASS) {
        return mt_answer_best_class(output, outputs) == (uint32_t)target[0] ? 0.0f : 1.0f;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < outputs; ++i) {
        if (model->task == MT_BINARY && (output[i] >= 0.0f) != (target[i] >= 0.5f)) {
            return 1.0f;
        }
        const float error = output[i] - target[i];
        sum += bounded(error * error);
    }
    if (model->task == MT_BINARY) {
        return 0.0f;
    }
    const float square = bounded(sum / (float)outputs);
    const float tolerance = learner->settings->tolerance * learner->settings->tolerance;
    return square / (square + (tolerance > 1e-30f ? tolerance : 1e-30f));
}

MT_COLD void mt_judgement_measure(const mt_learner *learner, uint32_t index, const void *parameters, mt_score *sum)
{
    const mt_model *model = learner->model;
    const float *sample = mt_samples_at(&learner->samples, index), *target = sample + model->cut;
    model->head(sample, parameters, learner->output, learner->arena);
    sum->faults += fault_of(learner, learner->output, target);
    sum->loss += bounded(model->loss(learner->output, target));
}

MT_COLD void mt_judgement_add(const mt_learner *learner, uint32_t index)
{
    mt_work *work = learner->work;
    mt_judgement_measure(learner, index, learner->candidate, &work->candidate);
    mt_judgement_measure(learner, index, learner->model->base, &work->base);
    ++work->measured;
}

MT_COLD void mt_judgement_compare(const mt_learner *learner, uint32_t index)
{
    mt_work *work = learner->work;
    if (index + learner->person->since >= mt_samples_size(&learner->samples)) {
        mt_judgement_measure(learner, index, learner->candidate, &work->newest);
        mt_judgement_measure(learner, index, learner->parameters, &work->present);
    }
}

MT_COLD int mt_judgement_is_better(const mt_learner *learner)
{
    const mt_work *work = learner->work;
    if (learner->settings->folds == 0) {
        return 1;
    }
    /* a right answer more, or luck alone would often do; a graded error need only be no worse */
    const float least = learner->model->task != MT_REGRESSION ? 1.0f : 0.0f;
    /* the number of faults varies by about its root (Poisson) */
    const float gain = least + learner->settings->caution * mt_sqrt(work->base.faults);
    return work->candidate.faults + gain <= work->base.faults && work->newest.faults <= work->present.faults;
}
