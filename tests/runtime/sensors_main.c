/* For the sanitizers: the calls of sensors_probe.c by pipe, each array in memory of exactly its size. */
#include <stdio.h>
#include <stdlib.h>

#include "sensors_probe.c"

static void *take(size_t bytes)
{
    void *data = malloc(bytes);
    if (!data || fread(data, 1, bytes, stdin) != bytes) {
        exit(1);
    }
    return data;
}

static void give(void *data, size_t bytes)
{
    fwrite(data, 1, bytes, stdout);
    free(data);
}

static void *room(size_t bytes)
{
    void *data = malloc(bytes);
    if (!data) {
        exit(1);
    }
    return data;
}

int main(void)
{
    uint32_t call[5]; /* which, inputs, uses, profiles, current */
    while (fread(call, sizeof call, 1, stdin) == 1) {
        const uint32_t inputs = call[1], uses = call[2];
        if (call[0] == 0) {
            mt_sensor_model *models = take(inputs * sizeof *models);
            mt_sensor *sensors = take(inputs * sizeof *sensors);
            float *x = take((size_t)uses * inputs * sizeof *x);
            uint8_t *flags = room((size_t)uses * inputs);
            uint8_t *all = room(uses);
            probe_stream(models, sensors, inputs, uses, x, flags, all);
            free(models);
            free(x);
            give(sensors, inputs * sizeof *sensors);
            give(flags, (size_t)uses * inputs);
            give(all, uses);
        } else {
            const size_t floats = call[3] * MT_RECOGNITION_FLOATS(inputs);
            float *profiles = take(floats * sizeof *profiles);
            float *x = take((size_t)uses * inputs * sizeof *x);
            if (call[0] == 1) {
                probe_learn(profiles, inputs, uses, x);
                give(profiles, floats * sizeof *profiles);
            } else {
                uint32_t *chosen = room(uses * sizeof *chosen);
                probe_choose(profiles, call[3], inputs, uses, x, call[4], chosen);
                free(profiles);
                give(chosen, uses * sizeof *chosen);
            }
            free(x);
        }
        fflush(stdout);
    }
    return 0;
}
