/*
 * mt_change_state.h: what mt_change.h keeps of each person, who may have it without ever looking for a change.
 */
#ifndef MT_CHANGE_STATE_H
#define MT_CHANGE_STATE_H

#include "mt_platform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* share of careless uses: first guess */
#define MT_CHANGE_WRONG 0.1f

/* saved, one for each class, or two for each yes/no output (2 i: no, 2 i + 1: yes): of the uses that used to mean
 * this */
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

/* A person nobody knows yet; after a reset, and after samples were dropped. The count of changes stays. */
static inline void mt_change_begin(const mt_change *change)
{
    MT_ZERO(change->classes, change->kinds * sizeof *change->classes);
    change->state->near = change->state->spread = 0.0f;
    change->state->wrong = MT_CHANGE_WRONG;
}

#ifdef __cplusplus
}
#endif

#endif
