/* One SGD step of a 4-16-1 network with ReLU on the squared error, as a good C programmer writes it by hand. */
#include "plain.h"

float plain_step(plain_net *net, const float *x, const float *target)
{
    float hidden[HIDDEN];
    float output = net->b2;
    for (int h = 0; h < HIDDEN; ++h) {
        float sum = net->b1[h];
        for (int i = 0; i < INPUTS; ++i) {
            sum += net->w1[h][i] * x[i];
        }
        hidden[h] = sum > 0.0f ? sum : 0.0f;
        output += net->w2[h] * hidden[h];
    }
    const float error = output - *target;
    const float gradient = 2.0f * error;
    net->b2 -= RATE * gradient;
    for (int h = 0; h < HIDDEN; ++h) {
        const float back = hidden[h] > 0.0f ? gradient * net->w2[h] : 0.0f;
        net->w2[h] -= RATE * gradient * hidden[h];
        net->b1[h] -= RATE * back;
        for (int i = 0; i < INPUTS; ++i) {
            net->w1[h][i] -= RATE * back * x[i];
        }
    }
    return error * error;
}

void plain_predict(const plain_net *net, const float *x, float *output)
{
    float sum_of_all = net->b2;
    for (int h = 0; h < HIDDEN; ++h) {
        float sum = net->b1[h];
        for (int i = 0; i < INPUTS; ++i) {
            sum += net->w1[h][i] * x[i];
        }
        sum_of_all += net->w2[h] * (sum > 0.0f ? sum : 0.0f);
    }
    *output = sum_of_all;
}
