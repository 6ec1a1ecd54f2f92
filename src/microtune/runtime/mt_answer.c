/* mt_answer.c: see mt_answer.h. */
#include "mt_answer.h"

#include "mt_kernels_elementwise.h"
#include "mt_math.h"

/// The border: what is refused ///

MT_COLD mt_status mt_answer_check(const float *values, const float *low, const float *high, uint32_t size)
{
    /* adding one to a full exponent, that of NaN and infinity, carries into the sign bit */
    uint32_t carried = 0;
    for (uint32_t i = 0; i < size; ++i) {
        carried |= (mt_float_bits(values[i]) & 0x7FFFFFFFu) + 0x00800000u;
    }
    if (carried >> 31 != 0) {
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

MT_COLD int mt_answer_is_valid_target(const mt_model *model, const float *target)
{
    if (model->task == MT_REGRESSION) {
        return mt_answer_check(target, model->target_low, model->target_high, model->targets) == MT_OK;
    }
    const float highest = model->task == MT_MULTICLASS ? (float)model->outputs - 1.0f : 1.0f;
    for (uint32_t i = 0; i < model->targets; ++i) {
        /* NaN fails both comparisons */
        if (!(target[i] >= 0.0f && target[i] <= highest)) {
            return 0;
        }
        if (model->task == MT_MULTICLASS && target[i] != (float)(uint32_t)target[i]) {
            return 0;
        }
    }
    return 1;
}

/// Answers: values or probabilities ///

MT_COLD static void to_probabilities(const mt_model *model, float *output)
{
    if (model->activate != NULL) {
        model->activate(output, output, model->outputs);
    }
}

MT_COLD uint32_t mt_answer_best_class(const float *output, uint32_t outputs)
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
MT_COLD static float confidence_of(const mt_learner *learner, const float *answer, float variance)
{
    const mt_model *model = learner->model;
    if (model->task == MT_MULTICLASS) {
        return answer[mt_answer_best_class(answer, model->outputs)];
    }
    if (model->task == MT_BINARY) {
        float least = 1.0f;
        for (uint32_t i = 0; i < model->outputs; ++i) {
            const float sure = answer[i] >= 0.5f ? answer[i] : 1.0f - answer[i];
            least = sure < least ? sure : least;
        }
        return least;
    }
    const float deviation = mt_sqrt(variance);
    return deviation > 0.0f ? 2.0f * mt_sigmoid(1.702f * (learner->settings->tolerance / deviation)) - 1.0f : 1.0f;
}

MT_COLD int mt_answer_is_right(const mt_learner *learner, const float *answer, const float *target)
{
    const mt_model *model = learner->model;
    if (model->task == MT_MULTICLASS) {
        return mt_answer_best_class(answer, model->outputs) == (uint32_t)target[0];
    }
    for (uint32_t i = 0; i < model->outputs; ++i) {
        if (model->task == MT_BINARY ? (answer[i] >= 0.5f) != (target[i] >= 0.5f)
                                     : !(mt_absolute(answer[i] - target[i]) <= learner->settings->tolerance)) {
            return 0;
        }
    }
    return 1;
}

MT_COLD float mt_answer_of(const mt_learner *learner, const float *cut, float *answer)
{
    const mt_model *model = learner->model;
    const float variance = model->rule->predict(learner, cut, answer);
    if (mt_answer_check(answer, NULL, NULL, model->outputs) == MT_OK) {
        to_probabilities(model, answer);
        return confidence_of(learner, answer, variance);
    }
    model->head(cut, model->base, answer, learner->arena);
    if (mt_answer_check(answer, NULL, NULL, model->outputs) != MT_OK) {
        return -1.0f;
    }
    to_probabilities(model, answer);
    return 0.0f;
}

MT_COLD void mt_answer_base(const mt_learner *learner, const float *cut, float *answer)
{
    learner->model->head(cut, learner->model->base, answer, learner->arena);
    to_probabilities(learner->model, answer);
}

MT_COLD void mt_answer_default(const mt_learner *learner, const float *cut, float *answer)
{
    const mt_model *model = learner->model;
    if (learner->settings->fallback != NULL) {
        mt_copy(learner->settings->fallback, answer, model->outputs);
        return;
    }
    mt_answer_base(learner, cut, answer);
    if (mt_answer_check(answer, NULL, NULL, model->outputs) != MT_OK) {
        mt_answer_of(learner, cut, answer); /* the base has no answer to this input, the model has */
    }
}
