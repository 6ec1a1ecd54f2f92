"""An anomaly detector behind a net: what the factory's windows come to, devices that learn what is normal where they
are, and a guard that keeps known faults out of it (SPEC B5, E10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

import microtune as mt
from microtune.compiler.emit import emit
from microtune.compiler.hotelling import curve, limit
from microtune.compiler.passes.detector import guard_of, normal_of
from microtune.ops import OPS
from microtune.ops.closed_form import triangle, unpacked
from microtune.ops.evaluate import evaluate
from microtune.targets.measure import CoreDevice

INPUTS, TAUGHT = 6, 20
LEARNER = mt.Learner(buffer=TAUGHT, every=TAUGHT, profiles=2, sensors=False)
ROOT = np.random.default_rng(7).normal(size=(INPUTS, INPUTS)) / 2 + np.eye(INPUTS)
FAULT = np.array([9.0, 3.0, 0.0, 0.0, 0.0, 0.0])
MOUNTINGS = [np.array([0.0, 0.0, *each]) for each in ((8.0, -4.0, 0.0, 6.0), (-6.0, 0.0, 9.0, 0.0))]
NEW = -0.7 * MOUNTINGS[0] + 0.9 * MOUNTINGS[1]
"""A mounting that the factory has never heard, well or not; but mountings that differ as much, in such ways."""


def windows(count: int, seed: int, at: np.ndarray | None = None) -> np.ndarray:
    """Windows of a machine that is well, (count, 6): correlated, about zero or where it was mounted."""
    drawn = np.random.default_rng(seed).normal(size=(count, INPUTS)) @ ROOT.T
    return np.float32(drawn if at is None else drawn + at)


def factory() -> tuple[np.ndarray, np.ndarray]:
    """Well, well in two other mountings, and the fault in one of those."""
    places = (MOUNTINGS[0], MOUNTINGS[1], MOUNTINGS[0] + FAULT)
    parts = [windows(150, 1), *(windows(80, seed, at) for seed, at in enumerate(places, start=2))]
    return np.concatenate(parts), np.repeat([0, 2, 2, 1], [150, 80, 80, 80])


def plan(**settings: Any) -> mt.Plan:
    given = {"optimizer": mt.Mahalanobis(), "learner": LEARNER, "calibration": factory(), **settings}
    return mt.plan(mt.identity(INPUTS, "machine"), loss="binary_cross_entropy", **given)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    return mt.build(plan(), tmp_path_factory.mktemp("detector") / "machine")


def alarms(device: mt.Device, rows: np.ndarray) -> float:
    return float(np.mean([device.predict(x).value[0] > 0.5 for x in rows]))


def teach(device: mt.Device, rows: np.ndarray, target: float = 0.0) -> mt.Update | None:
    update = None
    for x in rows:
        device.predict(x)
        device.observe(target)
        update = device.idle() or update
    return update


def test_it_learns_a_mounting_and_forgets_it(package: mt.Package, tmp_path: Path) -> None:
    device = mt.Device(package, state=tmp_path / "flash.bin")
    here, fault, first = windows(300, 11, NEW), windows(300, 12, NEW + FAULT), windows(300, 13)
    assert alarms(device, here) == 1.0 and alarms(device, first) < 0.05
    update = teach(device, windows(TAUGHT, 14, NEW))
    assert update is not None and update.accepted and not update.refused
    assert alarms(device, here) <= 0.05 and alarms(device, fault) >= 0.97 and device.metrics().suspect == 0
    again = mt.Device(package, state=tmp_path / "flash.bin")
    assert all(np.array_equal(again.predict(x).value, device.predict(x).value) for x in here[:20])
    device.select_profile(1)  # another machine, which nobody has taught
    assert alarms(device, here) == 1.0
    device.select_profile(0)
    device.forget()
    assert alarms(device, here) == 1.0 and alarms(device, first) < 0.05


@pytest.mark.parametrize("faults", [20, 10, 3])
def test_a_known_fault_presented_as_well_is_refused(package: mt.Package, faults: int) -> None:
    """All of the windows, half and less: nothing changes, and the fault is found afterwards; so too where the mounting
    had been learnt before."""
    mixture = np.concatenate([windows(TAUGHT - faults, 21, NEW), windows(faults, 22, NEW + FAULT)])
    for taught in (False, True):
        device = mt.Device(package)
        if taught:
            teach(device, windows(TAUGHT, 23, NEW))
        before = device.parameters()
        update = teach(device, mixture[np.random.default_rng(faults).permutation(TAUGHT)])
        assert update is not None and update.refused and not update.accepted
        assert all(np.array_equal(before[name], each) for name, each in device.parameters().items())
        assert faults - 1 <= device.metrics().suspect <= faults and device.metrics().rolled_back == 1
        assert alarms(device, windows(200, 24, NEW + FAULT)) >= 0.97
        # well again: what is heard from now on is learnt
        update = teach(device, windows(TAUGHT, 25, NEW))
        assert update is not None and not update.refused and alarms(device, windows(200, 26, NEW)) <= 0.05


def test_any_twenty_in_a_row_are_looked_at_together(tmp_path: Path) -> None:
    """Two suspects among forty windows: within twenty they are a fault, and one window further apart they are not. A
    window so wild that the guard's word of it is no number is left out, whatever its place."""
    (x, y), small = factory(), np.float32(1e-3)
    learner = mt.Learner(buffer=2 * TAUGHT, every=2 * TAUGHT, sensors=False)
    package = mt.build(plan(learner=learner, calibration=(small * x, y)), tmp_path / "machine")
    fault = NEW + 1.5 * FAULT  # none of them is missed
    for first, second, refused in ((0, 20, False), (0, 19, True), (13, 33, False), (20, 39, True)):
        device, rows = mt.Device(package), windows(2 * TAUGHT, 71, NEW)
        rows[[first, second]] = windows(2, 72, fault)
        update = teach(device, small * rows)
        assert update is not None and (update.refused, update.accepted) == (refused, not refused)
        assert device.metrics().suspect == 2
    weight, _ = guard_of(*(small * x[part].astype(float) for part in (y != 1, y == 1)), mt.Mahalanobis())
    device, rows = mt.Device(package), small * windows(2 * TAUGHT, 71, NEW)
    rows[5] = np.finfo(np.float32).max * np.where(np.arange(INPUTS) % 2, 1, -1) * np.sign(weight)
    update = teach(device, rows)
    assert update is not None and update.accepted and device.metrics().suspect == 0
    found = device.parameters()["normal.mean"]
    np.testing.assert_allclose(found, np.delete(rows, 5, axis=0).mean(axis=0), atol=1e-8)


