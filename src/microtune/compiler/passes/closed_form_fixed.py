"""Closed-form heads where there are integers only: the last layer as one that they learn, and what their state begins
as, turned into steps of the layer's int8 input (``ops.closed_form_fixed``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtune.compiler.factory import Samples, discriminants, prior_covariance
from microtune.compiler.passes.closed_form_layer import (
    LOSSES,
    LastLayer,
    Sampled,
    Update,
    copied,
    map_needs,
    slda_needs,
)
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops.closed_form import packed, triangle
from microtune.ops.closed_form_fixed import MEAN_COARSE, MEAN_PLACES, PRIOR, WEIGHT_PLACES, WORTH_PLACES
from microtune.ops.op import KernelCall
from microtune.ops.scaled import FIXED_ONE, LARGEST, scaled_of
from microtune.tuning.heads import MAP, RLS, SLDA, ClosedForm, Logistic
from microtune.tuning.layers import changes
from microtune.tuning.losses import Loss
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import Selection

LARGEST_ONE = 12
"""The constant that the bias goes with is at most 2^12, so that sums over a covariance fit 63 bits."""
LARGEST_WORTH = 1 << 30


def fixed_head(graph: Graph, scheme: Scheme, loss: Loss, optimizer: ClosedForm) -> Selection:
    """An int8 graph whose last dense layer learns by a closed form in integers: weights of 24 binary places, outputs
    in Q16.16. Raises PlanError where there is none, or where something else should learn."""
    name, wanted = type(optimizer).__name__, LOSSES[type(optimizer)]
    last = graph.producer(graph.outputs[0])
    if last is not None and last.op == "dequantize":
        last = graph.producer(last.inputs[0])
    known = last is not None and last.op in ("dense_int8", "dense_int8_logits") and len(last.inputs) == 5
    if last is None or not known or loss.operator != wanted or set(changes(graph, scheme)) != {last.name}:
        raise PlanError(
            f"{name} learns the last dense layer, weights and biases, on {wanted}: use it with learn=Head(1), "
            f"loss='{wanted}' and a model that ends in a dense layer"
        )
    weight, bias = _in_steps(graph, last)
    tensors = (
        constant(graph.fresh_name(f"{last.inputs[1]}.fixed"), weight),
        constant(graph.fresh_name(f"{last.inputs[2]}.fixed"), bias),
    )
    output = Tensor(graph.fresh_name(f"{last.output}.fixed"), bias.shape, "int32")
    trained = (tensors[0].name, tensors[1].name)
    given = {"x_zero": _scale(graph.tensor(last.inputs[0]))[1]}
    layer = Node("dense_fixed", last.name, (last.inputs[0], *trained), (output.name,), given)
    before = graph.nodes[: graph.nodes.index(last)]
    return Selection(replace(graph, outputs=(output.name,)).with_nodes([*before, layer], [*tensors, output]), trained)


def _scale(x: Tensor) -> tuple[float, int]:
    if x.quantization is None:
        raise PlanError(f"'{x.name}' is int8 without a scale; use precision='float32'")
    return float(x.quantization.scale), int(x.quantization.zero_point)


def _in_steps(graph: Graph, node: Node) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Weights and biases of an int8 layer: what a step of its input is worth in the output, and Q16.16."""
    stored, addend = graph.tensor(node.inputs[1]), graph.tensor(node.inputs[2])
    scale = _scale(graph.tensor(node.inputs[0]))[0]
    if stored.data is None or addend.data is None or stored.quantization is None:
        raise PlanError(f"layer '{node.name}' has no constant weights with scales; use precision='float32'")
    step = scale * np.asarray(stored.quantization.scale, np.float64).reshape(-1)
    of_bias = step if addend.quantization is None else np.asarray(addend.quantization.scale, np.float64)
    weight = np.round(stored.data * step.reshape(-1, 1) * 2.0**WEIGHT_PLACES)
    bias = np.round(addend.data * of_bias * FIXED_ONE)
    if max(np.abs(weight).max(), np.abs(bias).max()) > LARGEST:
        raise PlanError(
            f"the outputs of layer '{node.name}' go beyond 32767, the most that precision='int8' can represent: "
            "scale them down (kilometres for metres), or use precision='float32'"
        )
    return weight.astype(np.int32), bias.astype(np.int32)


class _Steps:
    """The features of a layer in steps: phi = [x - zero, 2^one], where 2^one is about 1 / scale."""

    def __init__(self, layer: LastLayer) -> None:
        self.scale, self.zero = _scale(layer.x)
        self.one = min(max(round(-math.log2(self.scale)), 0), LARGEST_ONE)
        self.layer = layer

    def samples(self, sampled: Sampled) -> Samples:
        """Real features and outputs."""
        found = sampled(self.layer.x.name, self.layer.y.name)
        return Samples((found.features - self.zero) * self.scale, found.outputs / FIXED_ONE, found.y)

    def covariance(self, real: NDArray[np.float64]) -> tuple[NDArray[np.float64], dict[str, int]]:
        """The covariance of real weights and bias (H + 1, H + 1) as one of weights in steps, its largest variance
        2^30; and what a node is told of it."""
        each = np.append(np.full(self.layer.inputs, self.scale), 2.0**-self.one)
        moved = real * each[:, None] * each[None, :]
        unit = float(moved.diagonal().max()) / PRIOR
        held = scaled_of(unit)
        given = {"x_zero": self.zero, "one": self.one, "unit": held.mantissa, "unit_exponent": held.exponent}
        return moved / unit, given


