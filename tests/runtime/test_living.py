"""Living with a device: learning mode, forgetting the last uses or days, getting to know somebody, long absence."""

import ctypes
from typing import Any

import numpy as np
import pytest

from .little_device import INVALID, MULTICLASS, OK, REGRESSION, Device, Person, life

DAY = 86400
STRANGER, GETTING_TO_KNOW, ACQUAINTED = range(3)

# Profiles


def test_a_profile_that_is_not_there_is_refused(library: ctypes.CDLL) -> None:
    device = Device(library)
    device.use([0.1, 0.2, 0.3], 1.0)
    before = device.memory()
    for profile in (2, 3, 0xFFFE, 0xFFFF, 0xFFFFFFFF):
        assert device.call("select_profile", profile) == INVALID
    assert device.memory() == before


def test_the_chosen_profile_is_kept_and_reported(library: ctypes.CDLL) -> None:
    device = Device(library, every=1, folds=0)
    assert device.call("select_profile", 1) == OK
    assert device.report().profile == 1
    assert device.predict([0.1, 0.2, 0.3])[2].profile == 1
    assert device.observe(2.0) == OK
    device.idle()
    assert (device.person(0).person.uses, device.person(1).person.uses) == (0, 1)
    assert device.call("init") == OK
    assert (device.state.profile, device.report().profile, device.report().uses) == (1, 1, 1)


def test_an_observation_belongs_to_whoever_was_predicted_for(library: ctypes.CDLL) -> None:
    device = Device(library)
    device.predict([0.1, 0.2, 0.3])
    assert device.call("select_profile", 1) == OK
    assert device.observe(1.0) == OK
    assert (device.person(0).person.uses, device.person(1).person.uses) == (1, 0)


# Learning mode


def test_learning_mode_learns_after_each_use_and_ends(library: ctypes.CDLL) -> None:
    device = Device(library, every=10, folds=0)
    assert device.call("learning_mode", 4) == OK
    ran, left = [], []
    for x, y in life(1, 16):
        ran.append(device.use(x, y).ran)
        left.append(device.report().teaching)
    assert ran == [1, 1, 1, 1, *[0] * 9, 1, 0, 0]
    assert left == [3, 2, 1, *[0] * 13]
    assert device.call("learning_mode", 100) == OK and device.call("learning_mode", 0) == OK
    assert [device.use(x, y).ran for x, y in life(2, 7)] == [0] * 7


# Forgetting


def alike(one: Device, other: Device) -> bool:
    """All that was learnt and kept, and what the counters say of it; not how often they were used."""
    found = []
    for device in (one, other):
        person = Person.from_buffer_copy(device.person())
        person.person.uses = person.person.confidence = person.person.seen = person.person.returned = 0
        found.append(bytes(person))
    return found[0] == found[1]


@pytest.mark.parametrize("task", [REGRESSION, MULTICLASS])
@pytest.mark.parametrize("how", ["last", "days", "undo"])
def test_what_is_forgotten_was_never_learnt(library: ctypes.CDLL, task: int, how: str) -> None:
    """After forgetting the last uses, learning again gives what a device has that never saw them."""
    device, never = (Device(library, task, epochs=20, clock=1000, folds=0, changes=1) for _ in range(2))
    earlier, later = life(3, 12), life(4, 5, offset=-3.0)
    for x, y in earlier:
        for one in (device, never):
            one.little.clock += 3600
            one.use(x, 0.0 if task == MULTICLASS else y)
    for one in (device, never):
        one.little.clock += 2 * DAY
    for x, y in later:
        device.little.clock += 3600
        device.use(x, 2.0 if task == MULTICLASS else y)
    assert not alike(device, never)
    if how == "last":
        assert device.call("forget_last", 5) == never.call("forget_last", 0) == OK
    elif how == "days":
        assert device.call("forget_since", DAY) == never.call("forget_since", DAY) == OK
    else:  # the last update learnt three of them and two from before; the other device has not learnt those two
        assert device.call("forget") == never.call("forget_last", 2) == OK
    assert device.metrics.forgets == 1
    if how == "undo":
        assert device.counted.samples.count == 10
        assert device.counted.fresh == 0 and device.parameters != Device(library, task).parameters
        assert bytes(device.person().samples) == bytes(never.person().samples)
        return
    assert device.parameters == Device(library, task).parameters
    assert (device.counted.samples.count, device.counted.fresh, device.counted.eager) == (12, 12, 1)
    # the order of the samples in an epoch is drawn; as many draws later it is another one
    device.counted.random = never.counted.random
    assert len(device.finish()) == len(never.finish()) == 1
    assert device.parameters != Device(library, task).parameters
    assert alike(device, never)


