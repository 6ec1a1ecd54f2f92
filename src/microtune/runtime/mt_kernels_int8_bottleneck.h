/*
 * mt_kernels_int8_bottleneck.h: an inverted bottleneck row by row, so that its wide middle never exists as a whole.
 *
 * A convolution (expand), a depthwise convolution and a 1 x 1 convolution (project), the first or the last of which
 * may be missing. Of the expanded image only the rows that one window of the depthwise convolution covers are kept:
 * they move up as the window moves down, and each row is computed once. The results are those of the three kernels
 * one after the other, bit for bit; in fact their own functions compute each row.
 */
#ifndef MT_KERNELS_INT8_BOTTLENECK_H
#define MT_KERNELS_INT8_BOTTLENECK_H

#include "mt_kernels_int8_depthwise.h"
#include "mt_kernels_int8_layers.h"

/* height, width and channels are those of its output; the others as in mt_kernels_int8_layers.h */
typedef struct {
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    uint32_t height, width, channels;
    uint32_t rows, columns, stride_y, stride_x, top, left;
    int32_t x_zero, y_zero, low, high;
} mt_int8_layer;

/* The rows of its input that output row `y` of a layer reads: `count` from `first`; `above` of the window are beyond */
typedef struct {
    uint32_t first, count, above;
} mt_int8_span;

static inline mt_int8_span mt_int8_span_of(const mt_int8_layer *layer, uint32_t y, uint32_t height)
{
    const mt_taps taps = mt_taps_inside(y * layer->stride_y, layer->top, height, layer->rows);
    mt_int8_span span;
    span.first = y * layer->stride_y + taps.first - layer->top;
    span.count = taps.end - taps.first;
    span.above = taps.first;
    return span;
}

/* one row (layer->width, layer->channels) of a convolution, from the rows of `span` */
static inline void mt_int8_conv2d_row(const mt_int8_layer *layer, const int8_t *x, mt_int8_span span, uint32_t width,
    uint32_t channels, int8_t *y)
{
    mt_conv2d_int8(x, layer->weight, layer->bias, layer->multiplier, layer->shift, y, span.count, width, 1,
        layer->width, layer->rows, layer->columns, layer->stride_y, layer->stride_x, span.above, layer->left, channels,
        layer->channels, layer->x_zero, layer->y_zero, layer->low, layer->high);
}

static inline void mt_int8_depthwise_row(const mt_int8_layer *layer, const int8_t *x, mt_int8_span span,
    uint32_t width, uint32_t channels, int8_t *y)
{
    mt_depthwise_conv2d_int8(x, layer->weight, layer->bias, layer->multiplier, layer->shift, y, span.count, width, 1,
        layer->width, layer->rows, layer->columns, layer->stride_y, layer->stride_x, span.above, layer->left, channels,
        layer->channels, layer->x_zero, layer->y_zero, layer->low, layer->high);
}

/* x (height, width, channels) -> y; expand or project may be NULL.
 * workspace: the rows of one depthwise window over the expanded image, then one row of the depthwise output */
static inline void mt_int8_bottleneck(const int8_t *x, uint32_t height, uint32_t width, uint32_t channels,
    const mt_int8_layer *expand, const mt_int8_layer *depthwise, const mt_int8_layer *project, int8_t *y,
    int8_t *workspace)
{
    const uint32_t wide_height = expand != NULL ? expand->height : height;
    const uint32_t wide_width = expand != NULL ? expand->width : width;
    const uint32_t wide_channels = expand != NULL ? expand->channels : channels;
    const uint32_t wide_row = wide_width * wide_channels;
    const uint32_t kept = expand != NULL ? mt_smaller(depthwise->rows, wide_height) : 0;
    const uint32_t y_row = depthwise->width * (project != NULL ? project->channels : depthwise->channels);
    int8_t *const filtered = workspace + (size_t)kept * wide_row;
    uint32_t first = 0, end = 0; /* rows of the expanded image that are kept */
    for (uint32_t row = 0; row < depthwise->height; ++row) {
        const mt_int8_span span = mt_int8_span_of(depthwise, row, wide_height);
        const int8_t *from = x + (size_t)span.first * wide_row;
        if (expand != NULL) {
            for (uint32_t i = span.first; i < end; ++i) {
                if (span.first > first) {
                    MT_COPY(workspace + (i - span.first) * wide_row, workspace + (i - first) * wide_row, wide_row);
                }
            }
            first = span.first;
            end = end < first ? first : end;
            for (; end < first + span.count; ++end) {
                const mt_int8_span below = mt_int8_span_of(expand, end, height);
                mt_int8_conv2d_row(expand, x + (size_t)below.first * width * channels, below, width, channels,
                    workspace + (end - first) * wide_row);
            }
            from = workspace;
        }
        int8_t *const to = y + (size_t)row * y_row;
        mt_int8_depthwise_row(depthwise, from, span, wide_width, wide_channels, project != NULL ? filtered : to);
        if (project != NULL) {
            const mt_int8_span whole = {0, 1, 0};
            mt_int8_conv2d_row(project, filtered, whole, depthwise->width, depthwise->channels, to);
        }
    }
}

