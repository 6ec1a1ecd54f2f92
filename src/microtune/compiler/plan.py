"""``plan``: a model, what may learn, how, and within which budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from microtune.compiler.factory import calibration_of
from microtune.compiler.footprint import measure
from microtune.compiler.learning import check_integers, check_learner, context_places, elastic_pulls, sensors_of
from microtune.compiler.passes.closed_form_fixed import fixed_head
from microtune.compiler.passes.detector import measured, with_detector
from microtune.compiler.passes.pack_weights import check_sparse
from microtune.compiler.planned import Memory, Optimizer, Plan
from microtune.compiler.program import (
    compile_programs,
    detector_programs,
    packed_programs,
    residual_programs,
    without_final,
)
from microtune.errors import BudgetError, PlanError
from microtune.ir import Graph, verify
from microtune.tuning.bayes import Bayes
from microtune.tuning.budget import Budget
from microtune.tuning.heads import ClosedForm, Mahalanobis
from microtune.tuning.learner import Input, Learner
from microtune.tuning.losses import Loss, loss_of
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Bias, Head, LoRA, Scheme
from microtune.tuning.selection import float_output, select

PRECISIONS = ("float32", "mixed", "int8")
LARGEST_OUTPUTS = 65535
"""The runtime counts outputs in 16 bits."""


def _check_inputs(inputs: Sequence[Input] | None, size: int) -> tuple[Input, ...]:
    if inputs is None:
        return tuple(Input(f"input {index}") for index in range(size))
    odd = next((each for each in inputs if not isinstance(each, Input)), None)
    if odd is not None:
        raise PlanError(f"inputs are described by Input(name, low, high, unit), not by {odd!r}")
    if len(inputs) != size:
        raise PlanError(f"{len(inputs)} inputs are described, but the model takes {size}")
    name, times = Counter(each.name for each in inputs).most_common(1)[0]
    if times > 1:
        raise PlanError(f"{times} inputs are called '{name}'; contexts and the status tell them apart by their names")
    return tuple(inputs)


def _check_kinds(graph: object, optimizer: object, learner: object, budget: object) -> None:
    """Raise PlanError for arguments of another kind: a model that was not loaded, the name of an optimiser."""
    if not isinstance(graph, Graph):
        raise PlanError(f"a {type(graph).__name__} cannot be planned as it is: mt.plan(mt.load(model), ...)")
    for name, given, kind, written in (
        ("optimizer", optimizer, Optimizer, "SGD(lr=0.05)"),
        ("learner", learner, Learner, "Learner(buffer=100)"),
        ("budget", budget, Budget, "Budget(ram='64KB')"),
    ):
        if given is not None and not isinstance(given, kind):
            raise PlanError(f"{name}={given!r}: write it as {name}={written}")


def plan(
    graph: Graph,
    learn: Scheme | None = None,
    loss: str | Loss = "mse",
    optimizer: Optimizer | None = None,
    learner: Learner | None = None,
    precision: str = "float32",
    budget: Budget | None = None,
    inputs: Sequence[Input] | None = None,
    calibration: Any = None,
    sparse: str | bool = "auto",
) -> Plan:
    """Decide what learns and how, and lay out all memory.

    learn: an update scheme; default ``Head(1)``. loss: a name or ``Huber(delta)``. inputs: name, range and
    unit of each input feature, for the generated header and the device's range check.

    precision, of what learns in an int8 graph: ``"float32"`` (what lies behind the cut computes in float32, frozen
    weights stay int8) or ``"mixed"`` (all stays int8, weights that learn too, rounded stochastically; gradients
    are float32). In a float graph both are the same. ``"int8"``: integers only, gradients, losses and policy too: no
    floating-point instruction in what is compiled; the graph must compute in int8 (``mt.quantize``).

    calibration: samples of the factory's data, inputs ``x`` (n, *input shape) as the graph takes them or ``(x, y)``
    with class indices (n,) or targets (n, outputs), for what is measured on them at build time.

    sparse: frozen weights with many zeros are stored without them where that makes flash smaller ("auto"; outputs stay
    the same bits), or never (False). ``plan.memory.packed`` says which are.

    Raises PlanError for choices that contradict each other, and BudgetError, naming what would fit, when the
    plan exceeds ``budget``.
    """
    if precision not in PRECISIONS:
        raise PlanError(f"unknown precision {precision!r}. Known: {', '.join(map(repr, PRECISIONS))}")
    may_pack = check_sparse(sparse)
    _check_kinds(graph, optimizer, learner, budget)
    verify(graph)
    chosen = loss_of(loss)
    learner = learner or Learner()
    if precision == "int8":
        check_integers(graph, chosen, optimizer or SGD(), learner)
    graph = given = float_output(without_final(graph, chosen))
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise PlanError(
            f"'{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; one of each is needed"
        )
    output = graph.tensor(graph.outputs[0])
    if len(output.shape) != 1:
        raise PlanError(f"output '{output.name}' has the shape {output.shape}; a vector is needed")
    if chosen.task == "MT_MULTICLASS" and output.size < 2:
        raise PlanError(
            f"cross_entropy needs two or more outputs, '{output.name}' has {output.size}: use binary_cross_entropy"
        )
    if output.size > LARGEST_OUTPUTS:
        raise PlanError(f"the model has {output.size} outputs, a device counts to {LARGEST_OUTPUTS}")
    if learner.fallback is not None and len(learner.fallback) != output.size:
        raise PlanError(
            f"Learner(fallback=...) has {len(learner.fallback)} values, the model has {output.size} outputs"
        )
    scheme = learn if learn is not None else Head(1)
    optimizer = optimizer or SGD()
    if isinstance(optimizer, Mahalanobis):
        graph = with_detector(graph, chosen, optimizer, precision)
    calibration = calibration_of(calibration, graph, chosen)
    described = _check_inputs(inputs, int(np.prod(graph.tensor(graph.inputs[0]).shape)))
    if isinstance(optimizer, Bayes | Mahalanobis) and scheme != Head(1):
        name = type(optimizer).__name__
        raise PlanError(f"{name}() is a head of its own over the frozen base; leave learn={learn} out")
    if isinstance(optimizer, Bayes):
        programs = residual_programs(graph, chosen)
    elif isinstance(optimizer, Mahalanobis):
        graph = verify(measured(graph, calibration, optimizer), "measuring the factory's windows")
        programs = detector_programs(graph, chosen)
    else:
        if precision == "int8" and isinstance(optimizer, ClosedForm):
            selection = fixed_head(graph, scheme, chosen, optimizer)
        else:
            selection = select(graph, scheme, precision)
        graph = selection.graph
        programs = compile_programs(graph, selection.trained, chosen, optimizer, calibration)
    check_learner(learner, optimizer, chosen, graph.tensor(graph.inputs[0]), programs, precision)
    result = Plan(
        graph, scheme, chosen, optimizer, learner, described, budget or Budget(), precision, programs, measure,
        calibration,
        contexts=context_places(learner, described),
        sensors=sensors_of(learner, calibration, graph, described),
        pulls=None
        if isinstance(optimizer, Bayes | ClosedForm)
        else elastic_pulls(learner, optimizer, programs, graph, calibration),
    )  # fmt: skip
    if may_pack:
        result = replace(result, programs=packed_programs(programs))
    if budget is not None and (budget.ram_bytes or budget.flash_bytes):
        _hold_to_budget(result, given)
    return result


def _over(memory: Memory, budget: Budget) -> list[str]:
    found = []
    for what, need, limit in (
        ("RAM", memory.ram, budget.ram_bytes),
        ("flash", memory.flash, budget.flash_bytes),
    ):
        if limit is not None and need > limit:
            found.append(f"{need} bytes of {what} of {limit} ({need - limit} too many)")
    return found


def _smaller(learner: Learner) -> list[dict[str, Any]]:
    """Settings that keep less, each as what is other in it; all of them at once come last."""
    found: list[dict[str, Any]] = []
    size = learner.buffer
    while size > learner.every and size > 10:
        size = max(size // 2, learner.every, 10)
        found.append({"buffer": size})
    if learner.replay:
        found.append({"replay": 0})
    if learner.contexts:
        found.append({"contexts": ()})
    if learner.profiles > 1:
        found.append({"profiles": 1, **({"recognise": False} if learner.recognise else {})})
    least: dict[str, Any] = {"buffer": min(learner.buffer, max(learner.every, 10))}
    for each in found:
        least |= each
    return [*found, least]


def _alternatives(found: Plan, graph: Graph) -> list[str]:
    """Smaller plans that do fit the budget, as the user would write them."""
    smaller = {
        ", ".join(f"{name}={value}" for name, value in each.items()): replace(found.learner, **each)
        for each in _smaller(found.learner)
    }
    options = [(text, found.scheme, learner) for text, learner in smaller.items()]
    small, least = list(smaller.items())[-1]
    schemes: tuple[Scheme, ...] = (Head(1), Bias(), LoRA(1))
    for scheme in schemes:
        if scheme != found.scheme and not isinstance(found.optimizer, Bayes):
            options.append((f"learn={scheme}", scheme, found.learner))
            options.append((f"learn={scheme} with {small}", scheme, least))
    fitting: list[str] = []
    for text, scheme, learner in options:
        if fitting and scheme == found.scheme and learner == replace(found.learner, buffer=learner.buffer):
            continue  # a larger buffer fits
        try:
            other = plan(
                graph,
                scheme,
                found.loss,
                found.optimizer,
                learner,
                found.precision,
                inputs=found.inputs,
                calibration=found.calibration,
            )
        except PlanError:
            continue
        if not _over(other.memory, found.budget):
            fitting.append(f"{text} ({other.memory.ram} bytes of RAM, {other.memory.flash} of flash)")
        if len(fitting) == 3:
            break
    return fitting


def _hold_to_budget(found: Plan, graph: Graph) -> None:
    over = _over(found.memory, found.budget)
    if not over:
        return
    fitting = _alternatives(found, graph)
    advice = (
        f"Would fit: {'; '.join(fitting)}."
        if fitting
        else f"Nothing smaller fits: it takes {found.memory.ram} bytes of RAM and {found.memory.flash} of flash."
    )
    raise BudgetError(f"the plan needs {' and '.join(over)}. {advice}")
