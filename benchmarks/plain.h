#ifndef PLAIN_H
#define PLAIN_H

#define INPUTS 4
#define HIDDEN 16
#define RATE 0.05f

typedef struct plain_net {
    float w1[HIDDEN][INPUTS], b1[HIDDEN], w2[HIDDEN], b2;
} plain_net;

float plain_step(plain_net *net, const float *x, const float *target);
void plain_predict(const plain_net *net, const float *x, float *output);

#endif
