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
 *     WHOLE(saved)             whether what learnt, in the bytes of a state, lies in its limits
 *
 * LIFE returns 0, or the line of what did not hold; *updates counts the updates that were finished.
 */
#ifndef LIFE_ONCE
#define LIFE_ONCE

#include <stdio.h>
#include <string.h>

#include "memory_port.h"
#include "mt_number.h"

#define LOG_BYTES 1024u

static uint32_t life_generator, life_seconds;
static int life_is_broken, life_moody;
static int (*life_write)(void *, uint32_t, const void *, uint32_t);

static uint32_t life_draw(uint32_t below)
{
    life_generator = life_generator * 1664525u + 1013904223u;
    return (life_generator >> 8) % below;
}

#if MT_NUMBER_KIND == 0
typedef float life_input;

static int life_is_finite(float x)
{
    return mt_is_finite(x);
}

static float life_value(void)
{
    return (float)life_draw(4096) / 2048.0f - 1.0f;
}

static float life_wild(void)
{
    return life_draw(2) ? 1e30f * 1e30f : 900.0f;
}

static float life_target(int wild)
{
    (void)wild;
    return -1e38f * 1e30f;
}
#else
typedef int8_t life_input; /* of which all are sane */

static int life_is_finite(mt_number x)
{
    (void)x;
    return 1;
}

static int8_t life_value(void)
{
    return (int8_t)((int32_t)life_draw(256) - 128);
}

static int8_t life_wild(void)
{
    return life_draw(2) ? 127 : -128;
}

/* the least of all numbers, or one at an end of them */
static mt_number life_target(int wild)
{
    return wild ? (life_draw(2) ? MT_FIXED_LARGEST : -MT_FIXED_LARGEST) : INT32_MIN;
}
#endif

/* biases that learn as integers */
static inline int life_is_bias(const uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        int32_t bias;
        memcpy(&bias, bytes + 4u * i, sizeof bias);
        if (bias < -1073741824 || bias > 1073741823) {
            return 0;
        }
    }
    return 1;
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
    life_input input[INPUTS];
    mt_number output[OUTPUTS], target[TARGETS], loss;
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
            input[i] = wild && life_draw(2) ? life_wild() : life_value();
        }
        for (uint32_t i = 0; i < TARGETS; ++i) {
            target[i] = TASK == 2 ? mt_number_of((uint32_t)((input[0] > 0) + (input[1 % INPUTS] > 0)) % OUTPUTS)
                      : TASK == 1 ? mt_number_of((uint32_t)(input[i % INPUTS] > 0))
                                  : (mt_number)input[0] + MT_NUMBER(0.5);
            target[i] = life_draw(16) == 0 ? life_target(TASK == 0 && wild) : target[i];
        }
        const mt_status predicted = CALL(predict)(&device, input, output, &prediction);
        MUST(predicted == MT_OK || predicted == MT_INPUT_NOT_FINITE || predicted == MT_INPUT_OUT_OF_RANGE);
        if (predicted == MT_OK) {
            mt_number sum = MT_NUMBER(0);
            for (uint32_t i = 0; i < OUTPUTS; ++i) {
                MUST(life_is_finite(output[i]) && (TASK == 0 || (output[i] >= MT_NUMBER(0) && output[i] <= MT_NUMBER(1))));
                sum += output[i];
            }
            MUST(TASK != 2 || (sum > MT_NUMBER(0.999) && sum < MT_NUMBER(1.001)));
            MUST(prediction.confidence >= MT_NUMBER(0) && prediction.confidence <= MT_NUMBER(1));
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
            MUST(life_is_finite(update.loss_before) && life_is_finite(update.loss_after) && update.accepted <= update.ran);
            MUST(update.loss_before >= MT_NUMBER(0) && update.loss_after >= MT_NUMBER(0));
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
            MUST(status != MT_OK || (life_is_finite(loss) && loss >= MT_NUMBER(0)) || wild);
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
        MUST(report.learnt >= MT_NUMBER(0) && report.learnt <= MT_NUMBER(1));
        MUST(report.sure >= MT_NUMBER(0) && report.sure <= MT_NUMBER(1));
        MUST(report.stage <= MT_ACQUAINTED && report.profile < PROFILES && report.suspect <= SENSES * INPUTS);
        MUST(life_is_finite(metrics.mean_error) && metrics.mean_error >= MT_NUMBER(0) && metrics.suspect <= metrics.observations);
        MUST(WHOLE(((uint8_t *)&device + sizeof(void *))));
#if SENSES
        MUST(CALL(sensor)(&device, step % INPUTS) < 8 && CALL(sensor)(&device, INPUTS) == 0);
#endif
    }
    MUST(CALL(predict)(NULL, input, output, &prediction) == MT_INVALID_ARGUMENT);
    MUST(CALL(forget_last)(NULL, 1) == MT_INVALID_ARGUMENT && CALL(save)(&device) == MT_OK);
    return 0;
}

#undef MUST
