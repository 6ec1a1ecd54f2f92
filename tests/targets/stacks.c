/* Programs whose stack is known or awkward: pointers, big frames, jump tables, frames of variable size, recursion. */
#include <stdint.h>

typedef uint32_t (*step_function)(uint32_t value);
typedef uint32_t (*pair_function)(uint32_t value, uint32_t other);

uint32_t through_table(uint32_t which, uint32_t value);
uint32_t through_argument(step_function step, uint32_t value);
uint32_t through_pair(pair_function pair, uint32_t value);
uint32_t start_pair(uint32_t which, uint32_t value);
uint32_t start(uint32_t which, uint32_t value);
uint32_t large_frame(uint32_t value);
uint32_t choose(uint32_t which, uint32_t value);
uint32_t divide(uint32_t value);
uint32_t variable(uint32_t size);
uint32_t ping(uint32_t value);

__attribute__((noinline)) static uint32_t touch(volatile uint8_t *bytes, uint32_t size)
{
    uint32_t i;
    for (i = 0u; i < size; i++) {
        bytes[i] = (uint8_t)i;
    }
    return bytes[size / 2u];
}

static uint32_t small_step(uint32_t value)
{
    volatile uint8_t bytes[40];
    return value + touch(bytes, 40u);
}

static uint32_t big_step(uint32_t value)
{
    volatile uint8_t bytes[400];
    return value + touch(bytes, 400u);
}

static const step_function steps[2] = {small_step, big_step};

uint32_t through_table(uint32_t which, uint32_t value) { return steps[which & 1u](value) + 1u; }

__attribute__((noinline)) uint32_t through_argument(step_function step, uint32_t value) { return step(value) * 3u; }

uint32_t start(uint32_t which, uint32_t value)
{
    return through_argument((which & 1u) != 0u ? big_step : small_step, value) + 1u;
}

/* of another type, and far deeper: no call through a step_function reaches them */
static uint32_t small_pair(uint32_t value, uint32_t other)
{
    volatile uint8_t bytes[2000];
    return value + other + touch(bytes, 2000u);
}

static uint32_t big_pair(uint32_t value, uint32_t other)
{
    volatile uint8_t bytes[3000];
    return value + other + touch(bytes, 3000u);
}

__attribute__((noinline)) uint32_t through_pair(pair_function pair, uint32_t value) { return pair(value, 7u) * 3u; }

uint32_t start_pair(uint32_t which, uint32_t value)
{
    return through_pair((which & 1u) != 0u ? big_pair : small_pair, value) + 1u;
}

uint32_t large_frame(uint32_t value)
{
    volatile uint8_t bytes[6000];
    return value + touch(bytes, 6000u);
}

uint32_t choose(uint32_t which, uint32_t value)
{
    switch (which) {
    case 0u: return small_step(value);
    case 1u: return value * 77u + 1u;
    case 2u: return big_step(value) + 2u;
    case 3u: return value / 7u;
    case 4u: return small_step(value + 5u) ^ 3u;
    case 5u: return divide(value);
    case 6u: return large_frame(value) - 1u;
    default: return 9u;
    }
}

uint32_t divide(uint32_t value)
{
    volatile float number = (float)value;
    volatile double wide = (double)value;
    number = number / 3.0f + 1.0f;
    wide = wide / 7.0 * 1.1 - 2.0;
    return (uint32_t)number + (uint32_t)(int32_t)wide;
}

uint32_t variable(uint32_t size)
{
    volatile uint8_t *bytes = __builtin_alloca(size);
    return touch(bytes, size);
}

__attribute__((noinline)) static uint32_t pong(uint32_t value) { return value == 0u ? 1u : ping(value - 1u) * 3u; }

__attribute__((noinline)) uint32_t ping(uint32_t value) { return value == 0u ? 2u : pong(value - 1u) + 5u; }
