/*
 * mt_gradient.h: learn by optimiser steps over the buffer, as a transaction.
 *
 * A candidate is trained beside the parameters in use, judged on samples it was not trained on against the base
 * model, and taken or dropped. It needs parameters, previous, optimizer, samples, candidate,
 * candidate_optimizer, output and arena of the mt_learner.
 */
#ifndef MT_GRADIENT_H
#define MT_GRADIENT_H

#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const mt_rule mt_gradient_rule;

/* Begin an update that learns nothing yet: for a rule that has a word in each of its slices. Without it the first slice
 * does so. */
void mt_gradient_begin_update(const mt_learner *learner);

/// For mt_model: NULL in a build that does without ///

/* Look for a change of habits (mt_change.h) in the newest sample, and drop those that one has overtaken. */
uint32_t mt_gradient_change(const mt_learner *learner);

/*
 * Fisher information of the newest samples, which this update was the first to learn: running means of the squared
 * gradients, each read off one step from the parameters just taken. The candidate is free by then.
 */
void mt_gradient_remember(const mt_learner *learner);

#ifdef __cplusplus
}
#endif

#endif
