"""Update schemes: what learns. What a scheme does not name stays frozen, in flash.

A *layer* here is a dense, convolution or depthwise convolution with constant weights, float or int8; layers are
counted in the order of execution, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LayerName = str | int
"""A layer by its node's name, its weight's name, or its number."""


@dataclass(frozen=True)
class Full:
    """Every weight and bias learns."""


@dataclass(frozen=True)
class Head:
    """The last ``layers`` layers learn, weights and biases."""

    layers: int = 1


@dataclass(frozen=True)
class Bias:
    """The biases of all layers learn; the weights stay frozen (Ben Zaken et al. 2022, BitFit; Cai et al. 2020,
    TinyTL). A layer without a bias is given one."""


@dataclass(frozen=True)
class NormAffine:
    """A scale and a shift per channel behind every convolution learn, from 1 and 0: what batch normalisation's gamma
    and beta can do once they are folded into the layer (Frankle et al. 2021)."""


@dataclass(frozen=True)
class Adapter:
    """Small residual networks beside frozen layers: y + up(relu(down(y))), with ``width`` channels between (Houlsby et
    al. 2019). Behind each dense layer and convolution but the last layer, or behind the ``layers`` last of these.

    ``down`` starts random, ``up`` at zero, so that the network starts as the base.
    """

    width: int = 8
    layers: int | None = None


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters beside layers: W x + (alpha / rank) B A x (Hu et al. 2022). In a convolution A has the layer's
    window and B is 1 x 1. Beside every dense layer and convolution, or the ``layers`` last of these, or those named in
    ``tensors``; depthwise convolutions have none.

    A starts random, B at zero, so that the network starts as the base. ``alpha`` defaults to ``rank``.
    """

    rank: int = 4
    alpha: float | None = None
    layers: int | None = None
    tensors: tuple[LayerName, ...] | None = None


@dataclass(frozen=True)
class Outputs:
    """In ``Sparse``: a fraction (the first ones, rounded up) or a slice of a layer's output channels, not of its input
    channels."""

    part: float | slice

    def __hash__(self) -> int:
        return hash(str(self.part))


@dataclass(frozen=True)
class Sparse:
    """Sparse update (Lin et al. 2022): of each layer named in ``tensors`` a fraction of its input channels learns (the
    first ones, rounded up), or the channels of a slice, or those of its output channels that ``Outputs`` names; and the
    biases of the last layers: those from ``biases_from`` on, or the last so many where that is a number. Of a depthwise
    layer input and output channels are the same.
    """

    tensors: Mapping[LayerName, float | slice | Outputs]
    biases_from: LayerName | None = None

    def __hash__(self) -> int:
        return hash((tuple((name, str(part)) for name, part in self.tensors.items()), self.biases_from))


Scheme = Full | Head | Bias | NormAffine | Adapter | LoRA | Sparse
