"""A closed-form head refuses what its arithmetic is not sound for, and its state stays finite."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

import microtune as mt


def test_extreme_values_are_refused_and_change_nothing(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    base = MLPRegressor(hidden_layer_sizes=[8], max_iter=50, random_state=0, tol=1.0).fit(x, x.sum(axis=1))
    device = mt.Device(mt.build(mt.plan(mt.load(base), optimizer=mt.Bayes()), tmp_path / "lamp"))
    with pytest.raises(mt.DeviceError, match="RANGE"):
        device.predict([1e30, 0, 0])
    device.predict([0, 0, 0])
    before = device.parameters()["residual_head"]
    for target in (1e30, -1001.0, float("inf"), float("nan")):
        with pytest.raises(mt.DeviceError, match="TARGET"):
            device.observe([target])
    assert np.array_equal(before, device.parameters()["residual_head"])
    for target in (1000.0, -1000.0, 1000.0, 0.5):
        device.predict([1000.0, -1000.0, 0.0])
        device.observe([target])
        device.idle()
        assert np.isfinite(device.parameters()["residual_head"]).all()
