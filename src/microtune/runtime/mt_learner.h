/*
 * mt_learner.h: sense, predict, compare, update.
 *
 * The learner knows no network: generated code gives it a constant mt_model (what can be computed), a
 * constant mt_settings (how to learn) and an mt_learner, which points into the one struct that holds all
 * RAM of a device. Nothing here keeps a pointer between calls.
 */
#ifndef MT_LEARNER_H
#define MT_LEARNER_H

#include "mt_change_state.h"
#include "mt_log.h"
#include "mt_platform.h"
#include "mt_port.h"
#include "mt_samples.h"
#include "mt_status.h"
#include "mt_store.h"

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
typedef struct mt_learner mt_learner;

typedef struct mt_model {
    const mt_rule *rule;
    uint32_t identity;   /* of this build; a saved state of another build is not read as it is */
    uint32_t structure;  /* of what learns: builds in which it is equal can take over each other's parameters */
    mt_task task;
    uint32_t inputs;     /* floats of one input; 0: the input is of another type, and any bits are valid */
    uint32_t cut;        /* 4-byte words kept of an input: the activations where training starts */
    uint16_t outputs;    /* floats of one output */
    uint16_t targets;    /* floats of one target: `outputs`, or 1 (a class index) for MT_MULTICLASS */
    uint32_t parameters; /* 4-byte words that learn */
    uint32_t floats;     /* so many of them, the first, are floats; behind them are integers */
    uint32_t optimizer;  /* 4-byte words of optimiser state */
    uint16_t profiles;   /* people, at least 1 */
    uint16_t contexts;   /* parts of a day, say, in which what is learnt is kept apart; at least 1, and times profiles
                          * at most 256 */
    /* bytes of the saved state: where the first person is, the size of one, where in one the parameters are */
    uint32_t people_at, person_bytes, parameters_at;
    const void *base;    /* the factory's parameters */
#if MT_NUMBER_KIND == 0
    const mt_number *pulls; /* (floats): after each step, p += pull (base - p): elastic weights; NULL: none */
#else
    void (*pull)(void *parameters, mt_number *optimizer); /* integers, after each step towards the base; NULL: not */
#endif
    const mt_number *low, *high; /* allowed range of each input, or NULL */
    const mt_number *target_low, *target_high; /* regression: allowed range of each target, or NULL */
    /* the frozen part, once a prediction: input -> cut */
    void (*backbone)(const void *input, mt_number *cut, mt_number *arena);
    /* the rest of the network: cut -> outputs (values or logits); with `base` as parameters, the base model */
    void (*head)(const mt_number *cut, const void *parameters, mt_number *output, mt_number *arena);
    /* logits (size) -> probabilities, in place too; NULL for values */
    void (*activate)(const mt_number *logits, mt_number *probabilities, uint32_t size);
    /* loss of one output against its target */
    mt_number (*loss)(const mt_number *output, const mt_number *target);
    /* one optimiser step on one sample, in place; returns the loss before the step. NULL when the rule needs none */
    mt_number (*step)(const mt_number *cut, const mt_number *target, void *parameters, mt_number *optimizer,
                      mt_number *arena);
    /* optimiser state before the first step; NULL when it is all zero */
    void (*begin)(mt_number *optimizer);
    /* points the learner to the parts of one person in one context, numbered profile * contexts + context */
    void (*person)(mt_learner *learner, uint32_t set);
    /* NULL in a build that does without: */
    /* the context that an input belongs to, below `contexts` */
    uint32_t (*context)(const void *input);
    /* whose input is this? Returns the profile; `chosen` is the one somebody chose, or MT_RECOGNISE */
    uint32_t (*recognise)(const mt_learner *learner, const void *input, uint32_t chosen);
    /* flags of mt_sensors.h: what is wrong with the sensors; with NULL as input: the number of inputs flagged */
    uint32_t (*suspect)(const mt_learner *learner, const void *input);
    /* sensors and recognised contexts as they left the factory */
    void (*begin_shared)(const mt_learner *learner);
    /* looks for a change of habits: mt_gradient_change of mt_gradient.h */
    uint32_t (*change)(const mt_learner *learner);
    /* keeps Fisher information of what was learnt: mt_gradient_remember */
    void (*remember)(const mt_learner *learner);
    /* appends to the metrics log if it is due; detail as with mt_log_kind */
    void (*log)(const mt_learner *learner, mt_log_kind kind, uint32_t detail);
    /* makes this build's state, begun from the base, out of one of another build */
    mt_migrate migrate;
} mt_model;

