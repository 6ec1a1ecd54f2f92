"""The static bound of the stack beside what painting finds, on every emulated core."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import microtune as mt
from benchmarks.nets import RATE, dense_net
from benchmarks.results import record
from microtune import gallery
from microtune.compiler.planned import Plan
from microtune.targets.catalogue import targets
from microtune.targets.measure import random_uses
from microtune.targets.painting import stacks

AT_MOST = 1.5
"""Times what was measured; and never below it."""
USES = 24


def devices() -> dict[str, Plan]:
    """The toaster with its closed form; a classifier that learns its head by gradients; a network of integers."""
    learner = mt.Learner(buffer=16, every=4, epochs=2, folds=2)
    graph = dense_net([4, 16, 1])
    stored = mt.quantize(graph, calibration=np.random.default_rng(3).normal(size=(200, 4)).astype(np.float32))
    return {
        "toaster": gallery.load_example("toaster").plans()["default"],
        "gradient head": mt.plan(dense_net([43, 32, 6]), mt.Head(1), "cross_entropy", mt.Adam(RATE), learner),
        "int8 net": mt.plan(stored, mt.Full(), "mse", mt.SGD(RATE, momentum=0.5), learner, precision="int8"),
    }


def measure() -> dict[str, dict[str, dict[str, Any]]]:
    """By device and core: the deepest of all its functions, measured and bounded, in bytes."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, plan in devices().items():
            package = mt.build(plan, Path(scratch) / name.replace(" ", "_"))
            uses = random_uses(package, USES)
            for core in (each.name for each in targets() if each.emulated):
                stack = stacks(package, core, uses)
                row = {"measured": stack.worst_measured, "bound": stack.worst_bound}
                found.setdefault(name, {})[core] = row | {"times": round(stack.worst_bound / stack.worst_measured, 2)}
    return found


def run_stack() -> bool:
    """Print, keep, and tell whether every bound holds and is close."""
    found = measure()
    print(f"\nstack in bytes: measured, bound, times (at least 1, at most {AT_MOST:g})")
    for name, cores in found.items():
        for core, row in cores.items():
            print(f"  {name:15}{core:12}{row['measured']:6}{row['bound']:6}{row['times']:7.2f}")
    record("stack", found)
    rows = [row for cores in found.values() for row in cores.values()]
    return all(row["measured"] <= row["bound"] <= AT_MOST * row["measured"] for row in rows)
