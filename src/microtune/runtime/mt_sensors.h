/*
 * mt_sensors.h: is what the sensors say believable?
 *
 * Three tests of each input, against constants learnt at build time from the factory's samples: a value that the
 * input does not take, the same value to the bit for too many uses, a running mean where no sane sensor's lies. A
 * person's habits are no fault: whoever uses a corner of the range for ever passes all three. docs/sensors.md gives
 * the reasons and what was measured.
 *
 * Finite for any finite input, whatever bytes the state holds; no libm, and the same bits on every target.
 */
#ifndef MT_SENSORS_H
#define MT_SENSORS_H

#include "mt_platform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* what may be wrong with an input, as flags */
enum {
    MT_SENSOR_RANGE = 1, /* a value that this input does not take */
    MT_SENSOR_STUCK = 2, /* the same value to the bit for too many uses */
    MT_SENSOR_DRIFT = 4, /* the running mean left where that of a sane sensor lies */
    MT_SENSOR_ALL = 7
};

enum { MT_SENSOR_SANE = 4 }; /* uses in a row that must pass all tests before flags clear */

/* constants of one input, from the factory; 28 bytes of flash */
typedef struct mt_sensor_model {
    float low, high;           /* one value lies from low to high ... */
    float step;                /* ... above 0: and at most step / 64 above low + a whole number of steps */
    float mean_low, mean_high; /* the running mean lies within these */
    float common;              /* a value that it may keep for ever */
    uint16_t same;             /* any other value kept for so many uses is stuck, 2 to 255; 0: none ever is */
    uint16_t window;           /* uses that the running mean is taken over, 1 to 255; 0: no running mean */
} mt_sensor_model;

/* saved, of each input: fixed width, no pointers, the same bytes on every target */
typedef struct mt_sensor {
    float last;    /* the last value ... */
    float mean;    /* the running mean of values, each no farther than low to high */
    uint8_t same;  /* ... and for how many uses it has been that, at most 255; 0: there was no use yet */
    uint8_t uses;  /* uses so far, at most the window */
    uint8_t sane;  /* uses in a row that passed all tests, at most MT_SENSOR_SANE */
    uint8_t flags; /* of MT_SENSOR_* */
} mt_sensor;

MT_REQUIRE(sizeof(mt_sensor) == 12, sensor_has_no_padding);
MT_REQUIRE(sizeof(mt_sensor_model) == 28, sensor_model_has_no_padding);

/* Sensors of which nothing was heard yet; so too after one was repaired. */
void mt_sensors_begin(mt_sensor *sensors, uint32_t inputs);

/* One use: input (inputs), finite. Returns the flags of all inputs or'ed, 0 when all are sane; those of each
 * stay in `sensors` until it passed all tests MT_SENSOR_SANE times in a row. */
uint8_t mt_sensors_check(const mt_sensor_model *models, mt_sensor *sensors, uint32_t inputs, const float *input);

#ifdef __cplusplus
}
#endif

#endif
