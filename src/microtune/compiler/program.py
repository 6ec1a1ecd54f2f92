"""From a model and a choice of what learns to the three programs of a device: backbone, head, step.

The backbone is frozen and runs once for a prediction; what crosses from it into the head is the *cut*,
which is what the buffer keeps of a sample. Training starts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from microtune.compiler.factory import Calibration, samples_at, values_at
from microtune.compiler.passes.autodiff import dependents, differentiate
from microtune.compiler.passes.closed_form import attach_closed_form
from microtune.compiler.passes.cut import choose_cut, crossing
from microtune.compiler.passes.detector import attach_detector, parts
from microtune.compiler.passes.fuse_rows import fuse_rows
from microtune.compiler.passes.kalman import attach_kalman, filters_all
from microtune.compiler.passes.leaves import attach_leaves
from microtune.compiler.passes.memory import Arena, plan_arena
from microtune.compiler.passes.pack_weights import Packing, pack_weights
from microtune.compiler.passes.recompute import recompute
from microtune.compiler.passes.updates import attach_updates
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, verify
from microtune.ops import OPS
from microtune.ops.block_output import MOST_CLASSES
from microtune.ops.op import KernelCall
from microtune.ops.quantized_functions import recognised
from microtune.ops.scaled import FIXED_ONE
from microtune.tuning.heads import ClosedForm, Leaves, Logistic
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import Gradient


@dataclass(frozen=True)
class Program:
    """A graph in execution order, with its arena."""

    graph: Graph
    arena: Arena


@dataclass(frozen=True)
class Programs:
    """``cut``: tensors kept of a sample, in order. ``state``: optimiser tensors, in order.

    ``step`` is None where learning is no optimiser step; ``hidden`` then names the tensor of the head that a
    residual head learns on. ``begin`` are the calls that begin an optimiser whose state does not begin at zero, and
    ``constants`` what only they read. ``packing``: frozen weights that are stored without their zeros.
    """

    backbone: Program
    head: Program
    step: Program | None
    hidden: Tensor | None
    cut: tuple[Tensor, ...]
    trained: tuple[Tensor, ...]
    state: tuple[Tensor, ...]
    begin: tuple[KernelCall, ...] = ()
    constants: tuple[Tensor, ...] = ()
    packing: Packing = field(default_factory=Packing)

    @property
    def rounds(self) -> bool:
        """Whether integers learn by gradient steps, which are rounded with noise; closed forms need none."""
        return not self.begin and any(tensor.dtype != "float32" for tensor in self.trained)


def without_final(graph: Graph, loss: Loss) -> Graph:
    """Drop a final sigmoid or softmax that the loss contains: the cross-entropies work on logits."""
    last = graph.producer(graph.outputs[0])
    if last is not None and last.op == "dequantize":
        before = graph.producer(last.inputs[0])
        if before is not None and _ends_in(graph, before) is not None:
            return without_final(_without(graph, last), loss)
    ending = None if last is None else _ends_in(graph, last)
    if loss.activation is None or last is None or ending is None:
        return graph
    if ending != loss.activation:
        raise PlanError(
            f"the model ends in {ending}, which goes with "
            f"{'cross_entropy' if ending == 'softmax' else 'binary_cross_entropy'}, not with {loss.operator}"
        )
    return _without(graph, last)


def _without(graph: Graph, last: Node) -> Graph:
    """The graph that ends before its last node."""
    rest = tuple(node for node in graph.nodes if node is not last)
    return replace(graph, outputs=last.inputs[:1]).with_nodes(rest)


def _ends_in(graph: Graph, node: Node) -> str | None:
    """``sigmoid`` or ``softmax`` where a node computes one, in float32 or int8."""
    if node.op in ("sigmoid", "softmax"):
        return node.op
    if node.op == "softmax_int8":
        return "softmax"
    if node.op == "lookup_int8":
        x, table = (graph.tensor(name) for name in node.inputs)
        y = graph.tensor(node.output)
        if table.data is not None and x.quantization is not None and y.quantization is not None:
            name = recognised(table.data, x.quantization, y.quantization)
            return name if name == "sigmoid" else None
    return None


def placed(graph: Graph, step: str, placed_inputs: Sequence[str] = (), enough: int = 0) -> Program:
    """A graph in order and placed in memory; ``placed_inputs`` get a place in the arena too.

    ``enough``: bytes of the arena that are there anyway. Nothing is fused or computed twice to need fewer.
    """
    verify(graph, step)
    rows = verify(fuse_rows(graph, placed_inputs, enough), f"fusing rows after {step}")
    ordered = verify(recompute(rows, placed_inputs, enough), f"reordering after {step}")
    constants = [tensor.name for tensor in ordered.constants]
    outside = frozenset([*graph.inputs, *graph.outputs, *constants]) - frozenset(placed_inputs)
    return Program(ordered, plan_arena(ordered, outside, tuple(placed_inputs)))


def own_inputs(backbone: Graph) -> tuple[str, ...]:
    """Inputs that get a place in the arena: bytes, as of a camera, that the network reads but training does not."""
    used = {name for node in backbone.nodes for name in node.inputs}
    return tuple(
        name
        for name in backbone.inputs
        if backbone.tensor(name).dtype == "int8" and name in used and name not in backbone.outputs
    )


def split(graph: Graph, trained: Sequence[str]) -> tuple[Graph, Graph]:
    """The frozen backbone (input -> cut tensors) and the head (cut tensors -> outputs)."""
    front, tail = choose_cut(graph, dependents(graph, trained))
    cut = crossing(graph, front, tail)
    backbone = replace(graph, name="backbone", outputs=cut).with_nodes(front)
    head = replace(graph, name="head", inputs=cut).with_nodes(tail)
    return backbone, head


def _unlearnt_removed(backbone: Graph) -> Graph:
    """Drop backbone nodes that no cut tensor needs."""
    needed = set(backbone.outputs)
    kept = []
    for node in reversed(backbone.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return backbone.with_nodes(reversed(kept))


def target_shape(graph: Graph, loss: Loss) -> tuple[int, ...]:
    """One class index, or one number per output."""
    return (1,) if loss.task == "MT_MULTICLASS" else graph.tensor(graph.outputs[0]).shape


def _with_loss(head: Graph, loss: Loss) -> tuple[Graph, Node]:
    """The head with the loss of its output, and the node of the loss."""
    output = head.outputs[0]
    names = {wish: head.fresh_name(wish) for wish in ("target", "loss", f"{output}.grad")}
    target, value, gradient = names.values()
    operator, given = loss.operator, {} if loss.delta is None else {"delta": loss.delta}
    if fixed := head.tensor(output).dtype == "int32":
        operator, given = f"{operator}_fixed", {name: round(each * FIXED_ONE) for name, each in given.items()}
        if loss.task == "MT_MULTICLASS" and head.tensor(output).size > MOST_CLASSES:
            raise PlanError(f"precision='int8' tells up to {MOST_CLASSES} classes apart; use precision='mixed'")
    node = Node(operator, "loss", (output, target), (value, gradient), given)
    taken = Tensor(target, target_shape(head, loss), "int32" if fixed else "float32")
    results = OPS[operator].results((value, gradient), (head.tensor(output), taken), given)
    graph = replace(
        head,
        name="step",
        inputs=(*head.inputs, target),
        outputs=(value,),
        tensors={**head.tensors, **{each.name: each for each in (taken, *results)}},
    ).with_nodes([*head.nodes, node])
    return graph, node


def _decayed(graph: Graph, gradient: str) -> tuple[Graph, str]:
    """The gradient of the loss by a rate that decays, an input: each step is linear in it."""
    rate = Tensor(graph.fresh_name("rate"), (), "int32")
    result = replace(graph.tensor(gradient), name=graph.fresh_name(f"{gradient}.decayed"))
    node = Node("block_scale", result.name, (gradient, rate.name), (result.name,))
    changed = graph.with_nodes([*graph.nodes, node], [rate, result])
    return replace(changed, inputs=(*graph.inputs, rate.name)), result.name


def training_step(
    head: Graph, trained: Sequence[str], loss: Loss, optimizer: Gradient
) -> tuple[Graph, tuple[str, ...]]:
    """The head with loss, gradients and updates; and the names of the optimiser's state."""
    graph, node = _with_loss(head, loss)
    arriving = None
    if graph.tensor(node.inputs[0]).dtype == "int32" and optimizer.decay:
        graph, arriving = _decayed(graph, node.outputs[1])
    graph, gradients = differentiate(verify(graph, "attaching the loss"), node, trained, arriving)
    return attach_updates(verify(graph, "differentiation"), gradients, optimizer)


