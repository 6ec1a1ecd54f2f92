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

#include "mt_platform.h"
#include "mt_samples.h"

#ifdef __cplusplus
extern "C" {
#endif

/// What is kept ///

enum {
    MT_CHANGE_NEAREST = 5, /* older samples asked what is usual */
    MT_CHANGE_RUN = 40     /* uses after which evidence that was never enough is dropped; or half of the samples */
};

/* saved, one for each class, or two for each yes/no output (2 i: no, 2 i + 1: yes): of the uses that used to mean this */
typedef struct mt_change_class {
    float evidence;  /* that they mean something else now: log likelihood ratio, never below zero */
    uint16_t toward; /* what instead: the class, or no (0) or yes (1) */
    uint16_t run;    /* uses since the first of that evidence; 0: none */
} mt_change_class;

MT_REQUIRE(sizeof(mt_change_class) == 8, change_class_has_no_padding);

/* saved */
typedef struct mt_change_state {
    float near;       /* usual squared distance of a use to the nearest older samples; 0: not known yet */
    float spread;     /* and how far it usually is from that */
    float wrong;      /* share of uses that contradict: how careless this person is */
    uint32_t changes; /* found so far */
} mt_change_state;

MT_REQUIRE(sizeof(mt_change_state) == 16, change_state_has_no_padding);

typedef struct mt_change {
    mt_change_state *state;
    mt_change_class *classes; /* (kinds) */
    uint16_t kinds;           /* multiclass: classes; yes/no: twice the outputs */
    uint8_t binary;           /* 1: targets are yes/no, one for each output; 0: one target, a class index */
    uint8_t bytes;            /* 1: the cut holds int8 values, four in a word; 0: floats */
} mt_change;

/// Calls ///

/* A person nobody knows yet; after a reset, and after samples were dropped. The count of changes stays. */
void mt_change_begin(const mt_change *change);

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
