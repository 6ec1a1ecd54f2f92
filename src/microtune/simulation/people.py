"""The people of the simulator: how somebody's wishes behave over time, whatever the device is.

Two ideas meet here and know nothing of each other:

* A `World` is one kind of device and its surroundings. It draws contexts (the inputs of the model) and
  households (a `Preference`: contexts in, preferred outputs out).
* A `Person` is a way to behave: always the same, noisy, changing habit after the fortieth use, and so on.
  `PEOPLE` is the one table of them.

`live(person, world, seed)` joins the two into a `Life`: a stream of `Use` and the truth to test against.
The same seed gives the same life, and use number 7 is the same however many uses are asked for.

A new person is one entry more in a table:

    grumpy = Person("grumpy", "wants a little more every weekend", habit=my_function, noise=0.5)

where `my_function(world, rng)` draws what it needs and returns a `Habit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from microtune.errors import MicrotuneError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Preference = Callable[[Array], Array]
"""What a household wants: contexts (n, inputs) -> preferred outputs (n,), in the units the model predicts."""

CHANGE_AT = 40
"""The use at which habits change: with it begins the new habit, the local change, or the absence."""


@dataclass(frozen=True)
class World:
    """One kind of device and its surroundings; all outputs in the units the model predicts.

    sample_context(rng) -> (inputs,)        one everyday context
    make_preference(rng) -> Preference      one household
    accepts(predicted, preferred) -> mask   is a suggestion good enough to be left alone?
    tolerance                               about half the width of what is accepted: the unit of noise and change
    limits                                  lowest and highest output that a person can set
    weekend(contexts), evening(contexts)    masks (n,): who is at the device, for those who share it
    same_kind(contexts, anchor)             mask (n,): contexts a person would call "the same thing" as the anchor
    """

    name: str
    inputs: tuple[str, ...]
    sample_context: Callable[[np.random.Generator], Array]
    make_preference: Callable[[np.random.Generator], Preference]
    accepts: Callable[[Array, Array], Mask]
    tolerance: float
    limits: tuple[float, float]
    weekend: Callable[[Array], Mask]
    evening: Callable[[Array], Mask]
    same_kind: Callable[[Array, Array], Mask]

    def sample_contexts(self, rng: np.random.Generator, count: int) -> Array:
        """Everyday contexts, (count, inputs)."""
        return np.stack([self.sample_context(rng) for _ in range(count)])

    def clip(self, outputs: Array) -> Array:
        """What a person can set at most and at least."""
        return np.clip(outputs, *self.limits)


@dataclass(frozen=True)
class Use:
    """One use of the device. `sets` is what the person did; `prefers` is what they truly wanted then."""

    number: int
    day: float
    context: Array
    sets: float
    prefers: float


@dataclass(frozen=True)
class Habit:
    """What somebody truly wants, and where they go, at each use (numbered from 0).

    wants(contexts, use) -> preferred outputs (n,)
    visits(contexts, use) -> mask (n,) of the contexts that occur; None: all of them, always. While some
    do not occur, they are the ones that exams ask about: what was learnt there must not be lost.
    """

    wants: Callable[[Array, int], Array]
    visits: Callable[[Array, int], Mask] | None = None


@dataclass(frozen=True)
class Person:
    """A way to behave over time.

    habit(world, rng) draws the household(s) and says what is wanted when.
    noise is the spread (standard deviation) of what is set around what is wanted, in tolerances.
    wild is the share of uses at which anything at all is set.
    absence: days without a use just before use CHANGE_AT.
    """

    name: str
    description: str
    habit: Callable[[World, np.random.Generator], Habit]
    noise: float = 0.0
    wild: float = 0.0
    absence: float = 0.0


# The habits.


def same_always(world: World, rng: np.random.Generator) -> Habit:
    """One household that never changes its mind."""
    household = world.make_preference(rng)
    return Habit(lambda contexts, use: household(contexts))


def drift(world: World, rng: np.random.Generator, per_use: float = 0.05) -> Habit:
    """Wishes that move by `per_use` tolerances at every use, for ever, towards the farther limit."""
    household = world.make_preference(rng)
    step = per_use * world.tolerance * _roomier_side(world, household(world.sample_contexts(rng, 200)))
    return Habit(lambda contexts, use: world.clip(household(contexts) + step * use))


def change_of_habit(world: World, rng: np.random.Generator, shift: float = 3.0) -> Habit:
    """From CHANGE_AT on another household's tastes, on average `shift` tolerances away from the old ones."""
    before, other = world.make_preference(rng), world.make_preference(rng)
    everyday = world.sample_contexts(rng, 200)
    usual = before(everyday)
    move = float(np.mean(usual - other(everyday))) + shift * world.tolerance * _roomier_side(world, usual)
    return Habit(
        lambda contexts, use: before(contexts) if use < CHANGE_AT else world.clip(other(contexts) + move)
    )


def two_households(
    is_second: Callable[[World, Array], Mask],
) -> Callable[[World, np.random.Generator], Habit]:
    """Two unrelated households at one device; `is_second(world, contexts)` tells whose turn it is."""

    def habit(world: World, rng: np.random.Generator) -> Habit:
        first, second = world.make_preference(rng), world.make_preference(rng)
        return Habit(
            lambda contexts, use: np.where(is_second(world, contexts), second(contexts), first(contexts))
        )

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
        return Habit(
            lambda contexts, use: world.clip(household(contexts) + own * is_second(world, contexts))
        )

    return habit


