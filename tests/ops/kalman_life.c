/*
 * The extended Kalman filter on gradients that nobody chose: the same bits on every machine, and what a hundred
 * thousand of them do. kind 0: any; 1: three directions only, one of them far larger; 2: the same for a long time;
 * 3: of every size, nothing too.
 */
#include "mt_kernels_kalman.h"
#include "mt_random.h"

#define SIZE 42u
#define TRIANGLE (SIZE * (SIZE + 1u) / 2u)

typedef struct {
    float covariance[TRIANGLE];
    float parameter[SIZE];
    uint32_t unsound; /* samples whose variance was not above zero, though their gradient was not zero */
} filter;

filter life;
float prior[SIZE], phi[SIZE], gain[SIZE + 1u], basis[3][SIZE];
uint32_t chance;

float uniform(void);
void begin(uint32_t seed);
void live(uint32_t samples, uint32_t kind, uint32_t walks);

/* -1 to 1 */
float uniform(void)
{
    return (float)(int32_t)(mt_random_next(&chance) >> 8) / 8388608.0f - 1.0f;
}

void begin(uint32_t seed)
{
    chance = seed;
    MT_ZERO(&life, sizeof life);
    for (uint32_t i = 0; i < SIZE; ++i) {
        prior[i] = i % 3u == 0u ? 0.4f : 1.5f;
        for (uint32_t k = 0; k < 3u; ++k) {
            basis[k][i] = uniform() * (k == 2u ? 30.0f : 1.0f);
        }
    }
    mt_kalman_begin(life.covariance, prior, SIZE);
}

void live(uint32_t samples, uint32_t kind, uint32_t walks)
{
    const float walk = walks != 0u ? 0.005f : (float)SIZE / 1048576.0f;
    for (uint32_t sample = 0; sample < samples; ++sample) {
        const float a = uniform(), b = uniform(), c = uniform(), size = kind == 3u ? uniform() * uniform() * 100.0f : 1.0f;
        for (uint32_t i = 0; i < SIZE && (kind != 2u || sample % 1000u == 0u); ++i) {
            phi[i] = kind == 1u ? a * basis[0][i] + b * basis[1][i] + c * basis[2][i] : uniform() * size;
        }
        if (kind == 3u && sample % 7u == 0u) {
            MT_ZERO(phi, sizeof phi);
        }
        const float y = mt_dot(life.parameter, phi, SIZE), target = c > 0.0f ? 1.0f : 0.0f;
        mt_kalman(life.covariance, prior, phi, &y, &target, gain, walk, SIZE);
        for (uint32_t i = 0; i < SIZE; i += 6u) {
            mt_kalman_move(life.parameter + i, gain, i, 6u, SIZE);
        }
        const uint32_t still = (uint32_t)(gain[SIZE] == 0.0f);
        uint32_t nothing = 1;
        for (uint32_t i = 0; i < SIZE; ++i) {
            nothing &= (uint32_t)(phi[i] == 0.0f);
        }
        /* a sample that is learnt moves something, unless it was expected to the last bit */
        life.unsound += still & (nothing ^ 1u) & (uint32_t)(mt_absolute(y) < 15.0f);
    }
}

#if defined(KALMAN_HOSTED)
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    if (count == 4) {
        begin(2463534242u);
        live((uint32_t)atoi(arguments[1]), (uint32_t)atoi(arguments[2]), (uint32_t)atoi(arguments[3]));
        fwrite(&life, sizeof life, 1, stdout);
    }
    return 0;
}
#endif
