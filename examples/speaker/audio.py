"""The audio front end of the MLPerf Tiny keyword net: one second of sound to the 49 x 10 numbers the net reads.

Mel-frequency cepstral coefficients as the benchmark's reference computes them (Banbury et al., "MLPerf Tiny Benchmark",
NeurIPS 2021; Davis and Mermelstein 1980): frames of 30 ms every 20 ms under a periodic Hann window, magnitudes of a
512-point transform, 40 triangular bands equally wide on the mel scale from 20 to 4000 Hz, logarithm, cosine transform.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

PROJECT = Path(__file__).resolve().parents[2]
CLIPS_PATH = PROJECT.parent / "shared" / "data" / "speech_commands_300" / "speech_commands_300.npz"

LABELS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
"""The twelve outputs of the keyword net, in order."""

RATE = 16_000  # samples per second
SAMPLES = 16_000  # one second
FRAME = 480
HOP = 320
FRAMES = 1 + (SAMPLES - FRAME) // HOP  # 49
TRANSFORM = 512
BANDS = 40
LOWEST, HIGHEST = 20.0, 4000.0  # Hz
COEFFICIENTS = 10
FLOOR = 1e-6  # keeps the logarithm of silence finite


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hertz / 700.0)


@cache
def _bands() -> NDArray[np.float64]:
    """(257, 40): how much each frequency bin adds to each band. The bin at 0 Hz adds to none."""
    lowest, highest = _mel(np.array([LOWEST, HIGHEST]))
    edges = np.linspace(lowest, highest, BANDS + 2)
    bins = _mel(np.arange(1, TRANSFORM // 2 + 1) * RATE / TRANSFORM)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.vstack([np.zeros(BANDS), np.maximum(0.0, np.minimum(rising, falling))])


@cache
def _cosines() -> NDArray[np.float64]:
    """(40, 10): the first ten rows of the cosine transform of type II, with the reference's factor."""
    band, coefficient = np.arange(BANDS)[:, None] + 0.5, np.arange(COEFFICIENTS)
    return np.asarray(np.cos(np.pi / BANDS * band * coefficient) * (2.0 / np.sqrt(2.0 * BANDS)))


def features(audio: ArrayLike) -> NDArray[np.float32]:
    """(16000,) int16 samples at 16 kHz to (49, 10) features, of which the first is about the loudness.

    The clip is divided by its largest sample, so that its gain does not matter; silence gives finite numbers.
    Raises ValueError for another number of samples: cut or pad the sound to one second first.
    """
    sound = np.asarray(audio, np.float64)
    if sound.shape != (SAMPLES,):
        raise ValueError(f"audio has the shape {sound.shape}; one second at 16 kHz, ({SAMPLES},), is needed")
    peak = sound.max()
    frames = sliding_window_view(sound / peak if peak > 0.0 else sound, FRAME)[::HOP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME)
    magnitude = np.abs(np.fft.rfft(frames * window, TRANSFORM))
    return np.asarray(np.log(magnitude @ _bands() + FLOOR) @ _cosines(), np.float32)


def keyword_clips(path: Path = CLIPS_PATH) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.str_]]:
    """The real clips of the net's ten words: audio (n, 16000), index into LABELS (n,), hash of who speaks (n,)."""
    with np.load(path) as data:
        words = [str(word) for word in data["words"]]
        label = np.array([LABELS.index(word) if word in LABELS else -1 for word in words])[data["word"]]
        known = label >= 0
        return data["audio"][known], label[known], data["speaker"][known]
