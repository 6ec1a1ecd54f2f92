"""The Bayesian residual head over more bases than the toaster's one, for docs/bayes.md."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import microtune as mt
from benchmarks.results import record
from microtune import gallery

BASES, FIRST, HOUSEHOLDS = (50, 51, 52), 41_000, 30
SECTION = "bayes"
WANTED: dict[str, tuple[int, ...]] = {
    "consistent": (5, 20),
    "abrupt": (42, 43, 45, 50),
    "two_people": (10, 20),
    "drifting": (20, 100),
    "narrow": (45, 55, 100),
    "noisy": (20,),
    "prankster": (20,),
}
"""Uses after which each person's suggestions are judged; habits change after use 40."""
BACK = (0, 1, 2, 3, 4)


def measure(bases: tuple[int, ...] = BASES, households: int = HOUSEHOLDS) -> dict[str, Any]:
    """Shares of suggestions accepted in per cent, {person: {uses: share}}, of all households with all bases."""
    example = gallery.load_example("toaster")
    lives: dict[str, list[dict[int, float]]] = {person: [] for person in (*WANTED, "absence", "successor")}
    with tempfile.TemporaryDirectory() as scratch:
        for base in bases:
            package = mt.build(example.plans(base)["default"], Path(scratch) / f"toaster{base}")
            for seed in range(FIRST, FIRST + households):
                for person, uses in WANTED.items():
                    lives[person].append(example.follow(package, person, seed, uses))
                for person, after in (("absence", BACK[:1]), ("successor", BACK[1:])):
                    away = example.replace(example.PEOPLE[person], absence=example.ABSENCE)
                    lives[person].append(
                        example.follow(package, away, seed, [example.CHANGE_AT + more for more in after])
                    )
    shares: dict[str, Any] = {
        person: {str(uses): round(100 * float(np.mean([life[uses] for life in each])), 1) for uses in each[0]}
        for person, each in lives.items()
    }
    steady = np.sort([life[20] for life in lives["consistent"]])
    shares["worst tenth"] = round(100 * float(steady[: max(1, len(steady) // 10)].mean()), 1)
    return shares


def bayes_table(results: dict[str, Any]) -> str:
    """Where the head stands, for docs/bayes.md."""
    found = results[SECTION]
    shares = {person: [found[person][str(count)] for count in uses] for person, uses in WANTED.items()}
    columns = {
        "consistent @5 / @20 / worst tenth @20": [*shares["consistent"], found["worst tenth"]],
        "abrupt +2 / +3 / +5 / +10": shares["abrupt"],
        "two people @10 / @20": shares["two_people"],
        "drifting @20 / @100": shares["drifting"],
        "untouched +5 / +15 / +60": shares["narrow"],
        "noisy @20": shares["noisy"],
        "prankster @20": shares["prankster"],
    }
    values = " | ".join(" / ".join(f"{each:.1f}" for each in column) for column in columns.values())
    back, others = found["absence"]["40"], ", ".join(f"{each:.0f}" for each in found["successor"].values())
    return (
        f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n| {values} |\n\n"
        f"Away for 90 days (`Learner(disuse=730)`): {back:.0f} % at the first use back. Somebody else who comes then: "
        f"{others} % after 1, 2, 3, 4 uses.\n"
    )


def run_bayes() -> None:
    """Measure and record; the limits are those of the toaster in benchmarks/examples.py."""
    found = measure()
    record(SECTION, found)
    print(f"\nthe Bayesian head over {len(BASES)} bases, {HOUSEHOLDS} households each, % accepted")
    for person, shares in found.items():
        print(f"  {person:14} {shares}")
