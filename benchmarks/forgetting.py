"""What keeps a device from forgetting, each means by the generated C; docs/forgetting.md shows the figures.

    python -m benchmarks.forgetting [speaker wearer] [--seed 11]

The speaker's head (examples/speaker), compiled alone on features that the compiled keyword net gave once, learns digits
said one after the other and streams longer than its ring; the wearer (examples/wearer) is judged more and less
strictly. No setting was chosen with these seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtune as mt
from benchmarks.heads import accuracies
from benchmarks.results import record
from microtune import gallery
from microtune.compiler.planned import Memory
from microtune.frontends.sklearn import from_sklearn

SEED, SEEDS = 11, 5
"""Of the speaker, and of the wearer: so many, one after the other."""
EACH, OTHERS = 10, 50
"""Takes of a digit said one after the other; windows of other people that test a wearer's device."""

MEANS: tuple[dict[str, Any], ...] = (
    {"buffer": 20},
    {"buffer": 20, "replay": 30},
    {"buffer": 100},
    {"buffer": 100, "pull": 0.001},
    {"buffer": 100, "pull": 0.005},
    {"buffer": 100, "ewc": 10},
    {"buffer": 100, "ewc": 30},
    {"buffer": 10, "restart": False, "ewc": 10},
    {"buffer": 10, "restart": False, "ewc": 10, "ewc_memory": 100},
)
"""What learns ten takes of each digit, with the speaker's other settings and no pull where none is named."""

MEMORIES: tuple[dict[str, Any], ...] = (
    {"buffer": 50, "ewc": 10},
    {"buffer": 20, "replay": 30, "ewc": 10},
    {"buffer": 100, "ewc": 10},
    {"buffer": 50, "replay": 50, "ewc": 10},
)
"""What learns streams of two hundred samples."""

ONCE, LONGER = ("once",), ("long runs", "twice over")
"""Streams that ``MEANS`` learn, and ``MEMORIES``; see ``orders``."""

JUDGED: tuple[dict[str, Any], ...] = ({"folds": 0}, {"caution": 0}, {"caution": 0.5})
"""How strictly the wearer's updates are judged, with its other settings."""

NOT_ASKED = Memory(ram=0, flash=0, stack=0, arena=0, bound=0, parameters=0, optimizer=0, buffers=0, timeline=())
"""What packages cost that are made for their accuracy: to measure it would take longer than all they learn."""


def text(settings: dict[str, Any]) -> str:
    """As one would write them in ``mt.Learner(...)``."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def counts(stream: str) -> tuple[int, int, int]:
    """Samples of a stream after which it is measured: none, half, all."""
    half = 5 * EACH if stream in ONCE else 10 * EACH
    return 0, half, 2 * half


def orders(digit: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Streams of one person's shuffled rows, and the rows that test: all but the twenty of each digit to learn."""
    by_digit = [rows[digit[rows] == each] for each in np.unique(digit)]

    def said(start: int, stop: int) -> NDArray[np.int64]:
        return np.concatenate([each[start:stop] for each in by_digit])

    streams = {
        "once": said(0, EACH),
        "long runs": said(0, 2 * EACH),
        "twice over": np.concatenate([said(0, EACH), said(EACH, 2 * EACH)]),
    }
    return streams, np.concatenate([each[2 * EACH :] for each in by_digit])


