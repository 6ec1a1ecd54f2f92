/*
 * mt_kernels_fixed_loss.h: probabilities and losses of one sample in fixed point, with gradients as blocks.
 *
 * The losses of mt_kernels_loss.h for packages without floating point: outputs y (for the cross-entropies: logits),
 * targets t, probabilities and the loss have 16 binary places (mt_fixed.h); the loss saturates at 32768. The gradient
 * dy (2 + size) is a block (mt_kernels_block.h), in memory of its own, or NULL when only the loss is wanted. t of the
 * softmax's is the index of the class, in 16 places as well.
 */
#ifndef MT_KERNELS_FIXED_LOSS_H
#define MT_KERNELS_FIXED_LOSS_H

#include "mt_fixed.h"
#include "mt_kernels_block.h"

/// Probabilities ///

static inline mt_fixed mt_largest_fixed(const mt_fixed *x, uint32_t size)
{
    mt_fixed largest = x[0];
    for (uint32_t i = 1; i < size; ++i) {
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

/* sum of e^(x - largest), at least 1: below 2^32 up to 65535 elements */
static inline uint32_t mt_exponentials_fixed(const mt_fixed *x, mt_fixed largest, uint32_t size)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < size; ++i) {
        sum += (uint32_t)mt_fixed_exp(mt_fixed_subtract(x[i], largest));
    }
    return sum;
}

static inline mt_fixed mt_share_fixed(mt_fixed x, mt_fixed largest, uint32_t sum)
{
    const uint32_t half = (sum >> 1) + (sum & 1u);
    const uint32_t e = (uint32_t)mt_fixed_exp(mt_fixed_subtract(x, largest));
    return (mt_fixed)(((e << 15) + (half >> 1)) / half);
}

/* y may be x; at most 65535 elements. Each is within 2.5 / 65536 of the exact one. */
static inline void mt_softmax_fixed(const mt_fixed *x, mt_fixed *y, uint32_t size)
{
    const mt_fixed largest = mt_largest_fixed(x, size);
    const uint32_t sum = mt_exponentials_fixed(x, largest, size);
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_share_fixed(x[i], largest, sum);
    }
}

/* y may be x */
static inline void mt_sigmoid_fixed_all(const mt_fixed *x, mt_fixed *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_fixed_sigmoid(x[i]);
    }
}

/// Losses ///

/* a sum of losses, none below zero, as their mean */
static inline mt_fixed mt_mean_fixed(mt_fixed sum, uint32_t size)
{
    return size == 1u ? sum : (mt_fixed)(((uint32_t)sum + size / 2u) / size);
}

/* mean of (y - t)^2 */
static inline mt_fixed mt_mse_fixed(const mt_fixed *y, const mt_fixed *t, mt_int16 *dy, uint32_t size)
{
    mt_fixed sum = 0;
    mt_block_writer writer = mt_block_begin(dy);
    for (uint32_t i = 0; i < size; ++i) {
        const mt_fixed error = mt_fixed_subtract(y[i], t[i]);
        sum = mt_fixed_add(sum, mt_fixed_multiply(error, error));
        if (dy != NULL) {
            mt_block_put(&writer, i, error);
        }
    }
    if (dy != NULL) {
        mt_block_end(&writer, dy, size, -15);
        mt_block_divide(dy, size, size);
    }
    return mt_mean_fixed(sum, size);
}

/* mean of e^2 / 2 where |e| <= delta, delta (|e| - delta / 2) beyond (Huber 1964) */
static inline mt_fixed mt_huber_fixed(const mt_fixed *y, const mt_fixed *t, mt_int16 *dy, mt_fixed delta, uint32_t size)
{
    mt_fixed sum = 0;
    mt_block_writer writer = mt_block_begin(dy);
    for (uint32_t i = 0; i < size; ++i) {
        const mt_fixed error = mt_fixed_subtract(y[i], t[i]);
        const mt_fixed clipped = mt_fixed_clamp(error, -delta, delta);
        sum = mt_fixed_add(sum, mt_fixed_multiply(clipped, mt_fixed_subtract(error, clipped / 2)));
        if (dy != NULL) {
            mt_block_put(&writer, i, clipped);
        }
    }
    if (dy != NULL) {
        mt_block_end(&writer, dy, size, -16);
        mt_block_divide(dy, size, size);
    }
    return mt_mean_fixed(sum, size);
}

/* t in 0..1; mean of -t ln p - (1 - t) ln(1 - p), p = sigmoid(y) */
static inline mt_fixed mt_binary_cross_entropy_fixed(const mt_fixed *y, const mt_fixed *t, mt_int16 *dy, uint32_t size)
{
    mt_fixed sum = 0;
    mt_block_writer writer = mt_block_begin(dy);
    for (uint32_t i = 0; i < size; ++i) {
        const mt_fixed positive = y[i] > 0 ? y[i] : 0;
        const mt_fixed e = mt_fixed_exp_below(y[i]);
        const mt_fixed linear = mt_fixed_subtract(positive, mt_fixed_multiply(y[i], t[i]));
        sum = mt_fixed_add(sum, mt_fixed_add(linear, mt_fixed_log_above_one(e)));
        if (dy != NULL) {
            mt_block_put(&writer, i, mt_fixed_subtract(mt_fixed_sigmoid_by(y[i], e), t[i]));
        }
    }
    if (dy != NULL) {
        mt_block_end(&writer, dy, size, -16);
        mt_block_divide(dy, size, size);
    }
    return mt_mean_fixed(sum, size);
}

/* t[0] is the index of the true class; -ln softmax(y)[t]; at most 32767 classes */
static inline mt_fixed mt_cross_entropy_fixed(const mt_fixed *y, const mt_fixed *t, mt_int16 *dy, uint32_t size)
{
    const uint32_t label = (uint32_t)mt_fixed_floor(t[0]);
    const mt_fixed largest = mt_largest_fixed(y, size);
    const uint32_t sum = mt_exponentials_fixed(y, largest, size);
    if (dy != NULL) {
        mt_block_writer writer = mt_block_begin(dy);
        for (uint32_t i = 0; i < size; ++i) {
            mt_block_put(&writer, i, mt_share_fixed(y[i], largest, sum) - (i == label ? MT_FIXED_ONE : 0));
        }
        mt_block_end(&writer, dy, size, -16);
    }
    return mt_fixed_add(mt_fixed_log((mt_fixed)sum), mt_fixed_subtract(largest, y[label]));
}

#endif
