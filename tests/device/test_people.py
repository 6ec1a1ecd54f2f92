"""A device that a household shares, through ``Device``: profiles, recognition, contexts, sensors, log and clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.errors import DeviceError
from microtune.inspection import read_image
from microtune.simulation import generic_world
from microtune.targets.measure import random_uses

from .conftest import HOUR, LIGHT, WEEKEND, factory

DAY = 86400.0


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def finish(device: mt.Device) -> list[mt.Update]:
    """Idle until nothing is left to learn."""
    found = []
    while True:
        update = device.idle()
        found += [] if update is None else [update]
        if not device.busy:
            return found


def use(device: mt.Device, x: Any, y: int) -> mt.Prediction:
    found = device.predict(x)
    device.observe(y)
    finish(device)
    return found


def people(device: mt.Device) -> list[bytes]:
    """What is kept of each person in each context."""
    place = device.package.manifest["layout"]["people"]
    state = device.state()
    return [state[place["offset"] + place["bytes"] * i :][: place["bytes"]] for i in range(place["count"])]


# Profiles


def test_each_person_has_a_model_in_each_context(house: mt.Package) -> None:
    device = mt.Device(house)
    assert len(people(device)) == 6
    fresh = people(device)
    for profile in (2, 0):
        device.select_profile(profile)
        for x in factory(30, seed=1):
            x[WEEKEND] = 1
            assert use(device, x, profile).profile == profile
    changed = [number for number, (now, was) in enumerate(zip(people(device), fresh, strict=True)) if now != was]
    assert changed == [2 * 0 + 1, 2 * 2 + 1]  # each of them at weekends
    night = [3.0, 1, 0.0]
    assert int(device.predict(night).value.argmax()) == 0
    assert device.status().profile == 0 and device.status().uses == 30
    device.select_profile(2)
    assert int(device.predict(night).value.argmax()) == 2
    assert device.status().uses == 30
    device.select_profile(1)
    device.predict(night)
    assert (device.status().uses, device.status().stage) == (0, "stranger")
    assert set(device.parameters()) == {"w1", "b1"}


def test_parameters_are_those_of_the_last_prediction(house: mt.Package) -> None:
    device = mt.Device(house)
    device.select_profile(1)
    device.predict([3.0, 1, 0.0])
    device.load_parameters({"b1": [5.0, 0.0, 0.0]})
    device.select_profile(0)
    device.predict([3.0, 1, 0.0])
    assert device.parameters()["b1"][0] != 5
    device.select_profile(1)
    device.predict([3.0, 0, 0.0])  # on a weekday
    assert device.parameters()["b1"][0] != 5
    device.predict([3.0, 1, 0.0])
    assert device.parameters()["b1"][0] == 5


def test_people_are_recognised_by_their_contexts(house: mt.Package, tmp_path: Path) -> None:
    device = mt.Device(house, tmp_path / "house.state")
    r = np.random.default_rng(2)
    habits = {0: 7.0, 1: 13.0, 2: 21.0}

    def context(profile: int) -> list[float]:
        return [habits[profile] + r.normal(0, 0.7), float(r.integers(2)), r.normal()]

    for _ in range(12):
        for profile in habits:
            device.select_profile(profile)
            use(device, context(profile), profile)
    device.select_profile(None)
    device.save()
    again = mt.Device(house, tmp_path / "house.state")
    for one in (device, again):
        right = [one.predict(context(profile)).profile == profile for profile in habits for _ in range(20)]
        assert np.mean(right) > 0.9
    # what is observed teaches whoever was recognised, and nobody's contexts: only a button says who it is
    before = people(again)
    found = use(again, context(1), 1)
    changed = [number for number, (now, was) in enumerate(zip(people(again), before, strict=True)) if now != was]
    assert len(changed) == 1 and changed[0] // 2 == found.profile


# Sensors


def test_a_suspect_sensor_is_told_and_not_learnt_from(house: mt.Package) -> None:
    device = mt.Device(house)
    for x in factory(10, seed=3):
        assert use(device, x, 1).suspect is False
    kept, learnt = people(device), device.parameters()
    found = device.predict([3.0, 0, 1e6])
    assert found.suspect is True and np.isfinite(found.value).all()
    assert device.status().sensors == {"light": ("range",)}
    device.observe(2)
    assert finish(device) == []
    metrics = device.metrics()
    assert (metrics.suspect, metrics.observations, device.status().uses <= 10) == (1, 11, True)
    for name, values in learnt.items():
        np.testing.assert_array_equal(device.parameters()[name], values)
    assert [now[64:] for now in people(device)] == [was[64:] for was in kept]  # all but counters
    # sane for a while, and it is believed again
    suspect = [use(device, x, 1).suspect for x in factory(20, seed=11)]
    assert suspect[0] is True and suspect == sorted(suspect, reverse=True) and suspect[-1] is False
    assert device.status().sensors == {}
    assert device.metrics().suspect == 1 + sum(suspect)


def test_a_stuck_sensor_is_found(house: mt.Package) -> None:
    device = mt.Device(house)
    same = next(each for each in house.manifest["sensors"] if each["name"] == "light")["same"]
    assert 0 < same < 40
    flags = []
    for x in factory(same + 2, seed=4):
        x[LIGHT] = 0.25
        flags.append(use(device, x, 0).suspect)
    assert flags == [False] * (same - 1) + [True] * 3
    assert device.status().sensors == {"light": ("stuck",)}
    # asking again is no other use
    fresh = mt.Device(house)
    for _ in range(3 * same):
        assert fresh.predict([3.0, 0, 0.25]).suspect is False


# Learning mode, slices


def test_inputs_drawn_at_random_are_believed(house: mt.Package) -> None:
    """Those of ``microtune emulate`` and of the generic world: else nothing would be learnt from them."""
    world = generic_world(house)
    contexts = world.contexts_at(np.random.default_rng(0), np.zeros(200)) if world.contexts_at else ()
    for drawn in ([x for x, _ in random_uses(house, 200)], contexts):
        device = mt.Device(house)
        assert sum(device.predict(x).suspect for x in drawn) == 0 and len(drawn) == 200


def test_learning_mode_learns_from_each_use(house: mt.Package) -> None:
    device = mt.Device(house)
    device.learning_mode(3)
    assert device.status().teaching == 3
    ran = []
    for x in factory(6, seed=5):
        device.predict(x * [1, 0, 1])
        device.observe(2)
        ran.append(len(finish(device)))
    assert ran == [1, 1, 1, 0, 0, 0] and device.status().teaching == 0


def test_idle_does_a_slice_and_says_that_there_is_more(house: mt.Package) -> None:
    device = mt.Device(house)
    for x in factory(5, seed=6) * [1, 0, 1]:
        device.predict(x)
        device.observe(1)
    assert device.busy is False
    calls = 1
    while (update := device.idle()) is None:
        assert device.busy is True
        calls += 1
    # each of 5 samples is learnt in one of two folds, then all; 5 epochs. What is judged takes slices too
    assert update.steps == 5 * 5 + 5 * 5
    assert update.steps // 40 < calls <= update.steps // 40 + 3
    assert device.busy is False and device.idle() is None


def test_learning_waits_for_the_port(house: mt.Package) -> None:
    allowed = False
    device = mt.Device(house, may_learn=lambda: allowed)
    for x in factory(12, seed=7) * [1, 0, 1]:
        device.predict(x)
        device.observe(1)
        assert device.idle() is None and device.busy is (device.status().waiting >= 5)
    allowed = True
    assert len(finish(device)) == 1


# Absence, forgetting


def test_what_the_port_raises_comes_out_and_nothing_is_learnt(house: mt.Package) -> None:
    clock, charging = Clock(), {"battery": True}
    device = mt.Device(house, clock=lambda: clock() + (0 if charging else 1 / 0), may_learn=lambda: charging["battery"])
    use(device, [3.0, 0, 0.0], 1)
    device.learning_mode(1)
    device.predict([3.0, 0, 0.0])
    device.observe(1)
    before = device.state()
    charging.pop("battery")
    with pytest.raises(KeyError):
        device.idle()
    assert device.state() == before
    with pytest.raises(ZeroDivisionError):
        device.predict([3.0, 0, 0.0])
    charging["battery"] = True
    assert device.idle() is not None


def test_days_are_forgotten_by_the_clock(house: mt.Package) -> None:
    clock = Clock()
    device = mt.Device(house, clock=clock)
    for number, x in enumerate(factory(18, seed=8) * [1, 0, 1]):
        clock.now += DAY if number == 12 else 600
        use(device, x, 1 if number < 12 else 2)
    device.forget(days=0.5)
    assert (device.status().samples, device.metrics().forgets) == (12, 1)
    device.forget(last=4)
    assert device.status().samples == 8
    assert len(finish(device)) == 1 and device.status().waiting == 0


@pytest.mark.parametrize("clock", [12.0, lambda: "noon", lambda: float("nan")])
def test_a_clock_must_tell_seconds(clock: Any, house: mt.Package) -> None:
    with pytest.raises(DeviceError, match=r"a function that tells seconds, as time\.time does"):
        mt.Device(house, clock=clock)
    with pytest.raises(DeviceError, match="a function that says whether learning is allowed"):
        mt.Device(house, may_learn=True)  # type: ignore[arg-type]


def test_without_a_clock_days_cannot_be_forgotten(house: mt.Package) -> None:
    for device in (mt.Device(house), mt.Device(house, may_learn=lambda: True)):
        with pytest.raises(DeviceError, match=r"takes a clock: Device\(\.\.\., clock=time\.time\)"):
            device.forget(days=1)


def test_after_an_absence_what_was_learnt_has_faded(house: mt.Package) -> None:
    clock = Clock()
    device = mt.Device(house, clock=clock)
    base = device.parameters()["w1"]
    for x in factory(20, seed=9) * [1, 0, 1]:
        use(device, x, 2)
    learnt = device.parameters()["w1"]
    clock.now += 60 * DAY  # two half-lives
    device.predict([3.0, 0, 0.0])
    np.testing.assert_allclose(device.parameters()["w1"], base + 0.25 * (learnt - base), rtol=1e-5, atol=1e-6)
    assert np.abs(learnt - base).max() > 0.05


# The log


def test_the_log_tells_of_its_life(house: mt.Package, tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "house.state"
    device = mt.Device(house, file, clock=clock)
    for number, x in enumerate(factory(40, seed=10)):
        clock.now += 3600
        if number == 20:
            device.select_profile(2)
        if number == 30:
            x[LIGHT] = 1e6
        use(device, x, int(x[HOUR] > 12))
    device.forget(last=2)
    use(device, [3.0, 1, 0.2], 0)
    clock.now += 20 * DAY
    use(device, [3.0, 1, 0.1], 0)
    device.save()
    device = mt.Device(house, file, clock=clock)
    use(device, [4.0, 1, -0.1], 0)
    device.reset()
    found = read_image(file)
    assert found.log is not None and (found.log.missing, found.log.unknown) == (0, 0)
    records = found.log.records
    kinds = [each.kind for each in records]
    assert {"uses", "profile", "sensor suspect", "forget", "return", "start", "reset"} <= set(kinds)
    assert [each.uses for each in records] == sorted(each.uses for each in records)
    assert [each.time for each in records] == sorted(each.time for each in records)
    assert records[-1].uses <= 43 and next(each for each in records if each.kind == "profile").profile == 2
    assert next(each for each in records if each.kind == "return").detail == 20
    # the state is before it and not disturbed
    assert found.state is not None and found.state.metrics is not None
    assert found.state.metrics["observations"] == 43 == device.metrics().observations
    assert device.status().origin == "saved state"


# What is refused


@pytest.mark.parametrize(("call", "message"), [
    (lambda device: device.select_profile(3), "there is no profile 3: 0 to 2"),
    (lambda device: device.select_profile(-1), "there is no profile -1"),
    (lambda device: device.select_profile("mother"), "there is no profile 'mother': 0 to 2"),
    (lambda device: device.learning_mode(2.5), r"learning_mode\(2.5\): a number of observations"),
    (lambda device: device.forget(last=1.5), r"forget\(last=1.5\): a number of observations"),
    (lambda device: device.forget(days="1"), r"forget\(days='1'\): a number of days"),
    (lambda device: device.learning_mode(-1), "a number of observations, 0 or more"),
    (lambda device: device.learning_mode(2**32), "a number of observations"),
    (lambda device: device.forget(last=-1), r"forget\(last=-1\)"),
    (lambda device: device.forget(days=-0.1), "a number of days"),
    (lambda device: device.forget(days=float("nan")), "a number of days"),
    (lambda device: device.forget(days=1e9), "a number of days"),
    (lambda device: device.forget(last=1, days=1), "not both"),
])  # fmt: skip
def test_calls_that_make_no_sense_change_nothing(house: mt.Package, call: Any, message: str) -> None:
    device = mt.Device(house, clock=Clock())
    use(device, [3.0, 0, 0.0], 1)
    before = device.state()
    with pytest.raises(DeviceError, match=message) as caught:
        call(device)
    assert caught.value.status == "MT_INVALID_ARGUMENT"
    assert device.state() == before


def test_a_device_of_one_profile_says_how_to_have_more(package: mt.Package) -> None:
    device = mt.Device(package)
    for profile in (0, 1, None):
        with pytest.raises(DeviceError, match=r"one profile: build it with Learner\(profiles=2\)"):
            device.select_profile(profile)
