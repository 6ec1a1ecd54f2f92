/* sensors_probe.c: whole streams through mt_sensors.h and mt_recognition.h. */
#include "mt_recognition.h"
#include "mt_sensors.h"

/* x (uses, inputs) -> the flags of each input after each use (uses, inputs), and of all together (uses) */
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

/* x (uses, inputs): contexts of one profile */
void probe_learn(float *profile, uint32_t inputs, uint32_t uses, const float *x);
void probe_learn(float *profile, uint32_t inputs, uint32_t uses, const float *x)
{
    for (uint32_t use = 0; use < uses; ++use) {
        mt_recognition_learn(profile, inputs, x + use * inputs);
    }
}

/* x (uses, inputs) -> who is chosen at each use (uses); each choice is the next one's current */
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