@pytest.mark.parametrize("how", [{"in_place": 1}, {"in_place": 1, "sequential": 1}, {"sequential": 2}], ids=str)
def test_what_cannot_be_undone_is_learnt_again_from_what_is_left(library: ctypes.CDLL, how: dict[str, int]) -> None:
    """In place there is no copy; of an optimiser's state that parameters are computed from there is one."""
    device, never = (Device(library, restart=0, folds=0, every=5, **how) for _ in range(2))
    for number, (x, y) in enumerate(life(13, 15)):
        device.use(x, y)
        if number < 10:
            assert never.predict(x)[0] == never.observe(y) == OK
    assert device.counted.undo == 5 and device.call("forget") == OK
    assert device.parameters == Device(library).parameters
    assert (device.counted.samples.count, device.counted.fresh, device.counted.eager) == (10, 10, 1)
    device.counted.random = never.counted.random
    assert len(device.finish()) == len(never.finish()) == 1
    assert device.parameters == never.parameters != Device(library).parameters


def test_forgetting_more_than_there_is_forgets_all(library: ctypes.CDLL) -> None:
    for uses in (7, 33):
        device = Device(library, clock=1000, reservoir=4)
        for x, y in life(5, uses):
            device.little.clock += 60
            device.use(x, y)
        if uses == 7:
            assert device.call("forget_last", 0xFFFFFFFF) == OK
        else:
            assert device.call("forget_since", 0xFFFFFFFF) == OK
        assert (device.counted.samples.count, device.counted.samples.kept) == (0, 0)
        assert not any(device.person().samples)  # nothing of it is left in memory
        assert device.parameters == Device(library).parameters
        assert not device.idle().ran
        assert device.call("forget_last", 1) == OK


def test_days_are_forgotten_from_the_reservoir_too(library: ctypes.CDLL) -> None:
    device = Device(library, clock=1000, reservoir=6)
    for number, (x, y) in enumerate(life(6, 60)):
        device.little.clock += DAY if number == 20 else 60
        device.use(x, y)
    assert (device.counted.samples.count, device.counted.samples.kept) == (20, 6)
    assert device.call("forget_since", DAY // 2) == OK
    stamps = np.frombuffer(device.person().samples, np.uint32)[: 26 * 5].reshape(26, 5)[:, -1]
    assert 0 < device.counted.samples.kept < 6 and device.counted.samples.count == 0
    assert set(stamps[stamps > 0]) <= {1000 + 60 * number for number in range(21)}


def test_a_clock_that_starts_again_does_not_make_the_past_the_last_day(library: ctypes.CDLL) -> None:
    device = Device(library, clock=100 * DAY, reservoir=6)
    for x, y in life(16, 30):
        device.use(x, y)
    device.little.clock = 60  # and no use since
    assert device.call("forget_since", DAY) == OK
    assert (device.counted.samples.count, device.counted.samples.kept) == (20, 6)


def test_without_a_clock_days_cannot_be_forgotten(library: ctypes.CDLL) -> None:
    device = Device(library)
    device.use([0.1, 0.2, 0.3], 1.0)
    before = device.memory()
    assert device.call("forget_since", DAY) == INVALID
    assert device.memory() == before


# Getting to know somebody


def test_stages_of_getting_to_know(library: ctypes.CDLL) -> None:
    device = Device(library, every=100)
    assert device.report().stage == STRANGER
    stages = []
    for use in range(40):
        _, value, _ = device.predict([0.1, 0.2, 0.3])
        assert device.observe(value[0] + (1.0 if use in (0, 2, 4, 30, 31, 32, 33) else 0.0)) == OK
        stages.append(device.report().stage)
    right = np.array([use not in (0, 2, 4, 30, 31, 32, 33) for use in range(40)])
    for use, stage in enumerate(stages):
        last = right[max(0, use - 31) : use + 1]
        assert stage == (ACQUAINTED if len(last) >= 10 and 10 * last.sum() >= 8 * len(last) else GETTING_TO_KNOW)
    assert {GETTING_TO_KNOW, ACQUAINTED} == set(stages)
    assert device.call("reset") == OK
    assert device.report().stage == STRANGER


# Absence


def away(device: Device, seconds: int) -> None:
    device.little.clock += seconds
    assert device.predict([0.1, 0.2, 0.3])[0] == OK


def test_what_was_learnt_fades_with_disuse(library: ctypes.CDLL) -> None:
    half_life = 30 * DAY
    device = Device(library, clock=5000, disuse=half_life, epochs=20, folds=0)
    base = np.array(device.parameters)
    for x, y in life(7, 20):
        device.use(x, y)
    for days in (14, 30, 90, 3000):
        learnt = np.array(device.parameters)
        away(device, days * DAY)
        share = 1 - 2.0 ** (-days * DAY / half_life)
        # a product of two roundings and an exponential good to a few units of the last place
        np.testing.assert_allclose(device.parameters, learnt + share * (base - learnt), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(device.parameters, base, atol=1e-6)


def test_what_a_closed_form_head_has_counted_fades_too(library: ctypes.CDLL) -> None:
    @ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_float))
    def begin(optimizer: Any) -> None:
        optimizer[0], optimizer[1], optimizer[2], optimizer[3] = 1.0, 2.0, 3.0, 4.0

    device = Device(library, clock=5000, disuse=30 * DAY, folds=0, restart=0, sequential=1)
    for x, y in life(14, 10):
        device.use(x, y)
    device.little.model.begin = ctypes.cast(begin, ctypes.c_void_p)
    counted = np.array(device.person().optimizer[:4])
    away(device, 60 * DAY)
    np.testing.assert_allclose(device.person().optimizer[:4], 0.25 * counted + 0.75 * np.arange(1, 5), rtol=1e-5)