def test_single_suspects_and_faults_that_were_told_are_left_out(package: mt.Package) -> None:
    device = mt.Device(package)
    well, fault = windows(15, 31, NEW), windows(5, 32, NEW + FAULT)
    teach(device, fault[:4], target=1.0)  # a fault, and said to be one
    teach(device, fault[4:])  # said to be well: one of twenty
    update = teach(device, well)
    assert update is not None and update.accepted and device.metrics().suspect == 1
    np.testing.assert_allclose(device.parameters()["normal.mean"], well.astype(float).mean(axis=0), atol=1e-5)


def test_what_the_guard_does_not_see_is_learnt_last(package: mt.Package) -> None:
    """A third of a fault is no suspect, and is held against the others, whatever its place among the twenty: windows
    are learnt in the order of the guard's word, as numpy does in float64."""
    mixture = np.concatenate([windows(3, 61, NEW + FAULT / 3), windows(TAUGHT - 3, 62, NEW)])
    made, (x, y) = plan(), factory()
    weight, _ = guard_of(x[y != 1].astype(float), x[y == 1].astype(float), mt.Mahalanobis())
    detector = next(node for node in made.graph.nodes if node.op == "mahalanobis")
    wanted = [*(made.graph.tensor(name).data.astype(float) for name in detector.inputs[2:]), np.zeros(1)]
    for row in mixture[np.argsort(mixture @ weight)].astype(float):
        wanted = OPS["mahalanobis_learn"].reference([*wanted, row, -np.ones(1), np.zeros(1)], detector.attributes)[:4]
    for order in (np.arange(TAUGHT), np.arange(TAUGHT)[::-1], np.random.default_rng(6).permutation(TAUGHT)):
        device = mt.Device(package)
        update = teach(device, mixture[order])
        assert update is not None and update.accepted and device.metrics().suspect == 0
        for have, want in zip(device.parameters().values(), wanted[:3], strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_the_core_computes_the_same_bits(package: mt.Package) -> None:
    core, host = CoreDevice(package, "cortex-m4"), mt.Device(package)
    for index, x in enumerate([*windows(16, 41, NEW), *windows(4, 42, NEW + FAULT), *windows(TAUGHT, 43, NEW)]):
        core.use(x, np.array([float(index % 7 == 3)]))
        teach(host, x[None], target=float(index % 7 == 3))
    assert host.metrics().accepted >= 1 and core.state() == host.state()


def test_what_the_factorys_windows_come_to(package: mt.Package) -> None:
    """Against numpy at once, through the graph in float64: the distance of a window, its limit, and the guard."""
    made, (x, y) = plan(), factory()
    assert emit(made, "machine") == emit(plan(), "machine")
    assert package.manifest["memory"]["parameters"] == 4 * (INPUTS + triangle(INPUTS) + 2)
    well = x[y == 0].astype(float)
    mean, covariance = well.mean(axis=0), np.cov(well.T)
    covariance = 0.9 * covariance + 0.1 * np.diag(covariance.diagonal())
    rows = windows(50, 51, NEW).astype(float)
    gap = rows - mean
    distance = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap)
    found = evaluate(made.graph, {"x": rows}, np.float64)[made.graph.outputs[0]][:, 0]
    beyond = []
    for first in range(0, 150, 15):  # each tenth of the recording, held against the rest
        block = slice(first, first + 15)
        others = np.delete(well, block, axis=0)
        rest = np.cov(others.T)
        rest = 0.9 * rest + 0.1 * np.diag(rest.diagonal())
        off = well[block] - others.mean(axis=0)
        beyond.extend(np.einsum("ni,ij,nj->n", off, np.linalg.inv(rest), off) / limit(INPUTS, 135.0 - INPUTS, 0.01))
    wanted = limit(INPUTS, 150.0 - INPUTS, 0.01) * max(1, np.quantile(beyond, 0.99))
    np.testing.assert_allclose(found, (distance - wanted) / 2, rtol=1e-4)
    weight, bias = guard_of(x[y != 1].astype(float), x[y == 1].astype(float), mt.Mahalanobis(guard=0.3))
    assert x[y != 1].mean(axis=0) @ weight + bias == pytest.approx(-0.3, abs=1e-5)
    assert x[y == 1].mean(axis=0) @ weight + bias == pytest.approx(0.7, abs=1e-5)
    heavy = np.random.default_rng(5).standard_t(2, size=(400, 3))
    r = np.random.default_rng(6)
    changing = np.repeat(r.normal(size=(10, 3)), 40, axis=0) + 0.3 * r.normal(size=(400, 3))  # every 40 windows
    wide, moved, kept = (normal_of(each, mt.Mahalanobis()).tail for each in (heavy, changing, well))
    assert wide > 1.3 and moved > 1.3 and kept < 1.3
    # so wide the limit stays while normal is learnt anew
    tails = np.float32(np.random.default_rng(5).standard_t(2, size=(400, INPUTS)))
    learnt = next(node for node in plan(calibration=tails).graph.nodes if node.op == "mahalanobis").attributes["c0"]
    tail = normal_of(tails.astype(float), mt.Mahalanobis()).tail
    assert tail > 1.3 and learnt == pytest.approx(curve(INPUTS, 30 + 1 - INPUTS, 0.01)[0] + np.log(tail), rel=1e-6)
    constant = np.column_stack([well, np.ones(len(well))])
    assert np.linalg.eigvalsh(normal_of(constant, mt.Mahalanobis()).covariance).min() > 0
    # a pressure in Pascal hides no vibration in metres: each is as wide as it is, whatever its unit
    units = np.array([1e5, 1.0, 1.0, 1e-5, 1e-2, 1e3])
    scaled, plain = (normal_of(well * each, mt.Mahalanobis()).covariance for each in (units, np.ones(INPUTS)))
    np.testing.assert_allclose(scaled / np.outer(units, units), plain, rtol=2e-3, atol=1e-5)


