/*
 * mt_cmsis_nn.h: int8 layers by Arm's CMSIS-NN, which the user brings, behind the arguments of our own kernels.
 *
 * Only networks that were compiled with cmsis_nn=PATH include this file. `shift` is int32_t here, and `workspace`
 * holds `bytes` that the library asked for. Rounding is that of the library: twice in every layer, where our dense
 * layers and the softmax follow LiteRT.
 */
#ifndef MT_CMSIS_NN_H
#define MT_CMSIS_NN_H

#include "arm_nnfunctions.h"
#include "mt_platform.h"

#if defined(ARM_MATH_MVEI) && !defined(MT_CMSIS_NN_VECTORS)
#error "compiled for cores without vector instructions: name this core when compiling the network, as in targets=[...]"
#endif

static inline cmsis_nn_dims mt_cmsis_dims(uint32_t count, uint32_t height, uint32_t width, uint32_t channels)
{
    cmsis_nn_dims dims;
    dims.n = (int32_t)count;
    dims.h = (int32_t)height;
    dims.w = (int32_t)width;
    dims.c = (int32_t)channels;
    return dims;
}

static inline cmsis_nn_tile mt_cmsis_tile(uint32_t height, uint32_t width)
{
    cmsis_nn_tile tile;
    tile.h = (int32_t)height;
    tile.w = (int32_t)width;
    return tile;
}

static inline cmsis_nn_activation mt_cmsis_limits(int32_t low, int32_t high)
{
    cmsis_nn_activation limits;
    limits.min = low;
    limits.max = high;
    return limits;
}

static inline cmsis_nn_context mt_cmsis_context(int8_t *workspace, int32_t bytes)
{
    cmsis_nn_context context;
    context.buf = workspace;
    context.size = bytes;
    return context;
}

/* the library's structures lack a const */
static inline cmsis_nn_per_channel_quant_params mt_cmsis_factors(const int32_t *multiplier, const int32_t *shift)
{
    cmsis_nn_per_channel_quant_params factors;
    factors.multiplier = (int32_t *)(uintptr_t)multiplier;
    factors.shift = (int32_t *)(uintptr_t)shift;
    return factors;
}

static inline void mt_cmsis_conv2d_int8(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int32_t *shift, int8_t *y, int8_t *workspace, int32_t bytes, uint32_t height,
    uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y,
    uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero,
    int32_t low, int32_t high)
{
    const cmsis_nn_context context = mt_cmsis_context(workspace, bytes);
    const cmsis_nn_per_channel_quant_params factors = mt_cmsis_factors(multiplier, shift);
    const cmsis_nn_dims x_dims = mt_cmsis_dims(1, height, width, channels);
    const cmsis_nn_dims weight_dims = mt_cmsis_dims(outputs, rows, columns, channels);
    const cmsis_nn_dims bias_dims = mt_cmsis_dims(1, 1, 1, outputs);
    const cmsis_nn_dims y_dims = mt_cmsis_dims(1, y_height, y_width, outputs);
    cmsis_nn_conv_params given;
    given.input_offset = -x_zero;
    given.output_offset = y_zero;
    given.stride = mt_cmsis_tile(stride_y, stride_x);
    given.padding = mt_cmsis_tile(top, left);
    given.dilation = mt_cmsis_tile(1, 1);
    given.activation = mt_cmsis_limits(low, high);
    (void)arm_convolve_wrapper_s8(
        &context, &given, &factors, &x_dims, x, &weight_dims, weight, &bias_dims, bias, &y_dims, y);
}

static inline void mt_cmsis_depthwise_conv2d_int8(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int32_t *shift, int8_t *y, int8_t *workspace, int32_t bytes, uint32_t height,
    uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns, uint32_t stride_y,
    uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, uint32_t outputs, int32_t x_zero, int32_t y_zero,
    int32_t low, int32_t high)
{
    const cmsis_nn_context context = mt_cmsis_context(workspace, bytes);
    const cmsis_nn_per_channel_quant_params factors = mt_cmsis_factors(multiplier, shift);
    const cmsis_nn_dims x_dims = mt_cmsis_dims(1, height, width, channels);
    const cmsis_nn_dims weight_dims = mt_cmsis_dims(1, rows, columns, outputs);
    const cmsis_nn_dims bias_dims = mt_cmsis_dims(1, 1, 1, outputs);
    const cmsis_nn_dims y_dims = mt_cmsis_dims(1, y_height, y_width, outputs);
    cmsis_nn_dw_conv_params given;
    given.input_offset = -x_zero;
    given.output_offset = y_zero;
    given.ch_mult = (int32_t)(outputs / channels);
    given.stride = mt_cmsis_tile(stride_y, stride_x);
    given.padding = mt_cmsis_tile(top, left);
    given.dilation = mt_cmsis_tile(1, 1);
    given.activation = mt_cmsis_limits(low, high);
    (void)arm_depthwise_conv_wrapper_s8(
        &context, &given, &factors, &x_dims, x, &weight_dims, weight, &bias_dims, bias, &y_dims, y);
}

