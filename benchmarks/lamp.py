"""The smallest device somebody could live with: a lamp with three buttons, or with one question, and its people."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import microtune as mt
from microtune.simulation import Preference, World, exactly, on_weekend

Array = NDArray[np.float64]
INPUTS = [mt.Input("amount", -1, 1), mt.Input("weekend", 0, 1), mt.Input("hour", 0, 24, "h")]


def contexts_at(rng: np.random.Generator, days: Array) -> Array:
    """(n, 3): an amount, is it the weekend, what hour is it?"""
    return np.stack([rng.uniform(-1, 1, len(days)), on_weekend(days).astype(float), days % 1.0 * 24.0], axis=1)


def make_preference(rng: np.random.Generator) -> Preference:
    """A household wants a straight line of the amount."""
    level, slope = rng.normal(0, 1), rng.normal(0, 0.3)
    return lambda contexts: np.asarray(level + slope * contexts[:, 0])


def level(wishes: Array) -> Array:
    """The button for it, 0 to 2."""
    return np.clip(np.rint(wishes + 1.0), 0, 2)


def lit(wishes: Array) -> Array:
    """1 for light."""
    return np.asarray(wishes > 0.0, float)


def lamp(name: str) -> World:
    """``levels``: three buttons; ``switch``: light or not."""
    return World(
        name=name,
        inputs=("amount", "weekend", "hour"),
        sample_context=lambda rng: contexts_at(rng, rng.uniform(0, 365, 1))[0],
        contexts_at=contexts_at,
        make_preference=make_preference,
        accepts=exactly,
        label=level if name == "levels" else lit,
        tolerance=0.25,
        limits=(-2.0, 2.0),
        weekend=lambda contexts: contexts[:, 1] > 0.5,
        evening=lambda contexts: contexts[:, 2] > 17.0,
        same_kind=lambda contexts, anchor: np.abs(contexts[:, 0] - anchor[0]) < 0.2,
    )


def lamp_plan(world: World, changes: bool) -> mt.Plan:
    """All layers by SGD, from what twenty households do."""
    rng = np.random.default_rng(7)
    contexts = [world.contexts_on(rng, rng.uniform(0, 365, 30)) for _ in range(20)]
    done = [world.labels(world.make_preference(rng)(each)) for each in contexts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a rough base is all that is needed
        base = MLPClassifier((8,), max_iter=60, random_state=0).fit(np.concatenate(contexts), np.concatenate(done))
    loss = "cross_entropy" if world.name == "levels" else "binary_cross_entropy"
    learner = mt.Learner(buffer=64, every=2, epochs=4, folds=4, changes=changes)
    return mt.plan(mt.load(base, name=f"lamp_{world.name}"), mt.Full(), loss, mt.SGD(0.05), learner, inputs=INPUTS)