typedef struct mt_settings {
    uint16_t every;    /* new samples that cause an update */
    uint16_t epochs;   /* passes over the samples in an update */
    uint16_t folds;    /* judgement: cross-validation folds over the samples (one per sample while there are fewer
                        * than two samples per fold); 0 takes every update unjudged */
    uint16_t slice;    /* slices of work done in one call of idle; 0: until the update is finished */
    uint8_t restart;   /* 1: every update starts from the base; 0: from the present parameters */
    uint8_t sequential;/* 1: each new sample is learnt once, in order (closed-form heads); `folds` above 0
                        * then means: judged on samples predicted before they are learnt. 2: likewise, and what is
                        * learnt lies in the optimiser's state, from which the parameters are computed */
    mt_number caution; /* an update must beat the base by so many standard deviations of the base's faults, besides */
    mt_number pull;    /* after each step, p += pull (base - p): L2-SP, decoupled; 0 to 1 */
    mt_number rate;    /* learning rate of the first step; 0: the rule has none */
    mt_number memory;  /* strength of the elastic weights learnt on the device, times the rate; 0: none */
    mt_number recency; /* half-life of a sample's share in training, in samples; 0: all count alike */
    mt_seconds disuse; /* half-life of what was learnt while nobody uses the device, in seconds; 0: it stays */
    mt_number tolerance; /* regression: an absolute error up to this counts as right */
    mt_number threshold; /* confidence below which the safe default is given and the person is asked */
    const mt_number *fallback; /* the safe default (outputs: values or probabilities), or NULL: the base model's
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
    uint32_t suspect;         /* observations not learnt, as a sensor was not believed, or as they were said to be
                               * well and look like a known fault (mt_guarded.h) */
    uint32_t changes;         /* changes of habits found */
    mt_number mean_error;     /* of the model's own answers to all observations: absolute error (mean over the
                               * outputs), or share of wrong answers */
} mt_metrics;

/// The state that survives power loss: fixed-width fields, no pointers, the same bytes on every target ///

enum {
    MT_STATE_VERSION = 1,
    MT_RECOGNISE = 0xFFFF  /* as a profile: the one whose contexts these are */
};

/* The device; what its people have in common. The fields up to `structure` describe the state to whoever reads it
 * without its build (microtune inspect, mt_migration.h); they are the same in all states of a build. */
typedef struct mt_state {
    uint16_t version;         /* MT_STATE_VERSION */
    uint16_t profiles, contexts;
    uint16_t numbers;         /* MT_NUMBER_KIND of mt_number.h */
    uint32_t people_at, person_bytes, parameters_at, parameters, structure;
    uint16_t profile;         /* the one chosen, or MT_RECOGNISE */
    uint16_t last;            /* profile * contexts + context of the last prediction; a profile chosen since counts */
    uint32_t teaching;        /* observations left of the learning mode */
    mt_metrics metrics;
} mt_state;

/* One person in one context. */
typedef struct mt_person {
    uint32_t random;          /* generator of sample orders */
    mt_samples_state samples;
    uint16_t fresh;           /* samples since the last update */
    uint16_t undo;            /* samples that `forget` would drop: those the last accepted update was the first
                               * to learn from, and those since */
    uint16_t since;           /* of these, samples since the last accepted update */
    uint16_t eager;           /* 1: learn from the next sample on, whatever `every` says */
    uint32_t uses;            /* observations since the factory or the last reset */
    uint32_t hits;            /* the model's own right answers to the last 32 observations, newest in bit 0 */
    uint32_t recent;          /* how many of those bits are in use, 0 to 32 */
    uint32_t seen;            /* the port's clock at the last prediction; 0: never */
    uint16_t returned;        /* observations left of the first ones after a long absence */
    uint16_t reserved;
    mt_number confidence;     /* running mean of the last predictions' confidence */
    mt_number error;          /* regression: running mean square error of predictions made before learning; it
                               * starts at tolerance^2, and no error counts as more than 10 tolerances */
} mt_person;

/// An update under way: lost with the power, done again from the saved state ///

/* sums over samples that were not trained on */
typedef struct mt_score {
    mt_number faults; /* each sample counts between 0, right, and 1 */
    mt_number loss;
} mt_score;

typedef struct mt_work {
    uint8_t begun;            /* 0: there is none */
    uint8_t phase;            /* the rule's own, and so on with what follows */
    uint16_t set;             /* whose */
    uint32_t random;          /* the generator; the person's advances only when the update is finished */
    uint32_t fold, epoch, position, measured, steps;
    uint32_t mask, half, add, factor; /* the order of the epoch */
    mt_score candidate, base; /* over all samples measured */
    mt_score newest, present; /* candidate and parameters in use, over those samples that neither learnt */
} mt_work;

