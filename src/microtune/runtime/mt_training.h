/*
 * mt_training.h: a candidate beside the parameters in use, and how it is trained: steps over the samples in an order
 * that is new in each epoch, with pulls towards the base.
 */
#ifndef MT_TRAINING_H
#define MT_TRAINING_H

#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Parameters and optimiser state; in place, what is copied onto itself stays ///

void mt_training_begin_optimizer(const mt_model *model, mt_number *optimizer);
void mt_training_put_parameters(const mt_learner *learner, void *to, const void *from);
void mt_training_put_optimizer(const mt_learner *learner, mt_number *to, const mt_number *from);

/* from the base, or from what is in use */
void mt_training_begin_candidate(const mt_learner *learner, int from_base);

/* towards `to` by this share of the way */
static inline mt_number mt_training_pulled(mt_number from, mt_number to, mt_number share)
{
    return mt_number_add(from, mt_number_multiply(share, mt_number_subtract(to, from)));
}

/// Training ///

/* One step on one sample, then the pulls. */
void mt_training_learn(const mt_learner *learner, uint32_t index);

/* Before the first of the epochs. */
void mt_training_begin(const mt_learner *learner, int from_base);

/* One step of the epochs over all samples outside a fold (folds = 0: over all); 0: there is none left. */
int mt_training_step(const mt_learner *learner, uint32_t folds, uint32_t left_out);

#ifdef __cplusplus
}
#endif

#endif
