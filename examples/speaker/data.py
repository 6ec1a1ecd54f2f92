"""Six people who say digits: the recordings as the keyword net's input, and the cut into streams and tests.

The Free Spoken Digit Dataset (Zohar Jackson et al., doi 10.5281/zenodo.1342401, CC BY-SA 4.0): ten digits, fifty takes
of each by each of six speakers, at 8 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import audio
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly  # scipy comes with scikit-learn

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_PATH = PROJECT.parent / "shared" / "data"
RECORDINGS = Path("fsdd") / "fsdd_audio_mulaw.npz"
KEYWORD_NET = Path("models") / "mlperf_tiny" / "kws_ref_model.tflite"
SOURCES = {
    RECORDINGS: "https://github.com/Jakobovski/free-spoken-digit-dataset, its recordings as 8-bit mu-law in one array "
    "audio with the bounds off (n + 1,), label (n,), speaker (n,), rep (n,) and speakers (6,)",
    KEYWORD_NET: "https://github.com/mlcommons/tiny, benchmark/training/keyword_spotting/trained_models",
}
OFFICIAL_TEST = 5  # takes 0 to 4 of each speaker and digit are the data set's test split
STREAM = 50  # samples a person teaches the device at most
EACH = 10  # takes of each digit in a sorted stream
SPEEDS = (Fraction(1), Fraction(9, 10), Fraction(11, 10))
"""The base learns every take at these lengths as well: faster and higher, slower and deeper, as other people speak."""


@dataclass(frozen=True)
class Takes:
    """All recordings: `sound` (n,) arrays of float samples in -1..1 at 8 kHz, `digit` 0..9, `person`, `take` 0..49."""

    sound: tuple[NDArray[np.float32], ...]
    digit: NDArray[np.int64]
    person: NDArray[np.int64]
    take: NDArray[np.int64]
    people: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """Row numbers of `Takes`: the base learns from `train`; `others` are takes of the same people it never saw."""

    person: int
    train: NDArray[np.int64]
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """Row numbers of one person's takes: `learn` in the order they are said, `test` the other half."""

    learn: NDArray[np.int64]
    test: NDArray[np.int64]


def file_of(path: Path, wanted: Path) -> Path:
    """A file of the data folder. Raises FileNotFoundError saying where to get it."""
    file = path / wanted
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file. It comes from {SOURCES[wanted]}. Pass the folder that holds "
            f"{RECORDINGS} and {KEYWORD_NET} with --data PATH."
        )
    return file


def load(path: Path = DEFAULT_PATH) -> Takes:
    """Reads the recordings and expands the mu-law (mu = 255)."""
    with np.load(file_of(path, RECORDINGS), allow_pickle=False) as stored:
        code = stored["audio"].astype(np.float32)
        sound = np.sign(code) * (np.float32(256.0) ** (np.abs(code) / 127) - 1) / 255
        return Takes(
            tuple(np.split(sound, stored["off"][1:-1])),
            stored["label"].astype(np.int64),
            stored["speaker"].astype(np.int64),
            stored["rep"].astype(np.int64),
            tuple(str(name) for name in stored["speakers"]),
        )


def one_second(sound: NDArray[np.float32], length: Fraction = Fraction(1)) -> NDArray[np.float64]:
    """(16000,) samples at 16 kHz of a sound at 8 kHz, made ``length`` times as long; silence follows a short one."""
    factor = 2 * length
    heard = resample_poly(np.asarray(sound, np.float64), factor.numerator, factor.denominator)[: audio.SAMPLES]
    return np.pad(heard, (0, audio.SAMPLES - len(heard)))


def inputs(takes: Takes, rows: NDArray[np.int64], length: Fraction = Fraction(1)) -> NDArray[np.float32]:
    """(rows, 49, 10, 1): what the keyword net reads of these takes."""
    return np.stack([audio.features(one_second(takes.sound[row], length)) for row in rows])[..., None]


def folds(takes: Takes) -> tuple[Fold, ...]:
    """One fold per person. Of the others the official test takes are kept for `others`, the rest is learnt."""
    learnt = takes.take >= OFFICIAL_TEST
    cut = []
    for person in range(len(takes.people)):
        other = takes.person != person
        cut.append(Fold(person, np.flatnonzero(other & learnt), np.flatnonzero(other & ~learnt)))
    return tuple(cut)


def stream(takes: Takes, person: int, seed: int, order: int) -> Stream:
    """The person's takes shuffled (by seed, person and order) and halved; the first 50 of one half are learnt.

    Raises ValueError for a person with fewer than two takes for each of the 50.
    """
    rows = np.flatnonzero(takes.person == person)
    if len(rows) < 2 * STREAM:
        raise ValueError(f"speaker {person} has {len(rows)} takes; a stream and its test need at least {2 * STREAM}")
    shuffled = np.random.default_rng((seed, person, order)).permutation(rows)
    return Stream(shuffled[: len(rows) // 2][:STREAM], shuffled[len(rows) // 2 :])


def sorted_stream(takes: Takes, person: int, seed: int, order: int, each: int = EACH) -> Stream:
    """The same halves as in `stream`; of the first one come `each` takes of 0, then as many of 1, and so on.

    Raises ValueError where that half holds fewer takes of a digit.
    """
    rows = np.flatnonzero(takes.person == person)
    shuffled = np.random.default_rng((seed, person, order)).permutation(rows)
    first, test = shuffled[: len(rows) // 2], shuffled[len(rows) // 2 :]
    found = [first[takes.digit[first] == digit][:each] for digit in np.unique(takes.digit)]
    if min(map(len, found)) < each:
        raise ValueError(f"speaker {person} has fewer than {each} takes of a digit in the half that is learnt")
    return Stream(np.concatenate(found), test)
