/*
 * mt_judgement.h: is an update better? On samples that it was not trained on.
 */
#ifndef MT_JUDGEMENT_H
#define MT_JUDGEMENT_H

#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Adds the fault and loss of `parameters` on one sample; no single one weighs more than a plainly wrong answer. */
void mt_judgement_measure(const mt_learner *learner, uint32_t index, const void *parameters, mt_score *sum);

/* Adds one sample that the candidate has not seen to the scores of learner->work, of candidate and base. */
void mt_judgement_add(const mt_learner *learner, uint32_t index);

/* One that it has not seen, where the parameters in use, too, have not: those since the last accepted update. There the
 * candidate is held against them. */
void mt_judgement_compare(const mt_learner *learner, uint32_t index);

/* The candidate answers more right than the base, or, where errors are graded, is no more wrong; and it is no more
 * wrong than the parameters in use. Unjudged, it is. */
int mt_judgement_is_better(const mt_learner *learner);

#ifdef __cplusplus
}
#endif

#endif
