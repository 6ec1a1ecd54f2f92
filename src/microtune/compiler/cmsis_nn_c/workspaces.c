/* What CMSIS-NN asks for beside input and output, bytes: asked on this machine for the core the network is for.
 * `core`: 0 without the DSP extension, 1 with it, 2 with vector instructions. */
#include "mt_cmsis_nn.h"

#define MT_OF_CORE(name, ...) \
    (core == 2 ? name##_mve(__VA_ARGS__) : core == 1 ? name##_dsp(__VA_ARGS__) : name(__VA_ARGS__))

int32_t mt_cmsis_conv2d_int8_bytes(int32_t core, const int32_t *n);
int32_t mt_cmsis_depthwise_conv2d_int8_bytes(int32_t core, const int32_t *n);
int32_t mt_cmsis_dense_int8_bytes(int32_t core, const int32_t *n);
int32_t mt_cmsis_average_pool2d_int8_bytes(int32_t core, const int32_t *n);

/* n: the numbers of our kernel, in their order: height, width, y_height, y_width, rows, columns, stride_y, stride_x,
 * top, left, channels, outputs, ... */
int32_t mt_cmsis_conv2d_int8_bytes(int32_t core, const int32_t *n)
{
    const cmsis_nn_dims x = {1, n[0], n[1], n[10]}, y = {1, n[2], n[3], n[11]}, weight = {n[11], n[4], n[5], n[10]};
    cmsis_nn_conv_params given = {0};
    given.stride.h = n[6];
    given.stride.w = n[7];
    given.padding.h = n[8];
    given.padding.w = n[9];
    given.dilation.h = given.dilation.w = 1;
    return MT_OF_CORE(arm_convolve_wrapper_s8_get_buffer_size, &given, &x, &weight, &y);
}

int32_t mt_cmsis_depthwise_conv2d_int8_bytes(int32_t core, const int32_t *n)
{
    const cmsis_nn_dims x = {1, n[0], n[1], n[10]}, y = {1, n[2], n[3], n[11]}, weight = {1, n[4], n[5], n[11]};
    cmsis_nn_dw_conv_params given = {0};
    given.ch_mult = n[11] / n[10];
    given.stride.h = n[6];
    given.stride.w = n[7];
    given.padding.h = n[8];
    given.padding.w = n[9];
    given.dilation.h = given.dilation.w = 1;
    return MT_OF_CORE(arm_depthwise_conv_wrapper_s8_get_buffer_size, &given, &x, &weight, &y);
}

/* n: inputs, outputs, ... */
int32_t mt_cmsis_dense_int8_bytes(int32_t core, const int32_t *n)
{
    const cmsis_nn_dims weight = {n[0], 1, 1, n[1]};
    return MT_OF_CORE(arm_fully_connected_s8_get_buffer_size, &weight);
}

int32_t mt_cmsis_average_pool2d_int8_bytes(int32_t core, const int32_t *n)
{
    return MT_OF_CORE(arm_avgpool_s8_get_buffer_size, n[3], n[10]);
}
