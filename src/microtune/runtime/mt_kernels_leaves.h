/*
 * mt_kernels_leaves.h: leaves of trees that learn each sample by a formula.
 *
 * What an ensemble says is a weighted sum of indicators, one of each leaf, of which a sample has one in each tree. So
 * it is a linear model, and the recursion of mt_kernels_covariance.h holds for it: a Gaussian process whose kernel is
 * the share of trees in which two samples fall into the same leaf (Davies and Ghahramani, "The Random Forest Kernel and
 * other kernels for big data from random partitions", 2014). With indicators the product with the covariance is a sum.
 *
 * covariance: packed lower triangle of `size` rows, one of each leaf, the same for every output.
 */
#ifndef MT_KERNELS_LEAVES_H
#define MT_KERNELS_LEAVES_H

#include "mt_kernels_map.h"
#include "mt_kernels_trees.h"

/* variances walk; then gain (size) = P phi; returns phi' P phi */
static inline float mt_leaves_gain(float *MT_RESTRICT covariance, const int8_t *leaves, const int8_t *sizes,
                                   float *MT_RESTRICT gain, float prior, float walk, uint32_t trees,
                                   uint32_t size_bytes, uint32_t leaf_bytes, uint32_t size)
{
    float variance = 0.0f;
    uint32_t first = 0;
    for (uint32_t row = 0, at = 0; row < size; ++row, at += row + 1) {
        covariance[at] = mt_covariance_walk(covariance[at], prior, walk);
        gain[row] = 0.0f;
    }
    for (uint32_t tree = 0; tree < trees; ++tree) {
        const uint32_t row = first + mt_trees_entry(leaves + tree * leaf_bytes, leaf_bytes);
        const float *at = covariance + row * (row + 1) / 2;
        mt_add_scaled(gain, 1.0f, at, row + 1);
        at += row;
        for (uint32_t below = row + 1; below < size; ++below) {
            at += below;
            gain[below] += *at;
        }
        first += mt_trees_entry(sizes + tree * size_bytes, size_bytes) + 1;
    }
    first = 0;
    for (uint32_t tree = 0; tree < trees; ++tree) {
        variance += gain[first + mt_trees_entry(leaves + tree * leaf_bytes, leaf_bytes)];
        first += mt_trees_entry(sizes + tree * size_bytes, size_bytes) + 1;
    }
    return variance;
}

/* values (size, outputs) of one output move along the gain; P -= factor gain gain' comes once, behind all outputs */
static inline void mt_leaves_step(float *MT_RESTRICT values, const float *MT_RESTRICT gain, float step, uint32_t size,
                                  uint32_t outputs)
{
    for (uint32_t row = 0; row < size; ++row) {
        values[row * outputs] += step * gain[row];
    }
}

/* squared error, noise of variance 1. scratch (size + outputs) in all of these */
static inline void mt_leaves_mse(float *MT_RESTRICT values, float *MT_RESTRICT covariance, const int8_t *leaves,
                                 const int8_t *sizes, const float *MT_RESTRICT y, const float *MT_RESTRICT target,
                                 float *MT_RESTRICT scratch, float prior, float walk, uint32_t trees,
                                 uint32_t size_bytes, uint32_t leaf_bytes, uint32_t size, uint32_t outputs)
{
    const float variance =
        mt_leaves_gain(covariance, leaves, sizes, scratch, prior, walk, trees, size_bytes, leaf_bytes, size);
    if (!mt_covariance_sound(variance)) {
        return;
    }
    const float spread = 1.0f + variance;
    for (uint32_t o = 0; o < outputs; ++o) {
        mt_leaves_step(values + o, scratch, (target[o] - y[o]) / spread, size, outputs);
    }
    mt_covariance_learn(covariance, scratch, 1.0f / spread, size - 1);
}

/* yes or no: an extended Kalman filter with moderated probabilities, as mt_logistic */
static inline void mt_leaves_binary_cross_entropy(float *MT_RESTRICT values, float *MT_RESTRICT covariance,
                                                  const int8_t *leaves, const int8_t *sizes,
                                                  const float *MT_RESTRICT y, const float *MT_RESTRICT target,
                                                  float *MT_RESTRICT scratch, float prior, float walk, uint32_t trees,
                                                  uint32_t size_bytes, uint32_t leaf_bytes, uint32_t size,
                                                  uint32_t outputs)
{
    const float variance =
        mt_leaves_gain(covariance, leaves, sizes, scratch, prior, walk, trees, size_bytes, leaf_bytes, size);
    if (!mt_covariance_sound(variance)) {
        return;
    }
    const float p = mt_sigmoid(y[0] * mt_moderation(variance));
    const float curvature = p * (1.0f - p), spread = 1.0f + curvature * variance;
    mt_leaves_step(values, scratch, (target[0] - p) / spread, size, outputs);
    mt_covariance_learn(covariance, scratch, curvature / spread, size - 1);
}

/* one of several classes: all share one covariance, as in mt_map */
static inline void mt_leaves_cross_entropy(float *MT_RESTRICT values, float *MT_RESTRICT covariance,
                                           const int8_t *leaves, const int8_t *sizes, const float *MT_RESTRICT y,
                                           const float *MT_RESTRICT target, float *MT_RESTRICT scratch, float prior,
                                           float walk, uint32_t trees, uint32_t size_bytes, uint32_t leaf_bytes,
                                           uint32_t size, uint32_t outputs)
{
    const float variance =
        mt_leaves_gain(covariance, leaves, sizes, scratch, prior, walk, trees, size_bytes, leaf_bytes, size);
    float *const probability = scratch + size;
    const float largest = mt_map_largest(y, outputs);
    if (!mt_covariance_sound(variance) || !mt_is_finite(largest)) {
        return;
    }
    const float curvature = mt_map_probabilities(y, probability, largest, variance, outputs);
    const float spread = 1.0f + curvature * variance;
    for (uint32_t o = 0; o < outputs; ++o) {
        const float true_class = o == (uint32_t)target[0] ? 1.0f : 0.0f;
        mt_leaves_step(values + o, scratch, (true_class - probability[o]) / spread, size, outputs);
    }
    mt_covariance_learn(covariance, scratch, curvature / spread, size - 1);
}

#endif
