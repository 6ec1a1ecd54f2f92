"""Lives: one person in one household of one world, use by use or a year at a time.

`live(person, world, seed)` gives a `Life`. The same seed gives the same life: use number 7 is the same however
many uses are asked for, and the first year is the same however many years.

A life can be told in two ways, each a draw of its own. `stream` goes use by use, two uses a day, and each context is
one of everyday. `years` follows a calendar: as many uses a day as wanted, whole years drawn at once in
numpy, each context that of its time. Habits, households and exams are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from microtune.errors import MicrotuneError
from microtune.simulation.habits import CHANGE_AT, Habit
from microtune.simulation.people import HOLIDAY_EVERY, PEOPLE, Person
from microtune.simulation.world import Array, Mask, World

DAYS_A_YEAR = 365
_ROUNDS = 10_000  # draws of a context that is visited, before it is taken that there is none


@dataclass(frozen=True)
class Use:
    """One use of the device.

    `context` (inputs,) is what the device is told; `surroundings` is how it really was, the same unless a sensor is
    ill. `sets` is what the person did; `prefers` is what they truly wanted then.
    """

    number: int
    day: float
    context: Array
    sets: float
    prefers: float
    surroundings: Array


@dataclass(frozen=True)
class Uses:
    """Uses one after the other, as arrays: the fields of `Use`, (n,) or (n, inputs), and where a value is wild."""

    number: NDArray[np.int_]
    day: Array
    context: Array
    sets: Array
    prefers: Array
    surroundings: Array
    wild: Mask

    def __len__(self) -> int:
        return len(self.number)

    @staticmethod
    def of(uses: Sequence[Use]) -> Uses:
        """Uses of a stream as arrays; which are wild is not told there."""
        columns = [np.array([getattr(use, each.name) for use in uses]) for each in fields(Use)]
        return Uses(*[*columns, np.zeros(len(uses), bool)])

    def before(self, day: float) -> Uses:
        """Those before this day."""
        kept = int(np.searchsorted(self.day, day))
        return Uses(*(getattr(self, each.name)[:kept] for each in fields(self)))


@dataclass(frozen=True)
class Life:
    """One person in one household of one world: what they do, and the truth to test against."""

    person: Person
    world: World
    seed: int
    habit: Habit = field(repr=False)

    def stream(self) -> Iterator[Use]:
        """The uses, one after the other, without end: two a day, at random."""
        rng = np.random.default_rng((self.seed, 1))
        present = 0.0
        for number in count():
            present += rng.exponential(0.5)
            context = self._next_context(rng, number)[None]
            wish = float(self.habit.wants(context, number)[0])
            carelessness, luck, wild = rng.normal(), rng.random(), rng.uniform(*self.world.limits)
            sets = wish + self.person.noise * self.world.tolerance * carelessness
            if luck < self.person.wild:
                sets = wild
            done, preferred = self.world.labels(np.array([np.clip(sets, *self.world.limits), wish]))
            day = float(self.calendar(np.array([present]), np.array([number]))[0])
            told = self.sensed(context, number)[0]
            yield Use(number, day, told, float(done), float(preferred), context[0])

    def uses(self, total: int) -> list[Use]:
        """The first `total` uses of the stream."""
        return list(islice(self.stream(), total))

    def years(self, days: float, uses_per_day: float = 3.0) -> Iterator[Uses]:
        """All uses of so many days from a Monday on, one after the other in stretches of a year at home each.

        Uses come at random, `uses_per_day` on average while the person is at home.
        """
        first = 0
        for year in count():
            rng = np.random.default_rng((self.seed, 3, year))
            uses = self._year(rng, year * DAYS_A_YEAR, first, uses_per_day).before(days)
            yield uses
            first += len(uses)
            if (year + 1) * DAYS_A_YEAR >= days:  # a year at home takes at least a year: the next is later
                return

    def calendar(self, present: Array, number: NDArray[np.int_]) -> Array:
        """Days since the beginning (n,) from days spent at home until then (n,), in uses of these numbers (n,)."""
        away = self.person.absence * (number >= CHANGE_AT)
        return present + away + self.person.holiday * np.floor(present / HOLIDAY_EVERY)

    def sensed(self, contexts: Array, use: int | NDArray[np.int_]) -> Array:
        """What the device is told of contexts (n, inputs)."""
        return contexts if self.habit.senses is None else self.habit.senses(contexts, use)

    def exam(self, after: int, questions: int = 200) -> tuple[Array, Array]:
        """Everyday contexts (questions, inputs) and what is wanted there at the next use after `after` uses.

        The contexts are not those of the stream, and the same after any number of uses, unless some no
        longer occur: then the exam asks about those alone.
        """
        contexts, rng = _everyday(self.world, self.seed, questions)
        if self.habit.visits is not None and not self.habit.visits(contexts, after).all():
            rng = deepcopy(rng)
            contexts = contexts[:0]
            while len(contexts) < questions:
                more = self.world.sample_contexts(rng, questions)
                contexts = np.concatenate([contexts, more[~self.habit.visits(more, after)]])
            contexts = contexts[:questions]
        return contexts, self.world.labels(self.habit.wants(contexts, after))

    def accepted(self, predict: Callable[[Array], Array], after: int, questions: int = 200) -> float:
        """The share of exam contexts at which the person would leave the suggestion `predict(contexts)` alone."""
        contexts, preferred = self.exam(after, questions)
        return float(np.mean(self.world.accepts(predict(self.sensed(contexts, after)), preferred)))

    def _next_context(self, rng: np.random.Generator, number: int) -> Array:
        while True:
            context = self.world.sample_context(rng)
            if self.habit.visits is None or self.habit.visits(context[None], number)[0]:
                return context

    def _year(self, rng: np.random.Generator, begin: int, first: int, uses_per_day: float) -> Uses:
        total = int(rng.poisson(DAYS_A_YEAR * uses_per_day))
        number = first + np.arange(total)
        day = self.calendar(np.sort(rng.uniform(begin, begin + DAYS_A_YEAR, total)), number)
        contexts = self._visited(rng, day, number)
        wishes = self.habit.wants(contexts, number)
        sets = wishes + self.person.noise * self.world.tolerance * rng.normal(size=total)
        wild = rng.random(total) < self.person.wild
        sets = self.world.clip(np.where(wild, rng.uniform(*self.world.limits, total), sets))
        told = self.sensed(contexts, number)
        return Uses(number, day, told, self.world.labels(sets), self.world.labels(wishes), contexts, wild)

    def _visited(self, rng: np.random.Generator, day: Array, number: NDArray[np.int_]) -> Array:
        """Contexts of these days; where one is not visited, that of another day stands in for it."""
        contexts = self.world.contexts_on(rng, day)
        if self.habit.visits is None:
            return contexts
        for _ in range(_ROUNDS):
            missing = np.flatnonzero(~self.habit.visits(contexts, number))
            if len(missing) == 0:
                return contexts
            # many at once, as few of them may be of the kind that occurs
            candidates = self.world.contexts_on(rng, rng.permutation(np.resize(day, len(missing) + 500)))
            latest = int(number[missing[-1]])
            found = candidates[self.habit.visits(candidates, latest)]
            filled = missing[: len(found)]
            contexts[filled] = found[: len(filled)]
        raise MicrotuneError(f"world '{self.world.name}': '{self.person.name}' finds no context to visit")


@lru_cache(maxsize=64)
def _everyday(world: World, seed: int, count: int) -> tuple[Array, np.random.Generator]:
    """The first contexts of the exams of a seed, the same for every person after any number of uses, and the generator
    that drew them. Shared: neither is to be changed.
    """
    rng = np.random.default_rng((seed, 2))
    contexts = world.sample_contexts(rng, count)
    contexts.flags.writeable = False
    return contexts, rng


def live(person: str | Person, world: World, seed: int) -> Life:
    """The life number `seed` of a person (a name in `PEOPLE`, or one of your own) in a world.

    The first household depends on the seed alone, so all persons of one seed begin with the same tastes.
    """
    if isinstance(person, str):
        if person not in PEOPLE:
            raise MicrotuneError(f"no person '{person}' in the simulator. There are: {', '.join(PEOPLE)}")
        person = PEOPLE[person]
    return Life(person, world, seed, person.habit(world, np.random.default_rng((seed, 0))))
