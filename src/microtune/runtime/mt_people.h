/*
 * mt_people.h: who uses the device: whose parameters and samples are at work, who comes back, who wants to be forgotten.
 *
 * The calls of mt_learner.h that are about people are defined here too.
 */
#ifndef MT_PEOPLE_H
#define MT_PEOPLE_H

#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

/* people times contexts */
uint32_t mt_people_count(const mt_learner *learner);

/* From now on the learner is about this one. */
void mt_people_turn_to(mt_learner *learner, uint32_t set);

/* Whose input this is, and in which context; nothing is learnt of people from a suspect input. */
uint32_t mt_people_set_of(const mt_learner *learner, const void *input, uint8_t suspect);

/* After an absence: what was learnt has faded a little, and whoever comes back may be somebody else. */
void mt_people_wake(mt_learner *learner);

/* the metrics log, if there is one */
void mt_people_tell(const mt_learner *learner, mt_log_kind kind, uint32_t detail);

#ifdef __cplusplus
}
#endif

#endif
