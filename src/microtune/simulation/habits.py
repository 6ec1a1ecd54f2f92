"""Habits: what somebody truly wants at each use, where they go, and what the device's sensors tell of it.

A habit is a function `(world, rng) -> Habit` that draws what it needs. All that a `Habit` holds takes the number of
a use either as one number or as an array with one for each context, so that a year can be lived at once:
write `np.where(use < 40, ...)`, not `if use < 40`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from microtune.simulation.world import Array, Mask, Numbers, World

CHANGE_AT = 40
"""The use at which habits change: with it begins the new habit, the local change, the absence, the decay."""


@dataclass(frozen=True)
class Habit:
    """What somebody truly wants, and where they go, at each use (numbered from 0).

    wants(contexts, use) -> wishes (n,)
    visits(contexts, use) -> mask (n,) of the contexts that occur; None: all of them, always. While some
    do not occur, they are the ones that exams ask about: what was learnt there must not be lost.
    senses(contexts, use) -> contexts (n, inputs) as the device's sensors report them; None: as they are.
    """

    wants: Callable[[Array, Numbers], Array]
    visits: Callable[[Array, Numbers], Mask] | None = None
    senses: Callable[[Array, Numbers], Array] | None = None


def same_always(world: World, rng: np.random.Generator) -> Habit:
    """One household that never changes its mind."""
    household = world.make_preference(rng)
    return Habit(lambda contexts, use: household(contexts))


def drift(world: World, rng: np.random.Generator, per_use: float = 0.05) -> Habit:
    """Wishes that move by `per_use` tolerances at every use, for ever: towards the farther limit, back, and again."""
    household = world.make_preference(rng)
    usual = household(world.sample_contexts(rng, 200))
    side = _roomier_side(world, usual)
    room = abs((world.limits[1] if side > 0 else world.limits[0]) - float(np.mean(usual)))

    def wants(contexts: Array, use: Numbers) -> Array:
        gone = np.mod(per_use * world.tolerance * np.asarray(use), 2.0 * room)
        return world.clip(household(contexts) + side * np.minimum(gone, 2.0 * room - gone))

    return Habit(wants)


def change_of_habit(world: World, rng: np.random.Generator, shift: float = 3.0) -> Habit:
    """From CHANGE_AT on another household's tastes, on average `shift` tolerances away from the old ones."""
    before, other = world.make_preference(rng), world.make_preference(rng)
    everyday = world.sample_contexts(rng, 200)
    usual = before(everyday)
    move = float(np.mean(usual - other(everyday))) + shift * world.tolerance * _roomier_side(world, usual)
    return Habit(
        lambda contexts, use: np.where(
            np.asarray(use) < CHANGE_AT, before(contexts), world.clip(other(contexts) + move)
        )
    )


def two_households(
    is_second: Callable[[World, Array], Mask],
) -> Callable[[World, np.random.Generator], Habit]:
    """Two unrelated households at one device; `is_second(world, contexts)` tells whose turn it is."""

    def habit(world: World, rng: np.random.Generator) -> Habit:
        first, second = world.make_preference(rng), world.make_preference(rng)
        return Habit(lambda contexts, use: np.where(is_second(world, contexts), second(contexts), first(contexts)))

    return habit


def two_offsets(
    is_second: Callable[[World, Array], Mask],
) -> Callable[[World, np.random.Generator], Habit]:
    """One household, and in it a second person who likes everything a constant amount more or less.

    The amount is the mean difference between two households of the world. `is_second(world, contexts)` tells
    whose turn it is.
    """

    def habit(world: World, rng: np.random.Generator) -> Habit:
        household, other = world.make_preference(rng), world.make_preference(rng)
        everyday = world.sample_contexts(rng, 200)
        own = float(np.mean(other(everyday) - household(everyday)))
        return Habit(lambda contexts, use: world.clip(household(contexts) + own * is_second(world, contexts)))

    return habit


def local_change(world: World, rng: np.random.Generator, shift: float = 3.0) -> Habit:
    """From CHANGE_AT on only one kind of context occurs, and is wanted `shift` tolerances differently."""
    household = world.make_preference(rng)
    anchor = world.sample_context(rng)
    step = shift * world.tolerance * _roomier_side(world, household(anchor[None]))

    def wants(contexts: Array, use: Numbers) -> Array:
        preferred = household(contexts)
        changed = world.same_kind(contexts, anchor) & (np.asarray(use) >= CHANGE_AT)
        return np.where(changed, world.clip(preferred + step), preferred)

    def visits(contexts: Array, use: Numbers) -> Mask:
        return world.same_kind(contexts, anchor) | (np.asarray(use) < CHANGE_AT)

    return Habit(wants, visits)


def guests(world: World, rng: np.random.Generator, every: int = 60, stay: int = 6, parties: int = 8) -> Habit:
    """The last `stay` of `every` uses are by guests: another household each time, of `parties` in turn."""
    household = world.make_preference(rng)
    visitors = [world.make_preference(rng) for _ in range(parties)]

    def wants(contexts: Array, use: Numbers) -> Array:
        number = np.asarray(use)
        party = np.where(number % every >= every - stay, number // every % parties, -1)
        wishes = household(contexts)
        for index in np.unique(party[party >= 0]):
            wishes = np.where(party == index, visitors[index](contexts), wishes)
        return wishes

    return Habit(wants)


def dying_sensor(world: World, rng: np.random.Generator, per_use: float = 0.02, dead_after: int = 100) -> Habit:
    """One household that never changes; from CHANGE_AT on one sensor drifts, and `dead_after` uses later it is stuck.

    It drifts by `per_use` of its everyday spread (standard deviation) at each use, and never leaves its
    everyday range; stuck means at one and the same value, whatever happens.
    """
    household = world.make_preference(rng)
    everyday = world.sample_contexts(rng, 200)
    lowest, highest, spread = everyday.min(axis=0), everyday.max(axis=0), everyday.std(axis=0)
    moving = np.flatnonzero(spread > 0.0)
    which = int(rng.choice(moving if len(moving) else np.arange(everyday.shape[1])))
    stuck = float(rng.uniform(lowest[which], highest[which]))

    def senses(contexts: Array, use: Numbers) -> Array:
        age = np.maximum(np.asarray(use) - CHANGE_AT, 0)
        reported = np.array(contexts, dtype=float)
        moved = np.clip(contexts[:, which] + per_use * spread[which] * age, lowest[which], highest[which])
        # before the decay nothing is changed, not even what lies beyond the everyday range
        reported[:, which] = np.where(age == 0, contexts[:, which], np.where(age < dead_after, moved, stuck))
        return reported

    return Habit(lambda contexts, use: household(contexts), senses=senses)


def _roomier_side(world: World, wishes: Array) -> float:
    """+1 if there is more room above these wishes than below, else -1."""
    return 1.0 if float(np.mean(wishes)) < sum(world.limits) / 2 else -1.0
