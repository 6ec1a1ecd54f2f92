/* What a net may ask of <math.h>, for a compiler without a C library; zig's compiler support links it. */
#ifndef HOSTED_MATH_H
#define HOSTED_MATH_H

#define INFINITY __builtin_inff()

double exp(double x);
double fabs(double x);
double log(double x);
double log2(double x);
double pow(double x, double y);
double round(double x);
double sqrt(double x);
double tanh(double x);
double ceil(double x);
float expf(float x);
float logf(float x);
float sqrtf(float x);
float tanhf(float x);

#endif
