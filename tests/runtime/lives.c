/*
 * lives.c: long random lives of the little devices under every setting: sane values and nonsense, restarts,
 * failing storage. Checks what must always hold and prints a checksum of the states, which must be the same in
 * every build.
 */
#include <stdio.h>
#include <stdlib.h>

#include "little_device.h"
#include "mt_math.h"

static uint32_t generator = 1;

static uint32_t draw(uint32_t below)
{
    generator = generator * 1664525u + 1013904223u;
    return (generator >> 8) % below;
}

static float some_float(void)
{
    static const float nonsense[] = {1e38f, -1e38f, 3.0e38f, 1e-40f, 1e10f, -0.0f, 1e20f, 2.5f};
    const uint32_t kind = draw(40);
    return kind == 0   ? mt_float_of(0x7FC00000u)
           : kind == 1 ? mt_float_of(0xFF800000u)
           : kind == 2 ? nonsense[draw(8)]
                       : (float)draw(2001) / 500.0f - 2.0f;
}

static void must(int holds, const char *what)
{
    if (!holds) {
        printf("does not hold: %s\n", what);
        exit(1);
    }
}

static void check(const little *l)
{
    const mt_metrics *metrics = &l->ram.saved.state.metrics;
    must(mt_is_finite(metrics->mean_error), "mean error");
    must(metrics->accepted + metrics->rolled_back <= metrics->observations + metrics->forgets + metrics->predictions,
         "updates have a cause");
    for (uint32_t set = 0; set < SETS; ++set) {
        const person *p = &l->ram.saved.people[set];
        const mt_person *counted = &p->person;
        must(counted->samples.count <= BUFFER && counted->samples.next < BUFFER, "ring");
        must(counted->samples.kept <= l->reservoir, "reservoir");
        must(counted->fresh <= MOST_KEPT && counted->since <= counted->undo && counted->undo <= BUFFER, "counters");
        must(counted->recent <= 32 && counted->returned <= 8 && counted->eager <= 1, "small counters");
        must((counted->random != 0) == (set < 2u * l->contexts), "generator");
        must(mt_is_finite(counted->error) && counted->error >= 0.0f, "error");
        must(counted->confidence >= 0.0f && counted->confidence <= 1.0f, "confidence");
        for (uint32_t i = 0; i < l->model.parameters; ++i) {
            must(mt_is_finite(p->parameters[i]) && (l->in_place || mt_is_finite(p->previous[i])), "parameters");
            must(p->importance[i] >= 0.0f && mt_is_finite(p->importance[i]), "importance");
        }
    }
}

static void press_something(little *l)
{
    switch (draw(80)) {
    case 0: must(little_forget(l) == MT_OK, "forget"); break;
    case 1: must(draw(4) != 0 || little_reset(l) == MT_OK, "reset"); break;
    case 2: must(little_save(l) == MT_OK && little_init(l) == MT_OK, "restart"); break;
    case 3: must(little_init(l) == MT_OK, "power cut"); break;
    case 4: must(little_select_profile(l, draw(2)) == MT_OK, "profile"); break;
    case 5: must(little_select_profile(l, 2 + draw(0x10000)) == MT_INVALID_ARGUMENT, "no such profile"); break;
    case 6: must(little_learning_mode(l, draw(9)) == MT_OK, "learning mode"); break;
    case 7: must(little_forget_last(l, draw(30)) == MT_OK, "forget last"); break;
    case 8:
        must(little_forget_since(l, draw(300000)) == (l->clock != 0 ? MT_OK : MT_INVALID_ARGUMENT), "forget since");
        break;
    default: break;
    }
}

static uint32_t live(int task, uint32_t variant, uint32_t uses)
{
    static little l;
    little_create(&l, task, 1);
    l.settings.folds = (uint16_t)(variant % 3 * 3);
    l.settings.restart = (uint8_t)(variant / 3 % 2);
    l.settings.sequential = (uint8_t)(variant / 6 % 2);
    l.settings.pull = variant % 5 == 0 ? 0.01f : 0.0f;
    l.settings.every = (uint16_t)(variant % 7);
    l.settings.threshold = 0.3f * (float)(variant % 4);
    l.settings.fallback = variant % 2 ? l.fallback : NULL;
    if (variant % 4 == 3) { /* no declared ranges: overflow must be caught by the learner */
        l.model.low = l.model.high = NULL;
    }
    l.settings.slice = (uint16_t)(variant % 5 * 3);
    l.settings.disuse = variant % 3 == 1 ? 1e6f : 0.0f;
    l.settings.recency = variant % 5 == 4 ? 8.0f : 0.0f;
    l.settings.memory = variant % 4 == 1 ? 2.0f : 0.0f;
    l.remembers = variant % 4 == 1;
    l.changes = variant % 3 != 0;
    l.contexts = 1 + variant % 2;
    l.reservoir = variant % 3 * 3;
    l.clock = variant % 4 != 0 ? 1000u : 0u;
    l.mood = variant % 2;
    if (variant % 7 == 6) {
        l.in_place = 1;
        l.settings.folds = 0;
        l.settings.restart = 0;
    }
    must(little_init(&l) == MT_OK, "first start");
    for (uint32_t use = 0; use < uses; ++use) {
        float input[INPUTS], output[MOST_OUTPUTS], target[MOST_OUTPUTS];
        mt_prediction prediction;
        mt_update update;
        for (uint32_t i = 0; i < INPUTS; ++i) {
            input[i] = some_float();
        }
        if (little_predict(&l, input, output, &prediction) == MT_OK) {
            must(prediction.confidence >= 0.0f && prediction.confidence <= 1.0f, "confidence of a prediction");
            for (uint32_t i = 0; i < l.model.outputs; ++i) {
                must(mt_is_finite(output[i]), "output");
            }
        }
        for (uint32_t i = 0; i < l.model.targets; ++i) {
            target[i] = task == MT_REGRESSION ? some_float() : (float)draw(task == MT_BINARY ? 2 : 3);
            target[i] = draw(20) == 0 ? some_float() : target[i];
        }
        const int observed = little_observe(&l, target);
        must(little_observe(&l, target) == MT_NO_PREDICTION || observed == MT_TARGET_INVALID, "pairs once");
        l.broken = draw(30) == 0;
        const int idled = little_idle(&l, &update);
        must(idled == MT_OK || (idled == MT_STORAGE_FAILED && l.broken), "idle");
        must(!update.accepted || update.ran, "update");
        must(mt_is_finite(update.loss_before) && mt_is_finite(update.loss_after), "losses");
        l.broken = 0;
        press_something(&l);
        l.clock += l.clock != 0 ? draw(20) == 0 ? draw(3000000) : draw(7200) : 0;
        l.clock = l.clock != 0 && draw(100) == 0 ? 1 + draw(5000) : l.clock; /* it starts again */
        check(&l);
    }
    return mt_crc32(0, &l.ram.saved, sizeof l.ram.saved);
}

int main(void)
{
    uint32_t sum = 0;
    for (int task = 0; task < 3; ++task) {
        for (uint32_t variant = 0; variant < 24; ++variant) {
            generator = 1000u * (uint32_t)task + variant;
            sum = sum * 31u + live(task, variant, 300);
        }
    }
    printf("%08x\n", (unsigned)sum);
    return 0;
}
