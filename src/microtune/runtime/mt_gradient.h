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

#ifdef __cplusplus
}
#endif

#endif
