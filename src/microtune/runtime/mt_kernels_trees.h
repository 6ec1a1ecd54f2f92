/*
 * mt_kernels_trees.h: decision trees as tables of small integers.
 *
 * A tree of n comparisons is n entries in a row, its root first, then all of what is left of it, then all of what is
 * right. An entry says how many comparisons stand on its left, and which split it is: a feature and the key of a
 * threshold. Where a subtree has no comparison there is a leaf. Leaves take no entry: they are numbered from the left,
 * and those of m comparisons are m + 1. Tables are unsigned integers of one or two bytes, little-endian.
 *
 * Keys are the bits of a float, turned so that they are in order as signed integers: a comparison asks for no
 * floating-point unit. Minus zero is next below zero there; no threshold is minus zero.
 */
#ifndef MT_KERNELS_TREES_H
#define MT_KERNELS_TREES_H

#include "mt_kernels.h"
#include "mt_math.h"

/* probabilities below this, which float32 loses beside 1, count as this: their logarithm is finite */
#define MT_TREES_LEAST 5.9604645e-8f

/* before a loop over trees, whose body is a walk of its own: written out it would only be longer */
#if defined(__clang__)
#define MT_TREES_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define MT_TREES_ROLLED
#endif

/// Tables ///

MT_INLINE uint32_t mt_trees_entry(const int8_t *table, uint32_t bytes)
{
    const uint32_t low = (uint8_t)table[0];
    return bytes == 1 ? low : low | ((uint32_t)(uint8_t)table[1] << 8);
}

MT_INLINE int32_t mt_trees_key(const float *x)
{
    int32_t bits;
    MT_COPY(&bits, x, sizeof bits);
    return bits < 0 ? bits ^ 0x7FFFFFFF : bits;
}

/* the leaf, from the left, that x falls into in a tree of `size` comparisons, whose entries begin at `node`; without
 * bytes for splits each comparison has its own */
MT_INLINE uint32_t mt_trees_leaf(const float *x, const int8_t *nodes, const int8_t *features, const int32_t *keys,
                                 uint32_t node, uint32_t size, uint32_t size_bytes, uint32_t split_bytes,
                                 uint32_t feature_bytes)
{
    uint32_t leaf = 0;
    while (size != 0) {
        const int8_t *const entry = nodes + node * (size_bytes + split_bytes);
        const uint32_t left = mt_trees_entry(entry, size_bytes);
        const uint32_t split = split_bytes == 0 ? node : mt_trees_entry(entry + size_bytes, split_bytes);
        const uint32_t feature = mt_trees_entry(features + split * feature_bytes, feature_bytes);
        if (mt_trees_key(x + feature) <= keys[split]) {
            node += 1;
            size = left;
        } else {
            node += left + 1;
            size -= left + 1;
            leaf += left + 1;
        }
    }
    return leaf;
}

/// What learns: leaves (trees) of one or two bytes, then their values ///

MT_INLINE void mt_tree_leaves(const float *x, const int8_t *sizes, const int8_t *nodes, const int8_t *features,
                              const int32_t *keys, int8_t *leaves, uint32_t trees, uint32_t size_bytes,
                              uint32_t split_bytes, uint32_t feature_bytes, uint32_t leaf_bytes)
{
    uint32_t node = 0;
    MT_TREES_ROLLED
    for (uint32_t tree = 0; tree < trees; ++tree) {
        const uint32_t size = mt_trees_entry(sizes + tree * size_bytes, size_bytes);
        const uint32_t leaf =
            mt_trees_leaf(x, nodes, features, keys, node, size, size_bytes, split_bytes, feature_bytes);
        leaves[tree * leaf_bytes] = (int8_t)(uint8_t)leaf;
        if (leaf_bytes == 2) {
            leaves[tree * leaf_bytes + 1] = (int8_t)(uint8_t)(leaf >> 8);
        }
        node += size;
    }
}

/* y (outputs) = the sum of values (leaves of all trees, width) of these leaves; the outputs of a tree begin where those
 * of the one before it end, and again from the first */
