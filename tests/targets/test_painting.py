"""The promise of the manifest's stack: no function of a device goes deeper than its bound, and the bound is close."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

import microtune as mt
from microtune import gallery
from microtune.targets import Target
from microtune.targets.measure import random_uses
from microtune.targets.painting import Stack, stacks

CLOSE = 1.5


def plans() -> dict[str, mt.Plan]:
    """A closed form, a head that learns by gradients with people and a log, and a network of integers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    learner = mt.Learner(buffer=12, every=4, epochs=2, folds=2)
    shared = mt.Learner(buffer=12, every=4, epochs=2, folds=2, replay=4, pull=0.01, profiles=2, recognise=True, log=16)
    classes = MLPClassifier(hidden_layer_sizes=[6], max_iter=5, random_state=0).fit(x, np.arange(90) % 3)
    values = MLPRegressor(hidden_layer_sizes=[8], max_iter=5, random_state=0).fit(x, x[:, 0])
    return {
        "toaster": gallery.load_example("toaster").plans()["default"],
        "head": mt.plan(mt.load(classes), mt.Head(1), "cross_entropy", mt.Adam(0.01), shared, calibration=x),
        "integers": mt.plan(
            mt.quantize(mt.load(values), calibration=x), mt.Full(), "mse", mt.SGD(0.05), learner, precision="int8"
        ),
    }


@pytest.fixture(scope="module", params=["toaster", "head", "integers"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    folder = Path(tmp_path_factory.mktemp("stacks"))
    return mt.build(plans()[request.param], folder / request.param, targets=["cortex-m4"])


def test_the_bound_holds_and_is_close(package: mt.Package, core: Target) -> None:
    found = stacks(package, core, random_uses(package, 10))
    too_deep = {verb: (size, found.bound[verb]) for verb, size in found.measured.items() if size > found.bound[verb]}
    assert not too_deep
    assert found.worst_bound <= CLOSE * found.worst_measured
    assert set(found.measured) == set(package.verbs)
    if core.name == "cortex-m4":
        # the image without a port: its functions, some forty bytes, are the firmware's
        stated = package.manifest["targets_built"]["cortex-m4"]["stack"]
        assert found.worst_bound - 64 <= stated <= found.worst_bound


def test_the_worst_is_of_all_functions() -> None:
    found = Stack({"a": 5, "b": 9}, {"a": 12, "b": 10})
    assert (found.worst_measured, found.worst_bound) == (9, 12)
