"""``Auto``: an update scheme found by measuring, wherever a scheme is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from microtune.compiler.plan import plan as compile_plan
from microtune.compiler.planned import Optimizer, Plan
from microtune.errors import PlanError
from microtune.ir import Graph
from microtune.progress import Progress
from microtune.search.frontier import Point
from microtune.search.run import search
from microtune.tuning.budget import Budget
from microtune.tuning.learner import Input, Learner
from microtune.tuning.losses import Loss
from microtune.tuning.schemes import Scheme


@dataclass(frozen=True)
class Auto:
    """The scheme that learns ``data`` = (x, y) best within a budget, at the learning rate that suits it; see
    ``microtune.search``. The budget holds for the whole device, its buffer of samples too.

    models: other forms of the model that is planned, by name, such as pruned or int8; ``quantized``: whether int8 forms
    by calibration are tried. The plan is then that of the form which serves best."""

    budget: Budget | None = None
    data: Any = field(default=None, repr=False, compare=False)
    epochs: int = 3
    seconds: float = 600.0
    progress: Progress[Point] | None = field(default=None, repr=False, compare=False)
    models: Mapping[str, Graph] = field(default_factory=dict, repr=False, compare=False)
    quantized: bool | None = None


def _together(graph: Graph, models: Mapping[str, Graph]) -> Graph | dict[str, Graph]:
    """The model that is planned beside its other forms, unless it is one of them."""
    if not models or any(each is graph for each in models.values()):
        return dict(models) or graph
    return {"as given": graph, **models}


def plan(
    graph: Graph,
    learn: Scheme | Auto | None = None,
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

    learn: an update scheme, default ``Head(1)``; or ``Auto(budget, data=(x, y))``, which measures and picks scheme,
    precision and learning rate. loss: a name or ``Huber(delta)``. inputs: name, range and unit of each input feature,
    for the generated header and the device's range check.

    precision, of what learns in an int8 graph: ``"float32"`` (what lies behind the cut computes in float32, frozen
    weights stay int8) or ``"mixed"`` (all stays int8, weights that learn too, rounded stochastically; gradients
    are float32). In a float graph both are the same.

    calibration: samples of the factory's data, inputs ``x`` (n, *input shape) as the graph takes them or ``(x, y)``
    with class indices (n,) or targets (n, outputs), for what is measured on them at build time.

    sparse: frozen weights with many zeros are stored without them where that makes flash smaller ("auto"; outputs stay
    the same bits), or never (False). ``plan.memory.packed`` says which are.

    Raises PlanError for choices that contradict each other, and BudgetError, naming what would fit, when the
    plan exceeds ``budget``.
    """
    if isinstance(learn, Auto):
        if learn.data is None:
            raise PlanError("Auto(...) measures on your data: give it data=(x, y)")
        limits = learn.budget or budget
        frontier = search(
            _together(graph, learn.models), learn.data, loss, optimizer, limits, learner=learner or Learner(),
            epochs=learn.epochs, seconds=learn.seconds, progress=learn.progress, quantized=learn.quantized,
        )  # fmt: skip
        found = frontier.best
        graph = frontier.models[found.model]
        learn, precision, optimizer = found.scheme, found.precision, found.optimizer
        budget = budget or limits
    return compile_plan(graph, learn, loss, optimizer, learner, precision, budget, inputs, calibration, sparse)
