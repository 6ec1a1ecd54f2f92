"""Every pair of settings of learner, head, profiles and contexts builds and lives, or is refused with a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.errors import PlanError

from .living import live

SETTINGS: dict[str, dict[str, Any]] = {
    "head": {
        "SGD": ("cross_entropy", mt.SGD(0.05)),
        "momentum": ("huber", mt.SGD(0.05, momentum=0.5)),
        "Adam": ("binary_cross_entropy", mt.Adam(decay=0.01)),
        "RLS": ("mse", mt.RLS(0.99)),
        "SLDA": ("cross_entropy", mt.SLDA()),
        "MAP": ("cross_entropy", mt.MAP()),
        "Logistic": ("binary_cross_entropy", mt.Logistic()),
        "Bayes": ("mse", mt.Bayes()),
    },
    "profiles": {
        "one": {},
        "three": {"profiles": 3},
        "recognised": {"profiles": 2, "recognise": True},
    },
    "contexts": {"none": {}, "two": {"contexts": (mt.Context("a", (0.0,)), mt.Context(2, (-0.5, 0.5)))}},
    "update": {
        "from the base": {"folds": 3},
        "going on": {"restart": False, "folds": 2},
        "unjudged": {"folds": 0},
        "in place": {"folds": 0, "restart": False, "in_place": True},
    },
    "epochs": {"one": {"epochs": 1}, "three": {"epochs": 3, "every": 3}},
    "replay": {"no": {}, "yes": {"replay": 6}},
    "ewc": {"no": {}, "yes": {"ewc": 1.0, "pull": 0.01}},
    "ewc_memory": {"no": {}, "yes": {"ewc_memory": 1.0}},
    "recency": {"no": {}, "yes": {"recency": 5.0}},
    "changes": {"no": {"changes": False}, "yes": {"changes": True}},
    "slice": {"no": {}, "yes": {"slice": 20}},
    "log": {"no": {}, "yes": {"log": 4}},
    "sensors": {"no": {"sensors": False}, "yes": {"sensors": True}},
    "doubt": {"no": {"disuse": 0}, "yes": {"disuse": 30, "threshold": 0.4, "caution": 0.1}},
}  # fmt: skip
GRADIENT = {"SGD", "momentum", "Adam"}
CLOSED = {"RLS", "SLDA", "MAP", "Logistic"}
Row = Mapping[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]


def excluded(pair: Pair) -> bool:
    """Whether these two cannot go together, as docs/learner.md says."""
    found = dict(pair)
    head = found.get("head")
    if found.get("update") == "in place" and found.get("ewc_memory") == "yes":
        return True
    gradual = any(found.get(name) == "yes" for name in ("ewc", "ewc_memory", "recency"))
    return (
        (head in CLOSED and gradual)
        or (head == "Adam" and found.get("ewc_memory") == "yes")
        or (head == "Bayes" and (gradual or found.get("replay") == "yes"))
    )


def pairs(row: Row) -> set[Pair]:
    return set(itertools.combinations(sorted(row.items()), 2))


def all_pairs() -> set[Pair]:
    return {
        # of two, which the type of sorted does not tell
        tuple(sorted(((a, x), (b, y))))  # type: ignore[misc]
        for a, b in itertools.combinations(SETTINGS, 2)
        for x in SETTINGS[a]
        for y in SETTINGS[b]
    }


def greedy_rows() -> list[dict[str, str]]:
    """Few rows that hold every pair that can be: each begun with a pair not yet held, each setting then chosen for
    most of these (Cohen and others 1997)."""
    missing = {pair for pair in all_pairs() if not excluded(pair)}
    rows = []
    while missing:
        best: dict[str, str] = {}
        most = 0
        r = np.random.default_rng(len(rows))
        for _ in range(20):
            row = dict(sorted(missing)[int(r.integers(len(missing)))])
            for name in r.permutation([each for each in SETTINGS if each not in row]):
                possible = [
                    value for value in SETTINGS[name] if not any(excluded(pair) for pair in pairs({**row, name: value}))
                ]
                gains = [len(pairs({**row, name: value}) & missing) + r.uniform() for value in possible]
                row[name] = possible[int(np.argmax(gains))]
            held = len(pairs(row) & missing)
            best, most = (row, held) if held > most else (best, most)
        rows.append(best)
        missing -= pairs(best)
    return rows


def planned(row: Row, net: Any, samples: int = 120) -> mt.Plan:
    """A plan with these settings, and whatever is usual for the others."""
    loss, optimizer = SETTINGS["head"][row.get("head", "SGD")]
    learner: dict[str, Any] = {"buffer": 12, "every": 4, "sensors": False}
    for name, value in row.items():
        if name != "head":
            learner |= SETTINGS[name][value]
    inputs = [mt.Input("a", -2, 2), mt.Input("b"), mt.Input("c", -1000, 1000)]
    outputs = {"cross_entropy": 3, "binary_cross_entropy": 2, "huber": 2, "mse": 1}[loss]
    x = np.random.default_rng(0).uniform(-1, 1, (samples, 3))
    return mt.plan(
        net([3, 4, outputs], "tanh"), None if isinstance(optimizer, mt.Bayes) else mt.Head(1), loss, optimizer,
        mt.Learner(**learner), inputs=inputs, calibration=x,
    )  # fmt: skip


def test_the_rows_hold_every_pair_that_can_be() -> None:
    rows = greedy_rows()
    held = set().union(*map(pairs, rows))
    assert held == {pair for pair in all_pairs() if not excluded(pair)}
    assert len(rows) <= 36


@pytest.mark.slow
def test_every_pair_lives_clean_under_the_sanitizers(net: Any, tmp_path: Path) -> None:
    plans = {f"net{number}": planned(row, net) for number, row in enumerate(greedy_rows())}
    updates = live(plans, tmp_path, lives=4)
    assert min(updates.values()) >= 10, updates


@pytest.mark.parametrize("pair", sorted(filter(excluded, all_pairs())))
def test_a_pair_that_cannot_be_is_refused_with_a_sentence(pair: Pair, net: Any) -> None:
    with pytest.raises(PlanError, match=r"Learner\(\w+=") as caught:
        planned(dict(pair), net)
    assert len(str(caught.value)) > 30
