"""Frozen weights are stored without their zeros, or in four bits each, where that makes flash smaller.

The form of each weight is chosen by its bytes; a form is used only where all weights in it together save more than its
code takes. Outputs stay the same bits (``ops.packed``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor
from microtune.ir.tensor import constant
from microtune.ops.packed import BASES, Packed, pack, packed_name

CODE = {"float32": {"runs": 800, "bitmap": 800}, "int8": {"runs": 1750, "bitmap": 1550, "halves": 1500}}
"""Bytes of flash that the code of a form takes, the most that was measured on any core of the catalogue: of nets that
keep a dense layer beside it. Where all layers are packed it is less than that of the dense kernels."""
CALL = 64
"""Bytes that a layer must save to be worth its call,"""
WORTH = 0.45
"""and the share of its bytes, since it may take longer: a net that was not pruned stays as it is."""


@dataclass(frozen=True)
class PackedWeight:
    """A weight that is stored in a ``form``: in ``bytes`` of flash instead of ``dense``. ``zeros``: share of them."""

    name: str
    form: str
    zeros: float
    dense: int
    bytes: int


@dataclass(frozen=True)
class Packing:
    """The weights that are stored packed, and the bytes of flash that the code which reads them is counted with."""

    weights: tuple[PackedWeight, ...] = ()
    code: int = 0

    @property
    def saved(self) -> int:
        """Bytes of flash: what weights take less, but for the code."""
        return sum(each.dense - each.bytes for each in self.weights) - self.code


def check_sparse(sparse: object) -> bool:
    """Whether weights may be packed. Raises PlanError for what is no choice."""
    if sparse is not False and sparse != "auto":
        raise PlanError(f"sparse={sparse!r}: write 'auto' (where that makes flash smaller) or False (never)")
    return sparse == "auto"


def _words(size: int) -> int:
    return -(-size // 4) * 4


def _packable(graphs: Sequence[Graph], learns: Collection[str]) -> dict[str, Tensor]:
    """Frozen weights that only layers which can take them packed read, as their weight."""
    found: dict[str, Tensor] = {}
    refused = {*learns, *chain.from_iterable(graph.outputs for graph in graphs)}
    for graph in graphs:
        for node in graph.nodes:
            whole = node.op in BASES and len(node.inputs) == (5 if "int8" in node.op else 3)
            if whole and "int8" not in node.op:
                bias = graph.tensor(node.inputs[2]).data
                # 0 + -0 is 0, and -0 + -0 is not: the one sum to which adding zeros makes a difference
                whole = bias is None or not (np.signbit(bias) & (bias == 0)).any()
            for place, name in enumerate(node.inputs):
                tensor = graph.tensor(name)
                if whole and place == 1 and tensor.is_constant:
                    found[name] = tensor
                else:
                    refused.add(name)
    return {name: tensor for name, tensor in found.items() if name not in refused}


def _forms(weight: np.ndarray, forms: Iterable[str]) -> dict[str, Packed]:
    """A weight in those of the forms that are worth it."""
    most = (1 - WORTH) * weight.nbytes
    if np.count_nonzero(weight) * weight.itemsize > most:
        forms = [form for form in forms if form == "halves"]
    found = {form: each for form in forms if (each := pack(weight, form)) is not None}
    return {form: each for form, each in found.items() if each.bytes <= most}


def _choose(weights: Mapping[str, Tensor], dtype: str) -> tuple[dict[str, tuple[str, Packed]], int]:
    """{weight: its form and what is stored}, and the code of these forms: the fewest bytes of flash."""
    code = CODE[dtype]
    packed = {name: _forms(np.asarray(tensor.data), code) for name, tensor in weights.items()}
    best: tuple[int, dict[str, tuple[str, Packed]], int] = (0, {}, 0)
    for count in range(1, len(code) + 1):
        for forms in combinations(code, count):
            chosen = {}
            cost = sum(code[form] for form in forms)
            change = cost
            for name, found in packed.items():
                form = min((each for each in forms if each in found), key=lambda each: found[each].bytes, default=None)
                less = 0 if form is None else _words(weights[name].bytes) - found[form].bytes - CALL
                if form is not None and less > 0:
                    chosen[name] = (form, found[form])
                    change -= less
            if change < best[0]:
                best = change, chosen, cost
    return best[1], best[2]


def _rewritten(graph: Graph, node: Node, form: str, packed: Packed) -> tuple[Node, list[Tensor]]:
    weight = node.inputs[1]
    stored = [constant(f"{weight}.{form}", packed.codes)]
    if form != "halves":
        stored.append(constant(f"{weight}.values", packed.values))
    inputs = (node.inputs[0], *(each.name for each in stored), *node.inputs[2:])
    attributes = {**node.attributes, "weight": graph.tensor(weight).shape}
    return Node(packed_name(node.op, form), node.name, inputs, node.outputs, attributes), stored


def pack_weights(graphs: Sequence[Graph], learns: Collection[str] = ()) -> tuple[tuple[Graph, ...], Packing]:
    """Graphs that share their weights, with those packed that make flash smaller.

    ``learns``: tensors that are written at run time. Activations, their order and names stay.
    """
    weights = _packable(graphs, learns)
    chosen: dict[str, tuple[str, Packed]] = {}
    code = 0
    for dtype in CODE:
        found, cost = _choose({name: each for name, each in weights.items() if each.dtype == dtype}, dtype)
        chosen |= found
        code += cost
    if not chosen:
        return tuple(graphs), Packing()
    result = []
    for graph in graphs:
        nodes: list[Node] = []
        added: list[Tensor] = []
        for node in graph.nodes:
            if node.op in BASES and node.inputs[1] in chosen:
                node, stored = _rewritten(graph, node, *chosen[node.inputs[1]])
                added += stored
            nodes.append(node)
        result.append(graph.with_nodes(nodes, added))
    said = tuple(
        PackedWeight(
            name,
            form,
            round(1 - np.count_nonzero(np.asarray(weights[name].data)) / weights[name].size, 4),
            _words(weights[name].bytes),
            packed.bytes,
        )
        for name, (form, packed) in chosen.items()
    )
    return tuple(result), Packing(said, code)
