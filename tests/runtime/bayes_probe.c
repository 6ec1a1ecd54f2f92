/* A device with a Bayesian head, all of it in one struct without pointers, so that every machine lays it out
 * alike (tests/runtime/bayes_probe.py mirrors it). The base is a network inputs-hidden-1 with ReLU. */
#include "mt_bayes.h"
#include "mt_kernels_dense.h"

enum { HIDDEN = 16, INPUTS = 5, BUFFER = 64, BUMPS = 2, FEATURES = MT_BAYES_FEATURES(HIDDEN, INPUTS, BUMPS) };

typedef struct network {
    uint32_t inputs, hidden;
    float weight[HIDDEN * INPUTS], bias[HIDDEN], output_weight[HIDDEN], output_bias;
} network;

typedef struct probe {
    mt_bayes_settings settings;
    network base;
    mt_bayes_state state;
    float samples[BUFFER * MT_BAYES_STRIDE(INPUTS)];
    float centres[BUMPS * INPUTS];
    float precision[FEATURES], mean[FEATURES], covariance[MT_BAYES_TRIANGLE(FEATURES)], former[FEATURES];
    float workspace[MT_BAYES_WORKSPACE(FEATURES)];
    uint16_t active[FEATURES + 1];
    mt_bayes_cursor cursor;
    uint32_t time; /* of the next observations, */
    float evidence; /* and what they need of evidence */
} probe;

static void features(const void *model, const float *input, float *hidden, float *base_output, float *arena)
{
    const network *base = (const network *)model;
    (void)arena;
    if (base->inputs == INPUTS && base->hidden == HIDDEN) { /* constants, as in a generated device */
        mt_dense(input, base->weight, base->bias, hidden, INPUTS, HIDDEN);
    } else {
        mt_dense(input, base->weight, base->bias, hidden, base->inputs, base->hidden);
    }
    for (uint32_t i = 0; i < base->hidden; ++i) {
        hidden[i] = hidden[i] > 0.0f ? hidden[i] : 0.0f;
    }
    *base_output = base->output_bias + mt_dot(base->output_weight, hidden, base->hidden);
}

static mt_bayes head_of(probe *p)
{
    mt_bayes head = {&p->settings, features, &p->base, 0, &p->state, p->samples, p->centres,
                     p->precision, p->mean, p->covariance, p->former, p->workspace, p->active, &p->cursor};
    return head;
}

uint32_t probe_size(void);
void probe_init(probe *p);
void probe_features(probe *p, const float *input, float *hidden, float *base_output);
void probe_predict(probe *p, const float *input, float *output_and_variance);
void probe_observe(probe *p, const float *input, const float *target);
void probe_refit(probe *p, mt_bayes_judgement *judgement);
uint32_t probe_slice(probe *p, mt_bayes_judgement *judgement);
uint32_t probe_since(probe *p, uint32_t time, uint32_t now);
void probe_drop_newest(probe *p, uint32_t count);
void probe_fade(probe *p, const float *share);
void probe_live(probe *p, const float *inputs, const float *targets, uint32_t uses);

uint32_t probe_size(void)
{
    return sizeof(probe);
}

void probe_init(probe *p)
{
    const mt_bayes head = head_of(p);
    mt_bayes_init(&head);
    p->evidence = 1.0f;
}

void probe_features(probe *p, const float *input, float *hidden, float *base_output)
{
    features(&p->base, input, hidden, base_output, 0);
}

void probe_predict(probe *p, const float *input, float *output_and_variance)
{
    const mt_bayes head = head_of(p);
    mt_bayes_predict(&head, input, output_and_variance, output_and_variance + 1);
}

void probe_observe(probe *p, const float *input, const float *target)
{
    const mt_bayes head = head_of(p);
    mt_bayes_observe(&head, input, *target, p->time, p->evidence);
}

void probe_refit(probe *p, mt_bayes_judgement *judgement)
{
    const mt_bayes head = head_of(p);
    mt_bayes_refit(&head, judgement);
}

uint32_t probe_slice(probe *p, mt_bayes_judgement *judgement)
{
    const mt_bayes head = head_of(p);
    return (uint32_t)mt_bayes_refit_slice(&head, &p->cursor, judgement);
}

uint32_t probe_since(probe *p, uint32_t time, uint32_t now)
{
    const mt_bayes head = head_of(p);
    return mt_bayes_since(&head, time, now);
}

void probe_drop_newest(probe *p, uint32_t count)
{
    const mt_bayes head = head_of(p);
    mt_bayes_drop_newest(&head, count);
}

void probe_fade(probe *p, const float *share)
{
    const mt_bayes head = head_of(p);
    mt_bayes_fade(&head, *share);
}

/* `uses` times observe and refit */
void probe_live(probe *p, const float *inputs, const float *targets, uint32_t uses)
{
    const mt_bayes head = head_of(p);
    mt_bayes_judgement judgement;
    for (uint32_t i = 0; i < uses; ++i) {
        mt_bayes_observe(&head, inputs + i * p->settings.inputs, targets[i], 0, 1.0f);
        mt_bayes_refit(&head, &judgement);
    }
}
