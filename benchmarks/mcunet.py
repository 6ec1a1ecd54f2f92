"""Memory of training on the device: the nine published schemes of three int8 nets, planned to the byte.

The schemes and the accounting of "On-Device Training Under 256KB Memory" (Lin et al., NeurIPS 2022): int8 weights,
int32 biases and a float classifier of ten classes are trained one image at a time, with true gradients at residuals.
``python -m benchmarks.mcunet`` prints the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from examples.camera.network import published_network

from microtune.compiler.passes.fuse_rows import fuse_rows
from microtune.compiler.passes.memory import Arena, aligned, plan_arena
from microtune.compiler.passes.schedule import peak_bytes, reorder
from microtune.compiler.program import split, training_step
from microtune.ir import Graph, Quantization, Tensor, constant, verify
from microtune.ops import OPS
from microtune.tuning.losses import LOSSES
from microtune.tuning.optimizers import SGD

CLASSES = 10
RELEASED = 221_904
"""Bytes that the released generator plans for MCUNet-5FPS, scheme 49kb, 10 classes (arena 180 224 of them)."""


@dataclass(frozen=True)
class Sparse:
    """The last ``biases`` convolutions learn their bias; {convolution: fraction of its input channels that learn}."""

    biases: int
    weights: Mapping[int, float]
    published: float  # KiB of extra memory


def _weights(text: str) -> dict[int, float]:
    return {int(index): float(part) for index, part in (each.split(":") for each in text.split())}


SCHEMES: Mapping[tuple[str, str], Sparse] = {
    ("mbv2-w0.35", "49kb"): Sparse(16, _weights("36:1 39:1 40:0 41:.25 42:.125 45:.125 48:.125 49:.125"), 49.8),
    ("mbv2-w0.35", "99kb"): Sparse(25, _weights("27:1 30:1 33:1 36:1 39:1 42:.125 45:.5 48:1"), 99.4),
    ("mbv2-w0.35", "138kb"): Sparse(34, _weights("27:1 30:1 33:1 36:1 39:1 42:1 45:1 48:1"), 138.2),
    ("mcunet-5fps", "49kb"): Sparse(20, _weights("24:.25 27:.5 30:.5"), 49.8),
    ("mcunet-5fps", "99kb"): Sparse(22, _weights("21:1 24:1 27:1 30:1 36:.125 39:.25"), 99.8),
    ("mcunet-5fps", "148kb"): Sparse(23, _weights("21:1 24:1 27:1 30:1 36:1 39:.5"), 148.4),
    ("proxyless-w0.3", "49kb"): Sparse(21, _weights("39:.25 42:1 45:1 51:.125 54:.25 57:.25"), 49.7),
    ("proxyless-w0.3", "98kb"): Sparse(25, _weights("36:1 39:.5 42:1 45:1 48:.25 51:.5 54:1 57:1"), 98.5),
    ("proxyless-w0.3", "148kb"): Sparse(45, _weights("36:1 39:1 42:1 45:1 48:1 51:1 54:1 57:1"), 148.2),
}


def select_sparse(graph: Graph, scheme: Sparse) -> tuple[Graph, tuple[str, ...]]:
    """The graph with the learnt channels as tensors of their own, and the names of what learns."""
    layers = [node for node in graph.nodes if node.op in ("conv2d_int8", "depthwise_conv2d_int8")]
    trained, nodes, tensors = [], {node.name: node for node in graph.nodes}, list[Tensor]()
    for index, node in enumerate(layers):
        weight = graph.tensor(node.inputs[1])
        fraction = scheme.weights.get(index, 0.0)
        assert weight.data is not None and isinstance(weight.quantization, Quantization)
        if fraction == 1:
            trained.append(weight.name)
        elif fraction > 0:
            channels = max(1, round(fraction * weight.shape[-1]))
            learnt = constant(f"{node.name}.learnt", weight.data[..., :channels], weight.quantization)
            tensors.append(learnt)
            trained.append(learnt.name)
            if node.op == "conv2d_int8":
                attributes = {**node.attributes, "start": 0}
                nodes[node.name] = replace(node, inputs=(*node.inputs, learnt.name), attributes=attributes)
            else:
                # a depthwise weight has no input channels to choose from: the whole of it learns
                trained[-1] = weight.name
        if index >= len(layers) - scheme.biases:
            trained.append(node.inputs[2])
    classifier = next(node for node in graph.nodes if node.op == "dense")
    trained += classifier.inputs[1:]
    return graph.with_nodes(nodes.values(), tensors), tuple(trained)


def published_accounting(graph: Graph, scheme: Sparse) -> float:
    """KiB as the paper counts extra memory: weights, biases, masks of updated layers, inputs of updated channels."""
    layers = [node for node in graph.nodes if node.op in ("conv2d_int8", "depthwise_conv2d_int8")]
    total = 0.0
    for index, node in enumerate(layers):
        x, weight = (graph.tensor(name) for name in node.inputs[:2])
        fraction = scheme.weights.get(index, 0.0)
        total += fraction * weight.size + fraction * x.size
        if index >= len(layers) - scheme.biases:
            total += 4 * weight.shape[0 if node.op == "conv2d_int8" else 2] + graph.tensor(node.output).size / 8
    return total / 1024


@contextmanager
def not_in_place(*names: str) -> Iterator[None]:
    """Operators of these names do without working in place."""
    before = {name: OPS[name] for name in names}
    OPS.update({name: replace(op, in_place=()) for name, op in before.items()})
    try:
        yield
    finally:
        OPS.update(before)


@dataclass(frozen=True)
class Planned:
    """Bytes. ``arena`` holds the image, all activations, gradients and workspaces of the kernels; nothing else is
    needed but ``trainables``. ``waiting``: arena and cut of a device that predicts and may learn from it later; the
    cut then lies outside the arena, which is shared by prediction and training."""

    arena: Arena
    graph: Graph
    trainables: int
    waiting: int

    @property
    def total(self) -> int:
        return self.arena.bytes + self.trainables

    @property
    def bound(self) -> int:
        return self.arena.bound + self.trainables


def joined(backbone: Graph, step: Graph) -> Graph:
    """One program: the frozen part, then the training step on what it leaves."""
    inputs = (*backbone.inputs, *(name for name in step.inputs if name not in backbone.outputs))
    tensors = {**backbone.tensors, **step.tensors}
    return Graph(step.name, tensors, (*backbone.nodes, *step.nodes), inputs, step.outputs)


def plan_scheme(net: str, scheme: Sparse, ordered: bool = True, at_once: bool = True, fused: bool = True) -> Planned:
    """The training step from the image on, placed. ``ordered`` False keeps the order the rules wrote; ``at_once``
    False runs the updates behind the whole backward pass; ``fused`` False computes bottlenecks layer by layer."""
    graph, trained = select_sparse(published_network(net, classes=CLASSES), scheme)
    backbone, head = split(graph, trained)
    step, _ = training_step(head, trained, LOSSES["cross_entropy"], SGD())
    step = verify(step, "attaching the updates")
    image = backbone.inputs
    if ordered:
        step = reorder(step, head.inputs)
    if not at_once:
        later = [node for node in step.nodes if node.updates]
        step = step.with_nodes([node for node in step.nodes if not node.updates] + later)
    if fused:
        backbone = fuse_rows(backbone, image, peak_bytes(step, head.inputs))
    if ordered:
        backbone = reorder(backbone, image)
    whole = verify(joined(backbone, step), "joining")
    arena = _own_arena(whole, image)
    cut = sum(aligned(graph.tensor(name).bytes) for name in head.inputs)
    ram = cut + max(_own_arena(backbone, image).bytes, _own_arena(step, ()).bytes)
    return Planned(arena, whole, sum(graph.tensor(name).bytes for name in trained), ram)


def _own_arena(graph: Graph, placed_inputs: tuple[str, ...]) -> Arena:
    outside = frozenset([*graph.inputs, *graph.outputs, *(tensor.name for tensor in graph.constants)])
    return plan_arena(graph, outside - set(placed_inputs), placed_inputs)


def table(schemes: Mapping[tuple[str, str], Sparse] = SCHEMES) -> list[dict[str, object]]:
    """A row for each scheme."""
    rows: list[dict[str, object]] = []
    for (net, name), scheme in schemes.items():
        planned = plan_scheme(net, scheme)
        rows.append({
            "net": net, "scheme": name, "arena": planned.arena.bytes, "arena_bound": planned.arena.bound,
            "trainables": planned.trainables, "total": planned.total, "total_bound": planned.bound,
            "device": planned.waiting + planned.trainables,
            "extra_kib": round(published_accounting(published_network(net), scheme), 1),
            "published_kib": scheme.published,
        })  # fmt: skip
    return rows


IN_PLACE_DEPTHWISE = ("depthwise_conv2d_int8", "depthwise_conv2d_weight8_grad_input")


def ablation(net: str = "mcunet-5fps", scheme: str = "49kb") -> dict[str, int]:
    """Total bytes with everything, and with one thing left out at a time."""
    given = SCHEMES[net, scheme]
    found = {
        "everything": plan_scheme(net, given).total,
        "without reordering": plan_scheme(net, given, ordered=False).total,
        "updates after the backward pass": plan_scheme(net, given, at_once=False).total,
        "bottlenecks layer by layer": plan_scheme(net, given, fused=False).total,
    }
    with not_in_place(*(name for name in IN_PLACE_DEPTHWISE if name in OPS)):
        found["depthwise not in place"] = plan_scheme(net, given).total
    with not_in_place(*(name for name, op in OPS.items() if op.in_place)):
        found["nothing in place"] = plan_scheme(net, given).total
    return found


def _row(cells: Sequence[object], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))


def main() -> None:
    columns = ("net", "scheme", "arena", "arena_bound", "trainables", "total", "total_bound", "device", "extra_kib",
               "published_kib")  # fmt: skip
    widths = (15, 7, 8, 12, 11, 8, 12, 8, 10, 14)
    print(_row(columns, widths))
    for row in table():
        print(_row([row[name] for name in columns], widths))
    print(f"\nreleased generator, mcunet-5fps 49kb: {RELEASED} bytes in all\n")
    for name, total in ablation().items():
        print(f"{total:>8}  {name}")


if __name__ == "__main__":
    main()
