"""Update schemes worth trying: the usual ones, and sparse updates grown by what they contribute per weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from microtune.ir import Graph
from microtune.search.contribution import Contribution
from microtune.tuning.layers import INT8, is_depthwise, layers_of
from microtune.tuning.schemes import Bias, Full, Head, LayerName, LoRA, NormAffine, Scheme, Sparse

SHARES = (0.01, 0.03, 0.1, 0.3)
"""Of all weights, that sparse updates may train."""
Fits = Callable[[Scheme, str], bool]
"""Whether a scheme, in a precision, may fit the budget."""


@dataclass(frozen=True)
class _Choice:
    """Channels of a layer that may learn: what they would gain, and how many weights they are."""

    gain: float
    weights: int
    channels: slice


NONE = _Choice(0.0, 0, slice(0, 0))


def _choices(each: Contribution) -> list[_Choice]:
    """Runs of channel groups: the best group, the best two beside each other, four, and all."""
    found = []
    parts, edges = len(each.groups), each.edges
    lengths = [1 << power for power in range(parts.bit_length()) if 1 << power < parts]
    for length in [*lengths, parts]:
        best = max(range(parts - length + 1), key=lambda start: sum(each.groups[start : start + length]))
        low, high = edges[best], edges[best + length]
        weights = each.weights * (high - low) // each.channels
        found.append(_Choice(sum(each.groups[best : best + length]), weights, slice(low, high)))
    return found


def grown(measured: Sequence[Contribution], share: float, first: int = 0) -> Sparse | None:
    """The sparse update of a share of all weights that gains most, among the layers from ``first`` on: greedily the
    choice, or the wider choice, with most gain per weight that it adds, one slice of each layer; and the biases from
    the first layer on that has one. None when no choice is that small, or none gains anything."""
    left = max(1, round(share * sum(each.weights for each in measured)))
    options = {index: _choices(each) for index, each in enumerate(measured) if index >= first}
    chosen: dict[int, _Choice] = {}
    while True:
        better = []
        for index, known in options.items():
            has = chosen.get(index, NONE)
            for wider in known:
                more, gain = wider.weights - has.weights, wider.gain - has.gain
                if 0 < more <= left and gain > 0:
                    better.append((gain / more, index, wider))
        if not better:
            break
        _, index, wider = max(better, key=lambda option: option[0])
        left -= wider.weights - chosen.get(index, NONE).weights
        chosen[index] = wider
    if not chosen:
        return None
    in_order: dict[LayerName, float | slice] = {}
    for index in sorted(chosen):
        in_order[index] = chosen[index].channels
    return Sparse(in_order, biases_from=len(measured) - min(chosen))


def deepest(measured: Sequence[Contribution], share: float, fits: Callable[[Scheme], bool]) -> Sparse | None:
    """The sparse update of a share of all weights that reaches as far back as the budget lets it, found by bisection:
    what learns farther from the output keeps more alive. The last layers' where nothing fits."""
    low, high = 0, len(measured) - 1
    whole = grown(measured, share)
    if whole is None or fits(whole):
        return whole
    while low < high:
        middle = (low + high) // 2
        tried = grown(measured, share, middle)
        if tried is None or fits(tried):
            high = middle
        else:
            low = middle + 1
    return grown(measured, share, low) or whole


def _within(fits: Fits, precision: str) -> Callable[[Scheme], bool]:
    return lambda scheme: fits(scheme, precision)


def candidates(graph: Graph, measured: Sequence[Contribution], fits: Fits) -> list[tuple[Scheme, str]]:
    """(scheme, precision), the cheapest kinds first; in an int8 graph those that can are tried in both precisions.

    ``measured``: the contribution of each layer of the graph, in order.
    """
    layers = layers_of(graph)
    integers = any(node.op in INT8 for node in layers)
    low_rank = any(not is_depthwise(node) for node in layers)
    convolutions = any(not node.op.startswith("dense") for node in layers)
    found: list[tuple[Scheme, str]] = []
    for precision in ("float32", "mixed") if integers else ("float32",):
        schemes: list[Scheme] = [Head(count) for count in (1, 2, 3) if count <= len(layers)]
        schemes.append(Bias())
        if precision == "float32":
            schemes += [LoRA(4, layers=1), LoRA(1), LoRA(4)] if low_rank else []
            schemes += [NormAffine()] if convolutions else []
        late = grown(measured, 0.1, len(layers) // 2)
        schemes += [] if late is None else [late]
        for share in SHARES:
            sparse = deepest(measured, share, _within(fits, precision))
            schemes += [] if sparse is None else [sparse]
        schemes.append(Full())
        found += [(scheme, precision) for scheme in schemes]
    return list(dict.fromkeys(found))
