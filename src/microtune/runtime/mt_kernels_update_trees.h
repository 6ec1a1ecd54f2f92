/* mt_kernels_update_trees.h: optimiser steps of leaves of trees. */
#ifndef MT_KERNELS_UPDATE_TREES_H
#define MT_KERNELS_UPDATE_TREES_H

#include "mt_kernels_trees.h"
#include "mt_kernels_update.h"

/* p -= rate g where the gradient is not zero: one leaf of each tree */
static inline void mt_sgd_tree_sum(float *MT_RESTRICT values, const float *MT_RESTRICT dy, const int8_t *leaves,
                                   const int8_t *sizes, float rate, float clip, uint32_t trees, uint32_t size_bytes,
                                   uint32_t leaf_bytes, uint32_t width, uint32_t outputs)
{
    uint32_t output = 0;
    for (uint32_t tree = 0; tree < trees; ++tree) {
        float *const value = values + (size_t)mt_trees_entry(leaves + tree * leaf_bytes, leaf_bytes) * width;
        for (uint32_t i = 0; i < width; ++i) {
            value[i] -= rate * mt_clip(dy[output + i], clip);
        }
        values += (size_t)(mt_trees_entry(sizes + tree * size_bytes, size_bytes) + 1) * width;
        output = output + width == outputs ? 0 : output + width;
    }
}

#endif
