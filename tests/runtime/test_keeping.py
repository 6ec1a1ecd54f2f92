"""What keeps a device from getting worse: judgement, elastic weights, a reservoir, recency. Against float64."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .little_device import BINARY, F32, MULTICLASS, REGRESSION, Device, Little, life

BASE = np.array([0.5, -0.25, 0.125, 0.25])
RATE, MOMENTUM = 0.05, 0.5  # of the little device

# Judgement


def preferred(device: Device, values: list[float]) -> None:
    device.person().parameters[: len(values)] = values


def faults(parameters: Any, samples: list[tuple[list[float], float]]) -> float:
    """The judge's measure of a value, e^2 / (e^2 + tolerance^2)."""
    errors = np.array([np.dot(parameters[:3], x) + parameters[3] - y for x, y in samples])
    return float(np.sum(errors**2 / (errors**2 + 0.25**2)))


def test_an_update_worse_than_what_is_in_use_is_dropped(library: ctypes.CDLL) -> None:
    """The device already knows its person to the bit; a candidate of little training beats the base, not that."""
    dropped = 0
    for seed in range(10):
        device = Device(library, epochs=6, every=10)
        samples = life(seed, 10, noise=0.0)
        ideal = [1.0, -0.25, 0.125, 1.25]
        preferred(device, ideal)
        for x, y in samples:
            update = device.use(x, y)
        assert update.ran == 1
        assert update.loss_after < update.loss_before  # it is better than the base
        assert not update.accepted and device.parameters == ideal
        dropped += 1
    assert dropped == 10


@pytest.mark.parametrize("task", [BINARY, MULTICLASS])
def test_classes_too_must_be_no_worse_than_what_is_in_use(library: ctypes.CDLL, task: int) -> None:
    verdicts = []
    for seed in range(10):
        device = Device(library, task, epochs=1, every=20)
        generator = np.random.default_rng(seed)
        ideal = [-9.0, 0, 0, 0, 9.0, 0, 0, 0] if task == BINARY else [-9.0, 0, 0, 0, -9.0, 0, 0, 0, -9.0, 0, 0, 0]
        preferred(device, ideal)
        for x in generator.uniform(-1, 1, (20, 3)).tolist():
            y = [float(x[0] < 0), float(x[1] > 0)] if task == BINARY else [float(np.argmin(x))]
            update = device.use(x, *y)
        assert update.ran
        verdicts.append(update.accepted)
        assert update.accepted or device.parameters == ideal
    assert verdicts == [0] * 10


def test_as_good_as_what_is_in_use_is_taken(library: ctypes.CDLL) -> None:
    """No worse is enough, and equal sums are equal to the bit: without training the candidate is what is in use."""
    for seed in range(20):
        device = Device(library, epochs=0, restart=0, every=10)
        preferred(device, [1.0, -0.25, 0.125, 1.25])
        for x, y in life(seed, 10, noise=0.3):
            update = device.use(x, y)
        assert (update.ran, update.accepted) == (1, 1)


def test_what_is_worse_than_the_base_is_never_in_use(library: ctypes.CDLL) -> None:
    """Whatever people do, also nonsense: after an update, what is in use answers the samples as well as the base."""
    verdicts = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        device = Device(library, epochs=0, restart=0, every=5)  # the candidate is what is in use
        samples: list[tuple[list[float], float]] = []
        for number, (x, y) in enumerate(life(seed, 40, noise=0.5)):
            if number % 5 == 4:
                preferred(device, (np.array(device.parameters) + 0.3 * generator.standard_normal(4)).tolist())
            samples.append((x, y + 5.0 * (generator.uniform() < 0.1)))
            update = device.use(*samples[-1])
            if update.ran:
                verdicts.append(update.accepted)
                # sums of 20 shares, each of some ten roundings
                assert faults(device.parameters, samples[-20:]) <= faults(BASE, samples[-20:]) + 1e-4
                assert update.accepted or device.parameters == BASE.tolist()
    assert 20 < sum(verdicts) < len(verdicts) - 20


def test_caution_asks_for_more_than_luck_would_give(library: ctypes.CDLL) -> None:
    """An update must beat the base by so many roots of the base's faults."""
    verdicts = []
    for seed in range(60):
        for caution in (0.0, 0.5, 2.0):
            device = Device(library, epochs=0, restart=0, every=20, caution=caution)
            samples = life(seed, 20, noise=0.3)
            chosen = (BASE + np.random.default_rng(seed).uniform() * np.array([0.5, 0.0, 0.0, 1.0])).tolist()
            preferred(device, chosen)
            for x, y in samples:
                update = device.use(x, y)
            before, after = faults(BASE, samples), faults(chosen, samples)
            if abs(after + caution * np.sqrt(before) - before) > 1e-3:
                assert update.accepted == (after + caution * np.sqrt(before) <= before)
                verdicts.append((caution, update.accepted))
    assert {(0.5, 0), (0.5, 1), (2.0, 0), (2.0, 1), (0.0, 1)} <= set(verdicts)


