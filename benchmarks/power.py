"""Time and energy of the toaster on every emulated core, estimated from counted instructions."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.results import record
from microtune import build, gallery
from microtune.targets.catalogue import targets
from microtune.targets.measure import Cost, Work, cost
from microtune.targets.power import with_unit


def _rounded(found: Cost) -> dict[str, Any]:
    """Six digits, which is more than an estimate has, so that the file stays readable."""

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(each) for key, each in value.items()}
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return dict(short(asdict(found)))


def _text(work: Work) -> str:
    return f"{with_unit(work.seconds, 's'):>12}{with_unit(work.joules, 'J'):>12}"


def run_power() -> None:
    """The toaster's own learner in a consistent household, its buffer full."""
    example = gallery.load_example("toaster")
    lived = example.live("consistent", example.WORLD, example.HOUSEHOLD_SEED).uses(70)
    uses = [(use.context, [use.sets]) for use in lived]
    print("\nthe toaster's update, and its longest slice")
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        package = build(example.plans()["default"], Path(scratch) / "toaster", targets=["host"])
        for core in (each.name for each in targets() if each.power is not None):
            taken = cost(package, core, uses)
            found[core] = _rounded(taken)
            print(f"  {core:12}{_text(taken.update)}{_text(taken.slice)}")
    record("power", found)
