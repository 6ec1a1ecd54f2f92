/* mt_bayes_rule.h: the Bayesian residual head of mt_bayes.h as an update rule of the learner.
 *
 * learner->own points to an mt_bayes; the cut is the input itself. An update refits over all samples and is
 * judged on samples left out: where the base does better, the base alone predicts until that changes.
 */
#ifndef MT_BAYES_RULE_H
#define MT_BAYES_RULE_H

#include "mt_bayes.h"
#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const mt_rule mt_bayes_rule;

#ifdef __cplusplus
}
#endif

#endif
