/* mt_kernels_piecewise.h: activations made of straight pieces, and an affine map per channel. */
#ifndef MT_KERNELS_PIECEWISE_H
#define MT_KERNELS_PIECEWISE_H

#include "mt_kernels.h"
#include "mt_math.h"

static inline void mt_clamp_all(const float *x, float *y, float low, float high, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_clamp(x[i], low, high);
    }
}

/* nothing where y sits on a limit */
static inline void mt_clamp_grad(const float *dy, const float *y, float *dx, float low, float high, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = (y[i] > low && y[i] < high) ? dy[i] : 0.0f;
    }
}

/* clamp(alpha x + beta, 0, 1) */
static inline void mt_hard_sigmoid(const float *x, float *y, float alpha, float beta, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = mt_clamp(alpha * x[i] + beta, 0.0f, 1.0f);
    }
}

static inline void mt_hard_sigmoid_grad(const float *dy, const float *y, float *dx, float alpha, float beta,
                                        uint32_t size)
{
    (void)beta;
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = (y[i] > 0.0f && y[i] < 1.0f) ? alpha * dy[i] : 0.0f;
    }
}

/* x clamp(x + 3, 0, 6) / 6 (Howard et al. 2019) */
static inline void mt_hard_swish(const float *x, float *y, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = x[i] * (mt_clamp(x[i] + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f));
    }
}

static inline void mt_hard_swish_grad(const float *dy, const float *x, float *dx, uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        const float inner = x[i] >= 3.0f ? 1.0f : (2.0f * x[i] + 3.0f) * (1.0f / 6.0f);
        dx[i] = x[i] <= -3.0f ? 0.0f : dy[i] * inner;
    }
}

/* y = gamma x + beta, gamma and beta (channels), x (count, channels) */
static inline void mt_channel_affine(const float *x, const float *gamma, const float *beta, float *y, uint32_t count,
                                     uint32_t channels)
{
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t c = 0; c < channels; ++c) {
            y[i * channels + c] = gamma[c] * x[i * channels + c] + beta[c];
        }
    }
}

static inline void mt_channel_scale(const float *x, const float *gamma, float *y, uint32_t count, uint32_t channels)
{
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t c = 0; c < channels; ++c) {
            y[i * channels + c] = gamma[c] * x[i * channels + c];
        }
    }
}

/* gradient of gamma: sums (channels) of a b */
static inline void mt_channel_dot(const float *MT_RESTRICT a, const float *MT_RESTRICT b, float *MT_RESTRICT sums,
                                  uint32_t count, uint32_t channels)
{
    MT_ZERO(sums, channels * sizeof *sums);
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t c = 0; c < channels; ++c) {
            sums[c] += a[i * channels + c] * b[i * channels + c];
        }
    }
}

/// Embedding: rows of a table (rows, size) ///

/* the row an index means: the nearest one there is; NaN gives the first */
static inline uint32_t mt_row_of(float index, uint32_t rows)
{
    return index > 0.0f ? (index < (float)(rows - 1u) ? (uint32_t)index : rows - 1u) : 0u;
}

static inline void mt_embedding(const float *MT_RESTRICT indices, const float *MT_RESTRICT table,
                                float *MT_RESTRICT y, uint32_t count, uint32_t rows, uint32_t size)
{
    for (uint32_t i = 0; i < count; ++i) {
        MT_COPY(y + i * size, table + mt_row_of(indices[i], rows) * size, size * sizeof *y);
    }
}

static inline void mt_embedding_grad(const float *MT_RESTRICT dy, const float *MT_RESTRICT indices,
                                     float *MT_RESTRICT table, uint32_t count, uint32_t rows, uint32_t size)
{
    MT_ZERO(table, (size_t)rows * size * sizeof *table);
    for (uint32_t i = 0; i < count; ++i) {
        float *const row = table + mt_row_of(indices[i], rows) * size;
        for (uint32_t j = 0; j < size; ++j) {
            row[j] += dy[i * size + j];
        }
    }
}

#endif
