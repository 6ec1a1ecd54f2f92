/* little_device.c: y = W x + b with momentum, for each task; what the compiler would generate, by hand. */
#include "little_device.h"

#include "memory_port.h"
#include "mt_kernels_dense.h"
#include "mt_kernels_elementwise.h"
#include "mt_kernels_loss.h"
#include "mt_kernels_update.h"
#include "mt_random.h"

#define RATE 0.05f

static const float BASE[MOST_PARAMETERS] = {0.5f, -0.25f, 0.125f, 0.25f, 0.5f, -0.5f, -0.5f, 0.25f, 0.5f};
static const float LOW[INPUTS] = {-2.0f, -2.0f, -2.0f}, HIGH[INPUTS] = {2.0f, 2.0f, 2.0f};

static uint32_t context(const void *input)
{
    return ((const float *)input)[0] < 0.0f;
}

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
    mt_momentum_dense(p, v, dy, cut, RATE, 0.5f, 0.0f, INPUTS, outputs);
    mt_momentum(p + outputs * INPUTS, v + outputs * INPUTS, dy, RATE, 0.5f, 0.0f, outputs);
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

/// The port: storage, a clock, and somebody who allows learning or does not ///

static int fail(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    (void)context, (void)address, (void)data, (void)bytes;
    return 1;
}

/* the port's context is the storage */
static little *of(void *storage)
{
    return (little *)(void *)((uint8_t *)storage - offsetof(little, storage));
}

static uint32_t now(void *storage)
{
    return of(storage)->clock;
}

static int may_learn(void *storage)
{
    little *l = of(storage);
    return l->mood == 0 || (mt_random_next(&l->mood) & 3u) != 0;
}

static void open_port(little *l)
{
    mt_memory_port_create(&l->port, l->storage, STORAGE, 256);
    l->port.write = l->broken ? fail : l->port.write;
    l->port.now = l->clock != 0 ? now : NULL;
    l->port.may_learn = may_learn;
}

/// What generated code does ///

static void turn(mt_learner *learner, uint32_t set)
{
    little *l = (little *)learner->device;
    person *p = &l->ram.saved.people[set];
    mt_samples *samples = &learner->samples;
    learner->person = &p->person;
    learner->parameters = p->parameters;
    learner->previous = l->in_place ? NULL : p->previous;
    learner->optimizer = p->optimizer;
    learner->importance = l->remembers ? p->importance : NULL;
    learner->candidate = l->in_place ? p->parameters : l->ram.candidate;
    learner->candidate_optimizer = l->in_place ? p->optimizer : l->ram.candidate_optimizer;
    samples->state = &p->person.samples;
    samples->random = &p->person.random;
    samples->words = p->samples;
    samples->seen_of = l->reservoir != 0 && l->model.task == MT_MULTICLASS ? p->seen : NULL;
    samples->cut = INPUTS;
    samples->targets = l->model.targets;
    samples->ring = BUFFER;
    samples->reservoir = (uint16_t)l->reservoir;
    samples->classes = samples->seen_of != NULL ? l->model.outputs : 0u;
    learner->change.state = l->model.change != NULL ? &p->change : NULL;
    learner->change.classes = p->changing;
    learner->change.kinds = (uint16_t)(l->model.task == MT_BINARY ? 2u * l->model.outputs : l->model.outputs);
    learner->change.binary = l->model.task == MT_BINARY;
    learner->change.bytes = 0;
}

void little_create(little *l, int task, int has_port)
{
    MT_ZERO(l, sizeof *l);
    open_port(l);
    l->port.erase(l->storage, 0, STORAGE);
    mt_model *m = &l->model;
    m->rule = &mt_gradient_rule;
    m->identity = 77u + (uint32_t)task;
    m->task = (mt_task)task;
    m->inputs = m->cut = INPUTS;
    m->outputs = (uint16_t)(task + 1);
    m->targets = task == MT_MULTICLASS ? 1u : m->outputs;
    m->parameters = m->floats = m->optimizer = (uint32_t)((INPUTS + 1) * (task + 1));
    m->profiles = 2;
    m->people_at = (uint32_t)sizeof(mt_state);
    m->person_bytes = (uint32_t)sizeof(person);
    m->parameters_at = (uint32_t)offsetof(person, parameters);
    m->base = BASE;
    m->low = LOW;
    m->high = HIGH;
    m->backbone = backbone;
    m->head = task == MT_REGRESSION ? head_regression : task == MT_BINARY ? head_binary : head_multiclass;
    m->activate = task == MT_REGRESSION ? NULL : task == MT_BINARY ? mt_sigmoid_all : mt_softmax;
    m->loss = task == MT_REGRESSION ? loss_regression : task == MT_BINARY ? loss_binary : loss_multiclass;
    m->step = task == MT_REGRESSION ? step_regression : task == MT_BINARY ? step_binary : step_multiclass;
    m->person = turn;
    l->settings.every = 5;
    l->settings.epochs = 5;
    l->settings.folds = 4;
    l->settings.restart = 1;
    l->settings.rate = RATE;
    l->settings.tolerance = 0.25f;
    l->has_port = (uint32_t)has_port;
    l->contexts = 1;
}

static mt_learner learner_of(little *l)
{
    device *d = &l->ram;
    mt_learner learner;
    open_port(l);
    l->model.contexts = (uint16_t)l->contexts;
    l->model.context = l->contexts > 1 ? context : NULL;
    l->model.remember = l->remembers ? mt_gradient_remember : NULL;
    l->model.change = l->changes && l->model.task != MT_REGRESSION ? mt_gradient_change : NULL;
    learner.model = &l->model;
    learner.settings = &l->settings;
    learner.port = l->has_port ? &l->port : NULL;
    learner.device = l;
    learner.state = &d->saved.state;
    learner.saved_bytes = sizeof d->saved;
    learner.own = NULL;
    learner.sequence = &d->sequence;
    learner.pending = d->pending;
    learner.pending_cut = d->pending_cut;
    learner.pending_output = d->pending_output;
    learner.work = &d->work;
    learner.output = d->output;
    learner.arena = NULL;
    learner.records = NULL;
    return learner;
}

/// Calls ///

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

#define CALL_WITH_NUMBER(verb) \
    int little_##verb(little *l, uint32_t number) \
    { \
        mt_learner learner = learner_of(l); \
        return (int)mt_learner_##verb(&learner, number); \
    }

CALL_WITH_NUMBER(select_profile)
CALL_WITH_NUMBER(learning_mode)
CALL_WITH_NUMBER(forget_last)
CALL_WITH_NUMBER(forget_since)

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