/// Where a device's RAM is: filled by generated code at each call ///

struct mt_learner {
    const mt_model *model;
    const mt_settings *settings;
    const mt_port *port;      /* NULL: no storage, no clock */
    void *device;             /* the generated struct */
    /* saved: `saved_bytes` bytes from `state` on hold all of these */
    mt_state *state;
    uint32_t saved_bytes;
    /* of one person in one context, filled by model->person */
    mt_person *person;
    void *parameters;         /* (parameters) in use */
    void *previous;           /* (parameters) before the last accepted update; NULL: learnt in place */
    mt_number *optimizer;     /* (optimizer) */
    mt_number *importance;    /* (floats) Fisher information of what was learnt here; NULL without */
    mt_samples samples;       /* `words` NULL: the rule keeps its own */
    mt_change change;         /* `state` NULL: changes of habits are not looked for, or the rule does it */
    uint16_t set;
    void *own;                /* what the rule needs besides, or NULL; what it saves lies within saved_bytes */
    /* scratch, not saved */
    uint32_t *sequence;       /* number of the newest saved state */
    uint8_t *pending;         /* (4): [0] 1: a prediction waits for its observation; [1] its set; [2] flags of its
                               * sensors; [3] 1: pending_output is not what the model itself answers by now */
    mt_number *pending_cut;   /* (cut) */
    mt_number *pending_output;/* (outputs): what was suggested, values or probabilities */
    mt_work *work;
    void *candidate;          /* (parameters) the update under way; learnt in place: `parameters` */
    mt_number *candidate_optimizer; /* (optimizer); learnt in place: `optimizer` */
    mt_number *output;        /* (outputs) */
    mt_number *arena;
    mt_log_head *records;     /* where the metrics log ends; NULL without one */
};

typedef struct mt_prediction {
    mt_number confidence;  /* 0 to 1: how likely the value is right (regression: within the tolerance) */
    uint8_t fallback;  /* 1: the safe default is given; ask the person */
    uint8_t suspect;   /* flags of mt_sensors.h: a sensor is not believed, and what is observed is not learnt */
    uint16_t best;     /* multiclass: the most probable class */
    uint16_t profile;  /* whose prediction it is */
} mt_prediction;

typedef struct mt_update {
    uint8_t ran;       /* 1: an update was finished; 0: the rest but `more` is zero */
    uint8_t accepted;  /* 0: judged worse than the base, or than what is in use, and rolled back */
    uint8_t more;      /* 1: there is more to learn: call again when there is time and power */
    uint8_t refused;   /* 1: not even tried: too much of it looks like a known fault (mt_guarded.h) */
    mt_number loss_before; /* mean held-out loss of the base model; 0 when unjudged */
    mt_number loss_after;  /* mean held-out loss of the candidate; 0 when unjudged */
    uint32_t steps;    /* optimiser steps taken */
} mt_update;

typedef enum mt_stage {
    MT_STRANGER = 0,   /* nothing observed yet: the base predicts */
    MT_GETTING_TO_KNOW = 1,
    MT_ACQUAINTED = 2  /* at least 8 of 10 of the last 32 uses were answered right, or of as many as there were,
                        * 10 at least */
} mt_stage;

/* getting to know you: of the person and context of the last prediction */
typedef struct mt_report {
    mt_number learnt;  /* 0 to 1: share of the last 32 uses answered right, uses not yet made count as wrong */
    mt_number sure;    /* 0 to 1: running mean confidence */
    uint32_t uses;     /* observations since the factory or the last reset */
    uint16_t samples;  /* kept */
    uint16_t waiting;  /* new samples not yet learnt */
    uint16_t profile;
    uint16_t stage;    /* mt_stage */
    uint32_t teaching; /* observations left of the learning mode */
    uint32_t suspect;  /* inputs that are not believed */
} mt_report;

MT_REQUIRE(sizeof(mt_metrics) == 56, metrics_have_no_padding);
MT_REQUIRE(sizeof(mt_state) == 92, state_has_no_padding);
MT_REQUIRE(sizeof(mt_person) == 52, person_has_no_padding);
MT_REQUIRE(sizeof(mt_work) == 76, work_has_no_padding);

/// How observations become parameters ///

