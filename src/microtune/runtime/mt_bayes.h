/*
 * mt_bayes.h: a Bayesian residual head that follows a person within a few uses.
 *
 * prediction = base(x) + phi(x) . d, with phi = [inputs, 1, trend, bumps, last hidden layer] and d refitted
 * exactly over a small buffer after each use. A drift is followed by the trend; a test for jumps decides what of
 * the past is forgotten, and where.
 * docs/bayes.md gives the mathematics, the reason of every constant and what was measured.
 *
 * One output. Inputs are centred and about 1 in size, targets standardised; anything finite within 1000 is
 * safe: no value here can become NaN or infinite. Finiteness and range are checked by the caller.
 */
#ifndef MT_BAYES_H
#define MT_BAYES_H

#include "mt_platform.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Settings: constant, from the generated code ///

typedef struct mt_bayes_settings {
    uint16_t hidden;          /* floats of the last hidden layer */
    uint16_t inputs;          /* floats of one input */
    uint16_t buffer;          /* samples kept */
    uint16_t bumps;           /* places for changes confined to one context; 0 for none */
    float hidden_variance;    /* prior variance of d: hidden features */
    float input_variance;     /* inputs */
    float bias_variance;      /* the 1 */
    float bump_variance;      /* bumps */
    float trend_variance;     /* trend */
    float trend_unit;         /* the trend is -age / this, age in uses ... */
    float trend_reach;        /* ... and no age counts for more than this */
    float bump_width_squared; /* a bump is exp(-distance^2 / (2 * this)) */
    float noise;              /* variance of a person's settings, first guess */
    float noise_uses;         /* uses that the first guess counts for */
    float noise_floor;        /* the estimate never falls below */
    float outlier_squared;    /* a leave-one-out error beyond this many variances loses weight */
    float wild_share;         /* share of settings that may be anything ... */
    float wild_density;       /* ... with this density: 1 / range of the target */
    float surprise;           /* |z| beyond which a use may begin or confirm a jump */
    float jump_evidence;      /* gain in log likelihood that makes it one */
    float probation;          /* weight of a surprising use that did not */
    float apart_squared;      /* squared distance of two contexts that have nothing in common */
    float affected_squared;   /* samples this close to a change share its fate */
    float crowded_squared;    /* samples this close to a new one can stand in for each other */
} mt_bayes_settings;

/// What is kept ///

enum {
    MT_BAYES_RUN = 4,    /* uses looked at for a jump */
    MT_BAYES_JUDGED = 16 /* newest samples that noise is estimated from and the layer judged by */
};

/* fixed-width fields, no pointers, the same bytes on every target */
typedef struct mt_bayes_state {
    uint16_t count;                 /* samples in the buffer, oldest first */
    uint16_t run;                   /* uses since the last jump, at most MT_BAYES_RUN, and count */
    uint16_t bump;                  /* the next place for a bump */
    uint16_t standing;              /* 1: the personal layer is in use; 0: the base predicts better */
    uint32_t jumps;                 /* changes found */
    float noise;                    /* variance of the person's settings */
    float stranger;                 /* probability that somebody else uses the device now: above 0 after disuse */
    float base_loss;                /* mean squared error of the base on the judged samples */
    float surprises[MT_BAYES_RUN];  /* z of the last uses, newest last */
    float evidence[MT_BAYES_RUN];   /* log predictive density of the last uses */
} mt_bayes_state;

MT_REQUIRE(sizeof(mt_bayes_state) == 56, bayes_state_has_no_padding);

/* floats of phi; of one sample (inputs, target, age, change weight, robust weight, time stamp as the bits of an
 * integer); of the arrays below: what is computed at once, then the fit under way */
#define MT_BAYES_FEATURES(hidden, inputs, bumps) ((hidden) + (inputs) + (bumps) + 2)
#define MT_BAYES_STRIDE(inputs) ((inputs) + 5)
#define MT_BAYES_TRIANGLE(features) ((features) * ((features) + 1) / 2)
#define MT_BAYES_WORKSPACE(features) \
    ((MT_BAYES_RUN + 2) * (features) + MT_BAYES_TRIANGLE(features) + 2 * MT_BAYES_JUDGED)

