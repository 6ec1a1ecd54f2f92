"""Try one scheme: plan it, let the device's C learn the user's samples, judge it on those held out."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from microtune.compiler.package import build
from microtune.compiler.plan import plan
from microtune.compiler.planned import Optimizer, Plan
from microtune.device import Device
from microtune.ir import Graph
from microtune.package import Package
from microtune.search.contribution import IN_PLACE
from microtune.search.data import Samples
from microtune.search.frontier import Point
from microtune.tuning.budget import Budget
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Scheme


def accuracy(device: Device, samples: Samples, loss: Loss, tolerance: float) -> float:
    """Share of right answers: the class, each yes or no, or every output within the tolerance."""
    right = 0.0
    for x, y in zip(samples.x, samples.y, strict=True):
        value = device.predict(x).value
        match loss.task:
            case "MT_MULTICLASS":
                right += float(value.argmax() == y)
            case "MT_BINARY":
                right += float(((value >= 0.5) == (y >= 0.5)).mean())
            case _:
                right += float((np.abs(value - y) <= tolerance).all())
    return right / len(samples)


def over_budget(chosen: Plan, budget: Budget) -> str | None:
    """Why a plan cannot fit, from what is known before any C is compiled; None when it may."""
    programs = [each for each in (chosen.programs.backbone, chosen.programs.head, chosen.programs.step) if each]
    least = max(each.arena.bytes for each in programs) + sum(each.bytes for each in chosen.programs.trained)
    if budget.ram_bytes is not None and least > budget.ram_bytes:
        return f"{chosen.scheme} needs {least} bytes of RAM or more of {budget.ram_bytes}"
    memory = chosen.memory
    for what, need, limit in (("RAM", memory.ram, budget.ram_bytes), ("flash", memory.flash, budget.flash_bytes)):
        if limit is not None and need > limit:
            return f"{chosen.scheme} needs {need} bytes of {what} of {limit}"
    return None


def step_instructions(package: Package, x: np.ndarray, y: np.ndarray) -> int | None:
    """Of one training step on Cortex-M4; None without the emulator (extra ``emulation``)."""
    if importlib.util.find_spec("unicorn") is None:
        return None
    from microtune.targets.measure import CoreDevice

    return CoreDevice(package, "cortex-m4").step(x, y)


def plan_candidate(graph: Graph, scheme: Scheme, precision: str, loss: Loss, optimizer: Optimizer) -> Plan:
    """The scheme learning in place, without the loop around it, whose buffers every scheme would add alike."""
    rate = optimizer if precision == "float32" or not isinstance(optimizer, SGD) else SGD(lr=optimizer.lr)
    return plan(graph, scheme, loss, rate, IN_PLACE, precision)


def try_candidate(
    chosen: Plan, learn: Samples, judge: Samples, loss: Loss, epochs: int, tolerance: float, seed: int,
    instructions: bool, stop: Callable[[], bool],
) -> Point:  # fmt: skip
    """Train on ``learn`` in a new order each epoch, until ``stop`` says so, and judge."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        package = build(chosen, Path(folder) / "candidate")
        device = Device(package)
        for _ in range(epochs):
            for index in rng.permutation(len(learn)):
                device.step(learn.x[index], learn.y[index])
            if stop():
                break
        found = accuracy(device, judge, loss, tolerance)
        x = device.stored_input(learn.x[0])
        counted = step_instructions(package, x, np.atleast_1d(learn.y[0])) if instructions else None
    memory = chosen.memory
    return Point(
        chosen.scheme,
        chosen.precision,
        found,
        memory.ram,
        memory.flash,
        counted,
        sum(each.size for each in chosen.programs.trained),
    )
