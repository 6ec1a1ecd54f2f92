/* dense_probe.c: the dense kernels with sizes from outside, for test_dense_machines.py. */
#include "mt_kernels_dense.h"
#include "mt_kernels_update.h"

uint32_t probe_dense(const float *p, float *y, uint32_t inputs, uint32_t outputs);
uint32_t probe_grad_input(const float *p, float *dx, uint32_t inputs, uint32_t outputs);
uint32_t probe_sgd(const float *p, float *w, uint32_t inputs, uint32_t outputs);

/* p: x (inputs), weight (outputs, inputs), bias (outputs) */
uint32_t probe_dense(const float *p, float *y, uint32_t inputs, uint32_t outputs)
{
    mt_dense(p, p + inputs, p + inputs + inputs * outputs, y, inputs, outputs);
    return 0;
}

/* p: dy (outputs), weight (outputs, inputs) */
uint32_t probe_grad_input(const float *p, float *dx, uint32_t inputs, uint32_t outputs)
{
    mt_dense_grad_input(p, p + outputs, dx, inputs, outputs);
    return 0;
}

/* p: dy (outputs), x (inputs) */
uint32_t probe_sgd(const float *p, float *w, uint32_t inputs, uint32_t outputs)
{
    mt_sgd_dense(w, p, p + outputs, 0.1f, 0.0f, inputs, outputs);
    return 0;
}
