"""D1: the people of the simulator behave as they are described, and a seed fixes a whole life.

The world is the lamp of ``lamp.py``, so what each person must want follows from the description alone.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulation.lamp import LIMITS, TOLERANCE, WORLD

from microtune.errors import MicrotuneError
from microtune.simulation import PEOPLE, Habit, Person, World, live
from microtune.simulation.people import CHANGE_AT

SEEDS = st.integers(0, 2**32 - 1)
NAMES = st.sampled_from(sorted(PEOPLE))
EVERYDAY = WORLD.sample_contexts(np.random.default_rng(0), 300)


def wanted(person: str, seed: int, use: int, contexts: np.ndarray = EVERYDAY) -> np.ndarray:
    return live(person, WORLD, seed).habit.wants(contexts, use)


@given(NAMES, SEEDS, st.integers(0, 60))
def test_a_seed_fixes_the_life(person: str, seed: int, total: int) -> None:
    short, long = live(person, WORLD, seed).uses(total), live(person, WORLD, seed).uses(total + 7)
    for one, other in zip(short, long, strict=False):
        assert (one.number, one.day, one.sets, one.prefers) == (other.number, other.day, other.sets, other.prefers)
        np.testing.assert_array_equal(one.context, other.context)


@given(NAMES, SEEDS)
def test_every_use_makes_sense(person: str, seed: int) -> None:
    life = live(person, WORLD, seed)
    uses = life.uses(CHANGE_AT + 20)
    assert [use.number for use in uses] == list(range(CHANGE_AT + 20))
    assert all(one.day < other.day for one, other in pairwise(uses))
    for use in uses:
        assert LIMITS[0] <= use.sets <= LIMITS[1]
        assert use.prefers == life.habit.wants(use.surroundings[None], use.number)[0]


@given(SEEDS, SEEDS)
def test_lives_of_different_seeds_differ(one: int, other: int) -> None:
    first, second = (live("consistent", WORLD, seed).uses(1)[0].sets for seed in (one, other))
    assert (first == second) == (one == other)


@given(SEEDS)
def test_all_persons_of_a_seed_begin_alike(seed: int) -> None:
    """So that persons can be compared: on a weekday by day everybody wants what the consistent one wants."""
    weekday = EVERYDAY[~WORLD.weekend(EVERYDAY) & ~WORLD.evening(EVERYDAY)]
    for person in PEOPLE:
        expected = np.clip(wanted("consistent", seed, 0, weekday), *LIMITS)
        np.testing.assert_allclose(np.clip(wanted(person, seed, 0, weekday), *LIMITS), expected)


@given(SEEDS, st.sampled_from(["consistent", "absence", "noisy", "prankster"]), st.integers(0, 10_000))
def test_the_constant_ones_never_change_their_mind(seed: int, person: str, use: int) -> None:
    np.testing.assert_array_equal(wanted(person, seed, use), wanted("consistent", seed, 0))


@given(SEEDS)
def test_consistent_sets_what_is_wanted(seed: int) -> None:
    assert all(use.sets == use.prefers for use in live("consistent", WORLD, seed).uses(50))


def test_noisy_is_careless_by_one_tolerance() -> None:
    errors = np.array([use.sets - use.prefers for use in live("noisy", WORLD, 3).uses(4000)]) / TOLERANCE
    # of 4000 draws: the mean spreads by 1/63, the standard deviation by 1/89; five times that
    assert abs(errors.mean()) < 5 / 63 and abs(errors.std() - 1.0) < 5 / 89


@given(SEEDS, st.integers(0, 60))
def test_drifting_moves_by_a_twentieth_of_a_tolerance(seed: int, use: int) -> None:
    before, after = wanted("drifting", seed, use), wanted("drifting", seed, use + 1)
    inside = (np.abs(before) < LIMITS[1]) & (np.abs(after) < LIMITS[1])
    np.testing.assert_allclose(np.abs(after - before)[inside], 0.05 * TOLERANCE, rtol=1e-9)
    assert (np.abs(after) <= LIMITS[1]).all()


@given(SEEDS, st.integers(0, CHANGE_AT - 1), st.integers(CHANGE_AT, 500))
def test_abrupt_changes_once_and_enough_to_be_noticed(seed: int, before: int, after: int) -> None:
    old, new = wanted("abrupt", seed, 0), wanted("abrupt", seed, CHANGE_AT)
    np.testing.assert_array_equal(wanted("abrupt", seed, before), old)
    np.testing.assert_array_equal(wanted("abrupt", seed, after), new)
    # three tolerances on average; the average here is over other contexts than the person's own
    assert 2.0 < abs(np.mean(new - old)) / TOLERANCE < 4.0


@given(SEEDS)
def test_weekend_has_a_household_of_its_own(seed: int) -> None:
    weekend = WORLD.weekend(EVERYDAY)
    difference = wanted("weekday_weekend", seed, 0) - wanted("consistent", seed, 0)
    assert (difference[~weekend] == 0).all() and np.ptp(difference[weekend]) > 0  # a line of its own, no offset


@given(SEEDS)
def test_the_second_person_adds_a_constant_in_the_evening(seed: int) -> None:
    evening = WORLD.evening(EVERYDAY)
    difference = wanted("two_people", seed, 0) - wanted("consistent", seed, 0)
    assert (difference[~evening] == 0).all()
    if (np.abs(wanted("two_people", seed, 0)) < LIMITS[1]).all():
        np.testing.assert_allclose(difference[evening], difference[evening][0])
        assert difference[evening][0] != 0


@given(SEEDS)
def test_narrow_changes_one_kind_and_is_examined_on_the_others(seed: int) -> None:
    life = live("narrow", WORLD, seed)
    uses = life.uses(CHANGE_AT + 15)
    amounts = np.array([use.context[0] for use in uses])
    assert np.ptp(amounts[:CHANGE_AT]) > 0.4 >= np.ptp(amounts[CHANGE_AT:])  # one kind is 0.4 wide
    household = live("consistent", WORLD, seed).habit.wants
    for use in uses:
        step = use.prefers - household(use.context[None], 0)[0]
        expected = 3 * TOLERANCE if use.number >= CHANGE_AT else 0.0
        assert abs(step) == pytest.approx(expected, abs=1e-9)
    contexts, preferred = life.exam(CHANGE_AT)
    assert len(contexts) == 200 and not life.habit.visits(contexts, CHANGE_AT).any()  # type: ignore[misc]
    np.testing.assert_array_equal(preferred, household(contexts, 0))


@given(SEEDS)
def test_absence_is_half_a_year(seed: int) -> None:
    here, away = live("consistent", WORLD, seed).uses(60), live("absence", WORLD, seed).uses(60)
    gaps = np.array([other.day - one.day for one, other in zip(here, away, strict=True)])
    np.testing.assert_allclose(gaps, np.where(np.arange(60) < CHANGE_AT, 0.0, 183.0), atol=1e-9)


def test_prankster_is_wild_one_use_in_ten() -> None:
    uses = live("prankster", WORLD, 5).uses(4000)
    wild = np.mean([use.sets != use.prefers for use in uses])
    assert abs(wild - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 4000)


# who knows what is wanted of what a dying sensor says knows something else
@given(NAMES.filter(lambda person: person != "dying_sensor"), SEEDS, st.integers(0, 100))
def test_who_knows_what_is_wanted_passes_the_exam(person: str, seed: int, after: int) -> None:
    life = live(person, WORLD, seed)
    assert life.accepted(lambda contexts: life.habit.wants(contexts, after), after) == 1.0
    assert life.accepted(lambda contexts: life.habit.wants(contexts, after) + 3 * TOLERANCE, after) == 0.0


@given(SEEDS)
def test_the_exam_asks_for_contexts_that_were_not_practised(seed: int) -> None:
    life = live("consistent", WORLD, seed)
    contexts, _ = life.exam(10)
    np.testing.assert_array_equal(contexts, life.exam(90)[0])
    assert not {tuple(use.context) for use in life.uses(100)} & {tuple(context) for context in contexts}


def test_an_unknown_person_lists_those_there_are() -> None:
    with pytest.raises(MicrotuneError, match=r"no person 'grumpy' in the simulator\. There are: consistent, noisy"):
        live("grumpy", WORLD, 0)


def test_a_new_person_is_one_entry() -> None:
    """As the module's documentation shows it."""

    def more_at_weekends(world: World, rng: np.random.Generator) -> Habit:
        household = world.make_preference(rng)
        return Habit(lambda contexts, use: household(contexts) + world.tolerance * world.weekend(contexts))

    grumpy = Person("grumpy", "wants a little more every weekend", habit=more_at_weekends, noise=0.5)
    life = live(grumpy, WORLD, 1)
    extra = life.habit.wants(EVERYDAY, 0) - wanted("consistent", 1, 0)
    np.testing.assert_allclose(extra, TOLERANCE * WORLD.weekend(EVERYDAY))
    assert len({use.sets - use.prefers for use in life.uses(5)}) == 5
    assert "grumpy" not in PEOPLE