def local_change(world: World, rng: np.random.Generator, shift: float = 3.0) -> Habit:
    """From CHANGE_AT on only one kind of context occurs, and is wanted `shift` tolerances differently."""
    household = world.make_preference(rng)
    anchor = world.sample_context(rng)
    step = shift * world.tolerance * _roomier_side(world, household(anchor[None]))

    def wants(contexts: Array, use: int) -> Array:
        preferred = household(contexts)
        changed = world.same_kind(contexts, anchor) & (use >= CHANGE_AT)
        return np.where(changed, world.clip(preferred + step), preferred)

    def visits(contexts: Array, use: int) -> Mask:
        return world.same_kind(contexts, anchor) | (use < CHANGE_AT)

    return Habit(wants, visits)


def _roomier_side(world: World, outputs: Array) -> float:
    """+1 if there is more room above these outputs than below, else -1."""
    return 1.0 if float(np.mean(outputs)) < sum(world.limits) / 2 else -1.0


PEOPLE: Mapping[str, Person] = MappingProxyType(
    {
        person.name: person
        for person in (
            Person("consistent", "always wants the same", same_always),
            Person("noisy", "sets it carelessly, with a spread of one tolerance", same_always, noise=1.0),
            Person("drifting", "wants a little more (or less) at every use", drift),
            Person("abrupt", f"changes every habit at use {CHANGE_AT}", change_of_habit),
            Person(
                "weekday_weekend",
                "one household on weekdays, another at weekends",
                two_households(lambda world, contexts: world.weekend(contexts)),
            ),
            Person(
                "two_people",
                "one person by day; in the evening another, who likes it all lighter or darker",
                two_offsets(lambda world, contexts: world.evening(contexts)),
            ),
            Person(
                "narrow", f"from use {CHANGE_AT} on, one kind of context only, wanted otherwise", local_change
            ),
            Person(
                "absence",
                f"away for half a year before use {CHANGE_AT}, then as before",
                same_always,
                absence=183.0,
            ),
            Person(
                "prankster",
                "always wants the same, but one use in ten is a wild value",
                same_always,
                wild=0.1,
            ),
        )
    }
)
"""Everybody, by name."""


@dataclass(frozen=True)
class Life:
    """One person in one household of one world: what they do, and the truth to test against."""

    person: Person
    world: World
    seed: int
    habit: Habit = field(repr=False)

    def stream(self) -> Iterator[Use]:
        """The uses, one after the other, without end."""
        rng = np.random.default_rng((self.seed, 1))
        day = 0.0
        for number in count():
            day += rng.exponential(0.5) + (self.person.absence if number == CHANGE_AT else 0.0)
            context = self._next_context(rng, number)
            prefers = float(self.habit.wants(context[None], number)[0])
            carelessness, luck, wild = rng.normal(), rng.random(), rng.uniform(*self.world.limits)
            sets = prefers + self.person.noise * self.world.tolerance * carelessness
            if luck < self.person.wild:
                sets = wild
            yield Use(number, day, context, float(np.clip(sets, *self.world.limits)), prefers)

    def uses(self, total: int) -> list[Use]:
        """The first `total` uses."""
        return list(islice(self.stream(), total))

    def exam(self, after: int, questions: int = 200) -> tuple[Array, Array]:
        """Everyday contexts (questions, inputs) and what is wanted there at the next use after `after` uses.

        The contexts are not those of the stream, and the same after any number of uses, unless some no
        longer occur: then the exam asks about those alone.
        """
        rng = np.random.default_rng((self.seed, 2))
        contexts = self.world.sample_contexts(rng, questions)
        if self.habit.visits is not None and not self.habit.visits(contexts, after).all():
            contexts = contexts[:0]
            while len(contexts) < questions:
                more = self.world.sample_contexts(rng, questions)
                contexts = np.concatenate([contexts, more[~self.habit.visits(more, after)]])
            contexts = contexts[:questions]
        return contexts, self.habit.wants(contexts, after)

    def accepted(self, predict: Callable[[Array], Array], after: int, questions: int = 200) -> float:
        """The share of exam contexts at which the person would leave the suggestion `predict(contexts)` alone."""
        contexts, preferred = self.exam(after, questions)
        return float(np.mean(self.world.accepts(predict(contexts), preferred)))

    def _next_context(self, rng: np.random.Generator, number: int) -> Array:
        while True:
            context = self.world.sample_context(rng)
            if self.habit.visits is None or self.habit.visits(context[None], number)[0]:
                return context


def live(person: str | Person, world: World, seed: int) -> Life:
    """The life number `seed` of a person (a name in `PEOPLE`, or one of your own) in a world.

    The first household depends on the seed alone, so all persons of one seed begin with the same tastes.
    """
    if isinstance(person, str):
        if person not in PEOPLE:
            raise MicrotuneError(f"no person '{person}' in the simulator. There are: {', '.join(PEOPLE)}")
        person = PEOPLE[person]
    return Life(person, world, seed, person.habit(world, np.random.default_rng((seed, 0))))
