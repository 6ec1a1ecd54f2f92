/*
 * mt_learner.h: sense, predict, compare, update.
 *
 * The learner knows no network: generated code gives it a constant mt_model (what can be computed), a
 * constant mt_settings (how to learn) and an mt_learner, which points into the one struct that holds all
 * RAM of a device. Nothing here keeps a pointer between calls.
 */
#ifndef MT_LEARNER_H
#define MT_LEARNER_H

#include "mt_platform.h"
#include "mt_port.h"
#include "mt_status.h"

#ifdef __cplusplus
extern "C" {
#endif

/// What the generated code provides ///

typedef enum mt_task {
    MT_REGRESSION = 0, /* outputs are values */
    MT_BINARY = 1,     /* outputs are logits, each of its own yes/no question */
    MT_MULTICLASS = 2  /* outputs are logits of one choice */
} mt_task;

/* How observations become parameters, defined below: mt_gradient_rule of mt_gradient.h, or another one. */
typedef struct mt_rule mt_rule;

typedef struct mt_model {
    const mt_rule *rule;
    uint32_t identity;   /* of this build; a saved state of another build is refused */
    mt_task task;
    uint32_t inputs;     /* floats of one input; 0: the input is of another type, and any bits are valid */
    uint32_t cut;        /* 4-byte words kept of an input: the activations where training starts */
    uint16_t outputs;    /* floats of one output */
    uint16_t targets;    /* floats of one target: `outputs`, or 1 (a class index) for MT_MULTICLASS */
    uint32_t parameters; /* 4-byte words that learn */
    uint32_t floats;     /* so many of them, the first, are floats; behind them are integers */
    uint32_t optimizer;  /* 4-byte words of optimiser state */
    const void *base;    /* the factory's parameters */
    const float *low, *high; /* allowed range of each input, or NULL */
    const float *target_low, *target_high; /* regression: allowed range of each target, or NULL */
    /* the frozen part, once a prediction: input -> cut */
    void (*backbone)(const void *input, float *cut, float *arena);
    /* the rest of the network: cut -> outputs (values or logits); with `base` as parameters, the base model */
    void (*head)(const float *cut, const void *parameters, float *output, float *arena);
    /* loss of one output against its target */
    float (*loss)(const float *output, const float *target);
    /* one optimiser step on one sample, in place; returns the loss before the step. NULL when the rule needs none */
    float (*step)(const float *cut, const float *target, void *parameters, float *optimizer, float *arena);
    /* optimiser state before the first step; NULL when it is all zero */
    void (*begin)(float *optimizer);
} mt_model;

typedef struct mt_settings {
    uint16_t buffer;   /* samples kept; the oldest makes room */
    uint16_t every;    /* new samples that cause an update */
    uint16_t epochs;   /* passes over the buffer in an update */
    uint16_t folds;    /* judgement: cross-validation folds over the buffer (one per sample while it holds fewer
                        * than two samples per fold); 0 takes every update unjudged */
    uint8_t restart;   /* 1: every update starts from the base; 0: from the present parameters */
    uint8_t sequential;/* 1: each new sample is learnt once, in order (recursive least squares); `folds` above 0
                        * then means: judged on samples predicted before they are learnt */
    float pull;        /* after each step, p += pull (base - p): L2-SP, decoupled; 0 to 1 */
    float tolerance;   /* regression: an absolute error up to this counts as right */
    float threshold;   /* confidence below which the safe default is given and the person is asked */
    const float *fallback; /* the safe default (outputs: values or probabilities), or NULL: the base model's
                            * prediction */
} mt_settings;

/// What is counted (holds no raw data) ///

typedef struct mt_metrics {
    uint32_t predictions;
    uint32_t fallbacks;       /* predictions below the confidence threshold */
    uint32_t observations;
    uint32_t overrides;       /* observations that differed from what was suggested */
    uint32_t refused;         /* inputs and targets refused: not finite or out of range */
    uint32_t accepted;        /* updates taken */
    uint32_t rolled_back;     /* updates judged worse and dropped */
    uint32_t forgets, resets;
    uint32_t saves;           /* states written to storage */
    uint32_t recoveries;      /* starts that found no whole state */
    float mean_error;         /* of the model's own answers to all observations: absolute error (mean over the
                               * outputs), or share of wrong answers */
} mt_metrics;

/// The state that survives power loss: fixed-width fields, no pointers, the same bytes on every target ///

typedef struct mt_state {
    uint32_t random;          /* generator of sample orders */
    uint16_t count, next;     /* samples in the buffer; where the next one goes */
    uint16_t fresh;           /* samples since the last update */
    uint16_t undo;            /* samples that `forget` would drop: those the last accepted update was the first
                               * to learn from, and those since */
    uint16_t since;           /* of these, samples since the last accepted update */
    uint16_t reserved;
    uint32_t uses;            /* observations since the factory or the last reset */
    uint32_t hits;            /* the model's own right answers to the last 32 observations, newest in bit 0 */
    uint32_t recent;          /* how many of those bits are in use, 0 to 32 */
    float confidence;         /* running mean of the last predictions' confidence */
    float error;              /* regression: running mean square error of predictions made before learning; it
                               * starts at tolerance^2, and no error counts as more than 10 tolerances */
    mt_metrics metrics;
} mt_state;

/// Where a device's RAM is: filled by generated code at each call ///

typedef struct mt_learner {
    const mt_model *model;
    const mt_settings *settings;
    const mt_port *port;      /* NULL: no storage */
    /* saved: `saved_bytes` bytes from `state` on hold all of these, in this order */
    mt_state *state;
    void *parameters;         /* (parameters) in use */
    void *previous;           /* (parameters) before the last accepted update; NULL: learnt in place */
    float *optimizer;         /* (optimizer) */
    float *samples;           /* (buffer, cut + targets) */
    uint32_t saved_bytes;
    const void *own;          /* what the rule needs besides, or NULL; what it saves lies within saved_bytes */
    /* scratch, not saved */
    uint32_t *sequence;       /* number of the newest saved state */
    uint8_t *pending;         /* 1: a prediction waits for its observation */
    float *pending_cut;       /* (cut) */
    float *pending_output;    /* (outputs): what was suggested, values or probabilities */
    void *candidate;          /* (parameters) the update under way; learnt in place: `parameters` */
    float *candidate_optimizer; /* (optimizer); learnt in place: `optimizer` */
    float *output;            /* (outputs) */
    float *arena;
} mt_learner;

typedef struct mt_prediction {
    float confidence;  /* 0 to 1: how likely the value is right (regression: within the tolerance) */
    uint8_t fallback;  /* 1: the safe default is given; ask the person */
    uint16_t best;     /* multiclass: the most probable class */
} mt_prediction;

typedef struct mt_update {
    uint8_t ran;       /* 0: there was no cause to learn; the rest is then zero */
    uint8_t accepted;  /* 0: judged worse than the base and rolled back */
    float loss_before; /* mean held-out loss of the base model; 0 when unjudged */
    float loss_after;  /* mean held-out loss of the candidate; 0 when unjudged */
    uint32_t steps;    /* optimiser steps taken */
} mt_update;

/* getting to know you */
typedef struct mt_report {
    float learnt;      /* 0 to 1: share of the last 32 uses answered right, uses not yet made count as wrong */
    float sure;        /* 0 to 1: running mean confidence */
    uint32_t uses;     /* observations since the factory or the last reset */
    uint16_t samples;  /* in the buffer */
    uint16_t waiting;  /* new samples not yet learnt */
} mt_report;

MT_REQUIRE(sizeof(mt_state) == 84, state_has_no_padding);

/// How observations become parameters ///

struct mt_rule {
    /* Parameters, samples and all else of its own as they left the factory. */
    void (*begin)(const mt_learner *learner);
    /* cut -> output (outputs): values or logits. Returns the variance of the error to expect (regression). */
    float (*predict)(const mt_learner *learner, const float *cut, float *output);
    /* Keep a sample; state->count is how many there are afterwards. */
    void (*observe)(const mt_learner *learner, const float *cut, const float *target);
    /* Learn as a transaction, fill in all of `update` but `ran`. */
    void (*update)(const mt_learner *learner, mt_update *update);
    /* Undo the last accepted update and drop the newest `samples` samples. */
    void (*forget)(const mt_learner *learner, uint32_t samples);
};

/// Calls ///

/* Load the saved state, or start from the base. MT_OK, MT_STATE_CORRUPT, MT_STATE_FOREIGN, MT_STORAGE_FAILED:
 * in each case the device is ready to use. */
mt_status mt_learner_init(mt_learner *learner);

/* input (inputs) -> output (outputs): values, or probabilities. A new prediction replaces one not yet observed;
 * a refused one leaves it. */
mt_status mt_learner_predict(mt_learner *learner, const void *input, float *output, mt_prediction *prediction);

/* What the person really did: target (targets). Pairs with the last prediction, once. */
mt_status mt_learner_observe(mt_learner *learner, const float *target);

/* Learn if there is cause, then save. `update` tells what happened. */
mt_status mt_learner_idle(mt_learner *learner, mt_update *update);

/* Whether a step takes this sample; counts it when not. Generated code checks this and runs its step at once. */
mt_status mt_learner_check(const mt_model *model, mt_state *state, const void *input, const float *target);

/* One plain optimiser step on the parameters in use, no policy. *loss is the loss before the step.
 * MT_INVALID_ARGUMENT: the model has no optimiser. */
mt_status mt_learner_step(mt_learner *learner, const void *input, const float *target, float *loss);

/* Undo the last accepted update and drop the samples since the one before it, then save. */
mt_status mt_learner_forget(mt_learner *learner);

/* Back to the factory's parameters and an empty buffer, then save; the metrics stay and count it. */
mt_status mt_learner_reset(mt_learner *learner);

/* MT_OK without storage. MT_STORAGE_FAILED: what is in RAM stays valid; so with every call that saves. */
mt_status mt_learner_save(mt_learner *learner);
void mt_learner_report(const mt_learner *learner, mt_report *report);

#ifdef __cplusplus
}
#endif

#endif