def test_the_table_is_keyed_by_name_and_described() -> None:
    assert all(name == person.name and person.description for name, person in PEOPLE.items())
    with pytest.raises(TypeError):
        PEOPLE["grumpy"] = PEOPLE["noisy"]  # type: ignore[index]


# The people who came later: guests, holidays, successors, ill sensors.


@given(SEEDS, st.integers(0, 2000))
def test_guests_come_for_six_uses_of_sixty(seed: int, use: int) -> None:
    same = (wanted("guests", seed, use) == wanted("consistent", seed, 0)).all()
    assert same == (use % 60 < 54)


@given(SEEDS)
def test_guests_are_others_every_time(seed: int) -> None:
    parties = [wanted("guests", seed, 60 * visit + 57) for visit in range(8)]
    assert len({float(each[0]) for each in parties}) == 8
    np.testing.assert_array_equal(wanted("guests", seed, 60 * 8 + 57), parties[0])


@given(SEEDS)
def test_a_successor_comes_after_ninety_days(seed: int) -> None:
    here, away = live("consistent", WORLD, seed).uses(42), live("successor", WORLD, seed).uses(42)
    gaps = np.array([other.day - one.day for one, other in zip(here, away, strict=True)])
    np.testing.assert_allclose(gaps, np.where(np.arange(42) < CHANGE_AT, 0.0, 90.0), atol=1e-9)
    np.testing.assert_array_equal(wanted("successor", seed, CHANGE_AT), wanted("abrupt", seed, CHANGE_AT))