def test_integers_fade_as_a_whole_with_the_floats_beside_them(library: ctypes.CDLL) -> None:
    device = Device(library, clock=5000, disuse=30 * DAY, folds=0)
    for x, y in life(15, 10):
        device.use(x, y)
    learnt, device.little.model.floats = device.parameters, 2
    away(device, 29 * DAY)
    assert device.parameters == learnt
    away(device, 31 * DAY)
    assert device.parameters == Device(library).parameters


def test_a_use_wakes_what_had_faded(library: ctypes.CDLL) -> None:
    """The samples are still there: the first observation after the absence brings it all back."""
    device, never_away = (Device(library, clock=5000, disuse=DAY, epochs=20, folds=0) for _ in range(2))
    for x, y in life(8, 20):
        device.use(x, y)
        never_away.use(x, y)
    learnt = np.array(device.parameters)
    away(device, 60 * DAY)
    assert not device.idle().ran  # nobody has said that it is the same person
    assert device.observe(1.1) == OK
    assert device.idle().ran
    base = np.array(Device(library).parameters)
    assert np.linalg.norm(device.parameters - learnt) < 0.2 * np.linalg.norm(learnt - base)
    # and from there on as ever
    assert [device.use(x, y).ran for x, y in life(9, 5)] == [0, 0, 0, 0, 1]


def test_short_breaks_and_clocks_set_back_change_nothing(library: ctypes.CDLL) -> None:
    device = Device(library, clock=100 * DAY, disuse=DAY, folds=0)
    for x, y in life(10, 20):
        device.use(x, y)
    before = device.parameters
    for seconds in (1, 3600, 14 * DAY - 1, -50 * DAY, 14 * DAY - 1, -99 * DAY + 4):
        device.little.clock = max(1, device.little.clock + seconds)
        assert device.predict([0.1, 0.2, 0.3])[0] == OK
        assert device.parameters == before
    assert device.counted.returned == 0
    # nothing to fade: nobody was there yet
    nobody = Device(library, clock=1000, disuse=DAY)
    away(nobody, 90 * DAY)
    away(nobody, 90 * DAY)
    assert nobody.counted.returned == 0


def test_while_the_time_is_not_known_absence_waits(library: ctypes.CDLL) -> None:
    device = Device(library, clock=100 * DAY)
    device.use([0.1, 0.2, 0.3], 1.0)
    device.little.clock = 0  # power was off, and the clock is not set yet
    assert device.predict([0.1, 0.2, 0.3])[0] == OK
    assert (device.counted.seen, device.counted.returned) == (100 * DAY, 0)
    away(device, 120 * DAY)
    assert device.counted.returned == 8


def test_a_long_absence_is_remembered_for_eight_uses(library: ctypes.CDLL) -> None:
    device = Device(library, clock=1000)
    device.use([0.1, 0.2, 0.3], 1.0)
    away(device, 14 * DAY - 1)
    assert device.counted.returned == 0
    away(device, 14 * DAY)
    counted = []
    for x, y in life(11, 10):
        counted.append(device.counted.returned)
        device.use(x, y)
    assert counted == [8, 7, 6, 5, 4, 3, 2, 1, 0, 0]


def test_each_person_is_away_alone(library: ctypes.CDLL) -> None:
    """While one uses it daily, the other's habits fade."""
    device = Device(library, clock=1000, disuse=10 * DAY, folds=0)
    for profile in (0, 1):
        assert device.call("select_profile", profile) == OK
        for x, y in life(12, 10):
            device.use(x, y)
    kept = [list(device.person(who).parameters) for who in (0, 1)]
    for _ in range(20):
        away(device, DAY - 60)
    assert list(device.person(1).parameters) == kept[1]
    assert list(device.person(0).parameters) == kept[0]  # it fades when it is used again
    assert device.call("select_profile", 0) == OK
    away(device, 1)
    assert list(device.person(0).parameters) != kept[0]
