/* mt_status.h: what every call that can fail returns. 1 to 5: refused, what is learnt is as before. 6, or 1 where the
 * port has too little storage: done in RAM, and not saved. 7 to 9: news that init brings. */
#ifndef MT_STATUS_H
#define MT_STATUS_H

typedef enum mt_status {
    MT_OK = 0,
    MT_INVALID_ARGUMENT = 1,    /* a null pointer, or a port with too little storage */
    MT_INPUT_NOT_FINITE = 2,    /* an input is NaN or infinite */
    MT_INPUT_OUT_OF_RANGE = 3,  /* an input lies outside the range it was declared with */
    MT_TARGET_INVALID = 4,      /* an observed value is not finite, not in 0..1, or not a class index */
    MT_NO_PREDICTION = 5,       /* observe without a prediction to pair with */
    MT_STORAGE_FAILED = 6,      /* the port reported an error; the last good state is still there */
    MT_STATE_CORRUPT = 7,       /* init found states but none whole: the base model runs */
    MT_STATE_FOREIGN = 8,       /* init found the state of another build: the base model runs */
    MT_STATE_MIGRATED = 9       /* init took over what it could of the state of another build */
} mt_status;

#endif
