#include "mt_sensors.h"

#include "mt_math.h"

MT_COLD void mt_sensors_begin(mt_sensor *sensors, uint32_t inputs)
{
    MT_ZERO(sensors, inputs * sizeof *sensors);
}

static int mt_sensor_out_of_range(const mt_sensor_model *model, float value)
{
    if (value < model->low || value > model->high) {
        return 1;
    }
    if (model->step > 0.0f) {
        /* a table has far fewer steps; the bound keeps the conversion defined for any */
        const float steps = (value - model->low) / model->step;
        return steps < 32768.0f && steps - (float)(int32_t)steps > 1.0f / 64.0f;
    }
    return 0;
}

static int mt_sensor_is_stuck(const mt_sensor_model *model, mt_sensor *sensor, float value)
{
    if (sensor->same == 0 || value < sensor->last || value > sensor->last || !mt_is_finite(sensor->last)) {
        sensor->last = value;
        sensor->same = 1;
    } else if (sensor->same < 255) {
        ++sensor->same;
    }
    const int common = !(value < model->common || value > model->common);
    return model->same != 0 && sensor->same >= model->same && !common;
}

static int mt_sensor_drifts(const mt_sensor_model *model, mt_sensor *sensor, float value)
{
    if (model->window == 0) {
        return 0;
    }
    /* one value counts for no more than the range, so that the mean comes back soon after wild ones */
    const float bounded = mt_clamp(value, model->low, model->high);
    if (sensor->uses < model->window) {
        ++sensor->uses;
    }
    /* not so in a fresh state, nor in one whose bytes mean nothing */
    if (!(sensor->mean >= model->low && sensor->mean <= model->high)) {
        sensor->mean = bounded;
    }
    sensor->mean += (bounded - sensor->mean) / (float)sensor->uses;
    return sensor->uses >= model->window && (sensor->mean < model->mean_low || sensor->mean > model->mean_high);
}

uint8_t mt_sensors_check(const mt_sensor_model *models, mt_sensor *sensors, uint32_t inputs, const float *input)
{
    uint8_t all = 0;
    for (uint32_t i = 0; i < inputs; ++i) {
        mt_sensor *sensor = &sensors[i];
        /* each test keeps its own count, so all three are made */
        const int range = mt_sensor_out_of_range(&models[i], input[i]) ? MT_SENSOR_RANGE : 0;
        const int stuck = mt_sensor_is_stuck(&models[i], sensor, input[i]) ? MT_SENSOR_STUCK : 0;
        const int drift = mt_sensor_drifts(&models[i], sensor, input[i]) ? MT_SENSOR_DRIFT : 0;
        const int failed = range | stuck | drift;
        if (failed != 0) {
            sensor->sane = 0;
        } else if (sensor->sane < MT_SENSOR_SANE) {
            ++sensor->sane;
        }
        const int kept = sensor->sane < MT_SENSOR_SANE ? sensor->flags & MT_SENSOR_ALL : 0;
        sensor->flags = (uint8_t)(kept | failed);
        all = (uint8_t)(all | sensor->flags);
    }
    return all;
}
