"""Update schemes worth trying: the usual ones, and sparse updates grown by what they contribute per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence

from microtune.ir import Graph
from microtune.search.contribution import Contribution
from microtune.tuning.layers import INT8, layers_of
from microtune.tuning.schemes import Bias, Full, Head, LayerName, LoRA, NormAffine, Scheme, Sparse

SHARES = (0.01, 0.03, 0.1, 0.3)
"""Of all weights, that sparse updates may train."""


def _slices(each: Contribution) -> list[tuple[float, int, slice]]:
    """(gain per weight, weights, channels) of runs of channel groups: the best group, the best two beside each other,
    four, and all."""
    found = []
    size, parts = each.channels, len(each.groups)
    edges = [0]
    for part in range(parts):
        edges.append(edges[-1] + size // parts + (part < size % parts))
    length = 1
    while length <= parts:
        starts = range(parts - length + 1)
        best = max(starts, key=lambda start: sum(each.groups[start : start + length]))
        gain = sum(each.groups[best : best + length])
        low, high = (0, size) if length == parts else (edges[best], edges[best + length])
        weights = each.weights * (high - low) // size
        found.append((gain / max(weights, 1), weights, slice(low, high)))
        length *= 2
    return found


def grown(graph: Graph, measured: Sequence[Contribution], share: float) -> Sparse | None:
    """The sparse update of a share of all weights that gains most: greedily the slice with most gain per weight,
    layer by layer, and the biases from the first layer on that has one chosen."""
    budget = max(1, int(share * sum(each.weights for each in measured)))
    options = [(per, weights, part, each) for each in measured for per, weights, part in _slices(each)]
    options.sort(key=lambda option: -option[0])
    chosen: dict[LayerName, slice] = {}
    left = budget
    for per, weights, part, each in options:
        if each.layer not in chosen and weights <= left and per > 0:
            chosen[each.layer] = part
            left -= weights
    if not chosen:
        return None
    names = [node.name for node in layers_of(graph)]
    first = min(names.index(str(name)) for name in chosen)
    in_order = dict(sorted(chosen.items(), key=lambda item: names.index(str(item[0]))))
    return Sparse(in_order, biases_from=len(names) - first)


def candidates(graph: Graph, measured: Sequence[Contribution]) -> list[tuple[Scheme, str]]:
    """(scheme, precision), the cheapest kinds first; in an int8 graph sparse updates and heads in both precisions."""
    layers = layers_of(graph)
    plain: list[Scheme] = [Head(count) for count in (1, 2, 3) if count <= len(layers)]
    plain += [Bias(), LoRA(1), LoRA(4), NormAffine()]
    sparse = [each for share in SHARES if (each := grown(graph, measured, share)) is not None]
    unique = list(dict.fromkeys([*plain, *sparse, Full()]))
    found: list[tuple[Scheme, str]] = [(scheme, "float32") for scheme in unique]
    if any(node.op in INT8 for node in layers):
        found += [(scheme, "mixed") for scheme in unique if isinstance(scheme, Head | Bias | Sparse | Full)]
    return found


def score(measured: Sequence[Contribution]) -> float:
    """The gain of letting everything learn, for reports."""
    return math.fsum(each.gain + each.bias for each in measured)
