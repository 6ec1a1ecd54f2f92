/*
 * driver.c: many uses of a device in one call.
 *
 * For each use: predict; the person answers; observe; idle until there is no more to learn. The device is called
 * through pointers to the functions of its own library, so what runs here is what runs everywhere; it has a clock, which
 * shows the time of the use. Compiled against the headers of the package.
 */
#include "mt_learner.h"

/* what the device learns of a use: Feedback of people.py; or nothing at all */
enum { SETS = 0, ACCEPTS = 1, YES_NO = 2, WATCHES = 3 };

/* what happened at a use; driver.py reads these bits */
enum { PREDICTED = 1, FELL_BACK = 2, LEFT_ALONE = 4, OBSERVED = 8, UPDATED = 16, TAKEN = 32 };

typedef struct mt_driven {
    void *device;         /* its first member points to its port */
    mt_status (*predict)(void *device, const void *input, mt_number *output, mt_prediction *prediction);
    mt_status (*observe)(void *device, const mt_number *target);
    mt_status (*idle)(void *device, mt_update *update);
    uint32_t task;        /* mt_task */
    uint32_t outputs;     /* numbers of one output; of values and yes/no questions, 1 */
    uint32_t input_bytes; /* of one input */
    mt_number *output;    /* (outputs) scratch */
} mt_driven;

typedef struct mt_uses {
    uint32_t count;
    uint32_t feedback;
    const uint8_t *inputs;         /* (count, input_bytes) */
    const uint32_t *seconds;       /* (count): what the clock shows; NULL: the device has none */
    const mt_number *sets;         /* (count): what the person does unless the suggestion is left alone */
    const mt_number *lowest;       /* (count): and `highest`: suggestions left alone; NULL: the feedback does not ask */
    const mt_number *highest;
    /* written here */
    mt_number *answers;            /* (count): the value suggested, the class, or 0 or 1 */
    mt_number *confidences;        /* (count) */
    uint8_t *events;               /* (count): bits of the above */
} mt_uses;

static uint32_t now(void *context)
{
    return **(const uint32_t **)context;
}

static mt_number answer_of(const mt_driven *driven)
{
    uint32_t best = 0;
    if (driven->task == MT_REGRESSION) {
        return driven->output[0];
    }
    if (driven->task == MT_BINARY) {
        return driven->output[0] >= MT_NUMBER(0.5) ? MT_NUMBER(1) : MT_NUMBER(0);
    }
    for (uint32_t i = 1; i < driven->outputs; ++i) {
        best = driven->output[i] > driven->output[best] ? i : best;
    }
    return mt_number_of(best);
}

/* 1 and the label in *target; 0: the device is told nothing */
static int answer_to(const mt_driven *driven, const mt_uses *uses, uint32_t i, mt_number answer, int left,
                     mt_number *target)
{
    *target = left ? answer : uses->sets[i];
    if (uses->feedback == YES_NO && !left) {
        *target = MT_NUMBER(1) - answer;
        return driven->task == MT_BINARY;
    }
    return 1;
}

static uint32_t drive(const mt_driven *driven, const mt_uses *uses, const uint32_t **clock)
{
    for (uint32_t i = 0; i < uses->count; ++i) {
        mt_prediction prediction;
        mt_update update;
        mt_number target = MT_NUMBER(0);
        unsigned events = 0;
        if (uses->seconds != NULL) {
            *clock = uses->seconds + i;
        }
        MT_ZERO(&prediction, sizeof prediction);
        const mt_status seen =
            driven->predict(driven->device, uses->inputs + (size_t)i * driven->input_bytes, driven->output, &prediction);
        uses->answers[i] = uses->confidences[i] = MT_NUMBER(0);
        uses->events[i] = 0;
        if (seen == MT_INPUT_NOT_FINITE || seen == MT_INPUT_OUT_OF_RANGE) {
            continue;
        }
        if (seen != MT_OK) {
            return i;
        }
        const mt_number answer = answer_of(driven);
        uses->answers[i] = answer;
        uses->confidences[i] = prediction.confidence;
        events = PREDICTED | (prediction.fallback ? FELL_BACK : 0u);
        if (uses->feedback != WATCHES) {
            /* unsure, the device asks; who says no more than yes or no does so then too */
            const int asked = prediction.fallback && uses->feedback != YES_NO;
            const int left =
                uses->lowest != NULL && !asked && answer >= uses->lowest[i] && answer <= uses->highest[i];
            events |= left ? LEFT_ALONE : 0u;
            if (answer_to(driven, uses, i, answer, left, &target)) {
                const mt_status told = driven->observe(driven->device, &target);
                if (told != MT_OK && told != MT_TARGET_INVALID) {
                    return i;
                }
                events |= told == MT_OK ? OBSERVED : 0u;
            }
            do {
                if (driven->idle(driven->device, &update) != MT_OK) {
                    return i;
                }
                events |= (update.ran ? UPDATED : 0u) | (update.accepted ? TAKEN : 0u);
            } while (update.more);
        }
        uses->events[i] = (uint8_t)events;
    }
    return uses->count;
}

/* The number of uses done: all of them, or those before a call that failed otherwise than by refusing a value. */
uint32_t mt_drive(const mt_driven *driven, const mt_uses *uses)
{
    const uint32_t *clock = uses->seconds;
    const mt_port **place = (const mt_port **)driven->device, *before = *place;
    mt_port port;
    MT_ZERO(&port, sizeof port);
    port.context = &clock;
    port.now = now;
    if (clock != NULL) {
        *place = &port;
    }
    const uint32_t done = drive(driven, uses, &clock);
    *place = before;
    return done;
}
