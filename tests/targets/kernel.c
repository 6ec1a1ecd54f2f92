/* A small program for the machine tests: arithmetic whose bits must agree, calls of every kind, faults on purpose. */
#include <stdint.h>
#include <string.h>

/* values: count floats, smoothed in place; returns the bits of the last one. Includes division and subnormals. */
uint32_t smooth(float *values, uint32_t count);
uint32_t six(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f);
uint32_t bump(void);
uint32_t constant_at(uint32_t index);
uint32_t load(const uint32_t *address);
uint32_t trap(void);
uint32_t deep(uint32_t size);
uint32_t count_up(const int32_t *values, uint32_t count);
uint32_t endless(uint32_t depth);

static uint32_t counter = 41u;
static uint32_t cleared;
static const uint32_t table[4] = {2u, 3u, 5u, 7u};

uint32_t smooth(float *values, uint32_t count)
{
    float state = 0.0f;
    uint32_t bits;
    uint32_t i;
    for (i = 0u; i < count; i++) {
        state = state * 0.99f + values[i] / 3.0f;
        values[i] = state * 1e-38f + (state - values[i]) * (float)(int32_t)i;
    }
    memcpy(&bits, &state, sizeof bits);
    return bits;
}

uint32_t six(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f)
{
    return a + 10u * (b + 10u * (c + 10u * (d + 10u * (e + 10u * f))));
}

uint32_t bump(void)
{
    cleared += 1u;
    counter += 1u;
    return counter * 1000u + cleared;
}

uint32_t constant_at(uint32_t index) { return table[index & 3u]; }

uint32_t load(const uint32_t *address) { return *address; }

uint32_t trap(void)
{
    __builtin_trap();
    return 0u;
}

__attribute__((noinline)) static uint32_t fill(volatile uint8_t *bytes, uint32_t size)
{
    uint32_t i;
    for (i = 0u; i < size; i++) {
        bytes[i] = (uint8_t)i;
    }
    return bytes[size - 1u];
}

uint32_t deep(uint32_t size)
{
    volatile uint8_t bytes[1000];
    return fill(bytes, size < 1000u ? size : 1000u);
}

/* branches that some cores turn into conditional instructions */
uint32_t count_up(const int32_t *values, uint32_t count)
{
    uint32_t ups = 0u;
    uint32_t i;
    int32_t best = -2147483647;
    for (i = 0u; i < count; i++) {
        if (values[i] > best) {
            best = values[i];
            ups += 3u;
        } else if (values[i] < 0) {
            ups ^= 5u;
        }
    }
    return ups;
}

uint32_t endless(uint32_t depth)
{
    volatile uint32_t mine[64];
    mine[depth & 63u] = depth;
    return depth == 0xFFFFFFFFu ? 0u : endless(depth + 1u) + mine[depth & 63u];
}
