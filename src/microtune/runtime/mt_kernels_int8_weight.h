/*
 * mt_kernels_int8_weight.h: what the weight gradients of int8 layers share, and those gradients themselves.
 *
 * A weight's gradient is the sum over positions p of dy[p] * (real value of the input it meets there). Every element
 * is summed position by position, so its bits do not depend on how elements are grouped: a block of 4 outputs by
 * 4 input channels keeps its 16 sums in registers and converts each input once for four outputs.
 */
#ifndef MT_KERNELS_INT8_WEIGHT_H
#define MT_KERNELS_INT8_WEIGHT_H

#include "mt_kernels.h"

/* elements per side of a block of sums */
#define MT_BLOCK 4u

/* a convolution: dy (out_height, out_width, outputs), x (height, width, channels) */
typedef struct mt_conv_sizes {
    uint32_t height, width, channels;
    uint32_t out_height, out_width, outputs;
    uint32_t kernel_height, kernel_width;
    uint32_t stride_height, stride_width;
    uint32_t top, left;
} mt_conv_sizes;

/* the outputs first..end-1 along one axis whose window has its element `tap` inside the image */
typedef struct mt_span {
    uint32_t first, end;
} mt_span;

static inline mt_span mt_inside(uint32_t tap, uint32_t before, uint32_t stride, uint32_t size, uint32_t outputs)
{
    mt_span span;
    span.first = tap < before ? (before - tap + stride - 1) / stride : 0;
    /* o * stride + tap - before < size */
    span.end = size + before > tap ? (size + before - tap + stride - 1) / stride : 0;
    span.end = span.end < outputs ? span.end : outputs;
    return span;
}

static inline mt_conv_sizes mt_conv_sizes_of(uint32_t height, uint32_t width, uint32_t out_height,
                                             uint32_t out_width, uint32_t kernel_height, uint32_t kernel_width,
                                             uint32_t stride_height, uint32_t stride_width, uint32_t top,
                                             uint32_t left, uint32_t channels, uint32_t outputs)
{
    mt_conv_sizes s;
    s.height = height;
    s.width = width;
    s.channels = channels;
    s.out_height = out_height;
    s.out_width = out_width;
    s.outputs = outputs;
    s.kernel_height = kernel_height;
    s.kernel_width = kernel_width;
    s.stride_height = stride_height;
    s.stride_width = stride_width;
    s.top = top;
    s.left = left;
    return s;
}

/* sum over positions of dy[.., output] * (x[.., channel] - x_zero), for the tap (i, j) of the kernel */
static inline float mt_weight_sum(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x, const mt_conv_sizes *s,
                                  int32_t x_zero, uint32_t i, uint32_t j, uint32_t output, uint32_t channel)
{
    const mt_span down = mt_inside(i, s->top, s->stride_height, s->height, s->out_height);
    const mt_span across = mt_inside(j, s->left, s->stride_width, s->width, s->out_width);
    float sum = 0.0f;
    for (uint32_t oy = down.first; oy < down.end; ++oy) {
        const uint32_t y = oy * s->stride_height + i - s->top;
        for (uint32_t ox = across.first; ox < across.end; ++ox) {
            const uint32_t column = ox * s->stride_width + j - s->left;
            sum += dy[(oy * s->out_width + ox) * s->outputs + output] *
                   (float)(x[(y * s->width + column) * s->channels + channel] - x_zero);
        }
    }
    return sum;
}

