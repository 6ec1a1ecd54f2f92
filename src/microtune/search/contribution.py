"""What each layer and channel group would contribute: gradients on the user's data, from the device's own step.

The gain of a group of weights is the squared norm of their mean gradient: how fast the loss falls at first when they
learn. A mean over few samples holds noise, whose expected share is subtracted. The Fisher information, the mean
square, is kept beside it (Kwon et al., TinyTrain, 2023, rank by it).
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune.compiler.plan import plan
from microtune.device import Device
from microtune.errors import PlanError
from microtune.ir import Graph, Node
from microtune.samples import Samples
from microtune.search.trial import IN_PLACE, build_for_host
from microtune.tuning.layers import bias_position, is_depthwise, layers_of
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

GROUPS = 8
"""Parts that the input channels of a layer are measured in."""
RATE = 256.0
"""Of the steps that gradients are read from: a power of two, so that dividing by it is exact, and far above 1, so that
little of a gradient is lost when it is added to its weight."""


@dataclass(frozen=True)
class Contribution:
    """Of one layer. ``groups``: gain of each part of its input channels, in order; ``fisher`` of its whole weight.

    ``weights`` of the layer and its input ``channels``; a depthwise layer is one group, for it learns whole.
    """

    layer: str
    weights: int
    channels: int
    groups: tuple[float, ...]
    bias: float
    fisher: float

    @property
    def gain(self) -> float:
        """Of the whole weight."""
        return sum(self.groups)

    @property
    def edges(self) -> tuple[int, ...]:
        """Where the groups begin, and the channels in all: the first groups are one longer where it does not divide."""
        size, longer = divmod(self.channels, len(self.groups))
        return tuple(part * size + min(part, longer) for part in range(len(self.groups) + 1))


Sums = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per tensor: means over the samples of gradients and of their squares."""


def _gain(mean: np.ndarray, square: np.ndarray, count: int) -> np.ndarray:
    """Squared mean gradients less the noise expected in them, per element."""
    noise = np.maximum(square - mean**2, 0) / max(count - 1, 1)
    return np.asarray(mean**2 - noise)


def _of_layer(graph: Graph, node: Node, gradients: Sums, count: int) -> Contribution:
    def found(index: int) -> tuple[np.ndarray, np.ndarray] | None:
        name = node.inputs[index] if len(node.inputs) > index else ""
        # what is int8 in the graph learns as float32 under this name
        return gradients.get(name) or gradients.get(f"{name}.real")

    shape = graph.tensor(node.inputs[1]).shape
    weight, bias = found(1), found(bias_position(node))
    channels, size = shape[-1], math.prod(shape)
    if weight is None:
        return Contribution(node.name, size, channels, (0.0,), 0.0, 0.0)
    gains = _gain(*weight, count)
    if is_depthwise(node):
        groups: tuple[float, ...] = (float(gains.sum()),)
    else:
        by_channel = gains.reshape(-1, channels).sum(0)
        groups = tuple(float(part.sum()) for part in np.array_split(by_channel, min(GROUPS, channels)))
    return Contribution(
        node.name,
        size,
        channels,
        tuple(max(each, 0.0) for each in groups),
        0.0 if bias is None else max(float(_gain(*bias, count).sum()), 0.0),
        float(weight[1].sum()),
    )


def gradients(graph: Graph, samples: Samples, loss: Loss) -> tuple[Sums, float]:
    """Of every weight and bias, in float32, by the device's own C; and the seconds that a sample took.

    Everything learns once from each sample, from the base: the change is the gradient. Raises PlanError when one is
    not finite.
    """
    chosen = plan(graph, Full(), loss, SGD(lr=RATE), IN_PLACE)
    sums: Sums = {}
    with tempfile.TemporaryDirectory() as folder:
        device = Device(build_for_host(chosen, Path(folder) / "full"))
        base, began = device.parameters(), time.monotonic()
        for x, y in zip(samples.x, samples.y, strict=True):
            device.load_parameters(base)
            device.step(x, y)
            for name, after in device.parameters().items():
                gradient = (base[name].astype(np.float64) - after) / RATE
                mean, square = sums.get(name, (np.zeros_like(gradient), np.zeros_like(gradient)))
                sums[name] = (mean + gradient / len(samples), square + gradient**2 / len(samples))
        seconds = (time.monotonic() - began) / len(samples)
    if not all(np.isfinite(square).all() for _, square in sums.values()):
        raise PlanError("the gradients on these samples are not finite: scale the inputs as the model was trained on")
    return sums, seconds


def contributions(graph: Graph, samples: Samples, loss: Loss, most: int = 64) -> tuple[list[Contribution], float]:
    """A contribution for each layer, in order, from the first samples, up to ``most``; and the seconds that a sample
    took."""
    few = samples.take(np.arange(min(most, len(samples))))
    found, seconds = gradients(graph, few, loss)
    return [_of_layer(graph, node, found, len(few)) for node in layers_of(graph)], seconds
