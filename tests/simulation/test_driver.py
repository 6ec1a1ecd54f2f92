"""D1: what the C driver does to a device is bit for bit what a Python loop over `Device` does, as `Person` says it.

The loop here is written from the documentation of `Person.feedback`, and asks the world itself whether a suggestion is
accepted; the driver compares float32 with the ends of a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier
from tests.simulation.conftest import INPUTS, population
from tests.simulation.lamp import LEVELS

import microtune as mt
from microtune.errors import DeviceError, MicrotuneError
from microtune.simulation import Driver, Uses, World, live
from microtune.simulation.driver import FELL_BACK, LEFT_ALONE, OBSERVED, PREDICTED, TAKEN, UPDATED
from microtune.simulation.people import FEEDBACKS, PEOPLE, Feedback

Packages = Mapping[str, tuple[mt.Package, World]]
KINDS = ("bayes", "value", "classes", "yes_no", "int8", "unsure")


def answer_of(package: mt.Package, value: np.ndarray) -> float:
    task = package.manifest["task"]
    if task == "MT_MULTICLASS":
        return float(np.argmax(value))
    return float(value[0] >= 0.5) if task == "MT_BINARY" else float(value[0])


@dataclass
class Clock:
    """Seconds since the device was first switched on, and one, so that it never shows 0."""

    day: float = 0.0

    def __call__(self) -> float:
        return 1.0 + 86400.0 * self.day


def loop(
    device: mt.Device, clock: Clock, uses: Uses, world: World, feedback: Feedback
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same life by `Device`, use by use."""
    task = device.package.manifest["task"]
    answers, confidences, events = np.zeros(len(uses), np.float32), np.zeros(len(uses), np.float32), []
    for i in range(len(uses)):
        clock.day = float(uses.day[i])
        try:
            found = device.predict(uses.context[i].astype(np.float32))
        except DeviceError:
            events.append(0)
            continue
        answer = answers[i] = answer_of(device.package, found.value)
        confidences[i] = found.confidence
        happened = PREDICTED | (FELL_BACK if found.fallback else 0)
        asked = found.fallback and feedback != "yes_no"
        good = bool(world.accepts(np.array([answer]), uses.prefers[i : i + 1])[0]) and not uses.wild[i]
        left = feedback != "sets" and good and not asked
        if feedback == "yes_no" and not left:
            label = 1.0 - answer if task == "MT_BINARY" else None
        else:
            label = answer if left else uses.sets[i]
        happened |= LEFT_ALONE if left else 0
        if label is not None:
            try:
                device.observe([label])
                happened |= OBSERVED
            except DeviceError as error:
                assert error.status == "MT_TARGET_INVALID"
        more = True
        while more:
            update, more = device.idle(), device.busy
            if update is not None:
                happened |= UPDATED | (TAKEN if update.accepted else 0)
        events.append(happened)
    return answers, confidences, np.array(events, np.uint8)


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_driver_and_the_device_agree_to_the_bit(packages: Packages, kind: str, feedback: Feedback) -> None:
    package, world = packages[kind]
    met = 0
    for seed, person in enumerate(("noisy", "prankster", "abrupt", "dying_sensor")):
        driver, clock = Driver(package), Clock()
        device = mt.Device(package, clock=clock)
        # in two stretches: the device goes on where it was
        for uses in live(person, world, seed).years(420.0, 0.4):
            record = driver.live(uses, world, feedback)
            answers, confidences, events = loop(device, clock, uses, world, feedback)
            np.testing.assert_array_equal(record.answers.view(np.uint32), answers.view(np.uint32))
            np.testing.assert_array_equal(record.confidences.view(np.uint32), confidences.view(np.uint32))
            np.testing.assert_array_equal(record.events, events)
            for bit in (FELL_BACK, LEFT_ALONE, UPDATED, TAKEN):
                met |= bit if record.count(bit) else 0
        assert driver.state() == device.state() and driver.metrics() == device.metrics()
    assert met & UPDATED and (met & TAKEN or feedback == "yes_no")  # yeses alone may teach nothing new
    assert bool(met & LEFT_ALONE) == (feedback != "sets")
    assert bool(met & FELL_BACK) == (kind == "unsure")


