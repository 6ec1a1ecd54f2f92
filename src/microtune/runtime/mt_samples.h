/*
 * mt_samples.h: what a device remembers of its person: a ring of the newest samples, and behind it a reservoir.
 *
 * The sample that a full ring overwrites is offered to the reservoir, which keeps a fair draw of all it was ever
 * offered: each with the same chance (algorithm R, Vitter 1985), or as evenly by class as the stream allows
 * (class-balancing reservoir sampling, Chrysakis and Moens 2020). Ring and reservoir are both in order of age.
 *
 * Any bits are a valid state: what lies outside its range counts as the nearest that does not.
 */
#ifndef MT_SAMPLES_H
#define MT_SAMPLES_H

#include "mt_number.h"

#ifdef __cplusplus
extern "C" {
#endif

/// What is kept ///

typedef struct mt_samples_state { /* saved; fixed width */
    uint16_t count, next; /* in the ring; where the next goes */
    uint16_t kept;        /* in the reservoir */
    uint16_t reserved;
    uint32_t seen;        /* samples offered to the reservoir so far, less those that what was removed stood for;
                           * stops at the largest number */
} mt_samples_state;

MT_REQUIRE(sizeof(mt_samples_state) == 12, samples_state_has_no_padding);

typedef struct mt_samples {
    mt_samples_state *state;
    uint32_t *random;     /* generator (mt_random.h), saved elsewhere; drawn from only when the reservoir is full */
    mt_number *words;         /* (ring + reservoir, stride): cut, targets, time stamp (uint32 bits); stride = cut +
                           * targets + 1. What no sample occupies is zero: nothing dropped is left behind. */
    uint32_t *seen_of;    /* (classes): as `seen`, of each class; NULL: not balanced by class */
    uint32_t cut, targets;
    uint16_t ring;        /* samples that fit, at least 1 */
    uint16_t reservoir;   /* samples that fit, 0 for none; balanced by class, no fewer than classes */
    uint16_t classes;     /* balanced by class: the first target is a class index, or for 2 a probability */
} mt_samples;

/// Calls ///

/* reservoir and ring together */
uint32_t mt_samples_size(const mt_samples *s);

/* index below the size: 0 .. kept - 1 the reservoir, then the ring, each from its oldest to its newest */
const mt_number *mt_samples_at(const mt_samples *s, uint32_t index);

/* What it overwrites in the full ring is offered to the reservoir. `time`: seconds of any clock, 0 without one. */
void mt_samples_add(const mt_samples *s, const mt_number *cut, const mt_number *target, uint32_t time);

/* from the ring; more than it holds: all of it */
void mt_samples_drop_newest(const mt_samples *s, uint32_t count);

/*
 * How many of the newest ring samples are stamped `time` or later, by a clock that says `now`. Counting goes back from
 * now and ends before the first one stamped earlier than `time`, or later than what comes after it: there the clock
 * jumped back, and how old what lies before is nobody knows. So a clock that starts again from zero does not make the
 * past look like the last hour.
 */
uint32_t mt_samples_since(const mt_samples *s, uint32_t time, uint32_t now);

/* drops as many, and where that is the whole ring goes on counting and dropping in the reservoir */
void mt_samples_drop_since(const mt_samples *s, uint32_t time, uint32_t now);

/* Any one; the order of the others stays. From the reservoir, it takes those that it stood for along: `seen` falls by
 * the same share as what is kept, and the next one offered takes the free place. An index that is not below the size
 * removes nothing. */
void mt_samples_remove(const mt_samples *s, uint32_t index);

void mt_samples_clear(const mt_samples *s);

#ifdef __cplusplus
}
#endif

#endif
