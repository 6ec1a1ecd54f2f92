"""An anomaly detector behind a net: the graph with it, the factory's windows in it, and the step that learns normal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from microtune.compiler.factory import Calibration, Floats, inverse, second_moments, values_at
from microtune.compiler.hotelling import curve, limit
from microtune.compiler.passes.closed_form import Attached
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle
from microtune.ops.mahalanobis import CURVE
from microtune.tuning.heads import Mahalanobis
from microtune.tuning.losses import Loss

WELL, FAULT, ELSEWHERE = 0, 1, 2
"""Labels of the calibration."""
LEAST = 20
"""Windows that normal can be told from."""
BLOCKS = 10
"""Parts of the factory's recording, each held against the others."""
DISCRIMINANT_SHRINKAGE = 0.02
LEAST_VARIANCE = 1e-18
"""Its inverse is still far from the largest float32."""
NEVER = -1.0
"""What a guard that knows no faults says of every window."""
WANTED = (
    "Mahalanobis() begins with the factory's windows: pass plan(..., calibration=(x, y)), or --calibration FILE.npz; "
    "y is 0 (well), 1 (a known fault) or 2 (well, but elsewhere)"
)


def worth_of(optimizer: Mahalanobis, inputs: int) -> float:
    """Windows that the factory's covariance counts like. Raises PlanError where they are too few for the inputs."""
    if optimizer.worth is None:
        return float(max(30, 2 * inputs))
    if optimizer.worth < inputs + 3:
        raise PlanError(
            f"Mahalanobis(worth={optimizer.worth:g}) over {inputs} inputs: a covariance of so few windows says "
            f"nothing; use {inputs + 3} or more, or leave worth out"
        )
    return float(optimizer.worth)


def with_detector(graph: Graph, loss: Loss, optimizer: Mahalanobis, precision: str) -> Graph:
    """The graph, its output a vector of floats, with a detector behind it that knows nothing yet. Raises PlanError for
    another loss, for integers, and for a residual where input and output differ in size."""
    if loss.task != "MT_BINARY":
        raise PlanError(
            f"Mahalanobis() tells faults from what is well: use loss='binary_cross_entropy', not '{loss.operator}'"
        )
    if precision != "float32":
        raise PlanError(f"Mahalanobis() computes in floats: use precision='float32', not '{precision}'")
    given, x = graph.tensor(graph.inputs[0]), graph.tensor(graph.outputs[0])
    nodes, tensors = list(graph.nodes), dict(graph.tensors)

    def put(name: str, data: NDArray[np.float32]) -> str:
        tensor = constant(graph.fresh_name(name), data)
        tensors[tensor.name] = tensor
        return tensor.name

    def emit(op: str, name: str, inputs: tuple[str, ...], **attributes: float) -> str:
        names = [graph.fresh_name(name)]
        count = OPS[op].count([tensors[each] for each in inputs], attributes)
        names += [graph.fresh_name(f"{name}.scratch")] * (count - 1)
        results = OPS[op].results(names, [tensors[each] for each in inputs], attributes)
        tensors.update({each.name: each for each in results})
        nodes.append(Node(op, names[0], inputs, tuple(names), attributes))
        return names[0]

    looked_at = guarded = x.name
    if optimizer.residual:
        if given.shape != x.shape or given.dtype != "float32" or not graph.nodes:
            raise PlanError(
                f"Mahalanobis(residual=True) looks at the input less the output of an autoencoder, and '{graph.name}' "
                f"takes {given.shape} and gives {x.shape}"
            )
        guarded = given.name  # what a net has never seen is not rebuilt in any order: its input tells faults apart
        looked_at = emit("add", "residual", (given.name, emit("scale", "rebuilt", (x.name,), factor=-1.0)))
    size = x.size
    guard = (put("guard.weight", np.zeros((1, size), np.float32)), put("guard.bias", np.full(1, NEVER, np.float32)))
    known = emit("dense", "guard", (guarded, *guard))
    normal = (
        put("normal.mean", np.zeros(size, np.float32)),
        put("normal.precision", np.zeros(triangle(size), np.float32)),
        put("normal.limits", np.zeros(2, np.float32)),
    )
    output = emit("mahalanobis", "fault", (looked_at, known, *normal))
    return replace(graph, nodes=tuple(nodes), tensors=tensors, outputs=(output,))


@dataclass(frozen=True, eq=False)
class Normal:
    """What the factory's windows (n, H) come to: mean (H,), covariance (H, H), and how much wider than for a normal
    distribution that stays as it is the limit must be, a factor of 1 or more."""

    mean: Floats
    covariance: Floats
    tail: float


def moments_of(rows: Floats, optimizer: Mahalanobis) -> tuple[Floats, Floats]:
    """Mean and shrunk covariance, widened so that it can be inverted: by a millionth of the mean variance, of an input
    in small units by a thousandth of its own at most; of an input that is always the same nothing else is known."""
    mean = rows.mean(axis=0)
    covariance = second_moments(rows - mean) * (len(rows) / (len(rows) - 1))
    variances = covariance.diagonal().copy()
    least = np.full(len(variances), max(float(np.trace(covariance)) / len(covariance), 1e-12) * 1e-6)
    varies = variances > (1e-6 * mean) ** 2
    least[varies] = np.clip(1e-3 * variances[varies], LEAST_VARIANCE, least[varies])
    covariance = (1 - optimizer.shrinkage) * covariance + optimizer.shrinkage * np.diag(covariance.diagonal())
    return mean, covariance + np.diag(least)