def test_only_samples_that_neither_has_learnt_decide_between_them(library: ctypes.CDLL) -> None:
    """What is in use has learnt the older ones by heart; that is no merit when somebody else is there."""
    device = Device(library, epochs=40, every=10)
    for x, y in life(1, 10):
        device.use(x, y)
    assert (device.metrics.accepted, device.counted.since) == (1, 0)
    old = device.parameters
    update = [device.use(x, y) for x, y in life(2, 10, offset=-2.0)][-1]
    assert (update.ran, update.accepted) == (1, 1)
    assert faults(device.parameters, life(1, 10)) > faults(old, life(1, 10))
    assert faults(device.parameters, life(2, 10, offset=-2.0)) < faults(old, life(2, 10, offset=-2.0))


# Elastic weights


def proximal(q: np.ndarray, to: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """argmin over p of |p - q|^2 / 2 + strength (p - to)^2 / 2."""
    return (q + strength * to) / (1 + strength)


def step(p: np.ndarray, v: np.ndarray, x: np.ndarray, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Momentum on the squared error."""
    gradient = 2 * (p @ x - y) * x
    v = MOMENTUM * v + gradient
    return p - RATE * v, v


def test_elastic_weights_are_the_proximal_step_of_their_penalty(library: ctypes.CDLL) -> None:
    strength = np.array([0.0, 0.5, 3.0, 1e9])
    device = Device(library, every=1, epochs=7, folds=0)
    device.little.pulls[:4] = (strength / (1 + strength)).tolist()
    device.little.model.pulls = ctypes.addressof(device.little) + Little.pulls.offset
    x, y = np.array([0.5, -1.0, 0.75, 1.0]), 2.0
    device.use(x[:3].tolist(), y)
    p, v = BASE, np.zeros(4)
    for _ in range(7):
        p, v = step(p, v, x, y)
        p = proximal(p, BASE, strength)
    # 7 steps of some ten roundings each
    np.testing.assert_allclose(device.parameters, p, rtol=0, atol=100 * 2.0**-24)
    assert abs(device.parameters[0] - BASE[0]) > 0.1 and device.parameters[3] == pytest.approx(BASE[3], abs=1e-6)


def test_elastic_weights_of_what_was_learnt_here(library: ctypes.CDLL) -> None:
    """Each sample learnt once: importance is the running mean of squared gradients, and holds what is in use."""
    memory = 0.5
    device = Device(library, every=1, folds=0, restart=0, sequential=1, remembers=1, memory=memory)
    p, v, importance = BASE, np.zeros(4), np.zeros(4)
    free = Device(library, every=1, folds=0, restart=0, sequential=1)
    for context, y in life(3, 40):
        x = np.array([*context, 1.0])
        present = p
        p, v = step(p, v, x, y)
        p = proximal(p, present, memory * importance)
        gradient = 2 * (p @ x - y) * x
        importance = importance + (gradient**2 - importance) / 32
        device.use(context, y)
        free.use(context, y)
        # a gradient is read off a step of 0.05: 20 roundings of parameters near 1, squared
        np.testing.assert_allclose(list(device.person().importance)[:4], importance, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(device.parameters, p, rtol=0, atol=2e-4)
    assert np.linalg.norm(np.array(device.parameters) - free.parameters) > 1e-3


def test_what_is_held_on_to_is_forgotten_with_the_rest(library: ctypes.CDLL) -> None:
    for call in ("forget", "forget_last", "reset"):
        device = Device(library, folds=0, remembers=1, memory=1.0)
        for x, y in life(4, 10):
            device.use(x, y)
        assert any(device.person().importance)
        device.call(call, 3)
        assert not any(device.person().importance)


# Recency, reservoir


def test_older_samples_take_part_in_fewer_passes(library: ctypes.CDLL) -> None:
    epochs = 3000
    for half_life in (1.0, 5.0, 100.0):
        device = Device(library, every=20, epochs=epochs, folds=0, recency=half_life)
        for x, y in life(5, 20):
            update = device.use(x, y)
        share = 2.0 ** (-np.arange(20) / half_life)
        deviation = np.sqrt(epochs * np.sum(share * (1 - share)))
        assert abs(update.steps - epochs * share.sum()) < 5 * deviation + 1


def test_recency_follows_a_habit_that_drifts(library: ctypes.CDLL) -> None:
    errors = []
    for half_life in (0.0, 4.0):
        device, found = Device(library, recency=half_life, epochs=30, folds=0), []
        for number, x in enumerate(np.random.default_rng(6).uniform(-1, 1, (80, 3)).tolist()):
            wish = float(np.dot(BASE[:3], x)) + 0.05 * number
            found.append(abs(device.predict(x)[1][0] - wish))
            device.observe(wish)
            device.idle()
        errors.append(np.mean(found[20:]))
    assert errors[1] < 0.8 * errors[0]


def test_samples_of_the_reservoir_are_learnt_and_judged_too(library: ctypes.CDLL) -> None:
    for folds in (0, 4):
        device = Device(library, reservoir=6, epochs=2, folds=folds, every=10)
        for x, y in life(7, 60):
            update = device.use(x, y)
        assert (device.counted.samples.count, device.counted.samples.kept) == (20, 6)
        assert device.report().samples == 26
        assert update.steps == 2 * 26 * max(1, folds)  # folds - 1 times outside of one, and once in all
    device = Device(library, reservoir=6, recency=1.0, epochs=500, every=10, folds=0)
    for x, y in life(7, 60):
        update = device.use(x, y)
    assert abs(update.steps - 500 * (6 + 2)) < 5 * np.sqrt(500 * 0.67)


def test_a_reservoir_keeps_what_comes_no_more(library: ctypes.CDLL) -> None:
    """Classes come one after the other, each for longer than the ring; those of the reservoir are not unlearnt."""
    corners: list[Callable[[np.random.Generator], list[float]]] = [
        lambda r, c=c: (2.0 * np.eye(3)[c] - 0.7 + 0.2 * r.standard_normal(3)).clip(-2, 2).tolist()  # type: ignore[misc]
        for c in range(3)
    ]
    shares = {}
    for reservoir in (0, 6):
        device = Device(library, MULTICLASS, reservoir=reservoir, epochs=30, folds=0, every=5)
        generator = np.random.default_rng(8)
        names = [2.0, 0.0, 1.0]  # not what the base says
        for label in range(3):
            for _ in range(30):
                device.use(corners[label](generator), names[label])
        right = [
            device.predict(corners[label](generator))[2].best == names[label] for label in range(3) for _ in range(40)
        ]
        shares[reservoir] = np.mean(right)
    assert shares[6] > 0.9 and shares[6] > shares[0] + 0.2
    assert sum(device.person().seen) == 90 - 20


def test_a_change_of_habits_is_found_and_learnt_at_once(library: ctypes.CDLL) -> None:
    uses = {}
    for changes in (0, 1):
        device = Device(library, MULTICLASS, changes=changes, every=5, epochs=20)
        generator, right = np.random.default_rng(9), []
        for use in range(80):
            corner = int(generator.integers(3))
            x = (2.0 * np.eye(3)[corner] - 0.7 + 0.1 * generator.standard_normal(3)).clip(-2, 2).tolist()
            label = float((corner + (1 if use < 40 else 2)) % 3)
            right.append(device.predict(x)[2].best == label)
            device.observe(label)
            device.idle()
        uses[changes] = 40 - sum(right[40:])
        assert (device.metrics.changes > 0) == bool(changes)
        assert np.mean(right[25:40]) > 0.8
    assert uses[1] < uses[0]


def test_what_a_change_removed_is_not_made_up_for_when_undoing(library: ctypes.CDLL) -> None:
    """`undo` counts, of the samples that are left, those since the last update but one that was taken."""
    fewer = 0
    for seed in range(6):
        device = Device(library, MULTICLASS, changes=1, every=5, epochs=20, clock=1000)
        generator, earlier, last = np.random.default_rng(seed), 0, 0
        for use in range(80):
            corner = int(generator.integers(3))
            x = (2.0 * np.eye(3)[corner] - 0.7 + 0.1 * generator.standard_normal(3)).clip(-2, 2).tolist()
            device.little.clock += 1
            assert device.predict(x)[0] == device.observe(float((corner + use // 25) % 3)) == 0
            stamps = np.frombuffer(device.person().samples, np.uint32)[:100].reshape(20, 5)[:, -1]
            left = int((stamps > earlier).sum())
            assert (device.counted.undo, device.counted.since) == (left, int((stamps > last).sum()))
            fewer += left < min(device.little.clock - max(earlier, 1000), 20)
            if device.idle().accepted:
                earlier, last = last, device.little.clock
    assert fewer > 10


def test_a_step_follows_no_policy(library: ctypes.CDLL) -> None:
    """The plain step is the optimiser's alone: no pull, no judgement, whatever is set."""
    device = Device(library, pull=0.5, remembers=1, memory=5.0, recency=2.0)
    p, v = BASE, np.zeros(4)
    for context, y in life(10, 5):
        x, loss = np.array([*context, 1.0]), F32()
        before = (p @ x - y) ** 2
        assert device.call("step", (F32 * 3)(*context), (F32 * 1)(y), ctypes.byref(loss)) == 0
        assert loss.value == pytest.approx(before, rel=1e-4, abs=1e-5)
        p, v = step(p, v, x, y)
    np.testing.assert_allclose(device.parameters, p, atol=1e-5)
    assert device.task == REGRESSION


def test_in_order_learning_goes_on_for_longer_than_samples_are_kept(library: ctypes.CDLL) -> None:
    """A dropped update's samples are learnt with the next: it does not stop with the few that are kept."""
    distances = []
    for uses in (20, 200):
        found, accepted = [], 0
        for seed in range(8):
            device = Device(library, sequential=1, restart=0)
            for x, y in life(seed, uses, noise=0.3):
                device.use(x, y)
            found.append(np.linalg.norm(np.array(device.parameters) - [1.0, -0.25, 0.125, 1.25]))
            accepted += device.metrics.accepted
        assert accepted > 8 * uses // 5 // 4
        distances.append(np.mean(found))
    assert distances[1] < 0.8 * distances[0]
