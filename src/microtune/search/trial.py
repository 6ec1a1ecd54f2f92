"""Try one scheme: plan it, let the device's C learn the user's samples, judge it on those held out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from microtune.compiler.layout import WORD, lay_out
from microtune.compiler.package import build
from microtune.compiler.plan import plan
from microtune.compiler.planned import Memory, Plan
from microtune.device import Device
from microtune.ir import Graph
from microtune.package import Package
from microtune.samples import Samples
from microtune.tuning.learner import Learner
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import SGD, Gradient
from microtune.tuning.schemes import Scheme

RATES = (0.2, 1.0, 5.0)
"""Times the learning rate that was asked for: what is tried for each scheme."""
LOWER = (0.04, 0.008)
"""What is tried beyond, one by one, where the lowest so far is the best, or none is better than not to learn."""
NOTHING = 1e-30
"""A learning rate that changes nothing."""
TRIAL = 200
"""Steps at most in the trial of a learning rate."""
CORE = "cortex-m4"
"""Where the instructions of a step are counted."""
IN_PLACE = Learner(buffer=1, every=1, epochs=1, folds=0, restart=False, in_place=True)


def build_for_host(chosen: Plan, directory: Path) -> Package:
    """A package for this process alone, whose footprint on a core, slow to measure, nobody asks for."""
    return build(replace(chosen, measure=lambda _: Memory(0, 0, 0, 0, 0, 0, 0, 0, ())), directory)


def judge(device: Device, samples: Samples, loss: Loss, tolerance: float) -> tuple[float, ...]:
    """How much of each sample is right, 0 to 1: the class, each yes or no, or all outputs within the tolerance."""
    right = []
    for x, y in zip(samples.x, samples.y, strict=True):
        value = device.predict(x).value
        match loss.task:
            case "MT_MULTICLASS":
                right.append(float(value.argmax() == y))
            case "MT_BINARY":
                right.append(float(((value >= 0.5) == (y >= 0.5)).mean()))
            case _:
                right.append(float((np.abs(value - y) <= tolerance).all()))
    return tuple(right)


def plan_candidate(graph: Graph, scheme: Scheme, precision: str, loss: Loss, optimizer: Gradient) -> Plan:
    """The plan of a scheme. int8 weights learn by plain SGD, whatever momentum was asked for."""
    if precision == "mixed" and isinstance(optimizer, SGD):
        optimizer = replace(optimizer, momentum=0.0)
    return plan(graph, scheme, loss, optimizer, IN_PLACE, precision)


def least_ram(chosen: Plan) -> int:
    """Bytes of RAM without the stack, which only compiled C shows."""
    return 4 + lay_out(chosen).bytes


class Trainer:
    """A device that learns samples at a learning rate given at run time, so that one build serves all rates.

    It is built with the decaying rate lr / (1 + decay t), lr = decay = 1, and t is set to 1 / rate - 1 before each
    step: up to the rounding of that quotient the step of a device with this rate.
    """

    def __init__(self, chosen: Plan, folder: Path) -> None:
        self.chosen = chosen
        trial = replace(chosen, optimizer=replace(self._optimizer, lr=1.0, decay=1.0), learner=IN_PLACE)
        self._package = build_for_host(trial, folder / "trial")
        self._offset = WORD if chosen.programs.rounds else 0  # behind the count that seeds rounding

    @property
    def _optimizer(self) -> Gradient:
        assert isinstance(self.chosen.optimizer, Gradient)
        return self.chosen.optimizer

    def base(self) -> Device:
        """A device that has learnt nothing yet."""
        return Device(self._package)

    def learn(self, device: Device, samples: Samples, order: Sequence[int], rate: float, done: int) -> list[float]:
        """One step for each sample of ``order``, after ``done`` steps; the loss of each before its step."""
        losses = []
        for step, index in enumerate(order, done):
            now = rate / (1 + self._optimizer.decay * step)
            device._field("optimizer", self._offset, 1)[0] = 1 / now - 1
            losses.append(device.step(samples.x[index], samples.y[index]))
        return losses

    def suited_rate(self, samples: Samples, stop: Callable[[], bool]) -> float | None:
        """Of ``RATES``, and ``LOWER`` where need be, times the optimiser's, the one whose losses on samples not seen
        before, while it learns each once, are the least over the second half; None where all diverge."""
        order = range(min(TRIAL, len(samples)))

        def late_loss(device: Device, rate: float) -> float:
            losses = self.learn(device, samples, order, rate, 0)
            return float(np.mean(losses[len(losses) // 2 :]))

        untaught = late_loss(self.base(), NOTHING)
        best, least, lowest = None, math.inf, math.inf
        for factor in (*RATES, *LOWER):
            if factor in LOWER and best is not None and best > lowest and least < untaught:
                break
            rate = factor * self._optimizer.lr
            lowest = min(lowest, rate)
            device = self.base()
            found = late_loss(device, rate)
            finite = all(np.isfinite(each).all() for each in device.parameters().values())
            if finite and found < least:
                best, least = rate, found
            if stop():
                break
        return best


def train(
    trainer: Trainer, samples: Samples, rate: float, epochs: int, seed: int, stop: Callable[[], bool]
) -> Device | None:
    """A device that has learnt the samples, in a new order each epoch; None when ``stop`` said so before the end."""
    rng = np.random.default_rng(seed)
    device = trainer.base()
    for epoch in range(epochs):
        order = rng.permutation(len(samples))
        for begin in range(0, len(order), 16):
            if stop():
                return None
            trainer.learn(device, samples, order[begin : begin + 16].tolist(), rate, epoch * len(order) + begin)
    return device


def step_instructions(chosen: Plan, x: np.ndarray, y: np.ndarray) -> int:
    """Of one training step on ``CORE``, prediction included; ``x`` as the C takes it. Compiles for this core what
    ``Plan.memory`` has compiled already, under the same name, and so finds it in the cache."""
    from microtune.targets.measure import CoreDevice

    with tempfile.TemporaryDirectory() as folder:
        package = build(chosen, Path(folder) / "device_", targets=())
        return CoreDevice(package, CORE).step(x, np.atleast_1d(y))
