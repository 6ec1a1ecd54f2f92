/*
 * mt_bayes_refit.h: the posterior of the residual head. mt_bayes_refit and mt_bayes_refit_slice of mt_bayes.h are here.
 */
#ifndef MT_BAYES_REFIT_H
#define MT_BAYES_REFIT_H

#include "mt_bayes_features.h"

#ifdef __cplusplus
extern "C" {
#endif

/* what is known before the first use: d = 0 +- the prior's width */
void mt_bayes_take_prior(const mt_bayes_settings *s, float *mean, float *covariance);

#ifdef __cplusplus
}
#endif

#endif
