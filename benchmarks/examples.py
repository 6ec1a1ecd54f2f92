"""The figures of the reference devices: what the toaster and the wearer reach, and what they cost."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import record
from microtune import gallery

Limit = tuple[str, Callable[[dict[str, Any]], float], str, float]

# figure, where it stands in the example's JSON, at least or at most, limit: the promises of SPEC E1 and E4
TOASTER: tuple[Limit, ...] = (
    ("consistent after 5 uses", lambda d: d["acceptance"]["default"]["consistent"]["5"], ">=", 0.95),
    ("consistent after 20 uses", lambda d: d["acceptance"]["default"]["consistent"]["20"], ">=", 0.98),
    ("worst tenth of them", lambda d: d["acceptance"]["default"]["consistent"]["worst_tenth"]["20"], ">=", 0.95),
    ("abrupt change, 5 uses later", lambda d: d["acceptance"]["default"]["abrupt"]["after_change"]["5"], ">=", 0.88),
    ("abrupt change, 10 uses later", lambda d: d["acceptance"]["default"]["abrupt"]["after_change"]["10"], ">=", 0.95),
    ("two people after 20", lambda d: d["acceptance"]["default"]["two_people"]["20"], ">=", 0.95),
    ("drifting after 20", lambda d: d["acceptance"]["default"]["drifting"]["20"], ">=", 0.95),
    ("drifting after 100", lambda d: d["acceptance"]["default"]["drifting"]["100"], ">=", 0.90),
    ("untouched by a local change", lambda d: d["acceptance"]["default"]["narrow"]["after_change"]["15"], ">=", 0.88),
    ("noisy after 20", lambda d: d["acceptance"]["default"]["noisy"]["20"], ">=", 0.85),
    ("flash on Cortex-M4F, bytes", lambda d: d["flash"], "<=", 24 * 1024),
    ("RAM with stack, bytes", lambda d: d["ram"], "<=", 12 * 1024),
    ("prediction on Cortex-M4F", lambda d: d["instructions"]["cortex-m4"]["predict"], "<=", 3_000),
    ("update on Cortex-M4F", lambda d: d["instructions"]["cortex-m4"]["update"], "<=", 300_000),
)
WEARER: tuple[Limit, ...] = (
    ("gain after 20 samples, points", lambda d: d["gain"]["20"], ">=", 5),
    ("gain after 50 samples, points", lambda d: d["gain"]["50"], ">=", 6),
    ("people harmed at 20, %", lambda d: d["harmed"]["20"], "<=", 15),
)


def _hold(title: str, figures: dict[str, Any], limits: tuple[Limit, ...]) -> bool:
    print(f"\n{title}")
    held = True
    for name, find, side, limit in limits:
        value = find(figures)
        good = value >= limit if side == ">=" else value <= limit
        held = held and good
        print(f"  {name:34} {value:>12,.6g}   {side} {limit:,.6g}{'' if good else '   MISSED'}")
    return held


def run_examples() -> bool:
    """Both examples whole, as their own commands run them; False when a figure is missed."""
    with tempfile.TemporaryDirectory() as scratch:
        with contextlib.redirect_stdout(io.StringIO()):
            toaster = gallery.load_example("toaster").demo(Path(scratch) / "toaster", as_json=True)
        toaster = {key: value for key, value in toaster.items() if key not in ("package", "picture")}
        record("toaster", toaster)
        held = [_hold("the toaster: share of suggestions accepted, and cost", toaster, TOASTER)]
        wearer_example = gallery.load_example("wearer")
        path = wearer_example.data.DEFAULT_PATH
        if not path.is_dir():
            print(f"\nthe wearer: not run, no data in {path}")
            return all(held)
        wearer = wearer_example.summary(wearer_example.run(path, Path(scratch) / "wearer"))
        record("wearer", wearer)
        held.append(_hold("the wearer: 36 people new to the base network", wearer, WEARER))
    return all(held)
