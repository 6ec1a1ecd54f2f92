"""mt_recognition.c: people at different hours are told apart after ten presses; nobody unknown is ever chosen."""

import numpy as np
import pytest
from examples.toaster import world as toaster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from .sensors_probe import LEAST, Probe, Profiles

MEMORY = 64
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ABOUT_ONE = st.floats(-4, 4, width=32)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Array = NDArray[np.float64]


def at_hour(rng: np.random.Generator, hour: float, spread: float, count: int) -> Array:
    """Contexts of the toaster by somebody who comes at about this hour, and is like everybody else in all else."""
    contexts = toaster.WORLD.sample_contexts(rng, count)
    angle = (hour + spread * rng.normal(size=count)) * 2.0 * np.pi / 24.0
    contexts[:, 2], contexts[:, 3] = np.sin(angle), np.cos(angle)
    return contexts


@pytest.mark.parametrize("hours", [(7.0, 18.0), (7.0, 12.0), (7.0, 9.5), (23.5, 6.0), (7.0, 12.5, 19.0)])
def test_people_at_different_hours_are_recognised_after_ten_presses(sensors: Probe, hours: tuple[float, ...]) -> None:
    """At least 95 of 100 uses by each of them, in every one of 20 households, and 98 on average."""
    right = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        known = Profiles(sensors, len(hours), 5)
        for who, hour in enumerate(hours):
            known.learn(who, at_hour(rng, hour, 0.5, 10))
        right += [np.mean(known.choose(at_hour(rng, hour, 0.5, 200)) == who) for who, hour in enumerate(hours)]
    assert np.mean(right) >= 0.98
    assert np.mean(np.array(right) >= 0.95) >= 0.9 and min(right) >= 0.85


def test_two_people_of_the_simulator(sensors: Probe) -> None:
    """One by day, another in the evening, as `two_people` of people.py share the toaster."""
    right = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        contexts = toaster.WORLD.sample_contexts(rng, 400)
        second = toaster.WORLD.evening(contexts)
        known = Profiles(sensors, 2, 5)
        for who in (0, 1):
            known.learn(who, contexts[second == who][:10])
        right.append(np.mean(known.choose(contexts[200:]) == second[200:]))
    assert np.mean(right) >= 0.99 and np.mean(np.array(right) >= 0.95) >= 0.9


@PROPERTY
@given(x=arrays(np.float32, st.tuples(st.integers(1, 90), st.integers(1, 4)), elements=ABOUT_ONE))
def test_learns_the_mean_and_the_variance(sensors: Probe, x: NDArray[np.float32]) -> None:
    known = Profiles(sensors, 1, x.shape[1])
    known.learn(0, x)
    count, mean, variance = known.memory[0, 0], *known.memory[0, 1:].reshape(2, -1)
    assert count == min(len(x), MEMORY)
    # each new one counts 1 / min(uses, MEMORY), the older ones share the rest
    shares = 1.0 / np.minimum(np.arange(1, len(x) + 1), MEMORY)
    weights = (shares * np.append(np.cumprod((1.0 - shares)[::-1])[::-1][1:], 1.0))[:, None]
    exact = np.asarray(x, float)
    truth = np.sum(weights * exact, axis=0)
    np.testing.assert_allclose(mean, truth, atol=1e-5)
    np.testing.assert_allclose(variance, np.sum(weights * (exact - truth) ** 2, axis=0), atol=1e-4)


@PROPERTY
@given(data=st.data(), counts=st.lists(st.integers(0, LEAST + 3), min_size=1, max_size=4))
def test_only_who_is_known_is_chosen_and_only_then_left(sensors: Probe, data: st.DataObject, counts: list[int]) -> None:
    inputs = data.draw(st.integers(1, 3))
    known = Profiles(sensors, len(counts), inputs)
    for who, count in enumerate(counts):
        known.learn(who, data.draw(arrays(np.float32, (count, inputs), elements=ABOUT_ONE)))
    current = data.draw(st.integers(0, len(counts) - 1))
    chosen = known.choose(data.draw(arrays(np.float32, (1, inputs), elements=FINITE)), current)[0]
    assert chosen == current or min(counts[chosen], counts[current]) >= LEAST


@PROPERTY
@given(
    data=st.data(),
    profiles=st.integers(1, 4),
    inputs=st.integers(1, 3),
    current=st.sampled_from([0, 1, 3, 4, 2**32 - 1]),
)
def test_anything_finite_gives_a_valid_profile(
    sensors: Probe, data: st.DataObject, profiles: int, inputs: int, current: int
) -> None:
    known = Profiles(sensors, profiles, inputs)
    # what people did, however wild, leaves finite memory
    for who in range(profiles):
        known.learn(who, data.draw(arrays(np.float32, (5, inputs), elements=FINITE)))
    assert np.isfinite(known.memory).all() and (known.memory[:, 1 + inputs :] >= 0).all()
    x = data.draw(arrays(np.float32, (3, inputs), elements=FINITE))
    assert known.choose(x, current).max() < profiles
    # and bytes that mean nothing do no harm
    known.memory = data.draw(arrays(np.float32, known.memory.shape, elements=st.floats(width=32)))
    assert known.choose(x, current).max() < profiles


def test_stays_where_nothing_tells_one_from_another(sensors: Probe) -> None:
    rng = np.random.default_rng(0)
    known = Profiles(sensors, 3, 2)
    x = rng.normal(size=(50, 2))
    assert set(known.choose(x, 1)) == {1}, "nobody is known"
    for who in (0, 1):
        known.learn(who, np.full((10, 2), 0.5))
    for current in (0, 1, 2):
        assert set(known.choose([[0.5, 0.5], [3.0, -3.0]], current)) == {current}, "two of a kind"


def test_units_do_not_matter_and_one_strange_input_does_not_outvote_the_others(sensors: Probe) -> None:
    rng = np.random.default_rng(1)
    people = [rng.normal(centre, 0.3, (20, 3)) for centre in (-1.0, 1.0)]
    for unit in (1.0, 1e-3, 1e3):
        known = Profiles(sensors, 2, 3)
        for who, contexts in enumerate(people):
            known.learn(who, contexts * unit)
        assert set(known.choose(rng.normal(1.0, 0.3, (100, 3)) * unit)) == {1}
        strange = np.array([[1.0, 1.0, -40.0], [-40.0, 1.0, 1.0]]) * unit
        assert known.choose(strange, 1).tolist() == [1, 1]


def test_follows_a_person_who_moves(sensors: Probe) -> None:
    rng = np.random.default_rng(2)
    known = Profiles(sensors, 2, 1)
    known.learn(0, rng.normal(-1.0, 0.3, (200, 1)))
    known.learn(1, rng.normal(1.0, 0.3, (200, 1)))
    assert known.choose([[3.0]])[0] == 1
    known.learn(0, rng.normal(3.0, 0.3, (200, 1)))
    assert known.choose([[3.0]], 1)[0] == 0


def test_chosen_from_the_third_press_on_and_left_from_the_third_on(sensors: Probe) -> None:
    rng = np.random.default_rng(3)
    known = Profiles(sensors, 2, 2)
    known.learn(0, rng.normal(-1.0, 0.2, (10, 2)))
    for press in range(1, LEAST + 2):
        known.learn(1, rng.normal(1.0, 0.2, (1, 2)))
        assert known.choose([[1.0, 1.0]], 0)[0] == (press >= LEAST)
        assert known.choose([[-1.0, -1.0]], 1)[0] == (press < LEAST)