/* `alike`: all outputs have the first one's factor */
static inline void mt_cmsis_dense_int8(const int8_t *x, const int8_t *weight, const int32_t *bias,
    const int32_t *multiplier, const int32_t *shift, int8_t *y, int8_t *workspace, int32_t bytes, int32_t alike,
    uint32_t inputs, uint32_t outputs, int32_t x_zero, int32_t y_zero, int32_t low, int32_t high)
{
    const cmsis_nn_context context = mt_cmsis_context(workspace, bytes);
    const cmsis_nn_dims x_dims = mt_cmsis_dims(1, 1, 1, inputs);
    const cmsis_nn_dims weight_dims = mt_cmsis_dims(inputs, 1, 1, outputs);
    const cmsis_nn_dims bias_dims = mt_cmsis_dims(1, 1, 1, outputs);
    const cmsis_nn_dims y_dims = mt_cmsis_dims(1, 1, 1, outputs);
    cmsis_nn_fc_params given;
    given.input_offset = -x_zero;
    given.filter_offset = 0;
    given.output_offset = y_zero;
    given.activation = mt_cmsis_limits(low, high);
#if defined(ARM_MATH_MVEI)
    (void)arm_vector_sum_s8(context.buf, (int32_t)inputs, (int32_t)outputs, weight, -x_zero, 0, bias);
#endif
    if (alike) {
        cmsis_nn_per_tensor_quant_params factor;
        factor.multiplier = multiplier[0];
        factor.shift = shift[0];
        (void)arm_fully_connected_s8(
            &context, &given, &factor, &x_dims, x, &weight_dims, weight, &bias_dims, bias, &y_dims, y);
    } else {
        const cmsis_nn_per_channel_quant_params factors = mt_cmsis_factors(multiplier, shift);
        (void)arm_fully_connected_per_channel_s8(
            &context, &given, &factors, &x_dims, x, &weight_dims, weight, &bias_dims, bias, &y_dims, y);
    }
}

static inline void mt_cmsis_average_pool2d_int8(const int8_t *x, int8_t *y, int8_t *workspace, int32_t bytes,
    uint32_t height, uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns,
    uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, int32_t low, int32_t high)
{
    const cmsis_nn_context context = mt_cmsis_context(workspace, bytes);
    const cmsis_nn_dims x_dims = mt_cmsis_dims(1, height, width, channels);
    const cmsis_nn_dims window = mt_cmsis_dims(1, rows, columns, 1);
    const cmsis_nn_dims y_dims = mt_cmsis_dims(1, y_height, y_width, channels);
    cmsis_nn_pool_params given;
    given.stride = mt_cmsis_tile(stride_y, stride_x);
    given.padding = mt_cmsis_tile(top, left);
    given.activation = mt_cmsis_limits(low, high);
    (void)arm_avgpool_s8(&context, &given, &x_dims, x, &window, &y_dims, y);
}

static inline void mt_cmsis_max_pool2d_int8(const int8_t *x, int8_t *y, int8_t *workspace, int32_t bytes,
    uint32_t height, uint32_t width, uint32_t y_height, uint32_t y_width, uint32_t rows, uint32_t columns,
    uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left, uint32_t channels, int32_t low, int32_t high)
{
    const cmsis_nn_context context = mt_cmsis_context(workspace, bytes);
    const cmsis_nn_dims x_dims = mt_cmsis_dims(1, height, width, channels);
    const cmsis_nn_dims window = mt_cmsis_dims(1, rows, columns, 1);
    const cmsis_nn_dims y_dims = mt_cmsis_dims(1, y_height, y_width, channels);
    cmsis_nn_pool_params given;
    given.stride = mt_cmsis_tile(stride_y, stride_x);
    given.padding = mt_cmsis_tile(top, left);
    given.activation = mt_cmsis_limits(low, high);
    (void)arm_max_pool_s8(&context, &given, &x_dims, x, &window, &y_dims, y);
}

static inline void mt_cmsis_add_int8(const int8_t *a, const int8_t *b, int8_t *y, int32_t a_zero, int32_t b_zero,
    int32_t y_zero, int32_t left_shift, int32_t a_multiplier, int32_t a_shift, int32_t b_multiplier, int32_t b_shift,
    int32_t y_multiplier, int32_t y_shift, int32_t low, int32_t high, uint32_t size)
{
    (void)arm_elementwise_add_s8(a, b, -a_zero, a_multiplier, a_shift, -b_zero, b_multiplier, b_shift, left_shift, y,
        y_zero, y_multiplier, y_shift, low, high, (int32_t)size);
}

static inline void mt_cmsis_multiply_int8(const int8_t *a, const int8_t *b, int8_t *y, int32_t a_zero, int32_t b_zero,
    int32_t y_zero, int32_t y_multiplier, int32_t y_shift, int32_t low, int32_t high, uint32_t size)
{
    (void)arm_elementwise_mul_s8(
        a, b, -a_zero, -b_zero, y, y_zero, y_multiplier, y_shift, low, high, (int32_t)size);
}

static inline void mt_cmsis_softmax_int8(
    const int8_t *x, int8_t *y, uint32_t size, int32_t multiplier, int32_t shift, int32_t lowest)
{
    arm_softmax_s8(x, 1, (int32_t)size, multiplier, shift, lowest, y);
}

#endif