static inline void mt_tree_sum(const int8_t *leaves, const int8_t *sizes, const float *values, float *y,
                               uint32_t trees, uint32_t size_bytes, uint32_t leaf_bytes, uint32_t width,
                               uint32_t outputs)
{
    uint32_t output = 0;
    MT_ZERO(y, outputs * sizeof *y);
    for (uint32_t tree = 0; tree < trees; ++tree) {
        const float *const value = values + (size_t)mt_trees_entry(leaves + tree * leaf_bytes, leaf_bytes) * width;
        for (uint32_t i = 0; i < width; ++i) {
            y[output + i] += value[i];
        }
        values += (size_t)(mt_trees_entry(sizes + tree * size_bytes, size_bytes) + 1) * width;
        output = output + width == outputs ? 0 : output + width;
    }
}

/* gradient of the values, all `size` of them */
static inline void mt_tree_sum_grad(const float *MT_RESTRICT dy, const int8_t *leaves, const int8_t *sizes,
                                    float *MT_RESTRICT gradient, uint32_t trees, uint32_t size_bytes,
                                    uint32_t leaf_bytes, uint32_t width, uint32_t outputs, uint32_t size)
{
    uint32_t output = 0;
    MT_ZERO(gradient, size * sizeof *gradient);
    for (uint32_t tree = 0; tree < trees; ++tree) {
        const size_t leaf = mt_trees_entry(leaves + tree * leaf_bytes, leaf_bytes);
        MT_COPY(gradient + leaf * width, dy + output, width * sizeof *dy);
        gradient += (size_t)(mt_trees_entry(sizes + tree * size_bytes, size_bytes) + 1) * width;
        output = output + width == outputs ? 0 : output + width;
    }
}

/// Probabilities that trees count, as logits ///

static inline void mt_log_probabilities(const float *p, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_log(p[i] > MT_TREES_LEAST ? p[i] : MT_TREES_LEAST);
    }
}

static inline void mt_log_odds(const float *p, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        const float yes = mt_clamp(p[i], MT_TREES_LEAST, 1.0f - MT_TREES_LEAST);
        y[i] = mt_log(yes) - mt_log(1.0f - yes);
    }
}

/// Prediction only: sums are integers of `places` binary places, and kept where the answer will stand ///

/* a whole number of `places` binary places, 120 at most, as the nearest float (halves to even), by integers alone */
static MT_APART float mt_trees_real(const float *sum, int32_t places)
{
    uint32_t bits;
    MT_COPY(&bits, sum, sizeof bits);
    if (bits == 0) {
        return 0.0f;
    }
    const uint32_t sign = bits & 0x80000000u;
    uint32_t whole = sign ? 0u - bits : bits, exponent = (uint32_t)(127 + 31 - places);
    for (; !(whole & 0x80000000u); whole <<= 1) {
        --exponent;
    }
    /* 24 bits are kept; the highest of them, and what rounding carries over, count into the exponent */
    const uint32_t half = 0x7Fu + ((whole >> 8) & 1u), kept = (whole >> 8) + (((whole & 0xFFu) + half) >> 8);
    return mt_float_of(sign | (((exponent - 1) << 23) + kept));
}

/* rows: which row of values (rows, width) a leaf has, in `row_bytes` bytes; with none, each its own */
MT_INLINE void mt_forest(const float *x, const int8_t *sizes, const int8_t *nodes, const int8_t *features,
                         const int32_t *keys, const int8_t *rows, const int32_t *values, float *y, uint32_t trees,
                         uint32_t size_bytes, uint32_t split_bytes, uint32_t feature_bytes, uint32_t row_bytes,
                         uint32_t width, uint32_t outputs, int32_t places)
{
    uint32_t node = 0, output = 0;
    MT_ZERO(y, outputs * sizeof *y);
    MT_TREES_ROLLED
    for (uint32_t tree = 0; tree < trees; ++tree) {
        const uint32_t size = mt_trees_entry(sizes + tree * size_bytes, size_bytes);
        const uint32_t leaf =
            node + tree + mt_trees_leaf(x, nodes, features, keys, node, size, size_bytes, split_bytes, feature_bytes);
        const uint32_t row = row_bytes == 0 ? leaf : mt_trees_entry(rows + leaf * row_bytes, row_bytes);
        for (uint32_t i = 0; i < width; ++i) {
            int32_t sum;
            MT_COPY(&sum, y + output + i, sizeof sum);
            sum += values[row * width + i];
            MT_COPY(y + output + i, &sum, sizeof sum);
        }
        node += size;
        output = output + width == outputs ? 0 : output + width;
    }
    MT_TREES_ROLLED
    for (uint32_t i = 0; i < outputs; ++i) {
        y[i] = mt_trees_real(y + i, places);
    }
}

#endif
