/* A whole life of a device under the sanitizers: refusals, learning, storage, undoing. DEVICE names it. */
#include <stdio.h>

#include "device_under_test.h"
#include "memory_port.h"

static uint8_t storage[STORAGE_BYTES];

static float wave(uint32_t step)
{
    return (float)((step * 2654435761u) >> 20) / 4096.0f;
}

int main(void)
{
    static DEVICE device;
    float input[INPUTS], output[OUTPUTS], target[TARGETS], loss;
    mt_prediction prediction;
    mt_update update;
    mt_report report;
    mt_metrics metrics;
    mt_port port;
    mt_memory_port_create(&port, storage, sizeof storage, 256);
    for (uint32_t life = 0; life < 3; ++life) {
        const mt_status begun = CALL(init)(&device, &port);
        if (begun != MT_OK && begun != MT_STATE_CORRUPT) {
            return 1;
        }
        for (uint32_t step = 0; step < 60; ++step) {
            for (uint32_t i = 0; i < INPUTS; ++i) {
                input[i] = step % 13 == 12 ? 1e30f * 1e30f : wave(step * 31 + i);
            }
            for (uint32_t i = 0; i < TARGETS; ++i) {
                target[i] = MULTICLASS ? (float)(step % OUTPUTS) : step % 7 == 6 ? -1e38f * 1e30f : wave(step + i);
            }
            (void)CALL(predict)(&device, input, output, &prediction);
            (void)CALL(observe)(&device, target);
            (void)CALL(observe)(&device, target);
            (void)CALL(idle)(&device, step % 2 ? &update : NULL);
            (void)CALL(step)(&device, input, target, &loss);
            (void)CALL(status)(&device, &report);
            (void)CALL(metrics)(&device, &metrics);
            if (step == 40 && CALL(forget)(&device) != MT_OK) {
                return 2;
            }
            if (step == 50 && life == 1 && CALL(reset)(&device) != MT_OK) {
                return 3;
            }
        }
        if (CALL(save)(&device) != MT_OK) {
            return 4;
        }
        storage[life * 97] ^= 1; /* damage, so that the next start must choose another slot or none */
    }
    printf("%u\n", (unsigned)(metrics.accepted + metrics.rolled_back));
    return 0;
}
