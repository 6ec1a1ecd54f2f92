/*
 * mt_kernels_int8_grad.h: gradients that pass through int8 operators.
 *
 * The gradient of an int8 tensor is a float tensor of its shape, in units of the real value it stands for. Rounding
 * counts as the identity (the straight-through estimator of Bengio, Leonard and Courville 2013); a value that sits on
 * a limit of its clamp passes nothing.
 */
#ifndef MT_KERNELS_INT8_GRAD_H
#define MT_KERNELS_INT8_GRAD_H

#include "mt_kernels.h"

/* bit i % 8 of byte i / 8 is set where y[i] lies strictly between low and high; the bits after the last are 0 */
static inline void mt_saturation_mask(const int8_t *MT_RESTRICT y, int8_t *MT_RESTRICT mask, int32_t low,
                                      int32_t high,
                                      uint32_t size)
{
    uint8_t *const bytes = (uint8_t *)mask;
    for (uint32_t start = 0; start < size; start += 8) {
        const uint32_t count = size - start < 8 ? size - start : 8;
        uint32_t bits = 0;
        for (uint32_t i = 0; i < count; ++i) {
            const int32_t value = y[start + i];
            bits |= (uint32_t)(value > low && value < high) << i;
        }
        bytes[start / 8] = (uint8_t)bits;
    }
}

/* dx[i] = dy[i] where the mask lets it pass, else 0; dx may be dy */
static inline void mt_saturation_grad(const float *dy, const int8_t *mask, float *dx, uint32_t size)
{
    const uint8_t *const bytes = (const uint8_t *)mask;
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = ((uint32_t)bytes[i / 8] >> (i % 8) & 1u) != 0u ? dy[i] : 0.0f;
    }
}

/* gradient of a product: dx[i] = dy[i] * (real value of the other factor); dx may be dy */
static inline void mt_multiply_int8_grad(const float *dy, const int8_t *other, float *dx, float scale, int32_t zero,
                                         uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = dy[i] * (scale * (float)(other[i] - zero));
    }
}

/* gradient of y = table[x + 128]: slopes (256) holds dy/dx for each of the values of x; dx may be dy */
static inline void mt_lookup_int8_grad(const float *dy, const int8_t *x, const float *slopes, float *dx,
                                       uint32_t size)
{
    for (uint32_t i = 0; i < size; ++i) {
        dx[i] = dy[i] * slopes[x[i] + 128];
    }
}

/* the gradient goes to the first maximum of a window, unless the maximum sits on a limit:
 * dy (out_height, out_width, channels), x (height, width,
       channels) -> dx like x. What lies in the padding is no candidate. */
static inline void mt_max_pool2d_int8_grad(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT x,
                                           float *MT_RESTRICT dx, int32_t low, int32_t high, uint32_t height,
                                           uint32_t width, uint32_t out_height, uint32_t out_width,
                                           uint32_t kernel_height, uint32_t kernel_width, uint32_t stride_height,
                                           uint32_t stride_width, uint32_t top, uint32_t left, uint32_t channels)
{
    for (uint32_t i = 0; i < height * width * channels; ++i) {
        dx[i] = 0.0f;
    }
    for (uint32_t oy = 0; oy < out_height; ++oy) {
        for (uint32_t ox = 0; ox < out_width; ++ox) {
            for (uint32_t c = 0; c < channels; ++c) {
                int32_t largest = -129;
                uint32_t at = 0;
                for (uint32_t i = 0; i < kernel_height; ++i) {
                    /* above the image the difference wraps around, and so is beyond its height too */
                    const uint32_t y = oy * stride_height + i - top;
                    for (uint32_t j = 0; y < height && j < kernel_width; ++j) {
                        const uint32_t column = ox * stride_width + j - left;
                        const uint32_t place = (y * width + column) * channels + c;
                        if (column < width && x[place] > largest) {
                            largest = x[place];
                            at = place;
                        }
                    }
                }
                if (largest > low && largest < high) {
                    dx[at] += dy[(oy * out_width + ox) * channels + c];
                }
            }
        }
    }
}

/// Input gradients of layers with a learnt part: it stands for the weight's channels start..start+taken ///

/* dx[c] += g * (the effective weight row)[c]: row (channels), learnt (taken) */
static inline void mt_add_learnt_row(float *MT_RESTRICT dx, float g, const int8_t *MT_RESTRICT row,
                                     const int8_t *MT_RESTRICT learnt, uint32_t channels, uint32_t start,
                                     uint32_t taken)
{
    for (uint32_t c = 0; c < start; ++c) {
        dx[c] += g * (float)row[c];
    }
    for (uint32_t k = 0; k < taken; ++k) {
        dx[start + k] += g * (float)learnt[k];
    }
    for (uint32_t c = start + taken; c < channels; ++c) {
        dx[c] += g * (float)row[c];
    }
}

/* dy (outputs), weight (outputs, inputs), scale (outputs), learnt (outputs, taken) -> dx (inputs) */
static inline void mt_dense_int8_learnt_grad_input(const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight,
                                                   const float *MT_RESTRICT scale, const int8_t *MT_RESTRICT learnt,
                                                   float *MT_RESTRICT dx, uint32_t inputs, uint32_t outputs,
                                                   uint32_t start, uint32_t taken)
{
    for (uint32_t i = 0; i < inputs; ++i) {
        dx[i] = 0.0f;
    }
    for (uint32_t o = 0; o < outputs; ++o) {
        mt_add_learnt_row(dx, dy[o] * scale[o], weight + o * inputs, learnt + o * taken, inputs, start, taken);
    }
}

/* dy (out_height, out_width, outputs), weight (outputs, kernel_height, kernel_width, channels), scale (outputs),
 * learnt (outputs, kernel_height, kernel_width, taken) -> dx (height, width, channels) */
static inline void mt_conv2d_int8_learnt_grad_input(
    const float *MT_RESTRICT dy, const int8_t *MT_RESTRICT weight, const float *MT_RESTRICT scale,
    const int8_t *MT_RESTRICT learnt, float *MT_RESTRICT dx, uint32_t height, uint32_t width, uint32_t out_height,
    uint32_t out_width, uint32_t kernel_height, uint32_t kernel_width, uint32_t stride_height, uint32_t stride_width,
    uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, uint32_t start, uint32_t taken)
{
    const uint32_t taps = kernel_height * kernel_width;
    for (uint32_t i = 0; i < height * width * channels; ++i) {
        dx[i] = 0.0f;
    }
    for (uint32_t position = 0; position < out_height * out_width; ++position) {
        for (uint32_t o = 0; o < outputs; ++o) {
            const float g = dy[position * outputs + o] * scale[o];
            if (g == 0.0f) {
                /* masked: half of them behind a ReLU */
                continue;
            }
            for (uint32_t tap = 0; tap < taps; ++tap) {
                /* outside the image the difference wraps around, or is beyond its size */
                const uint32_t y = position / out_width * stride_height + tap / kernel_width - top;
                const uint32_t x = position % out_width * stride_width + tap % kernel_width - left;
                if (y < height && x < width) {
                    mt_add_learnt_row(dx + (y * width + x) * channels, g, weight + (o * taps + tap) * channels,
                                      learnt + (o * taps + tap) * taken, channels, start, taken);
                }
            }
        }
    }
}

#endif
