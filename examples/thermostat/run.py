"""The thermostat: the temperature a household wants, and whether it will be at home.

    python examples/thermostat/run.py [--out build/thermostat] [--json]

Trains two base networks on a synthetic population, compiles each into a device that learns, and lets simulated
households live with them for eight weeks. What is told is what the generated C did.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from world import OCCUPANCY, WORLD, population

import microtune as mt
from microtune.simulation import Summary, simulate

BASE_SEED, SEED = 30, 11  # of the bases and the households under test; nothing was tuned on them
DAYS, USES_PER_DAY, HOUSEHOLDS = 56.0, 4.0, 40
SHOWN = ("consistent", "noisy", "drifting", "abrupt", "two_people", "guests", "easygoing", "prankster", "dying_sensor")

INPUTS = (
    mt.Input("sine of the hour", -1.0, 1.0),
    mt.Input("cosine of the hour", -1.0, 1.0),
    mt.Input("weekend", -1.0, 1.0),
    mt.Input("outdoors, (C - 10) / 10", -3.0, 3.0),
    mt.Input("motion in the last hour", -1.0, 1.0),
)


def temperature_plan(seed: int = BASE_SEED) -> mt.Plan:
    """Preferred temperature: a residual head over a hidden layer of 16, refitted after every use."""
    base = MLPRegressor(hidden_layer_sizes=(16,), learning_rate_init=0.01, max_iter=200, random_state=seed)
    contexts, wanted = population(WORLD, seed)
    return mt.plan(
        mt.load(base.fit(contexts, wanted), name="thermostat"),
        optimizer=mt.Bayes(),
        learner=mt.Learner(buffer=64, every=1, tolerance=WORLD.tolerance, log=28),
        inputs=INPUTS,
        calibration=contexts,  # what the sensors usually say: one that dies is not learnt from
    )


def occupancy_plan(seed: int = BASE_SEED) -> mt.Plan:
    """At home or not: every layer learns by gradient steps, four uses at a time."""
    base = MLPClassifier(hidden_layer_sizes=(16,), learning_rate_init=0.01, max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 epochs are enough
        contexts, at_home = population(OCCUPANCY, seed)
        base.fit(contexts, at_home)
    return mt.plan(
        mt.load(base, name="thermostat_occupancy"),
        learn=mt.Full(),
        loss="binary_cross_entropy",
        optimizer=mt.SGD(lr=0.05),
        learner=mt.Learner(buffer=100, every=4, epochs=8, folds=5, caution=0.5, log=28),
        inputs=INPUTS,
        calibration=contexts,
    )


def run(out: Path, households: int = HOUSEHOLDS) -> dict[str, dict[str, Summary]]:
    """{question: {person: what came of it}}."""
    found: dict[str, dict[str, Summary]] = {}
    for question, plan, world in (
        ("temperature", temperature_plan(), WORLD),
        ("occupancy", occupancy_plan(), OCCUPANCY),
    ):
        package = mt.build(plan, out if world is WORLD else out.parent / f"{out.name}_occupancy")
        found[question] = {
            person: simulate(
                package, world, person, days=DAYS, uses_per_day=USES_PER_DAY, devices=households, seed=SEED
            )
            for person in SHOWN
        }
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/thermostat"), help="package directory")
    parser.add_argument("--households", type=int, default=HOUSEHOLDS)
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    chosen = parser.parse_args()
    try:
        found = run(chosen.out, chosen.households)
    except mt.MicrotuneError as error:
        sys.exit(f"thermostat: {error}")
    if chosen.json:
        figures: dict[str, Any] = {
            question: {person: asdict(summary) for person, summary in people.items()}
            for question, people in found.items()
        }
        print(json.dumps(figures, indent=2))
        return
    for question, people in found.items():
        table = Table(title=f"{question}: suggestions accepted, % of uses", title_justify="left")
        for column in ("person", "week 1", "week 2", "week 8", "base alone", "worst tenth", "harmed, % of devices"):
            table.add_column(column, justify="left" if column == "person" else "right")
        for person, summary in people.items():
            weeks = [summary.weeks[index].accepted for index in (0, 1, 7)]
            shares = [*weeks, summary.base, summary.worst_tenth, summary.harmed]
            table.add_row(person, *("away" if each is None else f"{100 * each:.1f}" for each in shares))
        Console().print(table)


if __name__ == "__main__":
    main()