@given(SEEDS, st.integers(0, 400))
def test_a_dying_sensor_lies_and_the_person_does_not(seed: int, use: int) -> None:
    life = live("dying_sensor", WORLD, seed)
    told = life.sensed(EVERYDAY, use)
    np.testing.assert_array_equal(wanted("dying_sensor", seed, use), wanted("consistent", seed, 0))
    wrong = np.flatnonzero((told != EVERYDAY).any(axis=0))
    if use <= CHANGE_AT:
        assert len(wrong) == 0
    elif use >= CHANGE_AT + 100:
        assert len(wrong) == 1 and np.ptp(told[:, wrong[0]]) == 0.0
        np.testing.assert_array_equal(told[:, wrong[0]], life.sensed(EVERYDAY, use + 1)[:, wrong[0]])
    else:
        assert len(wrong) <= 1  # 0: every lamp is at the weekend's end of its range already


@given(SEEDS)
def test_a_stream_tells_the_device_what_the_sensors_say(seed: int) -> None:
    life = live("dying_sensor", WORLD, seed)
    for use in life.uses(60):
        np.testing.assert_array_equal(use.context, life.sensed(use.surroundings[None], use.number)[0])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_drift_comes_back_and_never_ends(seed: int) -> None:
    """The household's mean stays within the limits, and its way is there and back again."""
    wants = live("drifting", WORLD, seed).habit.wants
    means = np.array([np.mean(wants(EVERYDAY, use)) for use in range(0, 4000, 20)])
    steps = np.sign(np.diff(means))
    assert (steps > 0).any() and (steps < 0).any()
    assert np.abs(means).max() <= LIMITS[1]


@pytest.mark.parametrize("bad", [{"noise": -1.0}, {"wild": 1.5}, {"absence": -2.0}, {"feedback": "shouts"}])
def test_impossible_people_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(MicrotuneError, match=r"Person\('x'\)"):
        Person("x", "", PEOPLE["noisy"].habit, **bad)  # type: ignore[arg-type]


def test_the_page_lists_everybody() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    table = page.partition("## People")[2].partition("## Worlds")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(PEOPLE)
