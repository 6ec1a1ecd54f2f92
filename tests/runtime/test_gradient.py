"""The update as a transaction: what is learnt, judged on samples left out, taken or rolled back."""

import ctypes

import numpy as np
import pytest

from .little_device import (
    BINARY,
    F32,
    MULTICLASS,
    OK,
    Device,
    life,
)


@pytest.mark.parametrize("restart", [0, 1])
@pytest.mark.parametrize("sequential", [0, 1])
def test_learns_a_person(library: ctypes.CDLL, restart: int, sequential: int) -> None:
    device = Device(library, restart=restart, sequential=sequential, epochs=30)
    updates = [device.use(x, y) for x, y in life(1, 60)]
    ran = [update for update in updates if update.ran]
    assert len(ran) == 12
    assert device.metrics.accepted == sum(update.accepted for update in ran) >= 1
    assert device.metrics.accepted + device.metrics.rolled_back == 12
    assert all(update.loss_after < update.loss_before for update in ran[2:])
    errors = [abs(device.predict(x)[1][0] - y) for x, y in life(2, 100, noise=0.0)]
    assert np.mean(np.array(errors) < 0.25) > 0.9
    assert device.report().learnt > 0.6


@pytest.mark.parametrize("task", [BINARY, MULTICLASS])
def test_learns_classes(library: ctypes.CDLL, task: int) -> None:
    device = Device(library, task, epochs=30)
    generator = np.random.default_rng(9)
    right = []
    for _ in range(100):
        x = list(generator.uniform(-1, 1, 3))
        label = int(np.argmax([x[0], x[1], x[2]]))
        target = [float(label)] if task == MULTICLASS else [float(x[0] > 0), float(x[1] > x[2])]
        _, value, prediction = device.predict(x)
        right.append(prediction.best == label if task == MULTICLASS else [p > 0.5 for p in value] == target)
        assert device.observe(*target) == OK
        device.idle()
    assert np.mean(right[50:]) > 0.85
    assert device.metrics.overrides == right.count(False)
    assert device.metrics.mean_error == pytest.approx(right.count(False) / 100, abs=1e-5)


def test_update_waits_for_enough_new_samples(library: ctypes.CDLL) -> None:
    device = Device(library, every=7)
    ran = [device.use(x, y).ran for x, y in life(3, 21)]
    assert [number for number, it in enumerate(ran, 1) if it] == [7, 14, 21]
    assert not device.idle().ran


def test_update_that_does_not_help_on_samples_left_out_is_rolled_back(library: ctypes.CDLL) -> None:
    """A person at the base model who sets at random: nothing to learn, so what is learnt does harm."""
    verdicts = []
    for seed in range(10):
        device = Device(library, epochs=50)
        before = device.parameters
        for x, y in life(seed, 20, offset=0.0, noise=1.0):
            update = device.use(x, y)
            if update.ran and not update.accepted and device.metrics.accepted == 0:
                assert device.parameters == before
            verdicts += [update.accepted] if update.ran else []
        assert device.metrics.accepted + device.metrics.rolled_back == 4
    assert np.mean(verdicts) < 0.5


def test_diverged_candidate_is_never_taken(library: ctypes.CDLL) -> None:
    for folds in (0, 4):
        device = Device(library, folds=folds, every=1, epochs=1)
        low = device.little.model.low = None
        device.little.model.high = low
        before = device.parameters
        assert device.predict([1e18, 1e18, 1e18])[0] == OK
        assert device.observe(-1e30) == OK
        update = device.idle()
        assert (update.ran, update.accepted) == (1, 0)
        assert device.parameters == before
        assert device.metrics.rolled_back == 1


def test_base_is_taken_back_when_it_beats_what_was_learnt(library: ctypes.CDLL) -> None:
    device = Device(library, restart=0, epochs=0)  # no epochs: the candidate is the parameters in use
    base = device.parameters
    device.person().parameters[3] = 5.0
    for x, y in life(4, 5, offset=0.0):
        update = device.use(x, y)
    assert (update.ran, update.accepted) == (1, 0)
    assert device.parameters == base
    assert list(device.person().previous)[:4] == base


@pytest.mark.parametrize("wild", [50.0, 1e15, -1e38])
def test_one_wild_sample_does_not_decide_an_update(library: ctypes.CDLL, wild: float) -> None:
    """Judged with and without the wild sample in the measure, the verdict on a good candidate stays."""
    device = Device(library, epochs=20, every=20)
    samples = life(5, 20)
    samples[7] = (samples[7][0], wild)
    # Huber-like: keep training itself from following the wild sample by learning nothing from it
    device.little.settings.epochs = 0
    device.little.settings.restart = 0
    for x, y in samples[:19]:
        device.use(x, y)
    device.person().parameters[:4] = (1.0, -0.25, 0.125, 1.25)  # what the person prefers
    update = device.use(*samples[19])
    assert (update.ran, update.accepted) == (1, 1)
    assert device.counted.error <= (10 * 0.25) ** 2


def test_unjudged_update_is_always_taken(library: ctypes.CDLL) -> None:
    device = Device(library, folds=0)
    updates = [device.use(x, y) for x, y in life(6, 20, offset=0.0, noise=1.0)]
    assert [update.accepted for update in updates if update.ran] == [1] * 4
    assert [update.steps for update in updates if update.ran] == [25, 50, 75, 100]


def test_steps_are_those_of_the_folds_and_the_final_training(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=2, folds=4)
    steps = [update.steps for update in (device.use(x, y) for x, y in life(7, 20)) if update.ran]
    # 5 samples are fewer than 2 a fold: one fold per sample; then 4 folds
    assert steps == [2 * n * ((n if n < 8 else 4) - 1) + 2 * n for n in (5, 10, 15, 20)]


def test_every_epoch_learns_every_sample_once(library: ctypes.CDLL) -> None:
    """Steps of one epoch counted exactly for each number of samples: the order is a permutation."""
    for count in range(1, 21):
        device = Device(library, every=count, epochs=3, folds=0)
        for x, y in life(8, count):
            update = device.use(x, y)
        assert update.steps == 3 * count


def test_pull_keeps_parameters_near_the_base(library: ctypes.CDLL) -> None:
    distances = []
    for pull in (0.0, 0.05, 1.0):
        device = Device(library, pull=pull, folds=0, epochs=20)
        base = np.array(device.parameters)
        for x, y in life(9, 20):
            device.use(x, y)
        distances.append(float(np.linalg.norm(np.array(device.parameters) - base)))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-6


def test_sequential_learns_each_sample_once_in_order(library: ctypes.CDLL) -> None:
    device, twin = Device(library, sequential=1, restart=0, folds=0), Device(library)
    for x, y in life(10, 40):
        device.use(x, y)
        loss = F32()
        assert twin.call("step", (F32 * 3)(*x), (F32 * 3)(y), ctypes.byref(loss)) == OK
    assert device.parameters == twin.parameters