def limit_of(windows: int, size: int, optimizer: Mahalanobis) -> float:
    """The limit that so many windows allow."""
    return limit(size, max(float(windows - size), 4.0), optimizer.false_alarms)


def normal_of(rows: Floats, optimizer: Mahalanobis) -> Normal:
    """Mean, shrunk covariance and tail of windows that are well, in the order of time. The tail is that of windows that
    the rest did not know, a block of neighbours at a time: neighbours resemble each other, and a machine changes."""
    beyond = []
    for block in np.array_split(np.arange(len(rows)), BLOCKS):
        others = np.delete(rows, block, axis=0)
        mean, covariance = moments_of(others, optimizer)
        gap = rows[block] - mean
        distances = np.einsum("ni,ij,nj->n", gap, inverse(covariance), gap)
        beyond.append(distances / limit_of(len(others), rows.shape[1], optimizer))
    tail = float(np.quantile(np.concatenate(beyond), 1 - optimizer.false_alarms))
    return Normal(*moments_of(rows, optimizer), max(1.0, tail))


def guard_of(well: Floats, faults: Floats, optimizer: Mahalanobis) -> tuple[Floats, float]:
    """Weights (H,) and bias of the guard: Fisher's discriminant between all that is well, mountings and speeds
    included, and the known faults; above 0 beyond ``guard`` of the way from the mean of one to that of the other."""
    centre, fault = well.mean(axis=0), faults.mean(axis=0)
    within = second_moments(well - centre) + second_moments(faults - fault)
    diagonal = np.maximum(within.diagonal(), 1e-12)
    within = (1 - DISCRIMINANT_SHRINKAGE) * within + DISCRIMINANT_SHRINKAGE * np.diag(diagonal)
    direction = inverse(within) @ (fault - centre)
    weight: Floats = direction / max(float(direction @ (fault - centre)), 1e-12)
    return weight, -float(weight @ centre) - optimizer.guard


def measured(graph: Graph, calibration: Calibration | None, optimizer: Mahalanobis) -> Graph:
    """The same graph, its detector knowing the factory's windows. Raises PlanError without them, or for too few."""
    if calibration is None:
        raise PlanError(WANTED)
    x, known, *normal = graph.nodes[-1].inputs
    size, worth = graph.tensor(x).size, worth_of(optimizer, graph.tensor(x).size)
    labels = np.zeros(len(calibration.x)) if calibration.y is None else calibration.y.reshape(-1)
    odd = ~np.isin(labels, (WELL, FAULT, ELSEWHERE))
    if odd.any():
        raise PlanError(
            f"calibration: window {int(np.argmax(odd))} has the label {labels[odd][0]:g}; there are 0 (well), 1 (a "
            "known fault) and 2 (well, but elsewhere)"
        )
    guard = next(node for node in graph.nodes if node.output == known)
    found = values_at(graph, (x, guard.inputs[0]), calibration.x)
    rows, guarded = (found[name].astype(np.float32).astype(np.float64) for name in (x, guard.inputs[0]))
    well = rows[labels == WELL]
    least = max(LEAST, size + 2)
    if len(well) < least:
        raise PlanError(
            f"calibration has {len(well)} windows that are well (y = 0); Mahalanobis() needs {least} or more"
        )
    factory = normal_of(well, optimizer)
    weight, bias = np.zeros(size), NEVER
    if (labels == FAULT).any():
        weight, bias = guard_of(guarded[labels != FAULT], guarded[labels == FAULT], optimizer)
    bound = limit_of(len(well), size, optimizer) * factory.tail
    data = {
        guard.inputs[1]: weight[None],
        guard.inputs[2]: np.array([bias]),
        normal[0]: factory.mean,
        normal[1]: packed(inverse(factory.covariance * worth)),
        normal[2]: np.array([worth, bound]) / 2,
    }
    first, *rest = curve(size, worth + 1 - size, optimizer.false_alarms)
    coefficients = (float(np.float32(first + np.log(factory.tail))), *rest)
    given = {"worth": worth, "memory": float(optimizer.memory), **dict(zip(CURVE, coefficients, strict=True))}
    return graph.with_nodes(
        [*graph.nodes[:-1], replace(graph.nodes[-1], attributes=given)],
        [constant(name, each.astype(np.float32)) for name, each in data.items()],
    )


def parts(graph: Graph) -> tuple[Graph, Graph]:
    """The net with its guard, frozen, and the detector. Of a sample both that cross are kept, the guard's word last."""
    *front, detector = graph.nodes
    cut = detector.inputs[:2]
    head = replace(graph, name="head", inputs=cut).with_nodes([detector])
    return replace(graph, name="backbone", outputs=cut).with_nodes(front), head


def attach_detector(graph: Graph, loss: Node) -> Attached:
    """The step of a detector that knows the factory's windows, on a graph that ends in its loss."""
    detector = next(node for node in graph.nodes if node.op == "mahalanobis")
    x, known, *normal = detector.inputs
    state = Tensor(graph.fresh_name("normal.learnt"), (1,))
    old = (*normal, state.name)
    inputs = (*old, x, known, loss.inputs[1])
    tensors = {**graph.tensors, state.name: state}
    new = [*(graph.fresh_name(f"{name}.next") for name in old), graph.fresh_name("normal.scratch")]
    given = detector.attributes
    results = OPS["mahalanobis_learn"].results(new, [tensors[name] for name in inputs], given)
    node = Node("mahalanobis_learn", "normal.update", inputs, tuple(new), given, dict(zip(new, old, strict=False)))
    result = graph.with_nodes([*graph.nodes, node], [state, *results])
    return Attached(replace(result, inputs=(*graph.inputs, state.name)), (state.name,), ())