def speaker(seed: int, folder: Path) -> dict[str, Any]:
    """Per cent right of six people, each new to the base, and of the others: of every stream, settings and count."""
    run = gallery.load_example("speaker")
    takes = run.data.load()
    heard = run.hear(takes, run.data.DEFAULT_PATH, folder)
    x = heard.features[0]
    runs: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for fold in run.data.folds(takes):
        graph = from_sklearn(run.train_base(heard, takes, fold, seed), "digits")
        rows = np.random.default_rng((seed, fold.person, 0)).permutation(np.flatnonzero(takes.person == fold.person))
        streams, test = orders(takes.digit, rows)
        tests = [(x[each], takes.digit[each]) for each in (test, fold.others)]
        for settings, names in [(each, ONCE) for each in MEANS] + [(each, LONGER) for each in MEMORIES]:
            learner = replace(run.LEARNER, sensors=False, **{"pull": 0.0, **settings})
            plan = mt.plan(graph, mt.Head(2), "cross_entropy", run.OPTIMIZER, learner, calibration=x[fold.train])
            package = mt.build(replace(plan, measure=lambda _: NOT_ASKED), folder / "digits")
            for name in names:
                learn = streams[name]
                found = accuracies(mt.Device(package), x[learn], takes.digit[learn], tests, counts(name))
                runs.setdefault((name, text(settings)), []).append(found)
    figures: dict[str, Any] = {}
    for (name, chosen), each in runs.items():
        reached = dict(zip(("own", "others"), np.mean(each, axis=0).T, strict=True))
        figures.setdefault(name, {})[chosen] = {
            who: {str(count): round(float(value), 1) for count, value in zip(counts(name), values, strict=True)}
            for who, values in reached.items()
        }
    return figures


def wearer(seed: int, folder: Path) -> dict[str, Any]:
    """Points gained by 36 people, each new to the base, and per cent of them harmed, for each of ``JUDGED``.

    Means of five seeds, this one and the next four: with one alone, a single person is three per cent.
    """
    run = gallery.load_example("wearer")
    windows = run.data.load()
    summaries: dict[str, list[dict[str, Any]]] = {text(each): [] for each in JUDGED}
    for each in range(seed, seed + SEEDS):
        for name, outcomes in _worn(run, windows, each, folder).items():
            summaries[name].append(run.summary(outcomes))

    def mean(found: list[dict[str, Any]], key: str) -> dict[str, float]:
        return {count: round(float(np.mean([each[key][count] for each in found])), 2) for count in found[0][key]}

    kept = ("gain", "harmed", "others_lose")
    return {name: {key: mean(found, key) for key in kept} for name, found in summaries.items()}


def _worn(run: ModuleType, windows: Any, seed: int, folder: Path) -> dict[str, list[Any]]:
    """``Outcome`` of everybody in every order, for each of ``JUDGED``."""
    outcomes: dict[str, list[Any]] = {text(each): [] for each in JUDGED}
    for number, fold in enumerate(run.data.folds(windows, seed)):
        scale = run.data.scale_of(windows, fold.train)
        base = run.train_base(windows, fold, scale, seed + number)
        for settings in JUDGED:
            learner = replace(run.LEARNER, **settings)
            plan = mt.plan(mt.load(base, name="wearer"), mt.Full(), "cross_entropy", run.OPTIMIZER, learner)
            package = mt.build(replace(plan, measure=lambda _: NOT_ASKED), folder / "wearer")
            for person in fold.held_out:
                for order in range(run.ORDERS):
                    stream = run.data.stream(windows, person, seed, order)
                    outcome = run.adapt(package, windows, scale, stream, fold.others[:OTHERS])
                    outcomes[text(settings)].append(outcome)
    return outcomes


PLACES = {"speaker": speaker, "wearer": wearer}


def measured(place: str, seed: int) -> dict[str, Any]:
    """Figures of one of ``PLACES``. Raises FileNotFoundError without data."""
    with tempfile.TemporaryDirectory() as folder:
        return PLACES[place](seed, Path(folder))


def run_forgetting() -> None:
    """All of it, as docs/forgetting.md shows it."""
    try:
        found = {place: measured(place, SEED) for place in PLACES}
    except FileNotFoundError as missing:
        print(f"\nnot forgetting: not run: {missing}")
        return
    record("forgetting", found)
    print("\nnot forgetting: a hundred samples, digit by digit: the person, the other people, %")
    for name, row in found["speaker"]["once"].items():
        print(f"  {name:50} {row['own']['100']:6} {row['others']['100']:6}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", help=f"{', '.join(PLACES)}; all of them without a word")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args()
    for place in chosen.places or PLACES:
        print(json.dumps({place: measured(place, chosen.seed)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
