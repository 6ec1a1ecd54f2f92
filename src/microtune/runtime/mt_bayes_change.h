/*
 * mt_bayes_change.h: has the person changed habits, or has somebody else come? docs/bayes.md has the reasons.
 */
#ifndef MT_BAYES_CHANGE_H
#define MT_BAYES_CHANGE_H

#include "mt_bayes_features.h"

#ifdef __cplusplus
extern "C" {
#endif

/* log of the density of an error: Gaussian of this variance, but a share of settings may be anything */
float mt_bayes_log_density(const mt_bayes_settings *s, float z_squared, float variance);

/* After a surprising use: if it is a change of habits, forget what that has overtaken, and return for how many uses
 * habits have been new; else 0. evidence: factor on what it takes. */
uint32_t mt_bayes_watch_for_jump(const mt_bayes *bayes, float evidence);

/* a probability that a stranger has come, as it is kept: none, or within bounds that a few uses can change */
float mt_bayes_doubt(float stranger);

/* One use after disuse: which of the two was it? evidence: log density of its error if it was the person known. */
void mt_bayes_meet(const mt_bayes *bayes, const mt_bayes_phi *phi, float residual, float evidence);

#ifdef __cplusplus
}
#endif

#endif
