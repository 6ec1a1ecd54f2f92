/*
 * mt_change.h: when does a person mean something else than before? For classes and yes/no answers.
 *
 * A change is a contradiction between what was said then and what is said now of the like: the newest uses are held
 * against the older samples that lie nearest to them. The model has no part in it, so a poor one raises no alarm, and
 * neither does what was never met before. One contradiction is never enough.
 * docs/change.md gives the test, the reason of every constant and what was measured.
 */
#ifndef MT_CHANGE_H
#define MT_CHANGE_H

#include "mt_change_state.h"
#include "mt_samples.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MT_CHANGE_NEAREST = 5, /* older samples asked what is usual */
    MT_CHANGE_RUN = 40     /* uses after which evidence that was never enough is dropped; or half of the samples */
};

/// Calls ///

/*
 * Call after mt_samples_add, before learning: the newest sample of the ring is the use to look at. Returns 0, or for
 * how many of the newest uses, this one included, something has been meant otherwise.
 * evidence: factor on the evidence needed, 1 as a rule; below 1 where a change is likelier than usual, after a long
 * absence or in learning mode.
 */
uint32_t mt_change_observe(const mt_change *change, const mt_samples *samples, float evidence);

/* After it returned `run`: remove the older samples, from the ring and the reservoir, that the change has overtaken.
 * Returns how many. The uses of the run stay, and the test begins anew. `before` (2): numbers of samples just before
 * this use; each falls by those of them that are removed. */
uint32_t mt_change_forget(const mt_change *change, const mt_samples *samples, uint32_t run, uint16_t before[2]);

#ifdef __cplusplus
}
#endif

#endif