def test_an_autoencoder_is_looked_at_by_what_it_does_not_rebuild() -> None:
    x, y = factory()
    net = MLPRegressor(hidden_layer_sizes=(3,), activation="tanh", max_iter=20, random_state=0)
    with pytest.warns(match="converged"):
        net.fit(x[y == 0], x[y == 0])
    graph = mt.load(net, name="rebuilt")
    made = mt.plan(
        graph, loss="binary_cross_entropy", optimizer=mt.Mahalanobis(residual=True), learner=LEARNER, calibration=(x, y)
    )
    rest = x[y == 0].astype(float) - net.predict(x[y == 0])
    constants = {name: each.data for name, each in made.graph.tensors.items() if each.data is not None}
    np.testing.assert_allclose(constants["normal.mean"], rest.mean(axis=0), atol=1e-5)
    scatter = np.linalg.inv(unpacked(constants["normal.precision"].astype(float)))
    np.testing.assert_allclose(scatter.diagonal() / 30, rest.var(axis=0, ddof=1), rtol=1e-3)
    guard = next(node for node in made.graph.nodes if node.name == "guard")
    assert guard.inputs[0] == graph.inputs[0]  # the guard reads what the net was given
    assert [each.size for each in made.programs.cut] == [INPUTS, 1]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": "mse"}, "use loss='binary_cross_entropy', not 'mse'"),
    "precision": ({"precision": "mixed"}, "computes in floats"),
    "scheme": ({"learn": mt.Full()}, "leave learn=Full.* out"),
    "nothing": ({"calibration": None}, "begins with the factory's windows"),
    "few": ({"calibration": windows(12, 1)}, "has 12 windows that are well .*needs 20 or more"),
    "labels": ({"calibration": (windows(30, 1), [0] * 29 + [3])}, "window 29 has the label 3"),
    "lengths": ({"calibration": (windows(30, 1), [0] * 29)}, "30 samples and 29 labels"),
    "worth": ({"optimizer": mt.Mahalanobis(worth=7)}, "use 9 or more"),
    "residual": ({"optimizer": mt.Mahalanobis(residual=True)}, "input less the output of an autoencoder"),
}


@pytest.mark.parametrize(("settings", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_in_a_sentence(settings: dict[str, Any], said: str) -> None:
    given = {"loss": "binary_cross_entropy", "optimizer": mt.Mahalanobis(), "calibration": factory(), **settings}
    with pytest.raises(mt.PlanError, match=said):
        mt.plan(mt.identity(INPUTS), **given)


def test_settings_and_sizes_out_of_range_are_refused() -> None:
    for name, value in {"worth": 1e30, "memory": float("nan")}.items():
        with pytest.raises(mt.PlanError, match=f"{name} must be"):
            mt.Mahalanobis(**{name: value})
    for name, value in {"worth": 0, "false_alarms": 0.7, "shrinkage": 0, "memory": 0, "guard": 1.5}.items():
        with pytest.raises(mt.PlanError, match=name):
            mt.Mahalanobis(**{name: value})
    for size in (0, 2.5, True):
        with pytest.raises(mt.ModelError, match="identity"):
            mt.identity(size)  # type: ignore[arg-type]