struct mt_rule {
    /* Parameters, samples and all else of its own as they left the factory. */
    void (*begin)(const mt_learner *learner);
    /* cut -> output (outputs): values or logits. Returns the variance of the error to expect (regression). */
    mt_number (*predict)(const mt_learner *learner, const mt_number *cut, mt_number *output);
    /* Keep a sample. Returns for how many of the newest samples, this one included, habits have been new, when it is
     * known now; else 0. */
    uint32_t (*observe)(const mt_learner *learner, const mt_number *cut, const mt_number *target);
    /* The next slice of the update that learner->work tells of. Returns 1 with the last one, which takes or drops
     * what was learnt as a whole; `update`, but for `ran` and `more`, is filled in then. */
    int (*slice)(const mt_learner *learner, mt_update *update);
    /* Drop the newest `samples` samples, and older ones stamped `*time` or later (NULL: none); `undo`: and go back to
     * `previous`, before the last accepted update, else to the base. */
    void (*forget)(const mt_learner *learner, uint32_t samples, int undo, const uint32_t *time);
    /* Samples stamped `time` or later: how many of the newest, without dropping them. */
    uint32_t (*since)(const mt_learner *learner, uint32_t time);
    /* After long disuse: go this share, 0 to 1, of the way back to the base. The caller ends an update under way. */
    void (*fade)(const mt_learner *learner, mt_number share);
};

/// For rules ///

/* the port's clock, 0 without one */
uint32_t mt_learner_now(const mt_learner *learner);

/* Factor on the evidence that a change of habits takes: a half in learning mode and just after a long absence,
 * when one is likelier; else 1. */
mt_number mt_learner_evidence(const mt_learner *learner);

/// Calls ///

/* Load the saved state, or start from the base. MT_OK, MT_STATE_CORRUPT, MT_STATE_FOREIGN, MT_STATE_MIGRATED,
 * MT_STORAGE_FAILED, MT_INVALID_ARGUMENT (the storage is too small): in each case the device is ready to use. */
mt_status mt_learner_init(mt_learner *learner);

/* input (inputs) -> output (outputs): values, or probabilities. A new prediction replaces one not yet observed;
 * a refused one leaves it, but for an input so large that arithmetic overflows, which takes its place. */
mt_status mt_learner_predict(mt_learner *learner, const void *input, mt_number *output, mt_prediction *prediction);

/* What the person really did: target (targets). Pairs with the last prediction, once. */
mt_status mt_learner_observe(mt_learner *learner, const mt_number *target);

/* Learn if there is cause, while the port allows it, then save. `update` tells what happened. */
mt_status mt_learner_idle(mt_learner *learner, mt_update *update);

/* Whether a step takes this sample; counts it when not. Generated code checks this and runs its step at once. */
mt_status mt_learner_check(const mt_model *model, mt_state *state, const void *input, const mt_number *target);

/* One plain optimiser step on the parameters in use, no policy. *loss is the loss before the step.
 * MT_INVALID_ARGUMENT: the model has no optimiser. */
mt_status mt_learner_step(mt_learner *learner, const void *input, const mt_number *target, mt_number *loss);

/* Who uses the device from now on: a profile, or MT_RECOGNISE if the build can. Not saved by itself.
 * MT_INVALID_ARGUMENT: there is no such profile. */
mt_status mt_learner_select_profile(mt_learner *learner, uint32_t profile);

/* For the next `uses` observations learn after each one, and take a change of habits as meant; 0 ends it. */
mt_status mt_learner_learning_mode(mt_learner *learner, uint32_t uses);

/* Of the person and context of the last prediction, or of the profile chosen since; each then saves. Undo the last
 * accepted update and drop the samples since the one before it: */
mt_status mt_learner_forget(mt_learner *learner);
/* forget the last `uses` observations that are still kept, and learn anew from the others: */
mt_status mt_learner_forget_last(mt_learner *learner, uint32_t uses);
/* likewise all of the last `seconds`. MT_INVALID_ARGUMENT: the port has no clock. */
mt_status mt_learner_forget_since(mt_learner *learner, uint32_t seconds);

/* All people back to the factory's parameters and no samples, then save; the metrics stay and count it. */
mt_status mt_learner_reset(mt_learner *learner);

/* MT_OK without storage. MT_STORAGE_FAILED: what is in RAM stays valid; so with every call that saves. */
mt_status mt_learner_save(mt_learner *learner);

/* The same into every slot of the storage: what was forgotten must not wait in an older state. */
mt_status mt_learner_save_everywhere(mt_learner *learner);
void mt_learner_report(mt_learner *learner, mt_report *report);

#ifdef __cplusplus
}
#endif

#endif
