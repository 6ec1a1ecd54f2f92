"""``search``: measure contributions, try candidates within the budget, and say which to take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from microtune.compiler.plan import plan
from microtune.compiler.planned import Optimizer, Plan
from microtune.errors import MicrotuneError, PlanError
from microtune.ir import Graph
from microtune.progress import Progress
from microtune.samples import Samples, split_samples
from microtune.search.candidates import candidates
from microtune.search.contribution import contributions
from microtune.search.data import check_samples
from microtune.search.frontier import UNTRIED, Frontier, LeftOut, Point
from microtune.search.trial import (
    CORE,
    IN_PLACE,
    RATES,
    Trainer,
    judge,
    least_ram,
    plan_candidate,
    step_instructions,
    train,
)
from microtune.search.variants import fixed_costs, in_int8, named
from microtune.targets.catalogue import can_count
from microtune.tuning.budget import Budget
from microtune.tuning.learner import Learner
from microtune.tuning.losses import Loss, loss_of
from microtune.tuning.optimizers import SGD, Gradient
from microtune.tuning.schemes import Head, Scheme

STACK = 1024
"""Bytes that a device's stack may take, where a scheme is fitted to a budget before its C is compiled."""
FEWEST_STEPS = 64
"""Samples that are learnt from at least, however little time there is."""


@dataclass
class _Search:
    """What all candidates on a model share, and what is known so far; ``points`` of all models."""

    model: str
    graph: Graph
    base: float
    loss: Loss
    optimizer: Gradient
    budget: Budget
    learnt: Samples
    judged: Samples
    epochs: int
    learner: Learner
    end: float
    seed: int
    points: list[Point]
    plans: dict[tuple[Scheme, str], Plan | str] = field(default_factory=dict)
    waiting: list[tuple[Scheme, str]] = field(default_factory=list)
    a_step: float = 0.0
    spent: float = 0.0

    def late(self) -> bool:
        """Whether the time is up, and something has been found in it."""
        return time.monotonic() > self.end and bool(self.points)

    def planned(self, scheme: Scheme, precision: str) -> Plan | str:
        """The plan of a candidate, or why there is none."""
        key = (scheme, precision)
        if key not in self.plans:
            try:
                found = plan_candidate(self.graph, scheme, precision, self.loss, self.optimizer)
                self.plans[key] = replace(found, learner=self.learner)
            except PlanError as error:
                self.plans[key] = str(error)
        return self.plans[key]

    def fits(self, scheme: Scheme, precision: str) -> bool:
        """Whether a candidate will likely fit the RAM, as far as this is known before C is compiled."""
        found, limit = self.planned(scheme, precision), self.budget.ram_bytes
        return isinstance(found, Plan) and (limit is None or least_ram(found) + STACK <= limit)

    def over(self, what: str, need: int, limit: int | None) -> tuple[str, float] | None:
        """Why so much is too much, and how many times the budget it is."""
        return None if limit is None or need <= limit else (f"needs {need:,} {what} of {limit:,}", need / limit)

    def attempt(self, scheme: Scheme, precision: str) -> Point | LeftOut:
        """Plan, learn, judge and measure one candidate; the slow measures only where it may be taken."""
        chosen = self.planned(scheme, precision)
        if isinstance(chosen, str):
            return self.left_out(scheme, precision, chosen)
        ram = least_ram(chosen)
        if excess := self.over("bytes of RAM or more", ram, self.budget.ram_bytes):
            return self.left_out(scheme, precision, excess[0], ram, excess=excess[1])
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(chosen, Path(folder))
            rate = trainer.suited_rate(self.learnt, self.late)
            if rate is None:
                return self.left_out(scheme, precision, "diverges at every learning rate that was tried", ram)
            device = train(trainer, self.learnt, rate, self.epochs, self.seed, self.late)
            if device is None:
                return self.left_out(scheme, precision, "was not learnt to the end: no time left", ram)
            if not all(np.isfinite(each).all() for each in device.parameters().values()):
                return self.left_out(scheme, precision, f"diverges at the learning rate {rate:g}", ram)
            right = judge(device, self.judged, self.loss, self.learner.tolerance)
            x = device.stored_input(self.learnt.x[0])
        accuracy = float(np.mean(right))
        better = [each for each in self.points if each.ram <= ram and each.accuracy >= accuracy]
        if better:
            reason = f"is {100 * accuracy:.1f} % right; {better[0].name} is as good in no more RAM"
            return self.left_out(scheme, precision, reason, ram, accuracy)
        assert isinstance(chosen.optimizer, Gradient)
        optimizer = replace(chosen.optimizer, lr=rate)
        final = replace(chosen, optimizer=optimizer)
        memory = final.memory
        over = [
            self.over("bytes of RAM", memory.ram, self.budget.ram_bytes),
            self.over("bytes of flash", memory.flash, self.budget.flash_bytes),
        ]
        counted = None
        if can_count(CORE) and (self.budget.instructions is not None or not any(over)):
            counted = step_instructions(final, x, self.learnt.y[0])
            over.append(self.over("instructions a step", counted, self.budget.instructions))
        if reasons := [each for each in over if each is not None]:
            reason, worst = " and ".join(text for text, _ in reasons), max(times for _, times in reasons)
            return self.left_out(scheme, precision, reason, memory.ram, accuracy, worst)
        learns = sum(each.size for each in chosen.programs.trained)
        return Point(
            scheme, precision, accuracy, memory.ram, memory.flash, counted, learns, optimizer, right, self.model,
            self.base,
        )  # fmt: skip

    def left_out(
        self, scheme: Scheme, precision: str, reason: str, ram: int | None = None, accuracy: float | None = None,
        excess: float = 0.0,
    ) -> LeftOut:  # fmt: skip
        return LeftOut(scheme, precision, reason, ram, accuracy, excess, self.model)


