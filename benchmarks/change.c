/* change.c: uses of a person with one label each through mt_samples and mt_change, for change.py. */
#include "mt_change.h"

enum { CUT = 64, KINDS = 10, KEPT = 128 };

typedef struct life {
    mt_samples samples;
    mt_change change;
    mt_samples_state samples_state;
    mt_change_state state;
    mt_change_class classes[KINDS];
    uint32_t seen[KINDS], random;
    float words[KEPT * (CUT + 2)];
} life;

uint32_t life_size(void);
void life_begin(life *p, uint32_t cut, uint32_t kinds, uint32_t ring, uint32_t reservoir);
void life_add(life *p, const float *cut, const float *label);
uint32_t life_observe(life *p);
uint32_t life_forget(life *p, uint32_t run);
uint32_t life_older(life *p, uint32_t label, uint32_t newest);

uint32_t life_size(void)
{
    return sizeof(life);
}

/* two kinds are no and yes */
void life_begin(life *p, uint32_t cut, uint32_t kinds, uint32_t ring, uint32_t reservoir)
{
    const mt_samples samples = {&p->samples_state, &p->random, p->words, reservoir ? p->seen : 0, cut, 1,
                                (uint16_t)ring, (uint16_t)reservoir, (uint16_t)(reservoir ? kinds : 0)};
    const mt_change change = {&p->state, p->classes, (uint16_t)kinds, kinds == 2, 0};
    p->samples = samples;
    p->change = change;
    p->random = 7;
    mt_samples_clear(&p->samples);
    mt_change_begin(&p->change);
}

void life_add(life *p, const float *cut, const float *label)
{
    mt_samples_add(&p->samples, cut, label, 0);
}

uint32_t life_observe(life *p)
{
    return mt_change_observe(&p->change, &p->samples, 1.0f);
}

uint32_t life_forget(life *p, uint32_t run)
{
    uint16_t before[2] = {0, 0}; /* nobody counts */
    return mt_change_forget(&p->change, &p->samples, run, before);
}

/* samples with this label, but for so many newest */
uint32_t life_older(life *p, uint32_t label, uint32_t newest)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i + newest < mt_samples_size(&p->samples); ++i) {
        count += mt_samples_at(&p->samples, i)[p->samples.cut] == (float)label;
    }
    return count;
}
