"""However idle was sliced, and whatever came in between, what is learnt is the same to the bit."""

import ctypes
from typing import Any

import numpy as np
import pytest

from .little_device import BINARY, F32, MULTICLASS, OK, REGRESSION, Device, Person, Saved

KINDS: dict[str, dict[str, Any]] = {
    "from the base": {},
    "from what is in use": {"restart": 0},
    "unjudged": {"folds": 0},
    "in place": {"folds": 0, "restart": 0, "in_place": 1},
    "sequential": {"restart": 0, "sequential": 1},
    "sequential from the base": {"sequential": 1},
    "reservoir, recency, elastic weights": {
        "reservoir": 6, "recency": 6.0, "remembers": 1, "memory": 2.0, "changes": 1, "contexts": 2,
    },
}  # fmt: skip


def uses(task: int, count: int, seed: int = 0) -> list[tuple[list[float], list[float]]]:
    """Contexts and what somebody with simple habits does; half way they are others."""
    generator = np.random.default_rng(seed)
    found = []
    for number, x in enumerate(generator.uniform(-1, 1, (count, 3)).tolist()):
        shifted = x[0] + (0.7 if number >= count // 2 else -0.7)
        if task == REGRESSION:
            y = [shifted + 0.05 * float(generator.standard_normal())]
        elif task == BINARY:
            y = [float(shifted > 0), float(x[1] > x[2])]
        else:
            y = [float(np.argmax([shifted, x[1], x[2]]))]
        found.append((x, y))
    return found


def learnt(device: Device) -> bytes:
    """All that is saved but what counts predictions."""
    saved = Saved.from_buffer_copy(device.little.ram.saved)
    saved.state.metrics.predictions = saved.state.metrics.fallbacks = saved.state.last = 0
    for person in saved.people:
        person.person.confidence = 0
    return bytes(saved)


def one_use(device: Device, x: list[float], y: list[float]) -> None:
    assert device.predict(x)[0] == OK
    assert device.observe(*y) == OK


def begun(device: Device) -> bool:
    return bool(device.little.ram.work.begun)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [REGRESSION, BINARY, MULTICLASS])
def test_results_do_not_depend_on_slices(library: ctypes.CDLL, task: int, kind: str) -> None:
    people = uses(task, 45)
    devices = {
        "at once": Device(library, task, **KINDS[kind]),
        **{f"{slices} slices": Device(library, task, **KINDS[kind], slice=slices) for slices in (1, 2, 7)},
        "when allowed": Device(library, task, **KINDS[kind], mood=5),
        "both": Device(library, task, **KINDS[kind], mood=77, slice=3),
    }
    updates = {}
    for name, device in devices.items():
        updates[name], calls = [], 0
        for x, y in people:
            one_use(device, x, y)
            more = True
            while more:
                update = device.idle()
                more, calls = update.more, calls + 1
                assert not (update.ran and begun(device))
                if update.ran:
                    updates[name].append((update.accepted, update.loss_before, update.loss_after, update.steps))
                elif more and name != "both":
                    assert device.predict([x[2], x[0], x[1]])[0] == OK  # the person goes on using it
        assert calls > 45 or name == "at once"
    assert len(updates["at once"]) == 9 or "contexts" in KINDS[kind]
    assert any(accepted for accepted, *_ in updates["at once"])
    for name, device in devices.items():
        assert updates[name] == updates["at once"], name
        assert learnt(device) == learnt(devices["at once"]), name


def test_a_slice_is_a_step_or_a_sample(library: ctypes.CDLL) -> None:
    """What one slice costs is bounded: never more than one optimiser step."""
    device = Device(library, slice=1, epochs=3)
    for x, y in uses(REGRESSION, 5):
        one_use(device, x, y)
    steps = []
    while not (update := device.idle()).ran:
        assert update.more == 1
        steps.append(device.little.ram.work.steps)
    assert set(np.diff([0, *steps])) <= {0, 1}
    assert steps[-1] <= update.steps <= steps[-1] + 1
    # 5 folds of 4 samples, one left out, then all: 3 epochs each
    assert update.steps == 5 * 4 * 3 + 5 * 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "in place"])
