"""A year of random calls in random order: what must hold of a device after each of them (issue 4)."""

from __future__ import annotations

import itertools
import struct
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import microtune as mt
from microtune.errors import DeviceError

from .conftest import make_net

DAY = 86400.0
REFUSED = 36 + 4 * 4  # where mt_state counts what was refused
VALUES = st.floats(-1, 1, width=32)
NONSENSE = st.sampled_from([float("nan"), float("inf"), -float("inf")])


class Unwritable:
    """A file that reads as before and refuses to be written."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def seek(self, place: int) -> int:
        return int(self.file.seek(place))

    def read(self, size: int) -> bytes:
        return bytes(self.file.read(size))

    def write(self, _data: bytes) -> int:
        raise OSError("the storage is broken")


class Year(RuleBasedStateMachine):
    """Of each package one machine: ``package`` is set by the test."""

    package: mt.Package

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "device.state"
        self.now, self.allowed, self.broken = 1e6, True, False
        manifest = self.package.manifest
        self.outputs, self.task = int(manifest["outputs"]), manifest["task"]
        self.profiles, self.recognises = manifest["learner"]["profiles"], manifest["learner"]["recognise"]
        self.switch_on()
        self.saved = self.device.state()  # what the storage holds, or would begin with
        self.counted = self.device.metrics()
        self.waits = False

    def switch_on(self) -> None:
        self.device = mt.Device(self.package, self.file, clock=lambda: self.now, may_learn=lambda: self.allowed)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    # What is refused

    def unrefused(self) -> bytes:
        state = bytearray(self.device.state())
        state[REFUSED : REFUSED + 4] = bytes(4)
        return bytes(state)

    def refused(self, status: str, call: Any, *arguments: Any, **named: Any) -> None:
        """Refused with this status; nothing has changed but, for values, the count of refusals."""
        before, count = self.unrefused(), self.device.metrics().refused
        with pytest.raises(DeviceError) as caught:
            call(*arguments, **named)
        assert caught.value.status == status
        assert self.unrefused() == before
        assert self.device.metrics().refused - count == (status.startswith("MT_INPUT") or status == "MT_TARGET_INVALID")

    def saving(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """A call that saves, if it does, on a storage that may be broken."""
        saves = self.device.metrics().saves
        found = None
        try:
            found = call(*arguments, **named)
        except DeviceError as error:
            assert error.status == "MT_STORAGE_FAILED" and self.broken
        if self.device.metrics().saves > saves:
            assert not self.broken
            self.saved = self.device.state()
        return found

    # Uses

    def target(self, draw: float) -> Any:
        return int((draw + 1) * 1.49) if self.task == "MT_MULTICLASS" else draw

    @rule(x=st.tuples(VALUES, VALUES, st.one_of(VALUES, st.floats(-900, 900, width=32))))
    def predict(self, x: tuple[float, ...]) -> None:
        found = self.device.predict([12 + 12 * x[0], float(x[1] > 0), x[2]])
        assert np.isfinite(found.value).all() and 0 <= found.confidence <= 1
        if self.task == "MT_MULTICLASS":
            # a sum of so many roundings of numbers below 1
            assert abs(float(found.value.sum()) - 1) <= 8 * self.outputs * 2.0**-24 and (found.value >= 0).all()
        assert 0 <= found.profile < self.profiles
        self.waits = True

    @rule(place=st.integers(0, 2), value=NONSENSE)
    def predict_nonsense(self, place: int, value: float) -> None:
        x = [12.0, 0.5, 0.0]
        x[place] = value
        self.refused("MT_INPUT_NOT_FINITE", self.device.predict, x)
        steps = self.package.manifest["optimizer"]["name"] != "Bayes"  # which learns in closed form
        status = "MT_INPUT_NOT_FINITE" if steps else "MT_INVALID_ARGUMENT"
        self.refused(status, self.device.step, x, [self.target(0.0)])

    @rule(hour=st.sampled_from([-0.001, 24.001, 1e30, -1e38]))
    def predict_out_of_range(self, hour: float) -> None:
        self.refused("MT_INPUT_OUT_OF_RANGE", self.device.predict, [hour, 0.5, 0.0])

    @rule(y=VALUES)
    def observe(self, y: float) -> None:
        if self.waits:
            self.device.observe([self.target(y)])
            self.waits = False
        self.refused("MT_NO_PREDICTION", self.device.observe, [self.target(y)])

    @precondition(lambda self: self.waits)
    @rule(y=st.one_of(NONSENSE, st.sampled_from([-3e38, 3e38])))
    def observe_nonsense(self, y: float) -> None:
        self.refused("MT_TARGET_INVALID", self.device.observe, [y])

    @rule(seed=st.integers(0, 2**32 - 1), uses=st.integers(1, 30))
    def use_for_a_while(self, seed: int, uses: int) -> None:
        """Somebody with a habit, a little careless."""
        r = np.random.default_rng(seed)
        for x in r.uniform(-1, 1, (uses, 3)):
            self.predict(tuple(x))
            self.observe(float(np.clip(x[0] + r.choice([0.0, 0.7]) * r.standard_normal(), -1, 1)))
            self.finish()
            self.now += 3600 * r.uniform(1, 24)

    # Learning

    @rule()
    def idle(self) -> None:
        update = self.saving(self.device.idle)
        if update is not None:
            assert np.isfinite([update.loss_before, update.loss_after]).all() and update.steps >= 0

    @rule()
    def finish(self) -> None:
        self.allowed = True
        for _ in range(1000):
            self.idle()
            if not self.device.busy:
                return
        raise AssertionError("an update that never ends")

    @precondition(lambda self: self.package.manifest["optimizer"]["name"] != "Bayes")
    @rule(x=st.tuples(VALUES, VALUES, VALUES), y=VALUES)
    def step(self, x: tuple[float, ...], y: float) -> None:
        assert np.isfinite(self.device.step([12 + 12 * x[0], float(x[1] > 0), x[2]], [self.target(y)]))
        self.waits = False

    @rule(uses=st.integers(0, 20))
    def learning_mode(self, uses: int) -> None:
        self.device.learning_mode(uses)
        assert self.device.status().teaching == uses

    @rule(allowed=st.booleans())
    def power(self, allowed: bool) -> None:
        self.allowed = allowed

    # People, forgetting

    @rule(profile=st.integers(-1, 4))
    def select_profile(self, profile: int) -> None:
        if 0 <= profile < self.profiles:
            self.device.select_profile(profile)
            assert self.device.status().profile == profile
        elif profile == 4 and self.recognises:
            self.device.select_profile(None)
        else:
            self.refused("MT_INVALID_ARGUMENT", self.device.select_profile, profile)

    @rule(how=st.sampled_from([{}, {"last": 0}, {"last": 3}, {"last": 999}, {"days": 0}, {"days": 1.5}, {"days": 900}]))
    def forget(self, how: dict[str, float]) -> None:
        samples, forgets = self.device.status().samples, self.device.metrics().forgets
        self.saving(self.device.forget, **how)
        assert self.device.status().samples <= samples
        assert self.device.metrics().forgets == forgets + 1
        self.waits = False

    @rule()
    def reset(self) -> None:
        self.saving(self.device.reset)
        status = self.device.status()
        assert (status.uses, status.samples, status.teaching, status.stage) == (0, 0, 0, "stranger")
        self.waits = False

    # Time, power, storage

    @rule(seconds=st.sampled_from([1, 60, 3600, DAY, 3 * DAY, 30 * DAY, 400 * DAY, -60, -DAY, -500 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.now = max(1.0, self.now + seconds)

    @rule()
    def save(self) -> None:
        self.saving(self.device.save)
        assert self.broken or self.saved == self.device.state()

    @rule()
    def power_cycle(self) -> None:
        self.broken = False
        self.switch_on()
        assert self.device.state() == self.saved  # to the bit
        self.counted = self.device.metrics()
        self.waits = False

    @rule()
    def storage_breaks(self) -> None:
        storage = self.device._storage
        assert storage is not None
        if not self.broken:
            storage._file = Unwritable(storage._file)  # type: ignore[assignment]
        else:
            storage._file = storage._file.file  # type: ignore[attr-defined]
        self.broken = not self.broken

    # What must always hold

    @invariant()
    def counters_never_go_back(self) -> None:
        if not hasattr(self, "device"):
            return
        now = self.device.metrics()
        for each in fields(mt.device.Metrics):
            if each.name != "mean_error":
                assert getattr(now, each.name) >= getattr(self.counted, each.name), each.name
        assert np.isfinite(now.mean_error) and now.mean_error >= 0
        assert now.observations <= now.predictions and now.overrides <= now.observations
        assert now.suspect <= now.observations and now.fallbacks <= now.predictions
        self.counted = now

    @invariant()
    def the_status_is_in_its_range(self) -> None:
        if not hasattr(self, "device"):
            return
        status, learner = self.device.status(), self.package.manifest["learner"]
        assert 0 <= status.learnt <= 1 and 0 <= status.sure <= 1
        assert status.samples <= learner["buffer"] + learner["replay"] and status.waiting <= 65535
        assert 0 <= status.profile < self.profiles
        assert status.stage in ("stranger", "getting to know", "acquainted") and status.teaching <= 20

    @invariant()
    def what_was_learnt_is_finite(self) -> None:
        if not hasattr(self, "device"):
            return
        layout, state = self.package.manifest["layout"], self.device.state()
        personal = [each for each in layout["fields"] if layout["people"]["offset"] <= each["offset"] < layout["saved"]]
        for person, each in itertools.product(range(layout["people"]["count"]), personal):
            if each["name"] in ("parameters", "previous", "optimizer", "importance", "covariance", "precision"):
                start = each["offset"] + person * layout["people"]["bytes"]
                assert np.isfinite(np.frombuffer(state, "<f4", each["bytes"] // 4, start)).all(), each["name"]
        assert struct.unpack_from("<H", state, layout["people"]["offset"] + 8)[0] <= 65535


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    """A lamp that two people share, with the residual head."""
    learner = mt.Learner(
        buffer=15, profiles=2, contexts=(mt.Context("weekend", (0.5,)),), disuse=60, slice=3, log=5, threshold=0.3
    )
    inputs = [mt.Input("hour", 0, 24), mt.Input("weekend", 0, 1), mt.Input("light", -1000, 1000)]
    plan = mt.plan(make_net([3, 6, 1]), loss="mse", optimizer=mt.Bayes(), learner=learner, inputs=inputs)
    return mt.build(plan, tmp_path_factory.mktemp("study") / "study")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["house", "study"])
def test_a_year_of_random_calls(kind: str, request: pytest.FixtureRequest) -> None:
    class OfThisPackage(Year):
        package = request.getfixturevalue(kind)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OfThisPackage,
        settings=settings(
            max_examples=20, stateful_step_count=365, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
