/* little_device.c: y = W x + b with momentum, for each task; what the compiler would generate, by hand. */
#include "little_device.h"

#include "memory_port.h"
#include "mt_kernels_dense.h"
#include "mt_kernels_loss.h"
#include "mt_kernels_update.h"

static const float BASE[MOST_PARAMETERS] = {0.5f, -0.25f, 0.125f, 0.25f, 0.5f, -0.5f, -0.5f, 0.25f, 0.5f};
static const float LOW[INPUTS] = {-2.0f, -2.0f, -2.0f}, HIGH[INPUTS] = {2.0f, 2.0f, 2.0f};

static void backbone(const void *input, float *cut, float *arena)
{
    (void)arena;
    MT_COPY(cut, input, INPUTS * sizeof *cut);
}

static void layer(const float *cut, const float *p, float *output, uint32_t outputs)
{
    for (uint32_t o = 0; o < outputs; ++o) {
        output[o] = mt_dot(p + o * INPUTS, cut, INPUTS) + p[outputs * INPUTS + o];
    }
}

static void learn(const float *cut, const float *dy, float *p, float *v, uint32_t outputs)
{
    mt_momentum_dense(p, v, dy, cut, 0.05f, 0.5f, 0.0f, INPUTS, outputs);
    mt_momentum(p + outputs * INPUTS, v + outputs * INPUTS, dy, 0.05f, 0.5f, 0.0f, outputs);
}

#define TASK(name, outputs, lossname) \
    static void head_##name(const float *cut, const void *p, float *output, float *arena) \
    { \
        (void)arena; \
        layer(cut, (const float *)p, output, outputs); \
    } \
    static float loss_##name(const float *output, const float *target) \
    { \
        return lossname(output, target, NULL, outputs); \
    } \
    static float step_##name(const float *cut, const float *target, void *parameters, float *v, float *arena) \
    { \
        float *p = (float *)parameters; \
        float y[outputs], dy[outputs]; \
        (void)arena; \
        layer(cut, p, y, outputs); \
        const float loss = lossname(y, target, dy, outputs); \
        learn(cut, dy, p, v, outputs); \
        return loss; \
    }

TASK(regression, 1, mt_mse)
TASK(binary, 2, mt_binary_cross_entropy)
TASK(multiclass, 3, mt_cross_entropy)

uint32_t little_size(void)
{
    return (uint32_t)sizeof(little);
}

static int fail(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    (void)context, (void)address, (void)data, (void)bytes;
    return 1;
}

void little_create(little *l, int task, int has_port)
{
    MT_ZERO(l, sizeof *l);
    mt_memory_port_create(&l->port, l->storage, STORAGE, 256);
    l->port.erase(l->storage, 0, STORAGE);
    mt_model *m = &l->model;
    m->rule = &mt_gradient_rule;
    m->identity = 77u + (uint32_t)task;
    m->task = (mt_task)task;
    m->inputs = m->cut = INPUTS;
    m->outputs = (uint16_t)(task + 1);
    m->targets = task == MT_MULTICLASS ? 1u : m->outputs;
    m->parameters = m->floats = m->optimizer = (uint32_t)((INPUTS + 1) * (task + 1));
    m->base = BASE;
    m->low = LOW;
    m->high = HIGH;
    m->backbone = backbone;
    m->head = task == MT_REGRESSION ? head_regression : task == MT_BINARY ? head_binary : head_multiclass;
    m->loss = task == MT_REGRESSION ? loss_regression : task == MT_BINARY ? loss_binary : loss_multiclass;
    m->step = task == MT_REGRESSION ? step_regression : task == MT_BINARY ? step_binary : step_multiclass;
    l->settings.buffer = BUFFER;
    l->settings.every = 5;
    l->settings.epochs = 5;
    l->settings.folds = 4;
    l->settings.restart = 1;
    l->settings.tolerance = 0.25f;
    l->has_port = (uint32_t)has_port;
}

static mt_learner learner_of(little *l)
{
    device *d = &l->ram;
    mt_memory_port_create(&l->port, l->storage, STORAGE, 256);
    l->port.write = l->broken ? fail : l->port.write;
    mt_learner learner;
    learner.model = &l->model;
    learner.settings = &l->settings;
    learner.port = l->has_port ? &l->port : NULL;
    learner.state = &d->saved.state;
    learner.parameters = d->saved.parameters;
    learner.previous = d->saved.previous;
    learner.optimizer = d->saved.optimizer;
    learner.samples = d->saved.samples;
    learner.saved_bytes = sizeof d->saved;
    learner.own = NULL;
    learner.sequence = &d->sequence;
    learner.pending = &d->pending;
    learner.pending_cut = d->pending_cut;
    learner.pending_output = d->pending_output;
    learner.candidate = d->candidate;
    learner.candidate_optimizer = d->candidate_optimizer;
    learner.output = d->output;
    learner.arena = NULL;
    return learner;
}

int little_init(little *l)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_init(&learner);
}

int little_predict(little *l, const float *input, float *output, mt_prediction *prediction)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_predict(&learner, input, output, prediction);
}

int little_observe(little *l, const float *target)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_observe(&learner, target);
}

int little_idle(little *l, mt_update *update)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_idle(&learner, update);
}

int little_step(little *l, const float *input, const float *target, float *loss)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_step(&learner, input, target, loss);
}

int little_forget(little *l)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_forget(&learner);
}

int little_reset(little *l)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_reset(&learner);
}

int little_save(little *l)
{
    mt_learner learner = learner_of(l);
    return (int)mt_learner_save(&learner);
}

void little_report(little *l, mt_report *report)
{
    mt_learner learner = learner_of(l);
    mt_learner_report(&learner, report);
}
