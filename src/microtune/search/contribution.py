"""What each layer and channel group would contribute: gradients on the user's data, from the device's own step.

The gain of a group of weights is the squared norm of their mean gradient: how fast the loss falls at first when they
learn. A mean over few samples holds noise, whose expected share is subtracted. The Fisher information, the mean
square, is kept beside it (Kwon et al., TinyTrain, 2023, rank by it).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune.compiler.package import build
from microtune.compiler.plan import plan
from microtune.device import Device
from microtune.ir import Graph, Node
from microtune.search.data import Samples
from microtune.tuning.layers import is_depthwise, layers_of
from microtune.tuning.learner import Learner
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

GROUPS = 8
"""Parts that the input channels of a layer are measured in."""
IN_PLACE = Learner(buffer=1, every=1, epochs=1, folds=0, restart=False, in_place=True)


@dataclass(frozen=True)
class Contribution:
    """Of one layer. ``groups``: gain of each part of its input channels, in order; ``fisher`` of its whole weight."""

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


def _gain(mean: np.ndarray, square: np.ndarray, count: int) -> np.ndarray:
    """Squared mean gradients less the noise expected in them, per element."""
    noise = np.maximum(square - mean**2, 0) / max(count - 1, 1)
    return np.asarray(mean**2 - noise)


def _of_layer(
    graph: Graph, node: Node, gradients: dict[str, tuple[np.ndarray, np.ndarray]], count: int
) -> Contribution:
    def found(index: int) -> tuple[np.ndarray, np.ndarray] | None:
        name = node.inputs[index] if len(node.inputs) > index else ""
        return gradients.get(name) or gradients.get(f"{name}.real")

    shape = graph.tensor(node.inputs[1]).shape
    weight, bias = found(1), found(2)
    if weight is None:
        return Contribution(node.name, int(np.prod(shape)), shape[-1], (0.0,), 0.0, 0.0)
    gains = _gain(*weight, count)
    channels = shape[-1]
    if is_depthwise(node):
        groups: tuple[float, ...] = (float(gains.sum()),)
    else:
        by_channel = gains.reshape(-1, channels).sum(0)
        groups = tuple(float(part.sum()) for part in np.array_split(by_channel, min(GROUPS, channels)))
    return Contribution(
        node.name,
        int(np.prod(shape)),
        channels,
        tuple(max(each, 0.0) for each in groups),
        0.0 if bias is None else max(float(_gain(*bias, count).sum()), 0.0),
        float(weight[1].sum()),
    )


def contributions(graph: Graph, samples: Samples, loss: Loss, most: int = 64) -> list[Contribution]:
    """A contribution for each layer, in order, from up to ``most`` samples.

    Every weight learns once from each sample, from the base and at the rate 1: the change is the gradient.
    """
    chosen = plan(graph, Full(), loss, SGD(lr=1.0), IN_PLACE)
    sums: Sums = {}
    count = min(most, len(samples))
    with tempfile.TemporaryDirectory() as folder:
        device = Device(build(chosen, Path(folder) / "full"))
        base = device.parameters()
        for x, y in zip(samples.x[:count], samples.y[:count], strict=True):
            device.load_parameters(base)
            device.step(x, y)
            for name, after in device.parameters().items():
                gradient = (base[name] - after).astype(np.float64)
                mean, square = sums.get(name, (np.zeros_like(gradient), np.zeros_like(gradient)))
                sums[name] = (mean + gradient / count, square + gradient**2 / count)
    return [_of_layer(graph, node, sums, count) for node in layers_of(graph)]
