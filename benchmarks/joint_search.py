"""Compression and update scheme searched together, on people of WISDM whom the base has never seen.

The budget is one that the float net cannot meet: schemes alone find nothing. What the search picks is set beside
compression alone, the same form as it is, and beside one after the other: the form that fits and is most right as it
is, and of it the last layer learns. Half of a person's windows are searched on; figures are of the other half, which no
choice has seen.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import microtune as mt
from benchmarks.results import record
from benchmarks.tables import row_of, table_of
from microtune import gallery
from microtune.ir import Graph
from microtune.samples import Samples
from microtune.search.trial import IN_PLACE, Trainer, judge, plan_candidate, train
from microtune.tuning.losses import loss_of
from microtune.tuning.schemes import Scheme

SECTION = "joint_search"
PEOPLE = 3
"""Those with most windows."""
HIDDEN = (192, 16)
ZEROS = 0.8
CALIBRATION = 500
BUDGET = mt.Budget(ram="6KB", flash="40KB")
RATE, EPOCHS = 0.02, 5
GAINED, LOST = 5.0, 1.0
"""Points, mean over the people: at least so many better than compression alone, at most so many worse than one after
the other."""


def pruned(base: MLPClassifier, x: np.ndarray, y: np.ndarray) -> MLPClassifier:
    """The net without ``ZEROS`` of the weights of its hidden layers, little by little, trained on after each part."""
    for share in ZEROS * np.array([0.5, 0.8, 1.0, 1.0, 1.0]):
        masks = [np.abs(each) > np.quantile(np.abs(each), share) for each in base.coefs_[:-1]]
        for _ in range(3):
            base.partial_fit(x, y)
            for weight, mask in zip(base.coefs_, masks, strict=False):
                weight *= mask
    return base


def forms(features: np.ndarray, activity: np.ndarray, seed: int) -> dict[str, Graph]:
    """A net of other people, float, pruned, and both in int8."""

    def trained() -> MLPClassifier:
        net = MLPClassifier(HIDDEN, alpha=1e-3, learning_rate_init=3e-3, batch_size=128, max_iter=30, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return net.fit(features, activity)

    plain, sparse = mt.load(trained(), name="plain"), mt.load(pruned(trained(), features, activity), name="sparse")
    few = features[:: max(len(features) // CALIBRATION, 1)]
    return {
        "float": plain,
        "pruned": sparse,
        "int8": mt.quantize(plain, calibration=few),
        "pruned int8": mt.quantize(sparse, calibration=few),
    }


def _learnt(graph: Graph, scheme: Scheme, precision: str, rate: float, own: Samples, test: Samples) -> float:
    """Per cent of the test windows right, by the device's C, once it has learnt the person's own."""
    loss = loss_of("cross_entropy")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(plan_candidate(graph, scheme, precision, loss, mt.SGD(rate)), Path(folder))
        device = train(trainer, own, rate, EPOCHS, 0, lambda: False)
        assert device is not None
        return round(100 * float(np.mean(judge(device, test, loss, 0.0))), 1)


def _halves(rows: np.ndarray, activity: np.ndarray, person: int) -> tuple[np.ndarray, np.ndarray]:
    """A person's windows in two, each activity in both; without those of which there are fewer than four."""
    rng = np.random.default_rng(person)
    parts: list[list[np.ndarray]] = [[], []]
    for kind in np.unique(activity[rows]):
        mixed = rng.permutation(rows[activity[rows] == kind])
        if len(mixed) >= 4:
            for part, some in zip(parts, np.array_split(mixed, 2), strict=True):
                part.append(some)
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def measure() -> dict[str, Any]:
    """By person: what was picked, its bytes, and accuracy in per cent of the test windows; and the means."""
    data = gallery.load_example("wearer").data
    windows = data.load()
    people, counts = np.unique(windows.person, return_counts=True)
    found: dict[str, Any] = {}
    for person in people[np.argsort(-counts, kind="stable")][:PEOPLE]:
        others, rows = (np.flatnonzero(part) for part in (windows.person != person, windows.person == person))
        scaled = data.scale_of(windows, others).apply(windows.features)
        models = forms(scaled[others], windows.activity[others], int(person))
        own, test = (
            Samples(scaled[part], windows.activity[part]) for part in _halves(rows, windows.activity, int(person))
        )
        together = mt.search(
            models, (own.x, own.y), optimizer=mt.SGD(RATE), budget=BUDGET, epochs=EPOCHS, seconds=3600
        )  # fmt: skip
        best = together.best
        first = max(together.bases, key=lambda name: together.bases[name])
        heads = [each for each in together.points if each.model == first and each.name.endswith("head:1")]
        found[str(person)] = {
            "float": next((each.reason for each in together.left_out if each.name == "float"), "fits"),
            "pick": best.name,
            "ram": best.ram,
            "flash": best.flash,
            "as it is": _learnt(models[best.model], mt.Head(1), "float32", 1e-30, own, test),
            "together": _learnt(models[best.model], best.scheme, best.precision, best.rate, own, test),
            "first": first,
            "first ram": mt.plan(models[first], mt.Head(1), "cross_entropy", mt.SGD(RATE), IN_PLACE).memory.ram,
            "one after the other": _learnt(
                models[first], mt.Head(1), "float32", heads[0].rate if heads else RATE, own, test
            ),
        }
    keys = ("as it is", "one after the other", "together")
    means = {key: round(float(np.mean([each[key] for each in found.values()])), 1) for key in keys}
    return {"people": found, "mean": means, "budget": {"ram": BUDGET.ram_bytes, "flash": BUDGET.flash_bytes}}


def joint_search_table(results: dict[str, Any]) -> str:
    """The table of docs/search.md."""
    found = results[SECTION]
    people = [
        row_of(
            person, f"`{each['pick']}`", f"{each['ram']:,}", f"{each['flash']:,}", f"{each['as it is']:.1f} %",
            f"{each['together']:.1f} %", f"{each['one after the other']:.1f} %", f"{each['first ram']:,}",
        )
        for person, each in found["people"].items()
    ]  # fmt: skip
    alone, together, after = (f"{found['mean'][key]:.1f} %" for key in ("as it is", "together", "one after the other"))
    return table_of(
        row_of("person", "picked together", "RAM", "flash", "as it is", "together", "one after the other", "its RAM"),
        *people,
        f"| mean | | | | {alone} | **{together}** | {after} | |",
    )


def run_joint_search() -> bool:
    """Print, keep, and tell whether it gains what it should, within a budget that the float net is over."""
    found = measure()
    print("\n" + joint_search_table({SECTION: found}))
    record(SECTION, found)
    rows, mean = found["people"].values(), found["mean"]
    within = all(row["ram"] <= found["budget"]["ram"] and row["flash"] <= found["budget"]["flash"] for row in rows)
    over = all("flash for its weights alone" in row["float"] for row in rows)
    gained = mean["together"] >= mean["as it is"] + GAINED
    return within and over and bool(gained and mean["together"] >= mean["one after the other"] - LOST)