/* a layer's numbers as the generated calls give them */
static inline mt_int8_layer mt_int8_layer_of(const int8_t *weight, const int32_t *bias, const int32_t *multiplier,
    const int8_t *shift, uint32_t height, uint32_t width, uint32_t channels, uint32_t rows, uint32_t columns,
    uint32_t stride_y, uint32_t stride_x, uint32_t top, uint32_t left, int32_t x_zero, int32_t y_zero, int32_t low,
    int32_t high)
{
    mt_int8_layer layer;
    layer.weight = weight;
    layer.bias = bias;
    layer.multiplier = multiplier;
    layer.shift = shift;
    layer.height = height;
    layer.width = width;
    layer.channels = channels;
    layer.rows = rows;
    layer.columns = columns;
    layer.stride_y = stride_y;
    layer.stride_x = stride_x;
    layer.top = top;
    layer.left = left;
    layer.x_zero = x_zero;
    layer.y_zero = y_zero;
    layer.low = low;
    layer.high = high;
    return layer;
}

/// The three forms: e expands, d is depthwise, p projects; numbers of each in the order of mt_int8_layer_of ///

#define MT_LAYER_ARRAYS(n) \
    const int8_t *MT_RESTRICT n##_weight, const int32_t *MT_RESTRICT n##_bias, \
        const int32_t *MT_RESTRICT n##_multiplier, const int8_t *MT_RESTRICT n##_shift
#define MT_LAYER_NUMBERS(n) \
    uint32_t n##_height, uint32_t n##_width, uint32_t n##_channels, uint32_t n##_rows, uint32_t n##_columns, \
        uint32_t n##_stride_y, uint32_t n##_stride_x, uint32_t n##_top, uint32_t n##_left, int32_t n##_x_zero, \
        int32_t n##_y_zero, int32_t n##_low, int32_t n##_high
#define MT_LAYER(n) \
    const mt_int8_layer n = mt_int8_layer_of(n##_weight, n##_bias, n##_multiplier, n##_shift, n##_height, n##_width, \
        n##_channels, n##_rows, n##_columns, n##_stride_y, n##_stride_x, n##_top, n##_left, n##_x_zero, n##_y_zero, \
        n##_low, n##_high)

static inline void mt_bottleneck_int8(const int8_t *MT_RESTRICT x, MT_LAYER_ARRAYS(e), MT_LAYER_ARRAYS(d),
    MT_LAYER_ARRAYS(p), int8_t *MT_RESTRICT y, int8_t *MT_RESTRICT workspace, uint32_t height, uint32_t width,
    uint32_t channels, MT_LAYER_NUMBERS(e), MT_LAYER_NUMBERS(d), MT_LAYER_NUMBERS(p))
{
    MT_LAYER(e);
    MT_LAYER(d);
    MT_LAYER(p);
    mt_int8_bottleneck(x, height, width, channels, &e, &d, &p, y, workspace);
}

/* without projection */
static inline void mt_expand_depthwise_int8(const int8_t *MT_RESTRICT x, MT_LAYER_ARRAYS(e), MT_LAYER_ARRAYS(d),
    int8_t *MT_RESTRICT y, int8_t *MT_RESTRICT workspace, uint32_t height, uint32_t width, uint32_t channels,
    MT_LAYER_NUMBERS(e), MT_LAYER_NUMBERS(d))
{
    MT_LAYER(e);
    MT_LAYER(d);
    mt_int8_bottleneck(x, height, width, channels, &e, &d, NULL, y, workspace);
}

/* without expansion */
static inline void mt_depthwise_project_int8(const int8_t *MT_RESTRICT x, MT_LAYER_ARRAYS(d), MT_LAYER_ARRAYS(p),
    int8_t *MT_RESTRICT y, int8_t *MT_RESTRICT workspace, uint32_t height, uint32_t width, uint32_t channels,
    MT_LAYER_NUMBERS(d), MT_LAYER_NUMBERS(p))
{
    MT_LAYER(d);
    MT_LAYER(p);
    mt_int8_bottleneck(x, height, width, channels, NULL, &d, &p, y, workspace);
}

#undef MT_LAYER_ARRAYS
#undef MT_LAYER_NUMBERS
#undef MT_LAYER

#endif
