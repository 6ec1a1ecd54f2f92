/*
 * mt_kernels_update_conv.h: optimisers of convolution weights, whose gradient never exists as a whole.
 *
 * A block of 4 outputs by 4 input channels of one kernel place (depthwise: 16 channels) keeps its sums in registers
 * while all positions pass by, and is then used at once. Each sum runs position by position, so that its bits are
 * those of mt_conv2d_grad_weight. Rules and their numbers: mt_kernels_update.h.
 */
#ifndef MT_KERNELS_UPDATE_CONV_H
#define MT_KERNELS_UPDATE_CONV_H

#include "mt_kernels_depthwise.h"
#include "mt_kernels_update.h"

/* elements per side of a block of sums */
#define MT_WEIGHT_SIDE 4u

/* gradients of count weights beside each other, in each of `lines` outputs; the first of them is weight number `at` */
typedef struct mt_weight_block {
    uint32_t output, place, channel; /* where the next block begins */
    uint32_t lines, count, at, apart;
    float sum[MT_WEIGHT_SIDE][MT_WEIGHT_SIDE];
} mt_weight_block;

/* outputs first .. end - 1 along one axis whose window has its element `tap` inside the input */
static inline mt_window mt_outputs_of(uint32_t tap, uint32_t before, uint32_t stride, uint32_t size, uint32_t outputs)
{
    mt_window found;
    found.first = tap < before ? (before - tap + stride - 1u) / stride : 0u;
    /* output * stride + tap - before < size */
    found.end = size + before > tap ? (size + before - tap + stride - 1u) / stride : 0u;
    found.end = found.end < outputs ? found.end : outputs;
    return found;
}

static inline void mt_weight_begin(mt_weight_block *block)
{
    MT_ZERO(block, sizeof *block);
}

/// Convolution ///

/* sums of the block at (output, place, channel). Inlined with lines and count constant, the sums live in registers. */
static inline void mt_conv2d_weight_sums(mt_weight_block *MT_RESTRICT block, const float *MT_RESTRICT dy,
                                         const float *MT_RESTRICT x, uint32_t lines, uint32_t count, MT_CONV_SIZES)
{
    const uint32_t row = block->place / columns, column = block->place % columns;
    const mt_window down = mt_outputs_of(row, top, stride_y, height, out_height);
    const mt_window across = mt_outputs_of(column, left, stride_x, width, out_width);
    float sum[MT_WEIGHT_SIDE][MT_WEIGHT_SIDE] = {{0.0f}};
    (void)rows;
    for (uint32_t oy = down.first; oy < down.end; ++oy) {
        for (uint32_t ox = across.first; ox < across.end; ++ox) {
            const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
            const float *const g = dy + (oy * out_width + ox) * outputs + block->output;
            const float *const from = x + at * channels + block->channel;
            for (uint32_t a = 0; a < lines; ++a) {
                for (uint32_t b = 0; b < count; ++b) {
                    sum[a][b] += g[a] * from[b];
                }
            }
        }
    }
    MT_COPY(block->sum, sum, sizeof sum);
}

/* the next block; 0 when there is none */
static inline int mt_conv2d_weight_next(mt_weight_block *MT_RESTRICT block, const float *MT_RESTRICT dy,
                                        const float *MT_RESTRICT x, MT_CONV_SIZES)
{
    if (block->lines != 0u) {
        block->channel += block->count;
        if (block->channel == channels) {
            block->channel = 0u;
            block->place += 1u;
        }
        if (block->place == rows * columns) {
            block->place = 0u;
            block->output += block->lines;
        }
    }
    if (block->output == outputs) {
        return 0;
    }
    block->lines = outputs - block->output < MT_WEIGHT_SIDE ? outputs - block->output : MT_WEIGHT_SIDE;
    block->count = channels - block->channel < MT_WEIGHT_SIDE ? channels - block->channel : MT_WEIGHT_SIDE;
    block->apart = rows * columns * channels;
    block->at = block->output * block->apart + block->place * channels + block->channel;
    if (block->lines == MT_WEIGHT_SIDE && block->count == MT_WEIGHT_SIDE) {
        mt_conv2d_weight_sums(block, dy, x, MT_WEIGHT_SIDE, MT_WEIGHT_SIDE, MT_CONV_PASSED);
    } else {
        mt_conv2d_weight_sums(block, dy, x, block->lines, block->count, MT_CONV_PASSED);
    }
    return 1;
}

