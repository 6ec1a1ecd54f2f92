"""One small package of every kind that simulated people can use, each built once per session."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from tests.simulation.lamp import CALENDAR, LEVELS, SWITCH, TOLERANCE

import microtune as mt
from microtune.ir import Graph
from microtune.simulation import World

INPUTS = [mt.Input("amount", -1, 1), mt.Input("weekend", 0, 1), mt.Input("hour", 0, 24, "h")]


def population(world: World) -> tuple[np.ndarray, np.ndarray]:
    """What twenty households of a world do."""
    rng = np.random.default_rng(7)
    contexts = [world.contexts_on(rng, rng.uniform(0, 365, 30)) for _ in range(20)]
    done = [world.labels(world.make_preference(rng)(each)) for each in contexts]
    return np.concatenate(contexts), np.concatenate(done)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[mt.Package, World]]:
    """{kind: (package, its world)}."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # a rough base is all that is needed
    folder: Path = tmp_path_factory.mktemp("simulated")

    def value() -> Graph:
        return mt.load(MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, random_state=0).fit(*population(CALENDAR)))

    def classes(world: World) -> Graph:
        return mt.load(MLPClassifier(hidden_layer_sizes=(8,), max_iter=30, random_state=0).fit(*population(world)))

    learner = mt.Learner(buffer=20, every=3, epochs=2, tolerance=2 * TOLERANCE)
    unjudged = mt.Learner(buffer=20, every=3, epochs=1, folds=0, tolerance=2 * TOLERANCE)
    plans = {
        "bayes": mt.plan(
            value(), optimizer=mt.Bayes(), learner=mt.Learner(buffer=16, every=1, tolerance=0.5), inputs=INPUTS
        ),
        "value": mt.plan(value(), mt.Full(), "huber", mt.SGD(0.02), learner, inputs=INPUTS),
        "classes": mt.plan(classes(LEVELS), mt.Full(), "cross_entropy", mt.Adam(), learner, inputs=INPUTS),
        "yes_no": mt.plan(classes(SWITCH), mt.Head(1), "binary_cross_entropy", mt.SGD(0.1), learner, inputs=INPUTS),
        "int8": mt.plan(mt.quantize(value(), population(CALENDAR)[0]), mt.Head(1), "mse", mt.SGD(0.001), unjudged),
        "unsure": mt.plan(
            classes(LEVELS), mt.Head(1), "cross_entropy", mt.SGD(0.1),
            mt.Learner(buffer=20, every=2, threshold=0.6, fallback=[0.2, 0.6, 0.2]), inputs=INPUTS,
        ),
    }  # fmt: skip
    worlds = {"classes": LEVELS, "unsure": LEVELS, "yes_no": SWITCH}
    return {kind: (mt.build(plan, folder / kind), worlds.get(kind, CALENDAR)) for kind, plan in plans.items()}
