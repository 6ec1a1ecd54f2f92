/* little_device.h: devices around one dense layer written by hand, for the tests of the learner. */
#ifndef LITTLE_DEVICE_H
#define LITTLE_DEVICE_H

#include "mt_gradient.h"
#include "mt_store.h"

enum {
    INPUTS = 3,
    MOST_OUTPUTS = 3,
    MOST_PARAMETERS = 12,
    BUFFER = 20,
    MOST_KEPT = BUFFER + 6, /* with a reservoir */
    MOST_SAMPLE = INPUTS + 3,
    MOST_KINDS = 4,
    SETS = 4, /* 2 profiles in 1 or 2 contexts */
    STORAGE = 16384
};

typedef struct person {
    mt_person person;
    float parameters[MOST_PARAMETERS];
    float previous[MOST_PARAMETERS];
    float optimizer[MOST_PARAMETERS];
    float importance[MOST_PARAMETERS];
    uint32_t seen[MOST_OUTPUTS];
    mt_change_state change;
    mt_change_class changing[MOST_KINDS];
    float samples[MOST_KEPT * MOST_SAMPLE];
} person;

typedef struct device {
    struct {
        mt_state state;
        person people[SETS];
    } saved;
    uint32_t sequence;
    float pending_cut[INPUTS];
    float pending_output[MOST_OUTPUTS];
    mt_work work;
    float candidate[MOST_PARAMETERS];
    float candidate_optimizer[MOST_PARAMETERS];
    float output[MOST_OUTPUTS];
    uint8_t pending[4];
} device;

/* a device of this task without storage, or with a port over `storage` (STORAGE bytes) */
typedef struct little {
    device ram;
    mt_model model;
    mt_settings settings;
    mt_port port;
    uint32_t has_port;
    uint32_t broken;    /* 1: every write fails */
    uint32_t clock;     /* seconds; 0: there is no clock */
    uint32_t mood;      /* 0: learning is always allowed; else a generator that says yes or no */
    uint32_t contexts;  /* 2: what is learnt with a negative first input is kept apart. Set before init, as what follows */
    uint32_t reservoir;
    uint32_t in_place, remembers, changes; /* 1: on */
    float fallback[MOST_OUTPUTS];
    float pulls[MOST_PARAMETERS];
    uint8_t storage[STORAGE];
} little;

uint32_t little_size(void);
void little_create(little *l, int task, int has_port);
int little_init(little *l);
int little_predict(little *l, const float *input, float *output, mt_prediction *prediction);
int little_observe(little *l, const float *target);
int little_idle(little *l, mt_update *update);
int little_step(little *l, const float *input, const float *target, float *loss);
int little_select_profile(little *l, uint32_t profile);
int little_learning_mode(little *l, uint32_t uses);
int little_forget(little *l);
int little_forget_last(little *l, uint32_t uses);
int little_forget_since(little *l, uint32_t seconds);
int little_reset(little *l);
int little_save(little *l);
void little_report(little *l, mt_report *report);

#endif