def test_an_observation_in_mid_update_is_as_if_it_had_not_begun(library: ctypes.CDLL, kind: str) -> None:
    people = uses(REGRESSION, 16, seed=3)
    interrupted = 0
    for slices in (1, 3, 10, 40, 100, 300):
        device, twin = (Device(library, **{**KINDS[kind], "contexts": 1}, slice=slices) for _ in range(2))
        for one in (device, twin):
            for x, y in people[:14]:
                one_use(one, x, y)
                one.finish()
            one_use(one, *people[14])
        device.idle()
        if not begun(device):
            continue
        interrupted += 1
        for one in (device, twin):
            one_use(one, *people[15])
            assert one.counted.fresh == 6
            one.finish()
        assert learnt(device) == learnt(twin)
    assert interrupted >= 3


@pytest.mark.parametrize("call", ["forget", "forget_last", "reset", "step", "init"])
def test_other_calls_in_mid_update_are_as_if_it_had_not_begun(library: ctypes.CDLL, call: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "forget_last": (2,),
        "step": ((F32 * 3)(0.1, 0.2, 0.3), (F32 * 1)(0.5), ctypes.byref(F32())),
    }
    for slices in (1, 20, 120):
        device, twin = Device(library, slice=slices), Device(library, slice=slices)
        for one in (device, twin):
            for x, y in uses(REGRESSION, 9, seed=4):
                one_use(one, x, y)
                one.finish()
            one_use(one, [0.3, 0.1, -0.4], [0.8])
            assert one.call("save") == OK
            if one is device:
                one.idle()
                assert begun(one)
            assert one.call(call, *arguments.get(call, ())) == OK
            assert not begun(one)
        assert learnt(device) == learnt(twin)
        device.finish()
        twin.finish()
        assert learnt(device) == learnt(twin)


def test_another_person_does_not_disturb_an_update(library: ctypes.CDLL) -> None:
    """One is learnt of while the other uses the device; each as if alone."""
    both = Device(library, slice=100)
    alone = [Device(library), Device(library)]
    people = [uses(REGRESSION, 40, seed=5), uses(REGRESSION, 40, seed=6)]
    for use in range(0, 40, 5):
        for profile in (0, 1):
            for device in (both, alone[profile]):
                assert device.call("select_profile", profile) == OK
            for x, y in people[profile][use : use + 5]:
                one_use(both, x, y)
                both.idle()  # of the other one, and of this one at the last
                one_use(alone[profile], x, y)
                alone[profile].finish()
    both.finish()
    for profile in (0, 1):
        assert bytes(both.person(profile)) == bytes(alone[profile].person(profile))
        assert bytes(alone[profile].person(1 - profile)) == bytes(Device(library).person(1 - profile))
    assert sum(one.metrics.accepted for one in alone) == both.metrics.accepted > 2


@pytest.mark.parametrize("separate", ["select_profile", "contexts"])
def test_what_is_kept_apart_is_independent(library: ctypes.CDLL, separate: str) -> None:
    """People, and contexts, in any order: of each is kept what would be of it alone, bit for bit."""
    chosen = {"contexts": 2 if separate == "contexts" else 1, "reservoir": 6, "changes": 1}
    generator = np.random.default_rng(1)
    for task in (REGRESSION, MULTICLASS):
        shared = Device(library, task, **chosen)
        alone = [Device(library, task, **chosen) for _ in range(2)]
        for number, (x, y) in enumerate(uses(task, 120, seed=7)):
            who = int(x[0] < 0) if separate == "contexts" else int(generator.integers(2))
            for device in (shared, alone[who]):
                if separate == "select_profile":
                    assert device.call("select_profile", who) == OK
                one_use(device, x, y)
                device.finish()
                if number in (50, 90):
                    assert device.call("forget_last" if number == 50 else "forget", 3) == OK
                    device.finish()
        for who in (0, 1):
            assert shared.person(who).person.uses > 40
            assert bytes(shared.person(who)) == bytes(alone[who].person(who))
        untouched = Person.from_buffer_copy(shared.person(2))
        assert untouched.person.uses == 0
