/* little_device.h: devices around one dense layer written by hand, for the tests of the learner. */
#ifndef LITTLE_DEVICE_H
#define LITTLE_DEVICE_H

#include "mt_gradient.h"
#include "mt_store.h"

enum { INPUTS = 3, MOST_OUTPUTS = 3, MOST_PARAMETERS = 12, BUFFER = 20, MOST_SAMPLE = INPUTS + 2, STORAGE = 8192 };

typedef struct device {
    struct {
        mt_state state;
        float parameters[MOST_PARAMETERS];
        float previous[MOST_PARAMETERS];
        float optimizer[MOST_PARAMETERS];
        float samples[BUFFER * MOST_SAMPLE];
    } saved;
    uint32_t sequence;
    float pending_cut[INPUTS];
    float pending_output[MOST_OUTPUTS];
    float candidate[MOST_PARAMETERS];
    float candidate_optimizer[MOST_PARAMETERS];
    float output[MOST_OUTPUTS];
    uint8_t pending;
} device;

/* a device of this task without storage, or with a port over `storage` (STORAGE bytes) */
typedef struct little {
    device ram;
    mt_model model;
    mt_settings settings;
    mt_port port;
    uint32_t has_port;
    uint32_t broken; /* 1: every write fails */
    float fallback[MOST_OUTPUTS];
    uint8_t storage[STORAGE];
} little;

uint32_t little_size(void);
void little_create(little *l, int task, int has_port);
int little_init(little *l);
int little_predict(little *l, const float *input, float *output, mt_prediction *prediction);
int little_observe(little *l, const float *target);
int little_idle(little *l, mt_update *update);
int little_step(little *l, const float *input, const float *target, float *loss);
int little_forget(little *l);
int little_reset(little *l);
int little_save(little *l);
void little_report(little *l, mt_report *report);

#endif
