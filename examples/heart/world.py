"""The heart's world: what is usual for one person's heart-rate variability in the morning.

**What is measured.** RMSSD in milliseconds, on waking; the model predicts (ln RMSSD - 3.6) / 0.5.

**Context.** Four inputs, centred and about 1 in size: resting heart rate ((beats a minute - 60) / 10), activity of the
day before (-1 none to 1 hard), sleep ((hours - 7) / 1.5), alcohol the evening before (-1 no, 1 yes: one day in seven,
at weekends two).

**People.** Most have 3.6 on average; 0.08 less per 10 beats, 0.03 less or more with activity, 0.03 more per 1.5 hours
of sleep, 0.10 less after alcohol. A person differs in their level, N(0, 0.45), far more than in all else: N(0, 0.05)
per 10 beats and with activity, N(0, 0.02) for sleep, N(0, 0.05) for alcohol. From morning to morning ln RMSSD varies by
0.12 (standard deviation) around that.

**Departure.** An illness lowers ln RMSSD by 0.40 for eight mornings.

People differ several times as much as their mornings do, as is commonly reported; the numbers themselves are a choice,
made before any device was run on them. Nothing here is medical advice.
"""

from __future__ import annotations

import numpy as np

from microtune.simulation import Preference, World, on_weekend
from microtune.simulation.world import Array, Mask

INPUTS = ("heart_rate", "activity", "sleep", "alcohol")
CENTRE, UNIT = 3.6, 0.5
MORNING = 0.12 / UNIT
"""Spread of a healthy person's mornings around their baseline, in what the model predicts."""
ILLNESS, MORNINGS_ILL = 0.40 / UNIT, 8


def to_milliseconds(target: Array) -> Array:
    """What the model predicts -> RMSSD in milliseconds."""
    return np.exp(np.asarray(target, dtype=float) * UNIT + CENTRE)


def contexts_at(rng: np.random.Generator, days: Array) -> Array:
    """What is known on waking on these days since a Monday: (n, 4)."""
    count = len(days)
    alcohol = np.where(rng.random(count) < np.where(on_weekend(days), 2.0, 1.0) / 7.0, 1.0, -1.0)
    heart_rate = np.clip(rng.normal(0.0, 0.5, count) + 0.15 * alcohol, -3.0, 3.0)
    return np.stack(
        [heart_rate, rng.uniform(-1.0, 1.0, count), np.clip(rng.normal(0.0, 0.7, count), -3.0, 3.0), alcohol], axis=1
    )


def sample_context(rng: np.random.Generator) -> Array:
    """One everyday context (4,)."""
    return contexts_at(rng, rng.uniform(0.0, 365.0, 1))[0]


def make_baseline(rng: np.random.Generator) -> Preference:
    """What is usual for one person."""
    level, rate, activity, sleep, alcohol = rng.normal(0.0, (0.45, 0.05, 0.05, 0.02, 0.05))
    slopes = np.array([-0.08 + rate, -0.03 + activity, 0.03 + sleep, -0.05 + alcohol / 2.0])
    return lambda contexts: (level + contexts @ slopes) / UNIT


def accepts(predicted: Array, preferred: Array) -> Mask:
    """Is the baseline right within the spread of a morning?"""
    return np.asarray(np.abs(predicted - preferred) <= MORNING)


def same_kind(contexts: Array, anchor: Array) -> Mask:
    """A day as active, with or without alcohol."""
    return np.asarray((np.abs(contexts[:, 1] - anchor[1]) < 0.3) & (contexts[:, 3] == anchor[3]))


WORLD = World(
    name="heart",
    inputs=INPUTS,
    sample_context=sample_context,
    make_preference=make_baseline,
    accepts=accepts,
    tolerance=MORNING,
    limits=(-4.0, 4.0),
    # no input tells the weekend: for those who share the device, somebody else measures after hard days
    weekend=lambda contexts: contexts[:, 1] > 0.5,
    evening=lambda contexts: contexts[:, 3] > 0.0,
    same_kind=same_kind,
    contexts_at=contexts_at,
)


def population(seed: int, people: int = 80, mornings: int = 60) -> tuple[Array, Array]:
    """Mornings of other people: contexts (n, 4) and what was measured (n,)."""
    rng = np.random.default_rng((seed, 0x4EA7))
    contexts, targets = [], []
    for _ in range(people):
        baseline = make_baseline(rng)
        seen = contexts_at(rng, rng.uniform(0.0, 365.0, mornings))
        contexts.append(seen)
        targets.append(baseline(seen) + MORNING * rng.normal(size=mornings))
    return np.concatenate(contexts), np.concatenate(targets)
