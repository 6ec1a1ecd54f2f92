"""A world as small as can be: a context is (amount, weekend, hour), a household wants a straight line of the amount."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from microtune.simulation import Preference, World, exactly, on_weekend

TOLERANCE = 0.25
LIMITS = (-8.0, 8.0)


def sample_context(rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.uniform(-1, 1), float(rng.random() < 0.3), rng.uniform(0, 24)])


def make_preference(rng: np.random.Generator) -> Preference:
    level, slope = rng.normal(0, 1), rng.normal(0, 0.3)
    return lambda contexts: np.asarray(level + slope * contexts[:, 0])


WORLD = World(
    name="lamp",
    inputs=("amount", "weekend", "hour"),
    sample_context=sample_context,
    make_preference=make_preference,
    accepts=lambda predicted, preferred: np.abs(predicted - preferred) <= 2 * TOLERANCE,
    tolerance=TOLERANCE,
    limits=LIMITS,
    weekend=lambda contexts: contexts[:, 1] > 0.5,
    evening=lambda contexts: contexts[:, 2] > 17.0,
    same_kind=lambda contexts, anchor: np.abs(contexts[:, 0] - anchor[0]) < 0.2,
)


def contexts_at(rng: np.random.Generator, days: np.ndarray) -> np.ndarray:
    return np.stack([rng.uniform(-1, 1, len(days)), on_weekend(days).astype(float), days % 1.0 * 24.0], axis=1)


CALENDAR = replace(WORLD, name="calendar", contexts_at=contexts_at)
LEVELS = replace(
    CALENDAR, name="levels", accepts=exactly, label=lambda wishes: np.clip(np.rint(wishes + 1.0), 0, 2), limits=(-2, 2)
)
"""The same lamp with three buttons."""
SWITCH = replace(CALENDAR, name="switch", accepts=exactly, label=lambda wishes: wishes > 0.0, limits=(-2, 2))
"""The same lamp with one question: light, or not?"""
