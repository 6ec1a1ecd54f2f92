"""Losses of one sample, as PyTorch defines them with reduction 'mean'. Outputs: the loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape

HEADER = "mt_kernels_loss.h"


def _loss_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    return ((), inputs[0].shape)


def _kernel(function: str, *names: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        y, target = node.inputs
        extra = tuple(float(node.attributes[name]) for name in names)
        return KernelCall(function, (y, target, node.outputs[1], *extra, tensors[y].size), result=node.outputs[0])

    return kernel


def _mse(y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    return np.mean((y - t) ** 2), 2 * (y - t) / y.size


def _huber(y: np.ndarray, t: np.ndarray, delta: float) -> tuple[np.ndarray, ...]:
    clipped = np.clip(y - t, -delta, delta)
    return np.mean(clipped * (y - t - clipped / 2)), clipped / y.size


def _binary_cross_entropy(y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    return np.mean(np.logaddexp(0, y) - y * t), (np.exp(-np.logaddexp(0, -y)) - t) / y.size


def _cross_entropy(y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    label = int(t[0])
    e = np.exp(y - y.max())
    one_hot = np.eye(y.size, dtype=y.dtype)[label]
    return np.log(e.sum()) - (y[label] - y.max()), e / e.sum() - one_hot


def _loss(name: str, summary: str, reference: Callable[..., tuple[np.ndarray, ...]], *attributes: str) -> Op:
    return Op(
        name=name,
        summary=summary,
        shape=_loss_shape,
        reference=lambda inputs, given: reference(*inputs, *(given[key] for key in attributes)),
        kernel=_kernel(f"mt_{name}", *attributes),
        header=HEADER,
    )


OPS = (
    _loss("mse", "mean of (y - t)^2", _mse),
    _loss("huber", "mean of e^2 / 2 within delta, linear beyond (Huber 1964)", _huber, "delta"),
    _loss("binary_cross_entropy", "mean over independent yes/no outputs, on logits", _binary_cross_entropy),
    _loss("cross_entropy", "-ln softmax(y)[class], on logits; the target is a class index", _cross_entropy),
)