static inline void mt_sgd_conv2d(float *MT_RESTRICT w, const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                 float rate, float clip, MT_CONV_SIZES)
{
    mt_weight_block block;
    mt_weight_begin(&block);
    while (mt_conv2d_weight_next(&block, dy, x, MT_CONV_PASSED)) {
        for (uint32_t a = 0; a < block.lines; ++a) {
            mt_sgd(w + block.at + a * block.apart, block.sum[a], rate, clip, block.count);
        }
    }
}

static inline void mt_momentum_conv2d(float *MT_RESTRICT w, float *MT_RESTRICT v, const float *MT_RESTRICT dy,
                                      const float *MT_RESTRICT x, float rate, float momentum, float clip,
                                      MT_CONV_SIZES)
{
    mt_weight_block block;
    mt_weight_begin(&block);
    while (mt_conv2d_weight_next(&block, dy, x, MT_CONV_PASSED)) {
        for (uint32_t a = 0; a < block.lines; ++a) {
            const uint32_t k = block.at + a * block.apart;
            mt_momentum(w + k, v + k, block.sum[a], rate, momentum, clip, block.count);
        }
    }
}

static inline void mt_rmsprop_conv2d(float *MT_RESTRICT w, float *MT_RESTRICT v, const float *MT_RESTRICT dy,
                                     const float *MT_RESTRICT x, float rate, float smoothing, float epsilon,
                                     float clip, MT_CONV_SIZES)
{
    mt_weight_block block;
    mt_weight_begin(&block);
    while (mt_conv2d_weight_next(&block, dy, x, MT_CONV_PASSED)) {
        for (uint32_t a = 0; a < block.lines; ++a) {
            const uint32_t k = block.at + a * block.apart;
            mt_rmsprop(w + k, v + k, block.sum[a], rate, smoothing, epsilon, clip, block.count);
        }
    }
}

static inline void mt_adam_conv2d(float *MT_RESTRICT w, float *MT_RESTRICT m, float *MT_RESTRICT v,
                                  const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                  mt_adam_correction correction, float rate, float beta1, float beta2, float epsilon,
                                  float clip, MT_CONV_SIZES)
{
    mt_weight_block block;
    mt_weight_begin(&block);
    while (mt_conv2d_weight_next(&block, dy, x, MT_CONV_PASSED)) {
        for (uint32_t a = 0; a < block.lines; ++a) {
            const uint32_t k = block.at + a * block.apart;
            mt_adam(w + k, m + k, v + k, block.sum[a], correction, rate, beta1, beta2, epsilon, clip, block.count);
        }
    }
}

/// Depthwise convolution ///

/* gradients of `count` weights from number place * outputs + output on: `sums` */
static inline void mt_depthwise_weight_sums(float *MT_RESTRICT sums, const float *MT_RESTRICT dy,
                                            const float *MT_RESTRICT x, uint32_t place, uint32_t output,
                                            uint32_t count, MT_CONV_SIZES)
{
    const uint32_t row = place / columns, column = place % columns, m = outputs / channels;
    const mt_window down = mt_outputs_of(row, top, stride_y, height, out_height);
    const mt_window across = mt_outputs_of(column, left, stride_x, width, out_width);
    float sum[MT_DEPTHWISE_BLOCK] = {0.0f};
    (void)rows;
    for (uint32_t oy = down.first; oy < down.end; ++oy) {
        for (uint32_t ox = across.first; ox < across.end; ++ox) {
            const uint32_t at = (oy * stride_y + row - top) * width + ox * stride_x + column - left;
            const float *const g = dy + (oy * out_width + ox) * outputs + output;
            const float *const from = x + at * channels;
            if (m == 1u) {
                for (uint32_t b = 0; b < count; ++b) {
                    sum[b] += g[b] * from[output + b];
                }
            } else {
                for (uint32_t b = 0; b < count; ++b) {
                    sum[b] += g[b] * from[(output + b) / m];
                }
            }
        }
    }
    MT_COPY(sums, sum, sizeof sum);
}

