"""Closed-form heads in integers beside the same in float32, on the same int8 base; docs/heads.md shows the figures.

    python -m benchmarks.heads_fixed

The places of ``benchmarks.heads``, and what a sample costs on cores without a floating-point unit.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

import microtune as mt
from benchmarks.heads import PLACES, SEED, Stored
from benchmarks.integers import step
from benchmarks.nets import dense_net
from benchmarks.results import record

KINDS = {"float32": "float32", "integers": "int8"}
PER_PLACE: dict[str, dict[str, Any]] = {
    "speaker": {"MAP": mt.MAP(), "SLDA": mt.SLDA()},
    "wearer": {"MAP": mt.MAP(), "SLDA": mt.SLDA()},
    "likes": {"Logistic": mt.Logistic()},
}
COST: dict[str, tuple[Any, str, int]] = {
    "RLS": (mt.RLS(), "mse", 1),
    "MAP": (mt.MAP(), "cross_entropy", 10),
    "SLDA": (mt.SLDA(), "cross_entropy", 10),
    "Logistic": (mt.Logistic(), "binary_cross_entropy", 1),
}
"""Each head with its loss and outputs, on 32 hidden units."""
CORES = ("cortex-m0", "cortex-m3")
WITHIN = 1.0
"""Points that integers may differ by, at most."""


def accuracies() -> dict[str, Any]:
    """By place: what ``benchmarks.heads`` finds, of each head in both kinds."""
    found = {}
    for place, heads in PER_PLACE.items():
        both = {
            f"{name}, {kind}": Stored(head, precision)
            for name, head in heads.items()
            for kind, precision in KINDS.items()
        }
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found[place] = PLACES[place](SEED, Path(folder), both)
    return found


def costs() -> dict[str, Any]:
    """By core and head: instructions of a sample learnt, behind 64 inputs and 32 hidden units."""
    x = np.random.default_rng(3).normal(size=(300, 64)).astype(np.float32)
    found: dict[str, Any] = {core: {} for core in CORES}
    for name, (head, loss, outputs) in COST.items():
        graph = mt.quantize(dense_net([64, 32, outputs]), calibration=x)
        given = None if name == "RLS" else x
        for kind, precision in KINDS.items():
            plan = mt.plan(graph, loss=loss, optimizer=head, calibration=given, precision=precision)
            for core in CORES:
                found[core].setdefault(name, {})[kind] = step(plan, loss, core)["step"]
    return found


def apart(found: dict[str, Any]) -> float:
    """The most points by which integers end up below or above float32."""
    most = 0.0
    for place in found.values():
        for name, float_head in place.items():
            if name.endswith("float32"):
                fixed = place[name.replace("float32", "integers")]
                for what in set(float_head) & {"own", "others", "steady", "changing"}:
                    last = list(float_head[what])[-1]
                    most = max(most, abs(float_head[what][last] - fixed[what][last]))
    return round(most, 1)


def run_fixed_heads() -> bool:
    """False when integers are not within ``WITHIN`` of float32."""
    try:
        reached = accuracies()
    except FileNotFoundError as missing:
        print(f"\nclosed-form heads in integers: not run: {missing}")
        return True
    found = {"places": reached, "instructions": costs(), "apart": apart(reached)}
    record("heads in integers", found)
    print(f"\nclosed-form heads in integers: {found['apart']} points from float32 at most   <= {WITHIN}")
    for core, heads in found["instructions"].items():
        for name, each in heads.items():
            print(f"  {core:11}{name:9}{each['float32']:>10,}{each['integers']:>10,}")
    return bool(found["apart"] <= WITHIN)


if __name__ == "__main__":
    raise SystemExit(0 if run_fixed_heads() else 1)