def test_refused_inputs_and_labels_are_not_learnt(packages: Packages) -> None:
    package, world = packages["value"]
    uses = next(live("consistent", world, 3).years(30.0))
    context, sets = uses.context.copy(), uses.sets.copy()
    context[3], context[5, 0], sets[8] = np.nan, 1.5, np.inf
    uses = replace(uses, context=context, sets=sets)
    driver, clock = Driver(package), Clock()
    device = mt.Device(package, clock=clock)
    record = driver.live(uses, world, "sets")
    answers, _, events = loop(device, clock, uses, world, "sets")
    np.testing.assert_array_equal(record.answers, answers)
    np.testing.assert_array_equal(record.events, events)
    assert driver.state() == device.state()
    assert record.events[3] == 0 == record.events[5] and record.events[8] & (PREDICTED | OBSERVED) == PREDICTED
    assert not record.accepted(world, uses.prefers)[[3, 5]].any()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_change_of_habits_is_noticed_in_a_whole_device(tmp_path: Path) -> None:
    """docs/change.md, by generated code: a change is counted, learnt from at once, and costs fewer suggestions."""
    base = MLPClassifier(hidden_layer_sizes=(8,), max_iter=60, random_state=0).fit(*population(LEVELS))
    accepted, changes = {}, {}
    for watches in (False, True):
        learner = mt.Learner(buffer=64, every=2, epochs=4, folds=4, changes=watches)
        plan = mt.plan(mt.load(base), mt.Full(), "cross_entropy", mt.SGD(0.05), learner, inputs=INPUTS)
        package = mt.build(plan, tmp_path / f"lamp_{watches}")
        for person in ("abrupt", "consistent"):
            shares, found = [], 0
            for seed in range(8):
                driver = Driver(package)
                uses = next(live(person, LEVELS, seed).years(27.0))
                record = driver.live(uses, LEVELS, "sets")
                shares.append(record.accepted(LEVELS, uses.prefers)[45:].mean())
                found += driver.metrics().changes
            accepted[person, watches], changes[person, watches] = float(np.mean(shares)), found
    assert changes["abrupt", False] == 0 and changes["abrupt", True] >= 4 and changes["consistent", True] <= 2
    assert accepted["abrupt", True] > accepted["abrupt", False] + 0.05
    assert accepted["consistent", True] > accepted["consistent", False] - 0.02


def test_watching_changes_nothing(packages: Packages) -> None:
    for package, world in packages.values():
        driver, device = Driver(package), mt.Device(package)
        contexts = world.contexts_on(np.random.default_rng(0), np.arange(50.0))
        record = driver.watch(contexts)
        values = [answer_of(package, device.predict(each.astype(np.float32)).value) for each in contexts]
        np.testing.assert_array_equal(record.answers, np.float32(values))
        assert (record.events | FELL_BACK == PREDICTED | FELL_BACK).all() and driver.metrics().observations == 0


def test_a_no_teaches_the_opposite_only_where_there_is_one(packages: Packages) -> None:
    for kind, learns in (("yes_no", True), ("classes", False), ("bayes", False)):
        package, world = packages[kind]
        uses = next(live(PEOPLE["terse"], world, 5).years(100.0))
        record = Driver(package).live(uses, world, "yes_no")
        told_no = (record.events & LEFT_ALONE) == 0
        assert told_no.any() and (((record.events & OBSERVED) != 0) == (learns | ~told_no)).all()


def test_contexts_of_another_size_are_named(packages: Packages) -> None:
    with pytest.raises(DeviceError, match=r"contexts have the shape \(4, 2\); 'value' takes 3 inputs"):
        Driver(packages["value"][0]).watch(np.zeros((4, 2)))


def test_several_targets_at_once_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    from sklearn.linear_model import LinearRegression

    base = LinearRegression().fit([[0.0], [1.0]], [[1.0, 2.0], [3.0, 4.0]])
    package = mt.build(mt.plan(mt.load(base)), tmp_path_factory.mktemp("two") / "two")
    with pytest.raises(MicrotuneError, match=r"set one value, one class or one yes/no; 'two' takes 2 targets"):
        Driver(package)