/* the same for four outputs by four channels; an array for each output, which compilers keep in registers */
static inline void mt_int8_weight_block(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                        const mt_conv_sizes *s, int32_t x_zero, uint32_t i, uint32_t j,
                                        uint32_t output, uint32_t channel, float sum[MT_BLOCK][MT_BLOCK])
{
    const mt_span down = mt_inside(i, s->top, s->stride_height, s->height, s->out_height);
    const mt_span across = mt_inside(j, s->left, s->stride_width, s->width, s->out_width);
    float sum0[MT_BLOCK] = {0.0f}, sum1[MT_BLOCK] = {0.0f}, sum2[MT_BLOCK] = {0.0f}, sum3[MT_BLOCK] = {0.0f};
    /* where no window has this tap inside, g and v would point nowhere */
    for (uint32_t oy = down.first; oy < down.end && across.first < across.end; ++oy) {
        const uint32_t y = oy * s->stride_height + i - s->top;
        const float *g = dy + (oy * s->out_width + across.first) * s->outputs + output;
        const int8_t *v = x + (y * s->width + across.first * s->stride_width + j - s->left) * s->channels + channel;
        for (uint32_t ox = across.first; ox < across.end; ++ox) {
            for (uint32_t b = 0; b < MT_BLOCK; ++b) {
                const float value = (float)(v[b] - x_zero);
                sum0[b] += g[0] * value;
                sum1[b] += g[1] * value;
                sum2[b] += g[2] * value;
                sum3[b] += g[3] * value;
            }
            g += s->outputs;
            v += s->stride_width * s->channels;
        }
    }
    for (uint32_t b = 0; b < MT_BLOCK; ++b) {
        sum[0][b] = sum0[b];
        sum[1][b] = sum1[b];
        sum[2][b] = sum2[b];
        sum[3][b] = sum3[b];
    }
}

/* rows by columns of sums at (output, channel): a whole block, or what is left at an edge one by one */
static inline void mt_weight_block_at(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x, const mt_conv_sizes *s,
                                      int32_t x_zero, uint32_t i, uint32_t j, uint32_t output, uint32_t channel,
                                      uint32_t rows, uint32_t columns, float sum[MT_BLOCK][MT_BLOCK])
{
    if (rows == MT_BLOCK && columns == MT_BLOCK) {
        mt_int8_weight_block(dy, x, s, x_zero, i, j, output, channel, sum);
        return;
    }
    for (uint32_t a = 0; a < rows; ++a) {
        for (uint32_t b = 0; b < columns; ++b) {
            sum[a][b] = mt_weight_sum(dy, x, s, x_zero, i, j, output + a, channel + b);
        }
    }
}

static inline uint32_t mt_block_size(uint32_t left)
{
    return left < MT_BLOCK ? left : MT_BLOCK;
}

/* depthwise: sum[b] = sum over positions of dy[.., channel + b] * (x[.., channel + b] - x_zero), b = 0..3 */
static inline void mt_depthwise_weight_block(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                             const mt_conv_sizes *s, int32_t x_zero, uint32_t i, uint32_t j,
                                             uint32_t channel, float sum[MT_BLOCK])
{
    const mt_span down = mt_inside(i, s->top, s->stride_height, s->height, s->out_height);
    const mt_span across = mt_inside(j, s->left, s->stride_width, s->width, s->out_width);
    float block[MT_BLOCK] = {0.0f};
    /* where no window has this tap inside, g and v would point nowhere */
    for (uint32_t oy = down.first; oy < down.end && across.first < across.end; ++oy) {
        const uint32_t y = oy * s->stride_height + i - s->top;
        const float *g = dy + (oy * s->out_width + across.first) * s->outputs + channel;
        const int8_t *v = x + (y * s->width + across.first * s->stride_width + j - s->left) * s->channels + channel;
        for (uint32_t ox = across.first; ox < across.end; ++ox) {
            for (uint32_t b = 0; b < MT_BLOCK; ++b) {
                block[b] += g[b] * (float)(v[b] - x_zero);
            }
            g += s->outputs;
            v += s->stride_width * s->channels;
        }
    }
    for (uint32_t b = 0; b < MT_BLOCK; ++b) {
        sum[b] = block[b];
    }
}

/* output channel c reads the input channel c / multiplier */
static inline void mt_depthwise_weight_block_at(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                                const mt_conv_sizes *s, int32_t x_zero, uint32_t i, uint32_t j,
                                                uint32_t channel, uint32_t columns, uint32_t multiplier,
                                                float sum[MT_BLOCK])
{
    if (columns == MT_BLOCK && multiplier == 1) {
        mt_depthwise_weight_block(dy, x, s, x_zero, i, j, channel, sum);
        return;
    }
    for (uint32_t b = 0; b < columns; ++b) {
        sum[b] = mt_weight_sum(dy, x, s, x_zero, i, j, channel + b, (channel + b) / multiplier);
    }
}

