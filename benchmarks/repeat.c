/* Runs each contender many times in C, so that what is timed is the step and not the call from Python. */
#include "plain.h"
#include "small.h"

/* samples (count, 4 inputs and the target), walked round and round */
float repeat_plain(plain_net *net, const float *samples, uint32_t count, uint32_t steps);
float repeat_small(small *device, const float *samples, uint32_t count, uint32_t steps);

float repeat_plain(plain_net *net, const float *samples, uint32_t count, uint32_t steps)
{
    float loss = 0.0f;
    for (uint32_t step = 0, at = 0; step < steps; ++step, at = at + 1 == count ? 0 : at + 1) {
        const float *sample = samples + at * (INPUTS + 1);
        loss = plain_step(net, sample, sample + INPUTS);
    }
    return loss;
}

float repeat_small(small *device, const float *samples, uint32_t count, uint32_t steps)
{
    float loss = 0.0f;
    for (uint32_t step = 0, at = 0; step < steps; ++step, at = at + 1 == count ? 0 : at + 1) {
        const float *sample = samples + at * (INPUTS + 1);
        if (small_step(device, sample, sample + INPUTS, &loss) != MT_OK) {
            return -1.0f;
        }
    }
    return loss;
}
