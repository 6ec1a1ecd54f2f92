/* sensors_probe.c: whole streams through mt_sensors.h and mt_recognition.h. */
#include "mt_recognition.h"
#include "mt_sensors.h"

uint32_t probe_sizes(void);
uint32_t probe_sizes(void)
{
    return (uint32_t)(sizeof(mt_sensor) * 256u + sizeof(mt_sensor_model));
}

/* inputs (uses, inputs) -> the flags of each input after each use (uses, inputs), and all (uses) */
void probe_stream(const mt_sensor_model *models, mt_sensor *sensors, uint32_t inputs, uint32_t uses, const float *x,
                  uint8_t *flags, uint8_t *all);
void probe_stream(const mt_sensor_model *models, mt_sensor *sensors, uint32_t inputs, uint32_t uses, const float *x,
                  uint8_t *flags, uint8_t *all)
{
    for (uint32_t use = 0; use < uses; ++use) {
        all[use] = mt_sensors_check(models, sensors, inputs, x + use * inputs);
        for (uint32_t i = 0; i < inputs; ++i) {
            flags[use * inputs + i] = sensors[i].flags;
        }
    }
}

void probe_learn(float *profile, uint32_t inputs, uint32_t uses, const float *x);
void probe_learn(float *profile, uint32_t inputs, uint32_t uses, const float *x)
{
    for (uint32_t use = 0; use < uses; ++use) {
        mt_recognition_learn(profile, inputs, x + use * inputs);
    }
}

/* who is chosen at each use (uses), beginning with `current`; each choice is the next one's current */
void probe_choose(const float *profiles, uint32_t count, uint32_t inputs, uint32_t uses, const float *x,
                  uint32_t current, uint32_t *chosen);
void probe_choose(const float *profiles, uint32_t count, uint32_t inputs, uint32_t uses, const float *x,
                  uint32_t current, uint32_t *chosen)
{
    for (uint32_t use = 0; use < uses; ++use) {
        current = mt_recognition_choose(profiles, count, inputs, x + use * inputs, current);
        chosen[use] = current;
    }
}
