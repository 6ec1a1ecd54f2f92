/* For the sanitizers: a thousand uses with jumps, wild values and inputs beyond all scale. Settings from stdin. */
#include <stdio.h>
#include <stdlib.h>

#include "bayes_probe.c"

int main(void)
{
    /* on the heap, so that a step outside is seen */
    probe *p = calloc(1, sizeof *p);
    uint32_t random = 1;
    if (!p || fread(&p->settings, sizeof p->settings, 1, stdin) != 1) {
        return 1;
    }
    p->base.inputs = INPUTS;
    p->base.hidden = HIDDEN;
    for (uint32_t i = 0; i < HIDDEN * INPUTS; ++i) {
        p->base.weight[i] = (float)(i % 7) * 0.3f - 0.9f;
    }
    probe_init(p);
    for (int use = 0; use < 1000; ++use) {
        float input[INPUTS], output[2];
        const float target = (float)(use / 200) * 2.0f + (use % 89 == 7 ? 1000.0f : 0.0f);
        mt_bayes_judgement judgement;
        for (int i = 0; i < INPUTS; ++i) {
            random = random * 1664525u + 1013904223u;
            input[i] = (random >> 31 ? 1.0f : -1.0f) * (use % 97 == 5 ? 1000.0f : 1.0f);
        }
        probe_predict(p, input, output);
        probe_observe(p, input, &target);
        probe_refit(p, &judgement);
    }
    printf("%u\n", (unsigned)p->state.count);
    free(p);
    return 0;
}
