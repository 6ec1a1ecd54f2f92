/* math_probe.c: the functions of mt_math.h over arrays. */
#include "mt_math.h"

#define PROBE(name) \
    void probe_##name(const float *x, float *y, uint32_t size); \
    void probe_##name(const float *x, float *y, uint32_t size) \
    { \
        for (uint32_t i = 0; i < size; ++i) { \
            y[i] = mt_##name(x[i]); \
        } \
    }

PROBE(exp)
PROBE(log)
PROBE(tanh)
PROBE(sigmoid)
PROBE(sqrt)