def compile_programs(
    graph: Graph,
    trained: Sequence[str],
    loss: Loss,
    optimizer: Gradient | ClosedForm,
    calibration: Calibration | None = None,
) -> Programs:
    """All programs of a device, scheduled and placed in memory."""
    # the learner's arithmetic on parameters is that of floats: they come first, integers behind them
    trained = sorted(trained, key=lambda name: graph.tensor(name).dtype != "float32")
    backbone, head = split(graph, trained)
    begin: tuple[KernelCall, ...] = ()
    constants: tuple[Tensor, ...] = ()
    if isinstance(optimizer, ClosedForm):
        attached, node = _with_loss(head, loss)
        learns = tuple(trained)
        if isinstance(optimizer, Leaves):
            closed = attach_leaves(attached, node, learns, optimizer)
        elif isinstance(optimizer, Logistic) and filters_all(attached, node, learns):
            values = None if calibration is None else partial(values_at, graph, x=calibration.x)
            closed = attach_kalman(attached, node, learns, optimizer, values)
        else:
            samples = None if calibration is None else partial(samples_at, graph, calibration)
            closed = attach_closed_form(attached, node, learns, optimizer, samples)
        step, state, begin, constants = closed.graph, closed.state, closed.begin, closed.constants
    else:
        step, state = training_step(head, trained, loss, optimizer)
    training = placed(step, "attaching the optimiser")
    backbone = _unlearnt_removed(backbone)
    return Programs(
        backbone=placed(backbone, "splitting off the backbone", own_inputs(backbone), training.arena.bytes),
        head=placed(head, "splitting off the head", enough=training.arena.bytes),
        step=training,
        hidden=None,
        cut=tuple(graph.tensor(name) for name in head.inputs),
        trained=tuple(graph.tensor(name) for name in trained),
        state=tuple(step.tensor(name) for name in state),
        begin=begin,
        constants=constants,
    )


