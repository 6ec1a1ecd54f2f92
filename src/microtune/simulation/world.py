"""Worlds: kinds of device and their surroundings, with the households that live there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Numbers = int | NDArray[np.int_]
"""The number of a use, from 0: one for all contexts, or an array with one for each."""
Preference = Callable[[Array], Array]
"""What a household wants: contexts (n, inputs) -> wishes (n,), in the units the model predicts."""


@dataclass(frozen=True)
class World:
    """One kind of device and its surroundings; all wishes in the units the model predicts.

    sample_context(rng) -> (inputs,)        one everyday context
    make_preference(rng) -> Preference      one household
    accepts(predicted, preferred) -> mask   is a suggestion good enough to be left alone? True of what is preferred
                                            itself, and then on both sides up to some distance
    tolerance                               about half the width of what is accepted: the unit of noise and change
    limits                                  lowest and highest wish that a person can have
    weekend(contexts), evening(contexts)    masks (n,): who is at the device, for those who share it
    same_kind(contexts, anchor)             mask (n,): contexts a person would call "the same thing" as the anchor
    contexts_at(rng, days) -> (n, inputs)   everyday contexts at these times, in days since a Monday, 0:00; None:
                                            ``sample_context`` for each, whatever the time. Worth having: a year of
                                            uses is drawn at once then, and weekends come every seventh day
    label(wishes) -> labels (n,)            for a classifier: what the person does who wishes this, a class index, or
                                            0 and 1 for a yes/no question. So the one table of people, who
                                            drift and are careless in wishes, serves every kind of device. None:
                                            what is done is the wish itself
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
    contexts_at: Callable[[np.random.Generator, Array], Array] | None = None
    label: Callable[[Array], Array] | None = None

    def sample_contexts(self, rng: np.random.Generator, count: int) -> Array:
        """Everyday contexts, (count, inputs)."""
        return np.stack([self.sample_context(rng) for _ in range(count)])

    def contexts_on(self, rng: np.random.Generator, days: Array) -> Array:
        """Everyday contexts (n, inputs) at these times (n,), in days since a Monday, 0:00."""
        if self.contexts_at is not None:
            return self.contexts_at(rng, days)
        return self.sample_contexts(rng, len(days)) if len(days) else np.empty((0, len(self.inputs)))

    def clip(self, wishes: Array) -> Array:
        """What a person can want at most and at least."""
        return np.clip(wishes, *self.limits)

    def labels(self, wishes: Array) -> Array:
        """What is done by those who wish this: the wish itself, or its label."""
        return wishes if self.label is None else np.asarray(self.label(wishes), dtype=float)

    def accepted_range(self, preferred: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest float32 (n,) that is accepted where this (n,) is preferred, by bisection."""
        ends = []
        for side in (-1.0, 1.0):
            # labels may be one wide, whatever the limits of the wishes behind them
            outside = preferred + side * (self.limits[1] - self.limits[0] + 1.0)
            inside = np.array(preferred, dtype=float)
            for _ in range(40):
                middle = 0.5 * (inside + outside)
                good = self.accepts(middle, preferred)
                inside, outside = np.where(good, middle, inside), np.where(good, outside, middle)
            end = inside.astype(np.float32)
            beyond = side * (end.astype(float) - inside) > 0.0  # rounded outwards
            ends.append(np.where(beyond, np.nextafter(end, np.float32(-side * np.inf)), end).astype(np.float32))
        return ends[0], ends[1]


def exactly(predicted: Array, preferred: Array) -> Mask:
    """Accepts nothing but what is preferred: for classifiers and yes/no questions."""
    return np.asarray(predicted == preferred)


def on_weekend(days: Array) -> Mask:
    """Saturday or Sunday, (n,), of times in days since a Monday, 0:00."""
    return np.asarray(np.floor(days) % 7 >= 5)