/* gradients `sums` of the weights from number `at` on; how many they are, 0 behind the last */
static inline uint32_t mt_depthwise_weight_next(float *MT_RESTRICT sums, const float *MT_RESTRICT dy,
                                                const float *MT_RESTRICT x, uint32_t at, MT_CONV_SIZES)
{
    const uint32_t place = at / outputs, output = at % outputs;
    uint32_t count = outputs - output;
    if (place == rows * columns) {
        return 0u;
    }
    if (count >= MT_DEPTHWISE_BLOCK) {
        count = MT_DEPTHWISE_BLOCK;
        mt_depthwise_weight_sums(sums, dy, x, place, output, MT_DEPTHWISE_BLOCK, MT_CONV_PASSED);
    } else {
        mt_depthwise_weight_sums(sums, dy, x, place, output, count, MT_CONV_PASSED);
    }
    return count;
}

static inline void mt_sgd_depthwise_conv2d(float *MT_RESTRICT w, const float *MT_RESTRICT dy,
                                           const float *MT_RESTRICT x, float rate, float clip, MT_CONV_SIZES)
{
    float g[MT_DEPTHWISE_BLOCK];
    for (uint32_t k = 0, count; (count = mt_depthwise_weight_next(g, dy, x, k, MT_CONV_PASSED)) > 0u; k += count) {
        mt_sgd(w + k, g, rate, clip, count);
    }
}

static inline void mt_momentum_depthwise_conv2d(float *MT_RESTRICT w, float *MT_RESTRICT v,
                                                const float *MT_RESTRICT dy, const float *MT_RESTRICT x, float rate,
                                                float momentum, float clip, MT_CONV_SIZES)
{
    float g[MT_DEPTHWISE_BLOCK];
    for (uint32_t k = 0, count; (count = mt_depthwise_weight_next(g, dy, x, k, MT_CONV_PASSED)) > 0u; k += count) {
        mt_momentum(w + k, v + k, g, rate, momentum, clip, count);
    }
}

static inline void mt_rmsprop_depthwise_conv2d(float *MT_RESTRICT w, float *MT_RESTRICT v,
                                               const float *MT_RESTRICT dy, const float *MT_RESTRICT x, float rate,
                                               float smoothing, float epsilon, float clip, MT_CONV_SIZES)
{
    float g[MT_DEPTHWISE_BLOCK];
    for (uint32_t k = 0, count; (count = mt_depthwise_weight_next(g, dy, x, k, MT_CONV_PASSED)) > 0u; k += count) {
        mt_rmsprop(w + k, v + k, g, rate, smoothing, epsilon, clip, count);
    }
}

static inline void mt_adam_depthwise_conv2d(float *MT_RESTRICT w, float *MT_RESTRICT m, float *MT_RESTRICT v,
                                            const float *MT_RESTRICT dy, const float *MT_RESTRICT x,
                                            mt_adam_correction correction, float rate, float beta1, float beta2,
                                            float epsilon, float clip, MT_CONV_SIZES)
{
    float g[MT_DEPTHWISE_BLOCK];
    for (uint32_t k = 0, count; (count = mt_depthwise_weight_next(g, dy, x, k, MT_CONV_PASSED)) > 0u; k += count) {
        mt_adam(w + k, m + k, v + k, g, correction, rate, beta1, beta2, epsilon, clip, count);
    }
}

#endif
