"""Operators: shape rule, numpy reference, gradient rule and C kernel of each, declared once."""

from microtune.ops import (
    block_gradients,
    block_layers,
    block_output,
    block_update,
    bottleneck,
    channels,
    closed_form,
    closed_form_fixed,
    cmsis_nn,
    convolution,
    dense,
    elementwise,
    layout,
    loss,
    piecewise,
    pooling,
    quantized_elementwise,
    quantized_gradients,
    quantized_layers,
    quantized_learnt,
    quantized_pooling,
    quantized_update,
    update,
)
from microtune.ops.op import KernelCall, Op

FAMILIES = (
    dense,
    convolution,
    pooling,
    layout,
    elementwise,
    piecewise,
    channels,
    loss,
    update,
    closed_form,
    closed_form_fixed,
    quantized_layers,
    quantized_elementwise,
    quantized_pooling,
    bottleneck,
    cmsis_nn,
    quantized_gradients,
    quantized_learnt,
    quantized_update,
    block_output,
    block_gradients,
    block_layers,
    block_update,
)
OPS: dict[str, Op] = {op.name: op for family in FAMILIES for op in family.OPS}

__all__ = ["OPS", "KernelCall", "Op"]