/// The gradients themselves, for measurements and for weights that several layers share ///

/* dw (outputs, kernel_height, kernel_width, taken) of the input channels start..start + taken */
static inline void mt_conv2d_int8_grad_weight(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                              float *MT_RESTRICT dw, float x_scale, int32_t x_zero,
                                              uint32_t height, uint32_t width, uint32_t out_height,
                                              uint32_t out_width, uint32_t kernel_height, uint32_t kernel_width,
                                              uint32_t stride_height, uint32_t stride_width, uint32_t top,
                                              uint32_t left, uint32_t channels, uint32_t outputs, uint32_t start,
                                              uint32_t taken)
{
    const mt_conv_sizes s = mt_conv_sizes_of(height, width, out_height, out_width, kernel_height, kernel_width,
                                             stride_height, stride_width, top, left, channels, outputs);
    float sum[MT_BLOCK][MT_BLOCK] = {{0.0f}};
    for (uint32_t o = 0; o < outputs; o += MT_BLOCK) {
        const uint32_t rows = mt_block_size(outputs - o);
        for (uint32_t tap = 0; tap < kernel_height * kernel_width; ++tap) {
            for (uint32_t c = 0; c < taken; c += MT_BLOCK) {
                const uint32_t columns = mt_block_size(taken - c);
                mt_weight_block_at(dy, x, &s, x_zero, tap / kernel_width, tap % kernel_width, o, start + c, rows,
                                   columns, sum);
                for (uint32_t a = 0; a < rows; ++a) {
                    for (uint32_t b = 0; b < columns; ++b) {
                        dw[((o + a) * kernel_height * kernel_width + tap) * taken + c + b] = x_scale * sum[a][b];
                    }
                }
            }
        }
    }
}

/* dw (kernel_height, kernel_width, outputs), outputs a multiple of channels */
static inline void mt_depthwise_conv2d_int8_grad_weight(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                                        float *MT_RESTRICT dw, float x_scale, int32_t x_zero,
                                                        uint32_t height, uint32_t width, uint32_t out_height,
                                                        uint32_t out_width, uint32_t kernel_height,
                                                        uint32_t kernel_width, uint32_t stride_height,
                                                        uint32_t stride_width, uint32_t top, uint32_t left,
                                                        uint32_t channels, uint32_t outputs)
{
    const mt_conv_sizes s = mt_conv_sizes_of(height, width, out_height, out_width, kernel_height, kernel_width,
                                             stride_height, stride_width, top, left, channels, outputs);
    float sum[MT_BLOCK] = {0.0f};
    for (uint32_t tap = 0; tap < kernel_height * kernel_width; ++tap) {
        for (uint32_t c = 0; c < outputs; c += MT_BLOCK) {
            const uint32_t columns = mt_block_size(outputs - c);
            mt_depthwise_weight_block_at(dy, x, &s, x_zero, tap / kernel_width, tap % kernel_width, c, columns,
                                         outputs / channels, sum);
            for (uint32_t b = 0; b < columns; ++b) {
                dw[tap * outputs + c + b] = x_scale * sum[b];
            }
        }
    }
}

/* dw (outputs, taken) of the inputs start..start + taken; x points to the first input of the layer */
static inline void mt_dense_int8_grad_weight(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                             float *MT_RESTRICT dw, float x_scale, int32_t x_zero, uint32_t outputs,
                                             uint32_t start, uint32_t taken)
{
    MT_ONE_BY_ONE
    for (uint32_t o = 0; o < outputs; ++o) {
        for (uint32_t i = 0; i < taken; ++i) {
            dw[o * taken + i] = x_scale * (dy[o] * (float)(x[start + i] - x_zero));
        }
    }
}

#endif