def _affordable(samples: Samples, epochs: int, a_pass: float, seconds: float) -> int:
    """How many samples all candidates can learn in the time. a_pass: seconds of one step of each, taken to be as long
    as one of ``Full``."""
    passes = (epochs + len(RATES)) * max(a_pass, 1e-6)
    return min(len(samples), max(FEWEST_STEPS, int(seconds / passes)))


def search(
    graph: Graph | Mapping[str, Graph],
    data: Any,
    loss: str | Loss = "cross_entropy",
    optimizer: Optimizer | None = None,
    budget: Budget | None = None,
    *,
    learner: Learner | None = None,
    epochs: int = 3,
    held_out: float = 0.3,
    seconds: float = 600.0,
    seed: int = 0,
    progress: Progress[Point] | None = None,
    quantized: bool | None = None,
) -> Frontier:
    """Try update schemes on the user's data, each with the C that the device would run.

    graph: the model; or several forms of one net by name, ``{"float": graph, "pruned": ...}``: compressions and
    schemes are then searched together, within one budget. A model whose weights alone, or whose prediction alone, are
    over it is left out at once; the others get equal shares of the time. quantized: whether the int8 form of each float
    model, by calibration with the learnt samples, is tried too; by default where several models are given and none is
    int8. ``Point.model`` says which model, ``Frontier.models`` has their graphs.

    data: (x, y): inputs (samples, *input shape), and class indices (samples,) or values (samples, outputs). A share
    ``held_out`` judges, the rest is learnt, ``epochs`` times, one optimiser step per sample. budget: RAM, flash, and
    instructions of one training step on Cortex-M4; what cannot fit is left out before it is trained. progress: called
    with what is tried, and with what came of it.

    optimizer: SGD (default, at 0.01), RMSProp or Adam. Its learning rate is where the search begins: what suits a head
    is too much for a whole net. For each scheme a fifth, once and five times of it are tried (less where the lowest
    serves best), each in one pass over at most 200 of the learnt samples, never the held-out ones; the one with the
    least loss on samples before they are learnt is taken, and stands in ``Point.optimizer``.

    seconds: bounds the search, softly. Where steps are slow, all candidates learn from the same fewer samples; after
    the time no further candidate is begun, and one under way is given up, once anything has been found.

    learner: what RAM and flash are counted for, and the tolerance of regression. By default a device that learns in
    place with one sample kept; a buffer, and the copies that judging and undoing take, come on top (see ``Learner``).

    Raises PlanError for data that do not fit the model, and for an optimiser that
    takes no gradient steps.
    """
    began = time.monotonic()
    chosen_loss, limits = loss_of(loss), budget or Budget()
    optimizer, learner = optimizer or SGD(lr=0.01), learner or IN_PLACE
    if not isinstance(optimizer, Gradient):
        raise PlanError(f"the search tries gradient steps, not {optimizer}: use SGD, RMSProp or Adam")
    if not 0 < held_out < 1 or epochs < 1 or not seconds > 0:
        raise PlanError(f"held_out={held_out}, epochs={epochs}, seconds={seconds}: above 0, and held_out below 1")
    if limits.instructions is not None and not can_count(CORE):
        raise PlanError("a budget of instructions needs the emulator: pip install 'microtune[emulation]'")
    say = progress or (lambda text, point: None)
    models = named(graph)
    firsts = {name: _first(each, chosen_loss) for name, each in models.items()}
    samples = check_samples(next(iter(firsts.values())).graph, chosen_loss, data)
    learnt, judged = split_samples(samples, held_out, seed)
    derived, failed = in_int8(models, learnt.x, quantized)
    models |= derived
    firsts |= {name: _first(each, chosen_loss) for name, each in derived.items()}
    left_out = [LeftOut(None, "", reason, model=name) for name, reason in failed.items()]
    points: list[Point] = []
    states: list[_Search] = []
    bases: dict[str, float] = {}
    for name, each in models.items():
        fixed = fixed_costs(each, chosen_loss)
        if name and (excess := fixed.over(limits)):
            left_out.append(LeftOut(None, "", excess[0], fixed.ram, excess=excess[1], model=name))
            say(f"{name} {excess[0]}", None)
            continue
        with tempfile.TemporaryDirectory() as folder:
            device = Trainer(firsts[name], Path(folder)).base()
            bases[name] = float(np.mean(judge(device, judged, chosen_loss, learner.tolerance)))
        say(f"{name or 'the model'} as it is: {100 * bases[name]:.1f} % of {len(judged)} held-out samples", None)
        say(f"measuring what each layer{' of ' if name else ''}{name} contributes", None)
        state = _Search(
            name, each, bases[name], chosen_loss, optimizer, limits, learnt, judged, epochs, learner, began + seconds,
            seed, points,
        )  # fmt: skip
        measured, state.a_step = contributions(each, learnt, chosen_loss)
        state.waiting = candidates(each, measured, state.fits)
        states.append(state)
    a_pass = sum(each.a_step * (sum(each.fits(*tried) for tried in each.waiting) or 1) for each in states)
    count = _affordable(learnt, epochs, a_pass, max(began + seconds - time.monotonic(), 1.0) / 2)
    if count < len(learnt):
        say(f"there is time for {count} of {len(learnt)} samples", None)
        for state in states:
            state.learnt = learnt.take(np.arange(count))
    states.sort(key=lambda each: -each.base)  # what is righter as it is has its first candidate first
    while waiting := [each for each in states if each.waiting]:
        left_out += _next(min(waiting, key=lambda each: each.spent), say)
    base = max(bases.values(), default=0.0)
    return Frontier(tuple(points), base, len(judged), limits, tuple(left_out), models, bases)


def _first(graph: Graph, loss: Loss) -> Plan:
    """The plan of a head: that there is one shows that a model can learn, and what it takes and gives."""
    return plan(graph, Head(1), loss, SGD(), IN_PLACE)


def _next(state: _Search, say: Progress[Point]) -> list[LeftOut]:
    """Attempt the next candidate of a model; what is left out of it."""
    scheme, precision = state.waiting.pop(0)
    if state.late():
        return [state.left_out(scheme, precision, UNTRIED)]
    began = time.monotonic()
    try:
        found = state.attempt(scheme, precision)
    except MicrotuneError as error:
        found = state.left_out(scheme, precision, f"failed: {error}")
    state.spent += time.monotonic() - began
    if isinstance(found, LeftOut):
        say(f"{found.name} {found.reason}", None)
        return [found]
    state.points.append(found)
    say(f"{found.name}: {100 * found.accuracy:.1f} %, {found.ram:,} bytes of RAM", found)
    return []
