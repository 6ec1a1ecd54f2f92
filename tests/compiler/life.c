/*
 * A whole life of a device: sane values and nonsense, everybody who uses it, learning in pieces, undoing, a broken
 * storage, power cuts, days and years. Included once for each device, of which the includer says
 *
 *     DEVICE, CALL(verb)       its struct and functions
 *     LIFE                     what this function is called
 *     INPUTS, OUTPUTS, TARGETS, PROFILES, CONTEXTS
 *     TASK                     0 regression, 1 binary, 2 multiclass
 *     RECOGNISES, SENSES, LOGS 0 or 1
 *     SAVED, STORAGE_BYTES     of a state, and of the storage for them
 *
 * LIFE returns 0, or the line of what did not hold; *updates counts the updates that were finished.
 */
#ifndef LIFE_ONCE
#define LIFE_ONCE

#include <stdio.h>
#include <string.h>

#include "memory_port.h"
#include "mt_math.h"

#define LOG_BYTES 1024u

static uint32_t life_generator, life_seconds;
static int life_is_broken, life_moody;
static int (*life_write)(void *, uint32_t, const void *, uint32_t);

static uint32_t life_draw(uint32_t below)
{
    life_generator = life_generator * 1664525u + 1013904223u;
    return (life_generator >> 8) % below;
}

static float life_value(void)
{
    return (float)life_draw(4096) / 2048.0f - 1.0f;
}

static uint32_t life_now(void *context)
{
    (void)context;
    return life_seconds;
}

static int life_may_learn(void *context)
{
    (void)context;
    return !life_moody || life_draw(4) != 0;
}

/* so many lives of a device: its name, updates finished, the line of what did not hold */
static int life_tell(const char *name, int (*life)(uint32_t, uint32_t *), uint32_t lives)
{
    uint32_t updates = 0;
    int line = 0;
    for (uint32_t seed = 0; seed < lives && line == 0; ++seed) {
        line = life(seed, &updates);
    }
    printf("%s %u %d\n", name, (unsigned)updates, line);
    return line != 0;
}

static int life_write_or_not(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    return life_is_broken ? 1 : life_write(context, address, data, bytes);
}
#endif

#define MUST(holds) \
    do { \
        if (!(holds)) { \
            return __LINE__; \
        } \
    } while (0)

