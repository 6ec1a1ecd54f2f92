/* Samples by commands on standard input, each array in memory of exactly its size (tests/runtime/test_samples.py). */
#include <stdio.h>
#include <stdlib.h>

#include "mt_samples.h"

typedef struct probe {
    mt_samples samples;
    mt_samples_state state;
    uint32_t random;
} probe;

static uint32_t number(void)
{
    uint32_t value = 0;
    if (fread(&value, sizeof value, 1, stdin) != 1) {
        exit(0);
    }
    return value;
}

static void numbers(void *to, uint32_t count)
{
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t value = number();
        MT_COPY((unsigned char *)to + i * 4u, &value, 4);
    }
}

/* malloc(0) may be NULL */
static void *words(uint32_t count)
{
    void *memory = calloc(count > 0 ? count : 1u, 4);
    if (memory == NULL) {
        exit(2);
    }
    return memory;
}

static void begin(probe *p)
{
    mt_samples *s = &p->samples;
    free(s->words);
    free(s->seen_of);
    s->cut = number(), s->targets = number();
    s->ring = (uint16_t)number(), s->reservoir = (uint16_t)number(), s->classes = (uint16_t)number();
    p->random = number();
    s->state = &p->state;
    s->random = &p->random;
    s->words = words((uint32_t)(s->ring + s->reservoir) * (s->cut + s->targets + 1u));
    s->seen_of = s->classes > 0 ? words(s->classes) : NULL;
    mt_samples_clear(s);
}

static void add(const probe *p)
{
    const uint32_t count = number();
    const mt_samples *s = &p->samples;
    float *cut = words(s->cut), *target = words(s->targets);
    for (uint32_t i = 0; i < count; ++i) {
        numbers(cut, s->cut);
        numbers(target, s->targets);
        mt_samples_add(s, cut, target, number());
    }
    free(cut);
    free(target);
}

/* `trials` streams of the same labels: how often the sample at each place of the stream is in the reservoir at the end */
static void trials(const probe *p)
{
    const uint32_t count = number(), length = number();
    const mt_samples *s = &p->samples;
    float *labels = words(length), *cut = words(s->cut), *target = words(s->targets);
    uint32_t *found = words(length);
    numbers(labels, length);
    for (uint32_t trial = 0; trial < count; ++trial) {
        mt_samples_clear(s);
        for (uint32_t i = 0; i < length; ++i) {
            cut[0] = (float)i;
            target[0] = labels[i];
            mt_samples_add(s, cut, target, i);
        }
        for (uint32_t i = 0; i < s->state->kept; ++i) {
            ++found[(uint32_t)mt_samples_at(s, i)[0]];
        }
    }
    fwrite(found, 4, length, stdout);
    free(labels), free(cut), free(target), free(found);
}

static void show(const probe *p)
{
    const mt_samples *s = &p->samples;
    const uint32_t size = mt_samples_size(s), stride = s->cut + s->targets + 1u;
    fwrite(&p->state, sizeof p->state, 1, stdout);
    fwrite(&p->random, 4, 1, stdout);
    fwrite(&size, 4, 1, stdout);
    for (uint32_t i = 0; i < size; ++i) {
        fwrite(mt_samples_at(s, i), 4, stride, stdout);
    }
    fwrite(s->words, 4, (uint32_t)(s->ring + s->reservoir) * stride, stdout);
    if (s->seen_of != NULL) {
        fwrite(s->seen_of, 4, s->classes, stdout);
    }
}

int main(void)
{
    static probe p;
    for (;;) {
        const mt_samples *s = &p.samples;
        uint32_t since, time;
        switch (number()) {
        case 'b': begin(&p); break;
        case 'a': add(&p); break;
        case 'n': mt_samples_drop_newest(s, number()); break;
        case 's': time = number(), mt_samples_drop_since(s, time, number()); break;
        case 'r': mt_samples_remove(s, number()); break;
        case 'c': mt_samples_clear(s); break;
        case 'w': numbers(&p.state, sizeof p.state / 4u); break;
        case 'o': numbers(s->seen_of, s->classes); break;
        case 'g': p.random = number(); break;
        case 't': trials(&p); break;
        case '?': show(&p); break;
        case 'q':
            time = number(), since = mt_samples_since(s, time, number());
            fwrite(&since, 4, 1, stdout);
            break;
        default: return 1;
        }
        fflush(stdout);
    }
}
