"""People wearing a phone: the WISDM activity windows, cut into folds of people and streams of samples.

The data are WISDM Activity Prediction v1.1 (transformed): 43 features of 10 s of accelerometer at 20 Hz, six
activities, 36 people. Kwapisz, Weiss and Moore, "Activity Recognition using Cell Phone Accelerometers", SensorKDD 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_PATH = PROJECT.parent / "shared" / "data" / "wisdm"
SOURCE = "https://www.cis.fordham.edu/wisdm/dataset.php (Activity Prediction v1.1, the transformed .arff)"
FOLDS = 6
STREAM = 50  # samples a person teaches the device at most
LEAST_WINDOWS = 60  # people with fewer have too small a half to test on; all 36 of v1.1 have as many
CLIP = 5.0  # standard deviations: a peak distance far outside the training people must not saturate the net


@dataclass(frozen=True)
class Windows:
    """All windows: `features` (n, 43) with NaN where no peak was found, `activity` (n,) 0..5, `person` (n,) 1..36."""

    features: NDArray[np.float32]
    activity: NDArray[np.int64]
    person: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """Standardisation constants, (43,) each, measured on the training people only."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 43) raw to (n, 43) in standard deviations; a missing feature becomes the mean, that is 0."""
        scaled = np.nan_to_num((features - self.mean) / self.deviation, nan=0.0)
        return np.clip(scaled, -CLIP, CLIP).astype(np.float32)


@dataclass(frozen=True)
class Fold:
    """Row numbers of `Windows`: the base learns from `train`; `others` are the same people's windows it never saw."""

    held_out: tuple[int, ...]
    train: NDArray[np.int64]
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """Row numbers of one person's windows: `learn` in the order they arrive, `test` the other half."""

    person: int
    learn: NDArray[np.int64]
    test: NDArray[np.int64]


def load(path: Path = DEFAULT_PATH) -> Windows:
    """Reads `wisdm.npz` (X, user, y, classes) from a folder. Raises FileNotFoundError saying where to get it."""
    file = path / "wisdm.npz"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file. Get the data from {SOURCE}, save them as wisdm.npz with X (n, 43) float32, "
            "user (n,), y (n,) 0..5 and classes (6,), and pass its folder with --data PATH."
        )
    with np.load(file, allow_pickle=False) as stored:
        return Windows(
            stored["X"].astype(np.float32),
            stored["y"].astype(np.int64),
            stored["user"].astype(np.int64),
            tuple(str(name) for name in stored["classes"]),
        )


def scale_of(windows: Windows, rows: NDArray[np.int64]) -> Scale:
    """Mean and standard deviation of each feature over `rows`, missing values left out."""
    known = windows.features[rows]
    return Scale(np.nanmean(known, axis=0), np.nanstd(known, axis=0) + np.float32(1e-6))


def folds(windows: Windows, seed: int, count: int = FOLDS) -> tuple[Fold, ...]:
    """Every person is held out in exactly one fold. A tenth of the other people's windows is kept for `others`."""
    random = np.random.default_rng(seed)
    people = random.permutation(np.unique(windows.person))
    result = []
    for number in range(count):
        held_out = people[number::count]
        rows = random.permutation(np.flatnonzero(~np.isin(windows.person, held_out)))
        tenth = len(rows) // 10
        result.append(Fold(tuple(int(person) for person in held_out), rows[tenth:], rows[:tenth]))
    return tuple(result)


def stream(windows: Windows, person: int, seed: int, order: int) -> Stream:
    """The person's windows shuffled (by seed, person and order) and halved; the first 50 of one half are learnt.

    Raises ValueError for a person with fewer than `LEAST_WINDOWS` windows.
    """
    rows = np.flatnonzero(windows.person == person)
    if len(rows) < LEAST_WINDOWS:
        raise ValueError(f"person {person} has {len(rows)} windows; a stream needs at least {LEAST_WINDOWS}")
    shuffled = np.random.default_rng((seed, person, order)).permutation(rows)
    half = len(rows) // 2
    return Stream(person, shuffled[:half][:STREAM], shuffled[half:])
