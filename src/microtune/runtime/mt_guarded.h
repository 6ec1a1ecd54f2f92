/*
 * mt_guarded.h: mt_gradient.h with a guard: what looks like a known fault is not learnt as well.
 *
 * The last word of a cut is the guard's: above 0, the sample looks like a known fault. Observed as well (a target below
 * a half) it counts as suspect (mt_metrics), and the step leaves it out. Where one in ten or more of any 20 samples in
 * a row are, it is the fault that is presented as well: the update is refused as a whole (mt_update.refused), and nothing
 * changes. The samples of an update are learnt in the order of that word, least like a fault first: what the guard does
 * not see comes last, and is held against what is normal without it.
 */
#ifndef MT_GUARDED_H
#define MT_GUARDED_H

#include "mt_gradient.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MT_GUARD_RUN = 20,  /* samples in a row that are looked at together, or as many as there are */
    MT_GUARD_SHARE = 10 /* one in so many of them, or more: refused */
};

extern const mt_rule mt_guarded_rule;

#ifdef __cplusplus
}
#endif

#endif
