/* mt_judgement.c: see mt_judgement.h. */
#include "mt_judgement.h"

#include "mt_answer.h"

/* not above LARGE; NaN counts as LARGE */
MT_COLD static mt_number bounded(mt_number value)
{
    return value < MT_NUMBER_LARGE ? value : MT_NUMBER_LARGE;
}

/*
 * How wrong an output is. Classification: 0 or 1. Regression: e^2 / (e^2 + tolerance^2), e^2 the mean square
 * error of the outputs (Geman and McClure 1987): close to the squared error in tolerances where it is small, a half
 * where the error equals the tolerance, never above 1. So a single wild sample weighs no more than one plainly
 * wrong answer, while being less wrong always counts, however far off both models still are.
 */
MT_COLD static mt_number fault_of(const mt_learner *learner, const mt_number *output, const mt_number *target)
{
    const mt_model *model = learner->model;
    const uint32_t outputs = model->outputs;
    if (mt_answer_check(output, NULL, NULL, outputs) != MT_OK) {
        return MT_NUMBER(1);
    }
    if (model->task == MT_MULTICLASS) {
        return mt_answer_best_class(output, outputs) == mt_number_whole(target[0]) ? MT_NUMBER(0) : MT_NUMBER(1);
    }
    mt_number sum = MT_NUMBER(0);
    for (uint32_t i = 0; i < outputs; ++i) {
        if (model->task == MT_BINARY && (output[i] >= MT_NUMBER(0)) != (target[i] >= MT_NUMBER(0.5))) {
            return MT_NUMBER(1);
        }
        const mt_number error = mt_number_subtract(output[i], target[i]);
        sum = mt_number_add(sum, bounded(mt_number_multiply(error, error)));
    }
    if (model->task == MT_BINARY) {
        return MT_NUMBER(0);
    }
    const mt_number square = bounded(mt_number_share(sum, outputs));
    const mt_number tolerance = mt_number_multiply(learner->settings->tolerance, learner->settings->tolerance);
    return mt_number_divide(square, mt_number_add(square, tolerance > MT_NUMBER_TINY ? tolerance : MT_NUMBER_TINY));
}

MT_COLD void mt_judgement_measure(const mt_learner *learner, uint32_t index, const void *parameters, mt_score *sum)
{
    const mt_model *model = learner->model;
    const mt_number *sample = mt_samples_at(&learner->samples, index), *target = sample + model->cut;
    model->head(sample, parameters, learner->output, learner->arena);
    sum->faults = mt_number_add(sum->faults, fault_of(learner, learner->output, target));
    sum->loss = mt_number_add(sum->loss, bounded(model->loss(learner->output, target)));
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
    const mt_number least = learner->model->task != MT_REGRESSION ? MT_NUMBER(1) : MT_NUMBER(0);
    /* the number of faults varies by about its root (Poisson) */
    const mt_number luck = mt_number_multiply(learner->settings->caution, mt_number_sqrt(work->base.faults));
    const mt_number gain = mt_number_add(least, luck);
    return mt_number_add(work->candidate.faults, gain) <= work->base.faults &&
           work->newest.faults <= work->present.faults;
}
