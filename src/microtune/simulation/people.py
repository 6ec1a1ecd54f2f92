"""The people of the simulator: how somebody's wishes behave over time, whatever the device is.

Two ideas meet here and know nothing of each other:

* A `World` is one kind of device and its surroundings. It draws contexts (the inputs of the model) and
  households (a `Preference`: contexts in, wishes out).
* A `Person` is a way to behave: always the same, noisy, changing habit after the fortieth use, and so on.
  `PEOPLE` is the one table of them.

`live(person, world, seed)` of `life.py` joins the two. A new person is one entry more in a table:

    grumpy = Person("grumpy", "wants a little more every weekend", habit=my_function, noise=0.5)

where `my_function(world, rng)` draws what it needs and returns a `Habit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from microtune.errors import MicrotuneError
from microtune.simulation.habits import (
    CHANGE_AT,
    Habit,
    change_of_habit,
    drift,
    dying_sensor,
    guests,
    local_change,
    same_always,
    two_households,
    two_offsets,
)
from microtune.simulation.world import Array, Mask, Preference, World

__all__ = ["CHANGE_AT", "FEEDBACKS", "PEOPLE", "Array", "Feedback", "Habit", "Mask", "Person", "Preference", "World"]

Feedback = Literal["sets", "accepts", "yes_no"]
FEEDBACKS: tuple[Feedback, ...] = get_args(Feedback)
HOLIDAY_EVERY = 180.0
"""Days at home between two holidays."""


@dataclass(frozen=True)
class Person:
    """A way to behave over time.

    habit(world, rng) draws the household(s) and says what is wanted when.
    noise is the spread (standard deviation) of what is set around what is wanted, in tolerances.
    wild is the share of uses at which anything at all is set.
    absence: days without a use just before use CHANGE_AT.
    holiday: days without a use after every HOLIDAY_EVERY days at home.
    feedback, what the device learns of a use:
        sets     what the person sets, every time;
        accepts  a suggestion that is good enough is left alone, and so is its own label; another one is overridden
                 by what the person sets. A wild value is set whatever was suggested;
        yes_no   only whether the suggestion was good enough. To a no the device learns the opposite where the
                 question is yes or no, and nothing elsewhere.
    When the device is too unsure to suggest (its fallback), the person is asked, and sets, except with yes_no.
    """

    name: str
    description: str
    habit: Callable[[World, np.random.Generator], Habit]
    noise: float = 0.0
    wild: float = 0.0
    absence: float = 0.0
    holiday: float = 0.0
    feedback: Feedback = "sets"

    def __post_init__(self) -> None:
        if self.feedback not in FEEDBACKS:
            raise MicrotuneError(
                f"Person('{self.name}'): no feedback '{self.feedback}'. There are: {', '.join(FEEDBACKS)}"
            )
        if not (self.noise >= 0 and 0 <= self.wild <= 1 and self.absence >= 0 and self.holiday >= 0):
            raise MicrotuneError(f"Person('{self.name}'): noise and days must not be negative, wild must be 0 to 1")


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
            Person("narrow", f"from use {CHANGE_AT} on, one kind of context only, wanted otherwise", local_change),
            Person(
                "absence",
                f"away for half a year before use {CHANGE_AT}, then as before",
                same_always,
                absence=183.0,
            ),
            Person(
                "prankster",
                "always wants the same, but one use in ten is a wild value, as if children pressed buttons",
                same_always,
                wild=0.1,
            ),
            Person(
                "holidays",
                "always wants the same, and is away for two weeks every half year",
                same_always,
                holiday=14.0,
            ),
            Person("guests", "always wants the same; one use in ten is by guests, six in a row", guests),
            Person(
                "successor",
                f"away for 90 days before use {CHANGE_AT}; who comes back is somebody else",
                change_of_habit,
                absence=90.0,
            ),
            Person(
                "dying_sensor",
                f"always wants the same; from use {CHANGE_AT} on a sensor drifts, and is stuck 100 uses later",
                dying_sensor,
            ),
            Person(
                "easygoing",
                "always wants the same, and leaves alone whatever is good enough",
                same_always,
                feedback="accepts",
            ),
            Person("terse", "always wants the same, and says no more than yes or no", same_always, feedback="yes_no"),
        )
    }
)
"""Everybody, by name."""
