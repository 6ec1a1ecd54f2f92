"""The factory: a larger network learns from a listening population, and the 42 numbers learn from its answers.

The teacher, scikit-learn's 24-64-32-1 network of 3,713 parameters, sees hundreds of people's plays. Its student sees
far fewer plays, but with the teacher's chances instead of a yes or no (distillation; Hinton, Vinyals and Dean, 2015):
one number tells how likely a play was, where the listener's answer is one draw. It learns by the step of the
generated C, the very code that goes on learning on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from network import SIZES, TERMS, graph, ones
from player import Player, live
from sklearn.neural_network import MLPClassifier
from world import Array, Song, catalogue, draw_listener

import microtune as mt

PEOPLE, PLAYS = 200, 100
"""Of the population that the teacher learns from."""
EVENTS = 500
"""Plays that the student sees."""
STEPS = 20_000
"""Steps of the student, however many plays it has: the same effort with soft answers as with hard ones."""
RATE, DECAY = 0.05, 0.001
BEGIN = 2.0
"""What mood, history and skip behaviour begin with. The larger they are beside the scores, the more a song teaches of
features and the less of times of day. Of 1, 1.5 and 2, which the tuning listeners could not tell apart, this gives the
first skips most weight."""

Parameters = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Listening:
    """Plays of many people: what the player knew (n, 24), and 1.0 where the song was heard to the end (n,)."""

    inputs: Array
    liked: Array

    def some(self, rng: np.random.Generator, count: int) -> Listening:
        """That many of them, drawn at random."""
        rows = rng.permutation(len(self.liked))[:count]
        return Listening(self.inputs[rows], self.liked[rows])


@cache
def songs_of(seed: int) -> list[Song]:
    """The catalogue of a seed."""
    return catalogue(seed)


def population(seed: int, people: int = PEOPLE, plays: int = PLAYS) -> Listening:
    """What other people heard, each from their first song on."""
    rng = np.random.default_rng((seed, 0x11F3))
    found = [play for _ in range(people) for play in live(draw_listener(rng), Player(), songs_of(seed), rng, plays)]
    return Listening(np.stack([play.inputs for play in found]), np.array([play.liked for play in found]))


def train_teacher(listening: Listening, seed: int) -> MLPClassifier:
    """The larger network; a tenth of the plays tells it when to stop."""
    teacher = MLPClassifier((64, 32), alpha=1e-3, early_stopping=True, max_iter=60, random_state=seed)
    return teacher.fit(listening.inputs, listening.liked)


def train_student(inputs: Array, answers: Array, seed: int, folder: Path, steps: int = STEPS) -> Parameters:
    """The 42 numbers after so many steps on these answers (n,), chances or 0 and 1, in passes of random order."""
    package = _student(folder)
    device, rng = mt.Device(package), np.random.default_rng((seed, 0x57D))
    inputs, passes = inputs.astype(np.float32), -(-steps // len(answers))
    for row in np.concatenate([rng.permutation(len(answers)) for _ in range(passes)])[:steps]:
        device.step(inputs[row], answers[row])
    return device.parameters()


def beginning() -> Parameters:
    """42 numbers that know nothing."""
    return {**ones(), **{name: np.full(SIZES[name], BEGIN, np.float32) for name in TERMS}}


@cache
def _student(folder: Path) -> mt.Package:
    """Knows nothing yet, and learns by plain gradient steps."""
    plan = mt.plan(
        graph(beginning(), "student"),
        learn=mt.Full(),
        loss="binary_cross_entropy",
        optimizer=mt.SGD(lr=RATE, decay=DECAY),
        learner=mt.Learner(buffer=1, every=1, epochs=1, folds=0, restart=False, in_place=True, changes=False),
    )
    return mt.build(plan, folder / "student")


@dataclass(frozen=True)
class Factory:
    """What the player is delivered with, and some of the inputs (n, 24) it was taught on."""

    parameters: Parameters
    inputs: Array


def factory(seed: int, folder: Path, people: int = PEOPLE) -> Factory:
    """The whole way: a population listens, the teacher learns from it, and the student from the teacher."""
    listening = population(seed, people)
    teacher = train_teacher(listening, seed)
    seen = listening.some(np.random.default_rng((seed, 0x5EE)), EVENTS).inputs
    return Factory(train_student(seen, teacher.predict_proba(seen)[:, 1], seed, folder), seen)
