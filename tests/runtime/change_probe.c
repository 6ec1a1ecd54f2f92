/* A stream of uses through mt_samples and mt_change, in one struct without pointers (tests/runtime/test_change.py mirrors
 * its head). */
#include "mt_change.h"

enum { CUT = 64, KINDS = 16, KEPT = 160, TARGETS = 4, STRIDE = CUT + TARGETS + 1 };

typedef struct probe {
    uint32_t cut, targets, ring, reservoir, kinds, binary, bytes, balanced;
    float factor; /* on the evidence needed */
    uint32_t random;
    mt_samples_state samples_state;
    mt_change_state state;
    mt_change_class classes[KINDS];
    uint32_t seen[KINDS];
    float words[KEPT * STRIDE];
} probe;

static mt_samples samples_of(probe *p)
{
    mt_samples samples = {&p->samples_state, &p->random, p->words, p->balanced ? p->seen : 0, p->cut, p->targets,
                          (uint16_t)p->ring, (uint16_t)p->reservoir, (uint16_t)(p->balanced ? p->kinds : 0)};
    return samples;
}

static mt_change change_of(probe *p)
{
    mt_change change = {&p->state, p->classes, (uint16_t)p->kinds, (uint8_t)p->binary, (uint8_t)p->bytes};
    return change;
}

uint32_t probe_size(void);
void probe_begin(probe *p);
void probe_live(probe *p, const float *cuts, const float *targets, uint32_t uses, uint32_t *runs, uint32_t *removed);

uint32_t probe_size(void)
{
    return sizeof(probe);
}

void probe_begin(probe *p)
{
    const mt_samples samples = samples_of(p);
    const mt_change change = change_of(p);
    mt_samples_clear(&samples);
    mt_change_begin(&change);
}

/* runs, removed (uses): what was found at each, and how many samples went for it */
void probe_live(probe *p, const float *cuts, const float *targets, uint32_t uses, uint32_t *runs, uint32_t *removed)
{
    const mt_samples samples = samples_of(p);
    const mt_change change = change_of(p);
    for (uint32_t i = 0; i < uses; ++i) {
        mt_samples_add(&samples, cuts + i * p->cut, targets + i * p->targets, i);
        runs[i] = mt_change_observe(&change, &samples, p->factor);
        uint16_t before[2] = {0, 0};
        removed[i] = runs[i] != 0 ? mt_change_forget(&change, &samples, runs[i], before) : 0;
    }
}