/* how far a refit has come; all zero: not begun */
typedef struct mt_bayes_cursor {
    uint16_t stage;                    /* 0 sums over samples, 1 elimination, 2 judgement */
    uint16_t next;                     /* the sample or pivot to go on with */
    uint16_t estimates;                /* of the noise, so far */
    uint16_t reserved;
    float personal, base;              /* losses so far, */
    float spread, total;               /* squares of their differences, and weights */
} mt_bayes_cursor;

MT_REQUIRE(sizeof(mt_bayes_cursor) == 24, bayes_cursor_has_no_padding);

/* where everything is: filled by generated code at each call */
typedef struct mt_bayes {
    const mt_bayes_settings *settings;
    /* input (inputs) -> last hidden layer (hidden) and the base model's output (1) */
    void (*features)(const void *model, const float *input, float *hidden, float *base_output, float *arena);
    const void *model;      /* handed to features, as is the arena */
    float *arena;
    /* saved: the state, then these */
    mt_bayes_state *state;
    float *samples;         /* (buffer, MT_BAYES_STRIDE) */
    float *centres;         /* (bumps, inputs) */
    float *precision;       /* (features): prior precisions of d */
    float *mean;            /* (features): d */
    float *covariance;      /* (MT_BAYES_TRIANGLE): of d, the lower triangle by rows */
    float *former;          /* (features): d before the last jump */
    /* scratch, not saved */
    float *workspace;       /* (MT_BAYES_WORKSPACE) */
    uint16_t *active;       /* (features): which features are not zero */
    mt_bayes_cursor *cursor;/* of a refit in slices, for whoever does one; not looked at here */
} mt_bayes;

/* leave-one-out losses on the newest samples: weighted mean of squared errors, each bounded alike */
typedef struct mt_bayes_judgement {
    float personal;
    float base;
    uint32_t samples;
} mt_bayes_judgement;

/// Calls ///

/* A person nobody knows yet: an empty buffer, d = 0. */
void mt_bayes_init(const mt_bayes *bayes);

/* input (inputs) -> output (1) and its predictive variance, noise included */
void mt_bayes_predict(const mt_bayes *bayes, const float *input, float *output, float *variance);

/* One use: what the person set for this input. Tests for jumps and keeps the sample; d stays until the refit. Returns
 * for how many of the newest uses habits have been new, when it is found at this one; else 0.
 * time: seconds of any clock, 0 without one. evidence: factor on jump_evidence, 1 as a rule; below 1 where a change is
 * likelier than usual, after a long absence or in learning mode. */
uint32_t mt_bayes_observe(const mt_bayes *bayes, const float *input, float target, uint32_t time, float evidence);

/* Fit d to the buffer, estimate the noise, and judge: the personal layer stands unless the base is better on
 * samples left out, by more than the standard error of the difference; it is then off until the base is not. */
void mt_bayes_refit(const mt_bayes *bayes, mt_bayes_judgement *judgement);

/* One bounded piece of the same; returns 1 when it was the last. Until then nothing but the workspace has changed, and
 * predictions are those of before. Bits are those of the whole refit. What keeps or drops a sample in between ends it:
 * begin again with a cursor of zeros. */
int mt_bayes_refit_slice(const mt_bayes *bayes, mt_bayes_cursor *cursor, mt_bayes_judgement *judgement);

/* Drop the newest `count` samples; more than there are: all. Refit afterwards. */
void mt_bayes_drop_newest(const mt_bayes *bayes, uint32_t count);

/* How many of the newest samples are stamped `time` or later, by a clock that says `now`. Counting goes back from now
 * and ends before the first one stamped earlier than `time`, or later than what comes after it: there the clock jumped
 * back. */
uint32_t mt_bayes_since(const mt_bayes *bayes, uint32_t time, uint32_t now);

/* After long disuse: with the probability `share` (0 to 1) it is somebody else who comes. Predictions go so far of the
 * way back to the base, and are as unsure as that makes them. Nothing is forgotten: each use tells which of the two it
 * is, so the same person is back after one, and somebody else stays a stranger until the change is found. A probability
 * below 0.01 counts as none. */
void mt_bayes_fade(const mt_bayes *bayes, float share);

#ifdef __cplusplus
}
#endif

#endif
