/* mt_answer.c: see mt_answer.h. */
#include "mt_answer.h"

/// The border: what is refused ///

MT_COLD mt_status mt_answer_check(const mt_number *values, const mt_number *low, const mt_number *high, uint32_t size)
{
    if (!mt_number_all_finite(values, size)) {
        return MT_INPUT_NOT_FINITE;
    }
    if (low == NULL && high == NULL) {
        return MT_OK;
    }
    for (uint32_t i = 0; i < size; ++i) {
        if ((low != NULL && values[i] < low[i]) || (high != NULL && values[i] > high[i])) {
            return MT_INPUT_OUT_OF_RANGE;
        }
    }
    return MT_OK;
}

MT_COLD int mt_answer_is_valid_target(const mt_model *model, const mt_number *target)
{
    if (model->task == MT_REGRESSION) {
        return mt_answer_check(target, model->target_low, model->target_high, model->targets) == MT_OK;
    }
    const mt_number highest = mt_number_of(model->task == MT_MULTICLASS ? model->outputs - 1u : 1u);
    for (uint32_t i = 0; i < model->targets; ++i) {
        /* NaN fails both comparisons */
        if (!(target[i] >= MT_NUMBER(0) && target[i] <= highest)) {
            return 0;
        }
        if (model->task == MT_MULTICLASS && target[i] != mt_number_of(mt_number_whole(target[i]))) {
            return 0;
        }
    }
    return 1;
}

/// Answers: values or probabilities ///

MT_COLD static void to_probabilities(const mt_model *model, mt_number *output)
{
    if (model->activate != NULL) {
        model->activate(output, output, model->outputs);
    }
}

MT_COLD uint32_t mt_answer_best_class(const mt_number *output, uint32_t outputs)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < outputs; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    return best;
}

/* Probability that the answer is right: of the chosen class, of the least sure of several questions, or that a
 * normal error of this variance stays within the tolerance, 2 Phi(t) - 1 with Phi(t) about sigmoid(1.702 t), at most
 * 0.01 off (Bowling and others 2009). */
MT_COLD static mt_number confidence_of(const mt_learner *learner, const mt_number *answer, mt_number variance)
{
    const mt_model *model = learner->model;
    if (model->task == MT_MULTICLASS) {
        return answer[mt_answer_best_class(answer, model->outputs)];
    }
    if (model->task == MT_BINARY) {
        mt_number least = MT_NUMBER(1);
        for (uint32_t i = 0; i < model->outputs; ++i) {
            const mt_number sure = answer[i] >= MT_NUMBER(0.5) ? answer[i] : MT_NUMBER(1) - answer[i];
            least = sure < least ? sure : least;
        }
        return least;
    }
    const mt_number deviation = mt_number_sqrt(variance);
    if (!(deviation > MT_NUMBER(0))) {
        return MT_NUMBER(1);
    }
    const mt_number tolerated = mt_number_divide(learner->settings->tolerance, deviation);
    return mt_number_multiply(MT_NUMBER(2), mt_number_sigmoid(mt_number_multiply(MT_NUMBER(1.702), tolerated))) -
           MT_NUMBER(1);
}

MT_COLD int mt_answer_is_right(const mt_learner *learner, const mt_number *answer, const mt_number *target)
{
    const mt_model *model = learner->model;
    if (model->task == MT_MULTICLASS) {
        return mt_answer_best_class(answer, model->outputs) == mt_number_whole(target[0]);
    }
    const mt_number tolerance = learner->settings->tolerance;
    for (uint32_t i = 0; i < model->outputs; ++i) {
        if (model->task == MT_BINARY ? (answer[i] >= MT_NUMBER(0.5)) != (target[i] >= MT_NUMBER(0.5))
                                     : !(mt_number_absolute(mt_number_subtract(answer[i], target[i])) <= tolerance)) {
            return 0;
        }
    }
    return 1;
}

MT_COLD mt_number mt_answer_of(const mt_learner *learner, const mt_number *cut, mt_number *answer)
{
    const mt_model *model = learner->model;
    const mt_number variance = model->rule->predict(learner, cut, answer);
    if (mt_answer_check(answer, NULL, NULL, model->outputs) == MT_OK) {
        to_probabilities(model, answer);
        return confidence_of(learner, answer, variance);
    }
    model->head(cut, model->base, answer, learner->arena);
    if (mt_answer_check(answer, NULL, NULL, model->outputs) != MT_OK) {
        return MT_NUMBER(-1);
    }
    to_probabilities(model, answer);
    return MT_NUMBER(0);
}

MT_COLD void mt_answer_base(const mt_learner *learner, const mt_number *cut, mt_number *answer)
{
    learner->model->head(cut, learner->model->base, answer, learner->arena);
    to_probabilities(learner->model, answer);
}

MT_COLD void mt_answer_default(const mt_learner *learner, const mt_number *cut, mt_number *answer)
{
    const mt_model *model = learner->model;
    if (learner->settings->fallback != NULL) {
        MT_COPY(answer, learner->settings->fallback, model->outputs * sizeof *answer);
        return;
    }
    mt_answer_base(learner, cut, answer);
    if (mt_answer_check(answer, NULL, NULL, model->outputs) != MT_OK) {
        mt_answer_of(learner, cut, answer); /* the base has no answer to this input, the model has */
    }
}
