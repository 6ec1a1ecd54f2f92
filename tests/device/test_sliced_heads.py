"""Whatever learns, and however its learning is cut into pieces: the same saved bytes, on real packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt

from .conftest import make_net

SHORT = mt.Learner(buffer=15, every=5, epochs=2, folds=3, sensors=False)
HEADS: dict[str, tuple[str, Any, mt.Learner]] = {
    "Adam": ("cross_entropy", mt.Adam(0.02, decay=0.01), mt.Learner(**{**vars(SHORT), "restart": False})),
    "RMSProp": ("huber", mt.RMSProp(0.02), mt.Learner(**{**vars(SHORT), "replay": 5, "recency": 6.0})),
    "elastic": ("mse", mt.SGD(0.02), mt.Learner(**{**vars(SHORT), "ewc": 1.0, "ewc_memory": 1.0})),
    "in place": (
        "mse", mt.SGD(0.02, momentum=0.5), mt.Learner(buffer=15, folds=0, restart=False, in_place=True, sensors=False)
    ),
    "RLS": ("mse", mt.RLS(0.98), mt.Learner(**{**vars(SHORT), "restart": False})),
    "SLDA": ("cross_entropy", mt.SLDA(), SHORT),
    "MAP": ("cross_entropy", mt.MAP(), mt.Learner(**{**vars(SHORT), "restart": False})),
    "Logistic": ("binary_cross_entropy", mt.Logistic(), SHORT),
    "Bayes": ("mse", mt.Bayes(), mt.Learner(buffer=15, folds=3, sensors=False)),
}  # fmt: skip


def habit(x: np.ndarray, task: str) -> Any:
    if task == "MT_MULTICLASS":
        return int(x[0] > 0) + int(x[1] > 0.3)
    return [float(x[0] > x[1])] if task == "MT_BINARY" else [2.0 * x[0] + 1.0]


def learnt(device: mt.Device) -> bytes:
    """The saved state without what counts predictions."""
    state = bytearray(device.state())
    layout = device.package.manifest["layout"]
    state[36:44] = bytes(8)  # predictions and fallbacks, of mt_metrics in mt_state
    for person in range(layout["people"]["count"]):
        confidence = layout["people"]["offset"] + person * layout["people"]["bytes"] + 44  # of mt_person
        state[confidence : confidence + 4] = bytes(4)
    return bytes(state)


class Moods:
    """Says yes or no to learning, at random; ``after``: no from then on, until it is set anew."""

    def __init__(self, share: float) -> None:
        self.generator, self.share, self.after = np.random.default_rng(5), share, 10**9

    def __call__(self) -> bool:
        self.after -= 1
        return self.after >= 0 and bool(self.generator.uniform() < self.share)


@pytest.fixture(scope="module", params=HEADS)
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    loss, optimizer, learner = HEADS[request.param]
    outputs = 3 if loss == "cross_entropy" else 1
    x = np.random.default_rng(0).uniform(-1, 1, (60, 3))
    plan = mt.plan(
        make_net([3, 5, outputs]), None if request.param == "Bayes" else mt.Head(1), loss, optimizer, learner,
        calibration=x,
    )  # fmt: skip
    return mt.build(plan, tmp_path_factory.mktemp("head") / "lamp")


def finish(device: mt.Device, between: Any = None) -> list[mt.Update]:
    found, calls = [], 0
    while True:
        calls += 1
        assert calls < 100_000
        update = device.idle()
        found += [] if update is None else [update]
        if not device.busy:
            return found
        if between is not None:
            device.predict(between)


def test_results_do_not_depend_on_slices(head: mt.Package, tmp_path: Path) -> None:
    task = head.manifest["task"]
    at_once = mt.Device(head, tmp_path / "a")
    sliced = [mt.Device(head, tmp_path / str(share), may_learn=Moods(share)) for share in (0.5, 0.95)]
    r = np.random.default_rng(1)
    updates, taken = 0, 0
    for x in r.uniform(-1, 1, (40, 3)):
        for device in (at_once, *sliced):
            device.predict(x)
            device.observe(habit(x, task))
        expected = finish(at_once)
        for number, device in enumerate(sliced):
            assert finish(device, between=x[::-1].copy() if number else None) == expected
            assert learnt(device) == learnt(at_once)
        updates, taken = updates + len(expected), taken + sum(update.accepted for update in expected)
    assert updates == 8 and taken >= 1
    # and what was saved with the last update is the same too
    again = [mt.Device(head, tmp_path / name) for name in ("a", "0.5", "0.95")]
    assert len({learnt(device) for device in again}) == 1


def test_a_power_cut_or_an_observation_in_mid_update_begins_it_anew(head: mt.Package, tmp_path: Path) -> None:
    if head.manifest["learner"]["in_place"]:
        return  # the one way without a copy to go back to
    task = head.manifest["task"]
    moods = Moods(1.0)
    device, twin = mt.Device(head, tmp_path / "a", may_learn=moods), mt.Device(head, tmp_path / "b")
    r, interrupted, cuts = np.random.default_rng(2), 0, 0
    for x in r.uniform(-1, 1, (60, 3)):
        for one in (device, twin):
            one.predict(x)
            one.observe(habit(x, task))
        waiting = device.status().waiting
        if waiting < 5:
            assert device.idle() is None and not device.busy
            continue
        device.save()
        twin.save()
        moods.after = int(r.choice([1, 1, 2, 3, 7, 15]))
        found = device.idle()
        moods.after = 10**9
        if device.busy and waiting < 7:
            interrupted += 1
            continue  # the next observation comes; the other device has not begun
        if device.busy:
            cuts += 1
            device = mt.Device(head, tmp_path / "a", may_learn=moods)
        assert (finish(device) if found is None else [found]) == finish(twin)
        assert learnt(device) == learnt(twin)
    assert interrupted >= 3 and cuts >= 1
