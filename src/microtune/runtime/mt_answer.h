/*
 * mt_answer.h: what is refused at the border, and what an output says: how sure it is, whether it was right.
 */
#ifndef MT_ANSWER_H
#define MT_ANSWER_H

#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

/* values (size) that are finite and within low and high (size), each of which may be NULL */
mt_status mt_answer_check(const mt_number *values, const mt_number *low, const mt_number *high, uint32_t size);

/* target (targets) */
int mt_answer_is_valid_target(const mt_model *model, const mt_number *target);

uint32_t mt_answer_best_class(const mt_number *output, uint32_t outputs);

/* Would the person leave this answer, values or probabilities (outputs), as it is? */
int mt_answer_is_right(const mt_learner *learner, const mt_number *answer, const mt_number *target);

/* cut -> the model's own answer, values or probabilities (outputs), or, where that is not finite, the base
 * model's. Returns the confidence; below zero: even the base model has no answer to this input. */
mt_number mt_answer_of(const mt_learner *learner, const mt_number *cut, mt_number *answer);

/* cut -> the base model's answer */
void mt_answer_base(const mt_learner *learner, const mt_number *cut, mt_number *answer);

/* the safe default for this input, to which mt_answer_of has an answer */
void mt_answer_default(const mt_learner *learner, const mt_number *cut, mt_number *answer);

#ifdef __cplusplus
}
#endif

#endif
