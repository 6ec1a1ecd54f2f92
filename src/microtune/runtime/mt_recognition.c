#include "mt_recognition.h"

#include "mt_math.h"

/* inputs are about 1 in size; beyond this they count as this, and no square of a difference overflows */
static float mt_recognition_bounded(float value)
{
    return mt_clamp(value, -1e6f, 1e6f);
}

MT_COLD void mt_recognition_learn(float *profile, uint32_t inputs, const float *input)
{
    float *mean = profile + 1;
    float *variance = mean + inputs;
    const float memory = (float)MT_RECOGNITION_MEMORY;
    profile[0] = profile[0] + 1.0f < memory ? profile[0] + 1.0f : memory;
    for (uint32_t i = 0; i < inputs; ++i) {
        /* Welford's update; when the memory is full the oldest fade exponentially */
        const float value = mt_recognition_bounded(input[i]);
        const float before = value - mean[i];
        mean[i] += before / profile[0];
        variance[i] += (before * (value - mean[i]) - variance[i]) / profile[0];
    }
}

/* Variance of input i over all contexts of all profiles and this one. */
static float mt_recognition_pooled(const float *profiles, uint32_t count, uint32_t inputs, uint32_t i, float value)
{
    const uint32_t stride = MT_RECOGNITION_FLOATS(inputs);
    float contexts = 1.0f;
    float mean = value;
    for (uint32_t p = 0; p < count; ++p) {
        contexts += profiles[p * stride];
        mean += profiles[p * stride] * profiles[p * stride + 1 + i];
    }
    mean /= contexts;
    float sum = (value - mean) * (value - mean);
    for (uint32_t p = 0; p < count; ++p) {
        const float *profile = profiles + p * stride;
        const float apart = profile[1 + i] - mean;
        sum += profile[0] * (profile[1 + inputs + i] + apart * apart);
    }
    return sum / contexts;
}

/* Log likelihood of this input under one profile, up to what is the same for all; higher is likelier. */
static float mt_recognition_evidence(float seen, float mean, float variance, float pooled, float value)
{
    /* a few contexts say little of a variance: it counts as if two more had been seen, as far apart as all are */
    const float expected = (seen * variance + 2.0f * pooled) / (seen + 2.0f);
    const float squared = (value - mean) * (value - mean) / expected;
    /* Student's t with 8 degrees of freedom instead of a Gaussian: one strange input must not outvote all others */
    return -0.5f * mt_log(expected / pooled) - 4.5f * mt_log(1.0f + squared / 8.0f);
}

MT_COLD uint32_t mt_recognition_choose(const float *profiles, uint32_t count, uint32_t inputs, const float *input,
                                       uint32_t current)
{
    const uint32_t stride = MT_RECOGNITION_FLOATS(inputs);
    const float least = (float)MT_RECOGNITION_LEAST;
    if (current >= count) {
        return 0;
    }
    if (!(profiles[current * stride] >= least)) {
        return current;
    }
    /* every challenger against `current`: no array of scores, however many profiles there are */
    uint32_t best = current;
    float lead = 0.0f;
    for (uint32_t p = 0; p < count; ++p) {
        const float *profile = profiles + p * stride;
        const float *present = profiles + current * stride;
        if (p == current || !(profile[0] >= least)) {
            continue;
        }
        float gain = mt_log(profile[0] / present[0]);
        for (uint32_t i = 0; i < inputs; ++i) {
            const float value = mt_recognition_bounded(input[i]);
            const float pooled = mt_recognition_pooled(profiles, count, inputs, i, value);
            /* an input that was never anything else tells nothing */
            if (pooled > 1e-30f) {
                gain += mt_recognition_evidence(profile[0], profile[1 + i], profile[1 + inputs + i], pooled, value);
                gain -= mt_recognition_evidence(present[0], present[1 + i], present[1 + inputs + i], pooled, value);
            }
        }
        if (gain > lead) {
            lead = gain;
            best = p;
        }
    }
    return best;
}