def packed_programs(programs: Programs) -> Programs:
    """The programs with frozen weights packed where that makes flash smaller; the arena stays as it is."""
    places = [name for name in ("backbone", "head", "step") if getattr(programs, name) is not None]
    given = [getattr(programs, name) for name in places]
    kept = {each.name for each in (*programs.trained, *programs.state, *programs.constants)}
    graphs, packing = pack_weights([each.graph for each in given], kept)
    if not packing.weights:
        return programs
    changed: dict[str, Any] = {
        name: Program(verify(graph, "packing weights"), each.arena)
        for name, each, graph in zip(places, given, graphs, strict=True)
    }
    return replace(programs, packing=packing, **changed)


def residual_programs(graph: Graph, loss: Loss) -> Programs:
    """The programs of a frozen base with a residual head beside it: all of the network runs from the input."""
    if graph.tensor(graph.inputs[0]).dtype != "float32":
        raise PlanError(
            "Bayes() learns on the raw inputs too, and this model takes them as int8: use a float model, or RLS()"
        )
    last = next((node for node in reversed(graph.nodes) if node.op == "dense"), None)
    output = graph.tensor(graph.outputs[0])
    if loss.operator != "mse" or output.size != 1 or last is None or last.output != output.name:
        raise PlanError(
            "Bayes() learns beside the last dense layer of a net with one output, on squared error: use it with "
            "loss='mse' and such a model"
        )
    hidden = last.inputs[0]
    if hidden in graph.inputs:
        raise PlanError(
            "Bayes() learns on the last hidden layer, and this model has none: use RLS() for a linear model"
        )
    backbone = replace(graph, name="backbone", outputs=graph.inputs).with_nodes(())
    head = replace(graph, name="head", outputs=(hidden, output.name))
    return Programs(
        backbone=placed(backbone, "splitting off the backbone"),
        head=placed(head, "splitting off the head"),
        step=None,
        hidden=graph.tensor(hidden),
        cut=(graph.tensor(graph.inputs[0]),),
        trained=(),
        state=(),
    )


def detector_programs(graph: Graph, loss: Loss) -> Programs:
    """The programs of a net with an anomaly detector behind it: all but the detector is frozen, its guard too."""
    backbone, head = parts(graph)
    closed = attach_detector(*_with_loss(head, loss))
    training = placed(closed.graph, "attaching the detector")
    return Programs(
        backbone=placed(
            _unlearnt_removed(backbone), "splitting off the backbone", own_inputs(backbone), training.arena.bytes
        ),
        head=placed(head, "splitting off the head", enough=training.arena.bytes),
        step=training,
        hidden=None,
        cut=tuple(graph.tensor(name) for name in head.inputs),
        trained=tuple(graph.tensor(name) for name in head.nodes[-1].inputs[2:]),
        state=tuple(closed.graph.tensor(name) for name in closed.state),
    )
