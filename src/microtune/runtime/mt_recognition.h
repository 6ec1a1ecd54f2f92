/*
 * mt_recognition.h: whose context is this?
 *
 * Of each profile the mean and variance of every input at which somebody had said "it is me" (by the profile's
 * button); the profile under which a new context is likeliest is chosen: naive Bayes, inputs in any unit.
 * docs/sensors.md has the formulas.
 *
 * Finite for any finite input; the index chosen is valid whatever the memory holds.
 */
#ifndef MT_RECOGNITION_H
#define MT_RECOGNITION_H

#include "mt_platform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* floats saved of one profile: the count, the means (inputs), the variances (inputs); all 0: nobody yet */
#define MT_RECOGNITION_FLOATS(inputs) (2u * (inputs) + 1u)

enum {
    MT_RECOGNITION_LEAST = 3,  /* contexts a profile must have seen to be chosen, or to be left, by itself */
    MT_RECOGNITION_MEMORY = 64 /* contexts that mean and variance are taken over, so that they follow the seasons */
};

/* One context that is this profile's for certain: input (inputs). */
void mt_recognition_learn(float *profile, uint32_t inputs, const float *input);

/* profiles (count, MT_RECOGNITION_FLOATS(inputs)), input (inputs) -> the index of the likeliest profile, below
 * `count`; `current` where that one is as likely, or where too little is known of it. */
uint32_t mt_recognition_choose(const float *profiles, uint32_t count, uint32_t inputs, const float *input,
                               uint32_t current);

#ifdef __cplusplus
}
#endif

#endif
