/*
 * One SGD step of a 64-128-10 network with ReLU on the softmax cross-entropy, as a good C programmer writes it by hand:
 * units at rest are left out of the way back.
 */
#include <math.h>

#define INPUTS 64
#define HIDDEN 128
#define CLASSES 10
#define RATE 0.05f

typedef struct plain_net {
    float w1[HIDDEN][INPUTS], b1[HIDDEN], w2[CLASSES][HIDDEN], b2[CLASSES];
} plain_net;

float plain_step(plain_net *net, const float *x, const float *target);
void plain_predict(const plain_net *net, const float *x, float *probability);

static void forward(const plain_net *net, const float *x, float *hidden, float *probability)
{
    for (int h = 0; h < HIDDEN; ++h) {
        float sum = net->b1[h];
        for (int i = 0; i < INPUTS; ++i) {
            sum += net->w1[h][i] * x[i];
        }
        hidden[h] = sum > 0.0f ? sum : 0.0f;
    }
    float largest = -INFINITY;
    for (int c = 0; c < CLASSES; ++c) {
        float sum = net->b2[c];
        for (int h = 0; h < HIDDEN; ++h) {
            sum += net->w2[c][h] * hidden[h];
        }
        probability[c] = sum;
        largest = sum > largest ? sum : largest;
    }
    float all = 0.0f;
    for (int c = 0; c < CLASSES; ++c) {
        probability[c] = expf(probability[c] - largest);
        all += probability[c];
    }
    for (int c = 0; c < CLASSES; ++c) {
        probability[c] /= all;
    }
}

/* target: the index of the true class */
float plain_step(plain_net *net, const float *x, const float *target)
{
    const int label = (int)*target;
    float hidden[HIDDEN], gradient[CLASSES], back[HIDDEN] = {0.0f};
    forward(net, x, hidden, gradient);
    const float loss = -logf(gradient[label]);
    gradient[label] -= 1.0f;
    for (int c = 0; c < CLASSES; ++c) {
        const float move = RATE * gradient[c];
        for (int h = 0; h < HIDDEN; ++h) {
            back[h] += gradient[c] * net->w2[c][h];
            net->w2[c][h] -= move * hidden[h];
        }
        net->b2[c] -= move;
    }
    for (int h = 0; h < HIDDEN; ++h) {
        if (hidden[h] > 0.0f) {
            const float move = RATE * back[h];
            for (int i = 0; i < INPUTS; ++i) {
                net->w1[h][i] -= move * x[i];
            }
            net->b1[h] -= move;
        }
    }
    return loss;
}

void plain_predict(const plain_net *net, const float *x, float *probability)
{
    float hidden[HIDDEN];
    forward(net, x, hidden, probability);
}
