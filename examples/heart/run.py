"""The heart: a person's own resting heart-rate variability, and an alarm when it departs.

    python examples/heart/run.py [--out build/heart] [--json]

A base network knows what is usual for people; the device learns what is usual for this one, a morning at a time. It
alarms when three mornings together lie too far below that, and does not learn from a morning of alarm. What is told
compares it with the same rule on the base alone, which knows only how widely people differ.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.neural_network import MLPRegressor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from world import ILLNESS, MORNING, MORNINGS_ILL, WORLD, contexts_at, make_baseline, population

import microtune as mt

BASE_SEED, SEED = 30, 20_000  # of the base and the first person under test
PEOPLE, DAYS, ILL_FROM = 60, 180, 120
LEARNING = 14  # mornings of getting to know somebody, without alarms
LOOKED_BACK, THRESHOLD = 3, -3.0
"""Alarm: the last mornings' departures, in their standard deviations, add up to less than this times root 3.

The threshold was chosen on another base (3) and other people (5000 on), among -2.6, -3.0, -3.4 and -3.8."""
LONGEST = 14  # mornings of alarm after which it is the new baseline, and learnt

INPUTS = (
    mt.Input("resting heart rate, (beats a minute - 60) / 10", -3.0, 3.0),
    mt.Input("activity of the day before", -1.0, 1.0),
    mt.Input("sleep, (hours - 7) / 1.5", -3.0, 3.0),
    mt.Input("alcohol the evening before", -1.0, 1.0),
)


def plan(seed: int = BASE_SEED) -> mt.Plan:
    """A residual head over a hidden layer of 8, refitted every morning."""
    base = MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.01, max_iter=200, random_state=seed)
    mornings, variability = population(seed)
    return mt.plan(
        mt.load(base.fit(mornings, variability), name="heart"),
        optimizer=mt.Bayes(),
        learner=mt.Learner(buffer=64, every=1, tolerance=WORLD.tolerance, log=28),
        inputs=INPUTS,
        calibration=mornings,  # what the sensors usually say: one that fails is not learnt from
    )


def spread_of(prediction: mt.Prediction) -> float:
    """Standard deviation behind a confidence, the inverse of what the C computes: 2 sigmoid(1.702 t / s) - 1."""
    chance = min(max((1.0 + prediction.confidence) / 2.0, 0.5 + 1e-6), 1.0 - 1e-6)
    return 1.702 * WORLD.tolerance / math.log(chance / (1.0 - chance))


class Watch:
    """The alarm: firmware would hold three numbers and a counter for it."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=LOOKED_BACK)
        self._mornings = self._alarmed = 0

    def morning(self, departure: float) -> tuple[bool, bool]:
        """One morning's departure, in standard deviations: is it alarming, and may it be learnt?"""
        self._mornings += 1
        self._last.append(max(departure, -4.0))  # one bad reading is not an illness
        full = len(self._last) == LOOKED_BACK and self._mornings > LEARNING
        alarm = full and sum(self._last) < THRESHOLD * math.sqrt(LOOKED_BACK)
        self._alarmed = self._alarmed + 1 if alarm else 0
        return alarm, not alarm or self._alarmed > LONGEST


@dataclass(frozen=True)
class Story:
    """One person: mornings of alarm while healthy, and the mornings from falling ill to the alarm (None: none)."""

    false_alarms: int
    healthy: int
    delay: int | None
    error: float  # mean absolute, of the baseline in units of a morning's spread, before the illness


def follow(package: mt.Package, seed: int, learns: bool, between: float) -> Story:
    """One person's half year. ``between``: for a device that does not learn, how widely people differ."""
    device, watch = mt.Device(package), Watch()
    rng = np.random.default_rng((seed, 0))
    baseline = make_baseline(rng)
    contexts = contexts_at(rng, np.arange(DAYS) + 7.0 / 24.0)
    usual = baseline(contexts)
    measured = usual + MORNING * rng.normal(size=DAYS)
    ill = (np.arange(DAYS) >= ILL_FROM) & (np.arange(DAYS) < ILL_FROM + MORNINGS_ILL)
    measured = measured - ILLNESS * ill
    alarms, errors = np.zeros(DAYS, bool), []
    for day in range(DAYS):
        found = device.predict(contexts[day])
        expected, spread = float(found.value[0]), spread_of(found) if learns else between
        errors.append(abs(expected - usual[day]) / MORNING)
        alarms[day], learnable = watch.morning((measured[day] - expected) / spread)
        if learns and learnable:
            device.observe([measured[day]])
            device.idle()
    # the alarm looks three mornings back: it may end that much later than the illness
    around = (np.arange(DAYS) >= ILL_FROM) & (np.arange(DAYS) < ILL_FROM + MORNINGS_ILL + LOOKED_BACK - 1)
    delays = np.flatnonzero(alarms & ill) - ILL_FROM
    return Story(
        int(np.sum(alarms & ~around)),
        int(np.sum(~around)) - LEARNING,
        int(delays[0]) + 1 if len(delays) else None,
        float(np.mean(errors[LEARNING:ILL_FROM])),
    )


@dataclass(frozen=True)
class Figures:
    """Over all people."""

    detected: float
    detected_within_3: float
    false_alarms_per_year: float
    people_without: float
    error: float


def summary(stories: list[Story]) -> Figures:
    """Shares of people, mornings of false alarm a person and year, error in spreads of a morning."""
    delays = [story.delay for story in stories]
    healthy = sum(story.healthy for story in stories)
    return Figures(
        detected=round(float(np.mean([delay is not None for delay in delays])), 4),
        detected_within_3=round(float(np.mean([delay is not None and delay <= 3 for delay in delays])), 4),
        false_alarms_per_year=round(365.0 * sum(story.false_alarms for story in stories) / healthy, 3),
        people_without=round(float(np.mean([story.false_alarms == 0 for story in stories])), 4),
        error=round(float(np.mean([story.error for story in stories])), 4),
    )


def run(out: Path, people: int = PEOPLE) -> dict[str, Figures]:
    """{"own": with the person's own baseline, "base": with everybody's}."""
    package = mt.build(plan(), out)
    contexts, targets = population(BASE_SEED)
    factory = mt.Device(package)
    between = float(np.std([y - factory.predict(x).value[0] for x, y in zip(contexts, targets, strict=True)]))
    return {
        name: summary([follow(package, SEED + person, learns, between) for person in range(people)])
        for name, learns in (("own", True), ("base", False))
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/heart"), help="package directory")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    chosen = parser.parse_args()
    try:
        found = run(chosen.out, chosen.people)
    except mt.MicrotuneError as error:
        sys.exit(f"heart: {error}")
    if chosen.json:
        print(json.dumps({name: asdict(figures) for name, figures in found.items()}, indent=2))
        return
    table = Table(title=f"{chosen.people} people, half a year each, eight mornings ill", title_justify="left")
    for column in ("", "their own baseline", "everybody's"):
        table.add_column(column, justify="right" if column else "left")
    own, base = found["own"], found["base"]
    for label, name, scale in (
        ("illnesses noticed, %", "detected", 100),
        ("within three mornings, %", "detected_within_3", 100),
        ("mornings of false alarm, a person and year", "false_alarms_per_year", 1),
        ("people without a false alarm, %", "people_without", 100),
        ("error of the baseline, in spreads of a morning", "error", 1),
    ):
        table.add_row(label, *(f"{scale * getattr(each, name):.1f}" for each in (own, base)))
    Console().print(table)


if __name__ == "__main__":
    main()