static int LIFE(uint32_t seed, uint32_t *updates)
{
    static DEVICE device;
    static uint8_t storage[STORAGE_BYTES + LOGS * LOG_BYTES];
    float input[INPUTS], output[OUTPUTS], target[TARGETS], loss;
    mt_prediction prediction;
    mt_update update;
    mt_report report;
    mt_metrics metrics;
    mt_port port;
    int wild = 0, rotten = 0;
    static uint8_t begun[SAVED];
    /* a new device is the same wherever its memory comes from */
    memset(&device, 0xA5, sizeof device);
    MUST(CALL(init)(&device, NULL) == MT_OK);
    memcpy(begun, (uint8_t *)&device + sizeof(void *), SAVED);
    memset(&device, 0x5A, sizeof device);
    MUST(CALL(init)(&device, NULL) == MT_OK);
    MUST(memcmp(begun, (uint8_t *)&device + sizeof(void *), SAVED) == 0);
    memset(&device, 0xA5, sizeof device);
    memset(storage, 0xFF, sizeof storage);
    mt_memory_port_create(&port, storage, sizeof storage, 256);
    life_write = port.write;
    port.write = life_write_or_not;
    port.log = LOGS * LOG_BYTES;
    port.now = seed % 4 != 3 ? life_now : NULL;
    port.may_learn = life_may_learn;
    life_generator = seed;
    life_seconds = 1000;
    life_moody = seed % 2;
    life_is_broken = 0;
    MUST(CALL(init)(&device, &port) == MT_OK);
    for (uint32_t step = 0; step < 240; ++step) {
        wild = life_draw(12) == 0;
        for (uint32_t i = 0; i < INPUTS; ++i) {
            input[i] = wild && life_draw(2) ? (life_draw(2) ? 1e30f * 1e30f : 900.0f) : life_value();
        }
        for (uint32_t i = 0; i < TARGETS; ++i) {
            target[i] = TASK == 2 ? (float)(((input[0] > 0.0f) + (input[1 % INPUTS] > 0.0f)) % OUTPUTS)
                      : TASK == 1 ? (float)(input[i % INPUTS] > 0.0f)
                                  : input[0] + 0.5f;
            target[i] = life_draw(16) == 0 ? -1e38f * 1e30f : target[i];
        }
        const mt_status predicted = CALL(predict)(&device, input, output, &prediction);
        MUST(predicted == MT_OK || predicted == MT_INPUT_NOT_FINITE || predicted == MT_INPUT_OUT_OF_RANGE);
        if (predicted == MT_OK) {
            float sum = 0.0f;
            for (uint32_t i = 0; i < OUTPUTS; ++i) {
                MUST(mt_is_finite(output[i]) && (TASK == 0 || (output[i] >= 0.0f && output[i] <= 1.0f)));
                sum += output[i];
            }
            MUST(TASK != 2 || (sum > 0.999f && sum < 1.001f));
            MUST(prediction.confidence >= 0.0f && prediction.confidence <= 1.0f);
            MUST(prediction.profile < PROFILES && prediction.best < OUTPUTS);
        }
        const mt_status observed = CALL(observe)(&device, target);
        MUST(observed == MT_OK || observed == MT_TARGET_INVALID || observed == MT_NO_PREDICTION);
        MUST(observed != MT_OK || CALL(observe)(&device, target) == MT_NO_PREDICTION);
        life_is_broken = life_draw(20) == 0;
        const mt_status idled = CALL(idle)(&device, step % 16 != 15 ? &update : NULL);
        MUST(idled == MT_OK || (idled == MT_STORAGE_FAILED && life_is_broken));
        life_is_broken = 0;
        if (step % 16 != 15) {
            MUST(mt_is_finite(update.loss_before) && mt_is_finite(update.loss_after) && update.accepted <= update.ran);
            *updates += update.ran;
        }
        life_seconds += life_draw(20) == 0 ? life_draw(90) * 86400u : life_draw(40000);
        switch (life_draw(48)) {
        case 0: MUST(CALL(forget)(&device) == MT_OK); break;
        case 1: MUST(CALL(forget_last)(&device, life_draw(12)) == MT_OK); break;
        case 2:
            MUST(CALL(forget_since)(&device, life_draw(400000)) == (port.now != NULL ? MT_OK : MT_INVALID_ARGUMENT));
            break;
        case 3: MUST(CALL(learning_mode)(&device, life_draw(6)) == MT_OK); break;
        case 4: MUST(life_draw(4) != 0 || CALL(reset)(&device) == MT_OK); break;
        case 5:
        case 6: {
            const mt_status status = CALL(step)(&device, input, target, &loss);
            MUST(status != MT_OK || mt_is_finite(loss) || wild);
            break;
        }
        case 7: MUST(CALL(save)(&device) == MT_OK && CALL(init)(&device, &port) == MT_OK); break;
        case 8:
            if (life_draw(2)) {
                storage[life_draw(sizeof storage)] ^= (uint8_t)(1u << life_draw(8)); /* bits rot while it is off */
                rotten = 1;
            }
            {
                const mt_status status = CALL(init)(&device, &port); /* after a power cut */
                MUST(status == MT_OK || (status == MT_STATE_CORRUPT && rotten));
            }
            break;
#if PROFILES > 1
        case 9:
        case 10:
        case 11: {
            const uint32_t profile = life_draw(PROFILES + 1);
            MUST(CALL(select_profile)(&device, profile) == (profile < PROFILES ? MT_OK : MT_INVALID_ARGUMENT));
            break;
        }
        case 12: MUST(CALL(select_profile)(&device, MT_RECOGNISE) == (RECOGNISES ? MT_OK : MT_INVALID_ARGUMENT)); break;
#endif
        default: break;
        }
        MUST(CALL(status)(&device, &report) == MT_OK && CALL(metrics)(&device, &metrics) == MT_OK);
        MUST(report.learnt >= 0.0f && report.learnt <= 1.0f && report.sure >= 0.0f && report.sure <= 1.0f);
        MUST(report.stage <= MT_ACQUAINTED && report.profile < PROFILES && report.suspect <= SENSES * INPUTS);
        MUST(mt_is_finite(metrics.mean_error) && metrics.suspect <= metrics.observations);
#if SENSES
        MUST(CALL(sensor)(&device, step % INPUTS) < 8 && CALL(sensor)(&device, INPUTS) == 0);
#endif
    }
    MUST(CALL(predict)(NULL, input, output, &prediction) == MT_INVALID_ARGUMENT);
    MUST(CALL(forget_last)(NULL, 1) == MT_INVALID_ARGUMENT && CALL(save)(&device) == MT_OK);
    return 0;
}

#undef MUST
