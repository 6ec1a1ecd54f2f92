/*
 * aifes.c: one dense net with a hidden layer, for aifes.py, through the public interface of AIfES (not part of this
 * repository; its licence is the AGPL).
 *
 * -DINPUTS= -DHIDDEN= -DOUTPUTS=; -DCLASSES for softmax and cross-entropy, else the squared error; -DDENSE= names
 * the form of its dense layer: weights stored (inputs, outputs), or transposed.
 */
#include "aifes_basic.h"

#define RATE 0.05f

typedef struct side {
    uint16_t input_shape[2], target_shape[2];
    ailayer_input_f32_t input;
    ailayer_dense_f32_t hidden, output;
    ailayer_relu_f32_t relu;
#ifdef CLASSES
    ailayer_softmax_f32_t softmax;
    ailoss_crossentropy_f32_t loss;
#else
    ailoss_mse_f32_t loss;
#endif
    aiopti_sgd_f32_t sgd;
    aiopti_t *optimizer;
    aimodel_t model;
} side;

uint32_t side_bytes(void);
uint32_t side_begin(side *net, float *w1, float *b1, float *w2, float *b2);
uint32_t side_training_bytes(side *net);
uint32_t side_schedule(side *net, void *memory);
uint32_t side_step(side *net, float *x, float *target);
uint32_t side_predict(side *net, float *x, float *y);

/* its layers point to initialisers that draw; none is called */
int rand(void)
{
    return 0;
}

uint32_t side_bytes(void)
{
    return sizeof(side);
}

/* parameters stay where the caller has them and are trained in place */
uint32_t side_begin(side *net, float *w1, float *b1, float *w2, float *b2)
{
    const side empty = {{1, INPUTS}, {1, OUTPUTS}, AILAYER_INPUT_F32_A(2, net->input_shape),
                        AILAYER_DENSE_F32_M(HIDDEN, w1, b1), AILAYER_DENSE_F32_M(OUTPUTS, w2, b2),
                        AILAYER_RELU_F32_A(),
#ifdef CLASSES
                        AILAYER_SOFTMAX_F32_A(),
#endif
                        {0}, AIOPTI_SGD_F32(RATE), NULL, {0}};
    *net = empty;
    net->model.input_layer = ailayer_input_f32_default(&net->input);
    ailayer_t *layer = DENSE(&net->hidden, net->model.input_layer);
    layer = ailayer_relu_f32_default(&net->relu, layer);
    layer = DENSE(&net->output, layer);
#ifdef CLASSES
    layer = ailayer_softmax_f32_default(&net->softmax, layer);
    net->model.loss = ailoss_crossentropy_f32_default(&net->loss, layer);
#else
    net->model.loss = ailoss_mse_f32_default(&net->loss, layer);
#endif
    net->model.output_layer = layer;
    net->optimizer = aiopti_sgd_f32_default(&net->sgd);
    return aialgo_compile_model(&net->model);
}

/* results, gradients and the optimiser's state, as AIfES counts them */
uint32_t side_training_bytes(side *net)
{
    return aialgo_sizeof_training_memory(&net->model, net->optimizer);
}

uint32_t side_schedule(side *net, void *memory)
{
    const uint32_t bytes = aialgo_sizeof_training_memory(&net->model, net->optimizer);
    const uint32_t refused = aialgo_schedule_training_memory(&net->model, net->optimizer, memory, bytes);
    aialgo_init_model_for_training(&net->model, net->optimizer);
    return refused;
}

/* one epoch over one sample */
uint32_t side_step(side *net, float *x, float *target)
{
    aitensor_t input = AITENSOR_2D_F32(net->input_shape, x);
    aitensor_t wanted = AITENSOR_2D_F32(net->target_shape, target);
    return aialgo_train_model(&net->model, &input, &wanted, net->optimizer, 1);
}

uint32_t side_predict(side *net, float *x, float *y)
{
    aitensor_t input = AITENSOR_2D_F32(net->input_shape, x);
    aitensor_t output = AITENSOR_2D_F32(net->target_shape, y);
    return aialgo_inference_model(&net->model, &input, &output);
}
