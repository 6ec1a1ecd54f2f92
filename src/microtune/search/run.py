"""``search``: measure contributions, try candidates within the budget, and say which to take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microtune.compiler.package import build
from microtune.compiler.plan import plan
from microtune.compiler.planned import Optimizer
from microtune.device import Device
from microtune.errors import PlanError
from microtune.ir import Graph
from microtune.search.candidates import candidates
from microtune.search.contribution import IN_PLACE, contributions
from microtune.search.data import check_samples, split_samples
from microtune.search.frontier import Frontier, Point
from microtune.search.trial import accuracy, over_budget, plan_candidate, try_candidate
from microtune.tuning.budget import Budget
from microtune.tuning.losses import Loss, loss_of
from microtune.tuning.optimizers import RLS, SGD
from microtune.tuning.schemes import Head

Progress = Callable[[str, Point | None], None]


def search(
    graph: Graph,
    data: Any,
    loss: str | Loss = "cross_entropy",
    optimizer: Optimizer | None = None,
    budget: Budget | None = None,
    *,
    epochs: int = 3,
    tolerance: float = 0.1,
    held_out: float = 0.3,
    seconds: float = 600.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Frontier:
    """Try update schemes on the user's data, each with the C that the device would run.

    data: (x, y): inputs (samples, *input shape), and class indices (samples,) or values (samples, outputs). A share
    ``held_out`` judges, the rest is learnt, ``epochs`` times, one optimiser step per sample. budget: RAM, flash, and
    instructions of one training step on Cortex-M4; what cannot fit is left out before it is trained. seconds: after
    so long no further candidate is begun. progress: called with what is tried, and with what came of it.

    RAM is that of a device that learns in place with one sample kept; a buffer and the copies that judging and undoing
    take (see ``Learner``) come on top. Raises PlanError for data that do not fit the model.
    """
    chosen_loss = loss_of(loss)
    limits = budget or Budget()
    optimizer = optimizer or SGD(lr=0.01)
    if (not isinstance(optimizer, SGD) and not hasattr(optimizer, "rule")) or isinstance(optimizer, RLS):
        raise PlanError(f"the search tries gradient steps, not {optimizer}: use SGD, RMSProp or Adam")
    first = plan(graph, Head(1), chosen_loss, SGD(), IN_PLACE)
    samples = check_samples(first.graph, chosen_loss, data)
    learn, judge = split_samples(samples, held_out, seed)
    end = time.monotonic() + seconds
    say = progress or (lambda text, point: None)
    with tempfile.TemporaryDirectory() as folder:
        base = accuracy(Device(build(first, Path(folder) / "untrained")), judge, chosen_loss, tolerance)
    say(f"the base model: {100 * base:.1f} % of {len(judge)} held-out samples", None)
    say("measuring what each layer contributes", None)
    measured = contributions(graph, learn, chosen_loss)
    points: list[Point] = []
    left_out: list[str] = []
    for scheme, precision in candidates(graph, measured):
        if time.monotonic() > end and points:
            left_out.append(f"{scheme}: no time left")
            continue
        say(f"{scheme}, {precision}", None)
        try:
            tried = plan_candidate(graph, scheme, precision, chosen_loss, optimizer)
            reason = over_budget(tried, limits)
        except PlanError as error:
            reason = str(error)
        if reason is not None:
            left_out.append(reason)
            continue
        point = try_candidate(
            tried, learn, judge, chosen_loss, epochs, tolerance, seed, True, lambda: time.monotonic() > end
        )
        if limits.instructions is not None and (point.instructions or 0) > limits.instructions:
            left_out.append(f"{scheme} takes {point.instructions} instructions a step of {limits.instructions}")
            continue
        points.append(point)
        say(point.name, point)
    return Frontier(tuple(points), base, len(judge), limits, tuple(left_out))
