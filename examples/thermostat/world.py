"""The thermostat's two worlds: which temperature a household wants, and whether it will be at home.

**Context.** Five inputs, centred and about 1 in size: sine and cosine of the hour's angle on a 24-hour clock,
weekend (-1 or 1), outdoors ((degrees C - 10) / 10, with seasons and nights), motion in the last hour (-1 none to 1
much). Motion is likely in the morning and evening, at weekends all day, and rare at night.

**Temperature** (`WORLD`), in (degrees C - 20) / 2. Most people want 20.5; 3 less from 22:30 to 6:30; 1.5 less by day
when nothing moves; 0.3 more per 10 degrees of frost. A household differs in its level, N(0, 1.2), its night, N(0, 0.8),
its absence, N(0, 0.6), and how early it is, N(0, 1) hours. Accepted within 0.5 degrees.

**Occupancy** (`OCCUPANCY`), a yes/no question: will somebody be at home during the next hour? A household leaves on
weekdays at 8 and returns at 17:30, give or take 1.5 hours each; at weekends it is out from 14 for N(2, 1.5) hours; one
in four works from home. Motion now makes it likelier by one hour of distance. The wish behind the label is hours
from the nearest leaving or coming, above 0 when at home.

These numbers are a choice, made before any device was run on them; no measured household is behind them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from microtune.simulation import Preference, World, exactly, on_weekend
from microtune.simulation.world import Array, Mask

INPUTS = ("hour_sine", "hour_cosine", "weekend", "outdoors", "motion")
CENTRE, UNIT = 20.0, 2.0


def to_degrees(target: Array) -> Array:
    """What the model predicts -> degrees C."""
    return np.asarray(target, dtype=float) * UNIT + CENTRE


def to_target(degrees: Array) -> Array:
    """Degrees C -> what the model predicts."""
    return (np.asarray(degrees, dtype=float) - CENTRE) / UNIT


def hour_of(contexts: Array) -> Array:
    """Hour of the day (n,) of contexts (n, 5)."""
    return np.asarray(np.arctan2(contexts[:, 0], contexts[:, 1]) / (2.0 * math.pi) * 24.0 % 24.0)


def contexts_at(rng: np.random.Generator, days: Array) -> Array:
    """What the sensors say at these times, in days since a Monday in winter: (n, 5)."""
    hour, weekend = days % 1.0 * 24.0, on_weekend(days)
    angle = 2.0 * math.pi * hour / 24.0
    season = 10.0 - 9.0 * np.cos(2.0 * math.pi * days / 365.0)
    outdoors = season - 3.0 * np.cos(angle) + 3.0 * rng.normal(size=len(days))
    awake = (hour > 6.5) & (hour < 22.5)
    busy = awake * np.where(weekend | (hour < 8.5) | (hour > 17.0), 0.75, 0.3)
    motion = np.where(rng.random(len(days)) < busy, rng.uniform(0.2, 1.0, len(days)), 0.0)
    outdoors_input = np.clip((outdoors - 10.0) / 10.0, -3.0, 3.0)
    columns = [np.sin(angle), np.cos(angle), np.where(weekend, 1.0, -1.0), outdoors_input, 2.0 * motion - 1.0]
    return np.stack(columns, axis=1)


def sample_context(rng: np.random.Generator) -> Array:
    """One everyday context (5,)."""
    return contexts_at(rng, rng.uniform(0.0, 365.0, 1))[0]


def make_temperature(rng: np.random.Generator) -> Preference:
    """Which temperature one household wants."""
    level, night, away, early = rng.normal(0.0, (1.2, 0.8, 0.6, 1.0))

    def wants(contexts: Array) -> Array:
        hour = (hour_of(contexts) + early) % 24.0
        asleep = (hour > 22.5) | (hour < 6.5)
        still = ~asleep & (contexts[:, 4] < -0.9)
        frost = np.maximum(0.0, -contexts[:, 3] - 1.0)
        return to_target(20.5 + level - (3.0 + night) * asleep - (1.5 + away) * still + 0.3 * frost)

    return wants


def make_occupancy(rng: np.random.Generator) -> Preference:
    """When one household is at home."""
    leaves, returns = rng.normal((8.0, 17.5), 1.5)
    outing = max(0.0, rng.normal(2.0, 1.5))
    from_home = rng.random() < 0.25

    def at_home(contexts: Array) -> Array:
        hour, weekend = hour_of(contexts), contexts[:, 2] > 0.0
        begin, end = np.where(weekend, 14.0, leaves), np.where(weekend, 14.0 + outing, returns)
        inside = np.minimum(hour - begin, end - hour)
        inside = np.where(from_home & ~weekend, -2.0, inside)
        return np.asarray(np.clip(-inside, -4.0, 4.0) + (contexts[:, 4] > -0.9))

    return at_home


def accepts(predicted: Array, preferred: Array) -> Mask:
    """Within half a degree of what is preferred?"""
    return np.asarray(np.abs(predicted - preferred) <= 0.5 / UNIT)


def same_kind(contexts: Array, anchor: Array) -> Mask:
    """Within two hours of the day, weekend or not."""
    apart = np.abs((hour_of(contexts) - hour_of(anchor[None]) + 12.0) % 24.0 - 12.0)
    return np.asarray((apart < 2.0) & (contexts[:, 2] == anchor[2]))


WORLD = World(
    name="thermostat",
    inputs=INPUTS,
    sample_context=sample_context,
    make_preference=make_temperature,
    accepts=accepts,
    tolerance=0.5 / UNIT,
    limits=(float(to_target(np.array(12.0))), float(to_target(np.array(28.0)))),
    weekend=lambda contexts: contexts[:, 2] > 0.0,
    evening=lambda contexts: hour_of(contexts) > 17.0,
    same_kind=same_kind,
    contexts_at=contexts_at,
)

OCCUPANCY = replace(
    WORLD,
    name="thermostat_occupancy",
    make_preference=make_occupancy,
    accepts=exactly,
    tolerance=0.5,
    limits=(-5.0, 5.0),
    label=lambda hours: hours > 0.0,
)


def population(world: World, seed: int, households: int = 60, uses: int = 120) -> tuple[Array, Array]:
    """What other households do, contexts (n, 5) and targets (n,), with half a tolerance of carelessness.

    From a stream of its own, so no household of it is one that is simulated later.
    """
    rng = np.random.default_rng((seed, 0x7E47))
    contexts, targets = [], []
    for _ in range(households):
        household = world.make_preference(rng)
        seen = world.contexts_on(rng, rng.uniform(0.0, 365.0, uses))
        wishes = household(seen) + rng.normal(0.0, 0.5 * world.tolerance, uses)
        contexts.append(seen)
        targets.append(world.labels(world.clip(wishes)))
    return np.concatenate(contexts), np.concatenate(targets)
