"""What the learner's settings come to for one model: contexts by the place of their input, sensors, elastic weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microtune.compiler.factory import Calibration
from microtune.compiler.fisher import fisher
from microtune.compiler.program import Programs
from microtune.errors import PlanError
from microtune.ir import Graph, Tensor
from microtune.ops.scaled import LARGEST_WHOLE
from microtune.ops.trees import trees_of
from microtune.tuning.bayes import Bayes
from microtune.tuning.heads import ClosedForm
from microtune.tuning.learner import Context, Input, Learner
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import SGD, Adam, Gradient, RMSProp
from microtune.tuning.sensors import LEAST_SAMPLES, SensorModel, Sensors, sensor_models

LEAST_TOLERANCE = 1 / 16
"""Smallest tolerance of a fixed-point regression: its square, 1 / 256, still has 8 binary places."""
MOST_SENSORS = 64
"""Inputs up to which each is looked at as a sensor of its own, unless asked for; those of a camera are not."""
AS_NUMBERS = "looks at the inputs as numbers, and this model takes them as int8"


def context_places(learner: Learner, inputs: Sequence[Input]) -> tuple[tuple[int, Context], ...]:
    """Each context with the place of its input."""
    names = [each.name for each in inputs]
    found = []
    for context in learner.contexts:
        named = context.input
        place = names.index(named) if named in names else named if isinstance(named, int) else -1
        if not 0 <= place < len(inputs):
            known = ", ".join(map(repr, names[:16])) if len(names) <= 16 else f"0 to {len(inputs) - 1}"
            last = len(inputs) - 1
            raise PlanError(
                f"Learner(contexts=...): there is no input {named!r}. There are: {known}; or by place, 0 to {last}"
            )
        found.append((place, context))
    return tuple(found)


def check_integers(graph: Graph, loss: Loss, optimizer: Gradient | ClosedForm | Bayes, learner: Learner) -> None:
    """Raise PlanError for what ``precision="int8"`` cannot have, and say what would do instead."""
    instead = "; or use precision='float32'"
    if trees_of(graph):
        raise PlanError(f"'{graph.name}' has trees: their comparisons are integers already, and trees learn in float32")
    taken = graph.tensor(graph.inputs[0])
    if taken.dtype != "int8":
        raise PlanError(
            f"precision='int8' takes a model that computes in int8, and '{graph.name}' takes {taken.dtype}: "
            "quantise it first, mt.quantize(graph, calibration=x), or --calibration FILE.npz"
        )
    if isinstance(optimizer, Bayes | Adam | RMSProp):
        floats = ", and a model that is not quantised" if isinstance(optimizer, Bayes) else ""
        raise PlanError(
            f"precision='int8' learns by SGD (with momentum) or by a closed-form head, not by "
            f"{type(optimizer).__name__}: its divisions and roots need floats. Use SGD{instead}{floats}"
        )
    for name in ("ewc", "ewc_memory"):
        if getattr(learner, name):
            raise PlanError(
                f"Learner({name}={getattr(learner, name)}): elastic weights need floats; use pull=..., which holds "
                f"all weights alike, or replay=...{instead}"
            )
    if isinstance(optimizer, ClosedForm) and learner.pull:
        raise PlanError(
            f"Learner(pull={learner.pull}) moves weights behind the back of {type(optimizer).__name__}, whose prior "
            f"holds them to the base anyway: leave pull out{instead}"
        )
    given = {"Learner(tolerance": learner.tolerance, "Learner(recency": learner.recency}
    given |= {f"{type(optimizer).__name__}(lr": optimizer.lr} if isinstance(optimizer, SGD) else {}
    given |= {} if loss.delta is None else {"Huber(delta": loss.delta}
    given |= {f"Learner(fallback[{index}]": value for index, value in enumerate(learner.fallback or ())}
    for name, value in given.items():
        if abs(value) > LARGEST_WHOLE:
            raise PlanError(
                f"{name}={value:g}): with precision='int8' numbers reach from -{LARGEST_WHOLE} to {LARGEST_WHOLE}; "
                f"use one of these{instead}"
            )
    if loss.task == "MT_REGRESSION" and learner.tolerance < LEAST_TOLERANCE:
        raise PlanError(
            f"Learner(tolerance={learner.tolerance}): numbers have 16 binary places with precision='int8'; use "
            f"{LEAST_TOLERANCE} or more, with targets in a smaller unit (centimetres for metres){instead}"
        )


def check_learner(
    learner: Learner,
    optimizer: Gradient | ClosedForm | Bayes,
    loss: Loss,
    taken: Tensor,
    programs: Programs,
    precision: str,
) -> None:
    """Raise PlanError for settings that contradict the optimiser, the task or the input that is taken."""
    if taken.dtype != "float32" and (learner.contexts or learner.recognise):
        what = "contexts" if learner.contexts else "recognise"
        by_hand = "" if learner.contexts else " and choose profiles by NAME_select_profile"
        raise PlanError(f"Learner({what}=...) {AS_NUMBERS}: leave {what} out{by_hand}, or use a model in float32")
    if precision != "int8" and programs.rounds and (learner.pull or learner.ewc or learner.ewc_memory):
        what = "pull" if learner.pull else "ewc" if learner.ewc else "ewc_memory"
        raise PlanError(
            f"Learner({what}={getattr(learner, what)}): integers are not pulled towards the base; use {what}=0 or "
            "precision='float32'"
        )
    for name in ("replay", "ewc", "ewc_memory", "recency", "pull"):
        if getattr(learner, name) and isinstance(optimizer, Bayes):
            raise PlanError(f"Learner({name}={getattr(learner, name)}): Bayes() has its own way; leave {name} out")
    for name in ("ewc", "ewc_memory", "recency"):
        if getattr(learner, name) and isinstance(optimizer, ClosedForm):
            raise PlanError(
                f"Learner({name}={getattr(learner, name)}) is for learning by gradient steps, not for "
                f"{type(optimizer).__name__}()"
            )
    if learner.ewc_memory and not isinstance(optimizer, SGD):
        raise PlanError(
            f"Learner(ewc_memory={learner.ewc_memory}): gradients are read off steps of SGD, not of "
            f"{type(optimizer).__name__}; use SGD or ewc_memory=0"
        )
    outputs = programs.head.graph.tensor(programs.head.graph.outputs[-1]).size
    if loss.task == "MT_MULTICLASS" and 0 < learner.replay < outputs:
        raise PlanError(f"Learner(replay={learner.replay}): {outputs} classes share it; use {outputs} or more, or 0")


def sensors_of(
    learner: Learner, calibration: Calibration | None, graph: Graph, inputs: Sequence[Input]
) -> tuple[SensorModel, ...]:
    """What is usual for each input; empty where sensors are not looked at."""
    chosen = learner.sensors
    if not isinstance(chosen, Sensors | bool | None):
        raise PlanError(f"Learner(sensors={chosen!r}): True, False, Sensors(...), or None for what is possible")
    if chosen is False:
        return ()
    taken = graph.tensor(graph.inputs[0])
    if chosen is None:
        possible = calibration is not None and len(calibration.x) >= LEAST_SAMPLES
        if not possible or taken.dtype != "float32" or taken.size > MOST_SENSORS:
            return ()
    if calibration is None:
        raise PlanError(
            f"Learner(sensors={chosen}): give the factory's samples: mt.plan(..., calibration=x), "
            "or --calibration FILE.npz"
        )
    if taken.dtype != "float32":
        raise PlanError(f"Learner(sensors={chosen}) {AS_NUMBERS}: leave sensors out, or use a model in float32")
    settings = chosen if isinstance(chosen, Sensors) else None
    return sensor_models(calibration.x.reshape(len(calibration.x), -1), inputs, settings)


def elastic_pulls(
    learner: Learner, optimizer: Gradient, programs: Programs, graph: Graph, calibration: Calibration | None
) -> np.ndarray | None:
    """How far each parameter goes back to the base after a step, in the order of the parameters; None without EWC.

    The penalty ewc / 2 F (p - base)^2 by its proximal step, s / (1 + s) with s = lr ewc F.
    """
    if not learner.ewc:
        return None
    if calibration is None:
        raise PlanError(
            f"Learner(ewc={learner.ewc}): Fisher information is measured on the factory's samples; give them: "
            "mt.plan(..., calibration=x), or --calibration FILE.npz"
        )
    importance = fisher(programs, graph, calibration.x)
    strength = optimizer.lr * learner.ewc * np.concatenate(
        [importance[each.name].ravel() for each in programs.trained]
    )  # fmt: skip
    return (strength / (1 + strength)).astype(np.float32)
