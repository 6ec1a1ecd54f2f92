"""D1: a life told a year at a time follows its calendar, and is the same life whoever asks for how much of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulation.lamp import CALENDAR, LEVELS, LIMITS, SWITCH, TOLERANCE, WORLD

from microtune.simulation import CHANGE_AT, PEOPLE, Life, Person, Uses, World, live

SEEDS = st.integers(0, 2**32 - 1)
NAMES = st.sampled_from(sorted(PEOPLE))


def all_uses(life: Life, days: float, uses_per_day: float = 3.0) -> Uses:
    years = list(life.years(days, uses_per_day))
    names = [each.name for each in dataclasses.fields(Uses)]
    joined = {name: np.concatenate([getattr(year, name) for year in years]) for name in names}
    return Uses(**joined)


@settings(max_examples=30, deadline=None)
@given(NAMES, SEEDS, st.floats(1, 800), st.floats(0, 400))
def test_a_longer_life_begins_like_a_shorter_one(person: str, seed: int, days: float, more: float) -> None:
    life = live(person, CALENDAR, seed)
    short, long = all_uses(life, days, 1.0), all_uses(life, days + more, 1.0)
    for each in dataclasses.fields(Uses):
        np.testing.assert_array_equal(getattr(short, each.name), getattr(long, each.name)[: len(short)])
    assert (long.day[len(short) :] >= days).all()


@settings(max_examples=30, deadline=None)
@given(NAMES, SEEDS)
def test_every_use_makes_sense(person: str, seed: int) -> None:
    life = live(person, CALENDAR, seed)
    uses = all_uses(life, 500.0)
    np.testing.assert_array_equal(uses.number, np.arange(len(uses)))
    assert (np.diff(uses.day) > 0).all() and uses.day[0] >= 0 and uses.day[-1] < 500.0
    assert (np.abs(uses.sets) <= LIMITS[1]).all()
    for number in (0, CHANGE_AT - 1, CHANGE_AT, len(uses) - 1):  # all at once is the same as one by one
        one = uses.surroundings[number : number + 1]
        assert uses.prefers[number] == life.habit.wants(one, number)[0]
        np.testing.assert_array_equal(uses.context[number], life.sensed(one, number)[0])
    careless = life.person.noise > 0 or life.person.wild > 0
    assert careless or (uses.sets == np.clip(uses.prefers, *LIMITS)).all()


def test_days_weekends_and_hours_are_those_of_the_calendar() -> None:
    uses = all_uses(live("consistent", CALENDAR, 1), 700.0)
    np.testing.assert_array_equal(uses.context[:, 1], uses.day // 1 % 7 >= 5)
    np.testing.assert_allclose(uses.context[:, 2], uses.day % 1 * 24.0)
    # 2100 uses of a Poisson process: a standard deviation is 46
    assert abs(len(uses) - 2100) < 5 * 46
    gaps = np.diff(uses.day)
    assert abs(gaps.std() / gaps.mean() - 1.0) < 5 * 0.03  # exponential: as wide as it is long


def test_carelessness_and_pranks_are_as_described() -> None:
    uses = all_uses(live("noisy", CALENDAR, 3), 1400.0)
    errors = (uses.sets - uses.prefers) / TOLERANCE
    assert abs(errors.mean()) < 5 / len(uses) ** 0.5 and abs(errors.std() - 1.0) < 5 / (2 * len(uses)) ** 0.5
    uses = all_uses(live("prankster", CALENDAR, 3), 1400.0)
    np.testing.assert_array_equal(uses.wild, uses.sets != uses.prefers)
    assert abs(uses.wild.mean() - 0.1) < 5 * (0.09 / len(uses)) ** 0.5
    assert np.ptp(uses.sets[uses.wild]) > 0.9 * (LIMITS[1] - LIMITS[0])  # 400 of them, anywhere


def test_uses_of_a_stream_are_the_same_as_arrays() -> None:
    stream = live("consistent", CALENDAR, 4).uses(7)
    uses = Uses.of(stream)
    assert len(uses) == 7 and not uses.wild.any()
    assert [float(day) for day in uses.day] == [use.day for use in stream]
    np.testing.assert_array_equal(uses.context, [use.context for use in stream])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_absences_and_holidays_are_empty(seed: int) -> None:
    uses = all_uses(live("absence", CALENDAR, seed), 400.0)
    assert uses.day[CHANGE_AT] - uses.day[CHANGE_AT - 1] > 183.0
    uses = all_uses(live("holidays", CALENDAR, seed), 400.0)
    for begin in (180.0, 374.0):  # 180 days at home, 14 away, 180 at home, 14 away
        assert not ((uses.day >= begin) & (uses.day < begin + 14.0)).any()
        assert ((uses.day >= begin - 5.0) & (uses.day < begin)).any()


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_narrow_stays_with_one_kind(seed: int) -> None:
    uses = all_uses(live("narrow", CALENDAR, seed), 200.0)
    assert np.ptp(uses.context[:CHANGE_AT, 0]) > 0.4 >= np.ptp(uses.context[CHANGE_AT:, 0])


@settings(max_examples=20, deadline=None)
@given(NAMES, SEEDS)
def test_labels_are_what_wishes_mean(person: str, seed: int) -> None:
    for world, labels in ((LEVELS, {0.0, 1.0, 2.0}), (SWITCH, {0.0, 1.0})):
        life = live(person, world, seed)
        uses = all_uses(life, 60.0)
        wishes = life.habit.wants(uses.surroundings, uses.number)
        np.testing.assert_array_equal(uses.prefers, world.labels(wishes))
        assert set(uses.sets) | set(uses.prefers) <= labels
        assert {use.sets for use in life.uses(20)} <= labels
        assert life.accepted(lambda contexts, life=life: life.exam(5)[1], 5) == 1.0


def test_a_world_without_a_calendar_works_too() -> None:
    uses = all_uses(live("weekday_weekend", WORLD, 2), 60.0)
    assert 100 < len(uses) < 260 and uses.context.shape == (len(uses), 3)


def test_the_accepted_range_is_exact() -> None:
    """Within the ends, and no more than half a unit in the last place inside of them."""
    preferred = np.random.default_rng(0).uniform(-8, 8, 500)
    for world in (WORLD, LEVELS):
        low, high = world.accepted_range(preferred if world is WORLD else np.rint(preferred))
        wanted = preferred if world is WORLD else np.rint(preferred)
        assert world.accepts(low.astype(float), wanted).all() and world.accepts(high.astype(float), wanted).all()
        for end, side in ((low, -np.inf), (high, np.inf)):
            beyond = np.nextafter(end, np.float32(side)).astype(float)
            assert not world.accepts(beyond + np.sign(side) * 1e-9, wanted).any()


def test_a_context_that_never_comes_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    from microtune.errors import MicrotuneError
    from microtune.simulation import Habit, life

    def nowhere(world: World, rng: np.random.Generator) -> Habit:
        return Habit(lambda contexts, use: contexts[:, 0], visits=lambda contexts, use: contexts[:, 0] > 2.0)

    monkeypatch.setattr(life, "_ROUNDS", 50)
    with pytest.raises(MicrotuneError, match="'hermit' finds no context to visit"):
        all_uses(live(Person("hermit", "", nowhere), CALENDAR, 0), 10.0)
