"""A ceiling fan, listened to by an accelerometer: the recordings, and the fifteen features of a second.

Recorded by Shawn Hymel with an ESP32 and an MSA301 (github.com/ShawnHymel/tinyml-example-anomaly-detection, datasets):
three axes at 200 Hz, well and with a coin taped to a blade, at three speeds; the sensor fixed to the fan a first time,
held and moved about by hand, and fixed a second time ("deploy"), well and at low speed only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_PATH = PROJECT.parent / "shared" / "data" / "fan"
SOURCE = "https://github.com/ShawnHymel/tinyml-example-anomaly-detection (the folder datasets)"
FULL_SCALE = 1.0825 / 32767
"""What one step of the stored numbers stands for; only ratios matter here."""
LEAST = 1e-6
"""Smallest spread of an axis, far below the sensor's own noise: keeps logarithms finite."""
CONDITIONS = {
    "deploy": "ceiling-fan-deploy/fan_0_low-deploy",
    "carried": "ceiling-fan/fan_0_low_0_weight-moving",
    "low": "ceiling-fan/fan_0_low_0_weight",
    "low with coin": "ceiling-fan/fan_0_low_1_weight",
    "medium": "ceiling-fan/fan_0_med_0_weight",
    "medium with coin": "ceiling-fan/fan_0_med_1_weight",
    "high": "ceiling-fan/fan_0_high_0_weight",
    "high with coin": "ceiling-fan/fan_0_high_1_weight",
}
FEATURES = tuple(
    f"{what} {axis}"
    for what, names in (
        ("log spread of", "xyz"),
        ("log kurtosis of", "xyz"),
        ("log roughness of", "xyz"),
        ("correlation of", ("xy", "xz", "yz")),
        ("log typical deviation of", "xyz"),
    )
    for axis in names
)


def features(windows: NDArray[np.int16]) -> NDArray[np.float64]:
    """Windows (n, 200, 3) to (n, 15), each axis about its own mean, so that gravity, and with it how the sensor is
    turned, says nothing by itself:

    spread: the standard deviation. kurtosis: the mean fourth power over the spread's: a few knocks, or an even hum.
    roughness: the standard deviation of the differences of neighbours over the spread: high or low notes. correlation:
    of two axes, the direction of the movement. typical deviation: the median of |x| over the spread.
    """
    x = windows.astype(np.float64) * FULL_SCALE
    x -= x.mean(axis=1, keepdims=True)
    spread = np.maximum(x.std(axis=1), LEAST)
    kurtosis = (x**4).mean(axis=1) / spread**4
    roughness = np.maximum(np.diff(x, axis=1).std(axis=1), LEAST) / spread
    pairs = [(x[..., a] * x[..., b]).mean(axis=1) / (spread[:, a] * spread[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    typical = np.median(np.abs(x), axis=1) / spread
    return np.concatenate(
        [
            np.log(spread), np.log(np.maximum(kurtosis, LEAST)), np.log(roughness), np.stack(pairs, axis=1),
            np.log(typical + 1e-3),
        ],
        axis=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the factory's features, (15,) each."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def apply(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n, 15) in standard deviations of the factory's windows."""
        return ((rows - self.mean) / self.deviation).astype(np.float32)


def scale_of(rows: NDArray[np.float64]) -> Scale:
    return Scale(rows.mean(axis=0), rows.std(axis=0) + LEAST)


def load(path: Path = DEFAULT_PATH) -> dict[str, NDArray[np.float64]]:
    """{condition: features (n, 15) of its seconds in the order of time}, from ``fan.npz`` in a folder (x (n, 200, 3)
    int16, cond (n,), conds (c,)). Raises FileNotFoundError saying where to get it."""
    file = path / "fan.npz"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file. Get the recordings from {SOURCE}, save them as fan.npz with x (n, 200, 3) int16, "
            "cond (n,) and conds, the names of the conditions, and give its folder: "
            f"python {Path(__file__).with_name('run.py')} --data FOLDER"
        )
    with np.load(file, allow_pickle=False) as stored:
        windows, condition, names = stored["x"], stored["cond"], [str(each) for each in stored["conds"]]
    return {short: features(windows[condition == names.index(name)]) for short, name in CONDITIONS.items()}
