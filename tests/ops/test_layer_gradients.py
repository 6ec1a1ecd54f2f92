"""Values and gradients of float layers against PyTorch in float64: both sides differ by the rounding of sums alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.compiler.passes.autodiff import differentiate
from microtune.ir import Graph, Node, Tensor, constant, verify
from microtune.ops import OPS
from microtune.ops.evaluate import evaluate

from .layer_cases import CASES, Draw

F = torch.nn.functional
Values = list[torch.Tensor]
Given = dict[str, Any]


def _image(x: torch.Tensor) -> torch.Tensor:
    return x.permute(2, 0, 1)[None]


def _back(y: torch.Tensor) -> torch.Tensor:
    return y[0].permute(1, 2, 0)


def _padded(x: torch.Tensor, given: Given, value: float = 0.0) -> torch.Tensor:
    (top, bottom), (left, right) = given["padding"]
    return F.pad(_image(x), (left, right, top, bottom), value=value)


def _convolution(values: Values, given: Given, depthwise: bool, weight8: bool) -> torch.Tensor:
    x, weight, *vectors = values
    kernel = weight.permute(2, 0, 1)[:, None] if depthwise else weight.permute(0, 3, 1, 2)
    y = _back(F.conv2d(_padded(x, given), kernel, stride=given["stride"], groups=x.shape[2] if depthwise else 1))
    if weight8:
        return y * vectors[0] + vectors[1]
    return y + vectors[0] if vectors else y


def _average(values: Values, given: Given) -> torch.Tensor:
    def mean(x: torch.Tensor) -> torch.Tensor:
        return _back(F.avg_pool2d(_padded(x, given), given["kernel"], given["stride"]))

    x = values[0]
    return mean(x) if given["include_padding"] else mean(x) / mean(torch.ones_like(x))


def _pad(values: Values, given: Given) -> torch.Tensor:
    around = [each for pair in reversed(given["padding"]) for each in pair]
    return F.pad(values[0], around, value=given["value"])


def _embedding(values: Values, given: Given) -> torch.Tensor:
    rows = torch.nan_to_num(values[0]).clamp(0, len(values[1]) - 1).long()
    return values[1][rows]


TWINS: dict[str, Callable[[Values, Given], torch.Tensor]] = {
    "conv2d": lambda v, given: _convolution(v, given, False, False),
    "depthwise_conv2d": lambda v, given: _convolution(v, given, True, False),
    "conv2d_weight8": lambda v, given: _convolution(v, given, False, True),
    "depthwise_conv2d_weight8": lambda v, given: _convolution(v, given, True, True),
    "dense_weight8": lambda v, _: v[2] * (v[1] @ v[0]) + v[3],
    "average_pool2d": _average,
    "max_pool2d": lambda v, given: _back(
        F.max_pool2d(_padded(v[0], given, -torch.inf), given["kernel"], given["stride"])
    ),
    "global_average": lambda v, _: v[0].flatten(0, -2).mean(0),
    "transpose": lambda v, given: v[0].permute(given["permutation"]),
    "pad": _pad,
    "concat": lambda v, given: torch.cat(v, given["axis"]),
    "slice": lambda v, given: v[0].narrow(given["axis"], given["start"], given["stop"] - given["start"]),
    "reshape": lambda v, given: v[0].reshape(given["shape"]),
    "clamp": lambda v, given: v[0].clamp(given["low"], given["high"]),
    "hard_sigmoid": lambda v, given: (given["alpha"] * v[0] + given["beta"]).clamp(0, 1),
    "hard_swish": lambda v, _: F.hardswish(v[0]),
    "channel_affine": lambda v, _: v[1] * v[0] + v[2],
    "channel_scale": lambda v, _: v[1] * v[0],
    "embedding": _embedding,
}


@pytest.mark.parametrize("op", TWINS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_values_and_gradients_equal_pytorch(op: str, data: st.DataObject) -> None:
    inputs, attributes = CASES[op][0](op, Draw(data))
    frozen = {index for index, each in enumerate(inputs) if each.dtype == np.int8}
    if 0 in frozen:  # moved bytes have no gradient
        inputs, frozen = [each.astype(np.float64) for each in inputs], set()
    # neither indices nor the scales of a frozen weight have a gradient
    untrained = frozen | ({0} if op == "embedding" else set()) | ({2} if frozen else set())
    names = [f"in{index}" for index in range(len(inputs))]
    trained = [name for index, name in enumerate(names) if index not in untrained]
    tensors = {n: constant(n, each) if i in frozen else Tensor(n, each.shape)
               for i, (n, each) in enumerate(zip(names, inputs, strict=True))}  # fmt: skip
    node = Node(op, op, tuple(names), ("y",), attributes)
    shape = OPS[op].shape(list(tensors.values()), attributes)[0]
    tensors |= {n: Tensor(n, s) for n, s in (("y", shape), ("t", shape), ("L", ()), ("dy", shape))}
    loss = Node("mse", "loss", ("y", "t"), ("L", "dy"))
    variables = tuple(name for name, tensor in tensors.items() if name in names and tensor.data is None)
    graph = verify(Graph("g", tensors, (node, loss), (*variables, "t"), ("L",)))
    backward, gradients = differentiate(graph, loss, trained)
    verify(backward, "differentiation")
    given_ = {name: each for name, each in zip(names, inputs, strict=True) if name in variables}
    target = np.random.default_rng(1).normal(size=shape)
    wanted_names = ("y", *dict.fromkeys(gradients.values()))
    run = Graph("g", backward.tensors, backward.nodes, backward.inputs, wanted_names)
    found = evaluate(run, {**given_, "t": target}, np.float64)

    values = [torch.tensor(each.astype(np.float64), requires_grad=n in trained)
              for n, each in zip(names, inputs, strict=True)]  # fmt: skip
    y = TWINS[op](values, attributes)
    F.mse_loss(y, torch.tensor(target)).backward()
    np.testing.assert_allclose(found["y"], y.detach().numpy(), rtol=1e-12, atol=1e-11)
    for name, value in zip(names, values, strict=True):
        if name in trained:
            assert value.grad is not None
            largest = 1.0 + float(value.grad.abs().max())
            np.testing.assert_allclose(found[gradients[name]], value.grad.numpy(), rtol=1e-11, atol=1e-11 * largest)