def _whole(covariance: NDArray[np.float64]) -> NDArray[np.int32]:
    """Rounded; the diagonal a little larger, so that it stays positive semidefinite."""
    return packed(np.round(covariance + len(covariance) * np.eye(len(covariance))).astype(np.int32))


def _begin(state: str, layer: LastLayer, variances: NDArray[np.float64], outputs: int) -> KernelCall:
    weight, bias = (round(float(variances[at])) for at in (0, -1))
    return KernelCall("mt_fixed_covariance_begin", (state, weight, bias, layer.inputs, outputs))


def _rls(layer: LastLayer, optimizer: RLS, sampled: Sampled | None) -> Update:
    if optimizer.forgetting <= 0.5:
        raise PlanError(
            f"RLS(forgetting={optimizer.forgetting}) with precision='int8': above 0.5 is needed, and 0.95 and more "
            "usual"
        )
    steps = _Steps(layer)
    covariance, given = steps.covariance(optimizer.prior * np.eye(layer.inputs + 1))
    variances = covariance.diagonal()
    places = {
        "forgetting": round(optimizer.forgetting * 2**30),
        "grow": round(2**30 / optimizer.forgetting),
        "most_weight": round(float(variances[0]) * optimizer.forgetting),
        "most_bias": round(float(variances[-1]) * optimizer.forgetting),
    }
    return Update(
        "fixed_rls",
        (triangle(layer.inputs + 1),),
        (layer.x.name, layer.y.name, layer.target),
        {**given, **places},
        lambda state: _begin(state, layer, variances, 1),
    )


def _logistic(layer: LastLayer, optimizer: Logistic, sampled: Sampled | None) -> Update:
    steps, size = _Steps(layer), layer.inputs + 1
    real = (
        optimizer.independent_prior * np.eye(size)
        if sampled is None
        else prior_covariance(steps.samples(sampled), optimizer.worth, optimizer.ridge).astype(np.float64)
    )
    covariance, given = steps.covariance(real)
    beginning = None if sampled is None else constant(layer.fresh("prior_covariance"), _whole(covariance))

    def begin(state: str) -> KernelCall:
        if beginning is None:
            return _begin(state, layer, covariance.diagonal(), layer.outputs)
        return KernelCall("mt_fixed_covariance_copy", (state, beginning.name, layer.inputs, layer.outputs))

    most = np.round(covariance.diagonal()).astype(np.int32)
    return Update(
        "fixed_logistic",
        (layer.outputs * triangle(size),),
        (layer.x.name, layer.y.name, layer.target),
        {**given, "walk": min(round(optimizer.walk * 2**31), LARGEST)},
        begin,
        (constant(layer.fresh("prior_variance"), most),),
        () if beginning is None else (beginning,),
    )


def _map(layer: LastLayer, optimizer: MAP, sampled: Sampled | None) -> Update:
    steps = _Steps(layer)
    real = prior_covariance(steps.samples(map_needs(sampled)), optimizer.worth, optimizer.ridge)
    covariance, given = steps.covariance(real.astype(np.float64))
    beginning = constant(layer.fresh("prior_covariance"), _whole(covariance))
    return Update(
        "fixed_map",
        beginning.shape,
        (layer.x.name, layer.y.name, layer.target),
        given,
        lambda state: copied(state, beginning),
        begin_constants=(beginning,),
    )


def _slda(layer: LastLayer, optimizer: SLDA, sampled: Sampled | None) -> Update:
    steps = _Steps(layer)
    found = discriminants(steps.samples(slda_needs(sampled)), optimizer.worth, optimizer.shrinkage)
    reach = 255 << MEAN_PLACES
    means = np.clip(np.round(found.means.astype(np.float64) / steps.scale * 2.0**MEAN_PLACES), -reach, reach)
    worth = np.round(found.worth * 2.0**WORTH_PLACES)
    beginning = constant(
        layer.fresh("class_means"), np.concatenate([means.ravel(), worth, np.zeros(1)]).astype(np.int32)
    )
    precision = found.precision.astype(np.float64) * steps.scale**2
    # as many places as leave the largest below 2^30
    places = 30 - math.frexp(float(np.abs(precision).max()))[1]
    shift = places + MEAN_PLACES - MEAN_COARSE - WEIGHT_PLACES
    if not 1 <= shift <= 62:
        raise PlanError(
            f"SLDA() with precision='int8': the inputs of the last layer, '{layer.x.name}', hardly vary or lie far "
            "apart; calibrate the model on samples like those it will see, or use precision='float32'"
        )
    memory = round(optimizer.memory * 2**WORTH_PLACES) if optimizer.memory else LARGEST_WORTH
    return Update(
        "fixed_slda",
        beginning.shape,
        (layer.x.name, layer.target),
        {
            "x_zero": steps.zero,
            "places": shift,
            "memory": min(memory, LARGEST_WORTH),
        },
        lambda state: copied(state, beginning),
        (
            constant(layer.fresh("precision"), packed(np.round(precision * 2.0**places).astype(np.int32))),
            constant(layer.fresh("log_prior"), np.round(found.log_prior * float(FIXED_ONE)).astype(np.int32)),
        ),
        (beginning,),
    )


FIXED_UPDATES: Mapping[type, Callable[[LastLayer, Any, Sampled | None], Update]] = {
    RLS: _rls, MAP: _map, SLDA: _slda, Logistic: _logistic,
}  # fmt: skip
