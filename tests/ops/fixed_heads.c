/*
 * The fixed-point heads on samples that nobody chose: the same on every machine, and what a hundred thousand of them do.
 * Some are all at one end, some the same again and again, some nothing at all; targets are anything.
 */
#include "mt_kernels_fixed_logistic.h"
#include "mt_kernels_fixed_map.h"
#include "mt_kernels_fixed_rls.h"
#include "mt_kernels_fixed_slda.h"

#define INPUTS 12u
#define OUTPUTS 3u
#define TRIANGLE ((INPUTS + 1) * (INPUTS + 2) / 2)

typedef struct {
    int32_t weight[OUTPUTS * INPUTS];
    int32_t bias[OUTPUTS];
    int32_t state[OUTPUTS * TRIANGLE];
    int32_t negative; /* variances below 0 that were seen after any sample */
} heads_layer;

heads_layer layer;
int32_t prior[INPUTS + 1], precision[TRIANGLE], log_prior[OUTPUTS];
int8_t x[INPUTS];
uint32_t chance;

uint32_t next_chance(void);
void begin(uint32_t head, uint32_t seed);
void live(uint32_t head, uint32_t samples, int32_t unit_exponent);

uint32_t next_chance(void)
{
    chance ^= chance << 13;
    chance ^= chance >> 17;
    chance ^= chance << 5;
    return chance;
}

/* head: 0 RLS, 1 MAP, 2 logistic, 3 SLDA */
void begin(uint32_t head, uint32_t seed)
{
    chance = seed;
    MT_ZERO(&layer, sizeof layer);
    MT_ZERO(x, sizeof x);
    mt_fixed_covariance_begin(layer.state, 1 << 30, 1 << 28, INPUTS, OUTPUTS);
    for (uint32_t i = 0; i <= INPUTS; ++i) {
        prior[i] = i < INPUTS ? 1 << 30 : 1 << 28;
    }
    if (head == 3) {
        MT_ZERO(layer.state, sizeof layer.state);
        for (uint32_t row = 0, k = 0; row < INPUTS; ++row) {
            for (uint32_t column = 0; column <= row; ++column, ++k) {
                precision[k] = column == row ? 1 << 30 : (int32_t)(next_chance() >> 8) - (1 << 23);
            }
        }
    }
}

void live(uint32_t head, uint32_t samples, int32_t unit_exponent)
{
    static int32_t scratch[2 * (INPUTS + 1) + OUTPUTS];
    int32_t y[OUTPUTS], target[OUTPUTS];
    const int32_t zero = -100, unit = 1518500250;
    const uint32_t one = 6;
    for (uint32_t sample = 0; sample < samples; ++sample) {
        const uint32_t kind = next_chance() >> 29;
        for (uint32_t i = 0; i < INPUTS && kind != 0; ++i) {
            const uint32_t any = next_chance();
            x[i] = (int8_t)(kind == 1 ? zero : (kind == 2 ? ((any & 1u) != 0u ? 127 : -128) : (int32_t)(any >> 24) - 128));
        }
        mt_dense_fixed(x, layer.weight, layer.bias, y, zero, INPUTS, OUTPUTS);
        for (uint32_t o = 0; o < OUTPUTS; ++o) {
            const uint32_t any = next_chance();
            target[o] = head == 0 ? (int32_t)(any >> (any % 16u)) - 32768 : (int32_t)(any % (head == 2 ? 2u : OUTPUTS)) * 65536;
        }
        if (head == 0) {
            mt_fixed_rls(layer.weight, layer.bias, layer.state, x, y, target, scratch, zero, one, unit, unit_exponent,
                         1063004406, 1084587701, 1063004406, 265751102, INPUTS, OUTPUTS);
        } else if (head == 1) {
            mt_fixed_map(layer.weight, layer.bias, layer.state, x, y, target, scratch, zero, one, unit, unit_exponent,
                         INPUTS, OUTPUTS);
        } else if (head == 2) {
            mt_fixed_logistic(layer.weight, layer.bias, layer.state, prior, x, y, target, scratch, zero, one, unit,
                              unit_exponent, 10737418, INPUTS, OUTPUTS);
        } else {
            mt_fixed_slda(layer.weight, layer.bias, layer.state, precision, log_prior, x, target, zero, 25, 1 << 30,
                          INPUTS, OUTPUTS);
        }
        for (uint32_t o = 0; o < (head == 3 ? 0u : (head == 2 ? OUTPUTS : 1u)); ++o) {
            for (uint32_t row = 0, k = 0; row <= INPUTS; ++row, k += row + 1) {
                layer.negative += layer.state[o * TRIANGLE + k] < 0;
            }
        }
    }
}

#if defined(HEADS_HOSTED)
#include <stdio.h>
#include <stdlib.h>

/* head, samples, exponent of the unit: the layer as it is after that */
int main(int count, char **words)
{
    if (count != 4) {
        return 2;
    }
    begin((uint32_t)atoi(words[1]), 2463534242u);
    live((uint32_t)atoi(words[1]), (uint32_t)atoi(words[2]), atoi(words[3]));
    return fwrite(&layer, sizeof layer, 1, stdout) == 1 ? 0 : 1;
}
#endif
