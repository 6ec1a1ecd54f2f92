"""Derivatives of what ``lookup_int8`` holds in its table.

A table does not say which function it was made from, but it shows it: a function that gives every entry to within
one step is the one meant, and its own derivative is exact where differences of the table would be coarse. Tables of
anything else get differences over a few entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from microtune.ir.tensor import Quantization

# entries to either side that a slope is taken over when the function is not known
REACH = 4
Real = Callable[[np.ndarray], np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def _hard_sigmoid(slope: float) -> tuple[Real, Real]:
    def inner(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(slope * x + 0.5, 0, 1))

    return inner, lambda x: np.where((inner(x) > 0) & (inner(x) < 1), slope, 0.0)


# {name: (function, derivative)} of real values
FUNCTIONS: Mapping[str, tuple[Real, Real]] = {
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "hard_swish": (
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),
    ),
    "hard_sigmoid (PyTorch)": _hard_sigmoid(1 / 6),
    "hard_sigmoid (ONNX)": _hard_sigmoid(0.2),
}


def lookup_slopes(table: np.ndarray, x_q: Quantization, y_q: Quantization) -> np.ndarray:
    """dy/dx in real units for each of the 256 values of x, float32. Zero where the output is saturated."""
    x = float(x_q.scale) * (np.arange(-128, 128) - int(x_q.zero_point))
    y_scale, y_zero = float(y_q.scale), int(y_q.zero_point)
    low, high = int(table.min()), int(table.max())

    def fits(function: Real) -> float:
        """How far the table is from a function at most; more than a step is another function."""
        stored = np.clip(function(x) / y_scale + y_zero, low, high)
        return float(np.abs(stored - table).max())

    def slopes(function: Real, derivative: Real) -> np.ndarray:
        stored = function(x) / y_scale + y_zero
        inside = (stored > low - 0.5) & (stored < high + 0.5)
        return np.where(inside, derivative(x), 0.0).astype(np.float32)

    real = y_scale * (table.astype(np.float64) - y_zero)
    candidates = [*_linear(x, real, (table > low) & (table < high)), *FUNCTIONS.values()]
    # rounded once, a table is within half a step; in TFLite's integer arithmetic, which rounds twice, within one
    for reach in (0.501, 1.0):
        for function, derivative in candidates:
            if fits(function) <= reach:
                return slopes(function, derivative)
    return _table_slopes(table, y_scale / float(x_q.scale))


def recognised(table: np.ndarray, x_q: Quantization, y_q: Quantization) -> str | None:
    """The name of the function that gives every entry of a table to within a step: one of ``FUNCTIONS``,
    ``identity`` (between two scales) or ``relu``; None for any other."""
    x = float(x_q.scale) * (np.arange(-128, 128) - int(x_q.zero_point))
    scale, zero = float(y_q.scale), int(y_q.zero_point)
    simple: dict[str, Real] = {"identity": lambda x: x, "relu": lambda x: np.maximum(x, 0)}
    for reach in (0.501, 1.0):
        for name, function in (*simple.items(), *((name, pair[0]) for name, pair in FUNCTIONS.items())):
            # int8 ends where it ends
            stored = np.clip(function(x) / scale + zero, -128, 127)
            if np.abs(stored - table).max() <= reach:
                return name
    return None


def _linear(x: np.ndarray, real: np.ndarray, free: np.ndarray) -> list[tuple[Real, Real]]:
    """y = a x above zero and b x below: requantisation, scaling, ReLU and leaky ReLU, limited or not."""

    def slope(side: np.ndarray) -> float:
        """By least squares. One, a straight line and zero, which are most likely meant, are tried before it."""
        return float(real[side] @ x[side] / (x[side] @ x[side])) if side.any() else 0.0

    def line(a: float, b: float) -> tuple[Real, Real]:
        return lambda x: np.where(x > 0, a, b) * x, lambda x: np.where(x > 0, a, b)

    above, below = slope(free & (x > 0)), slope(free & (x < 0))
    return [line(a, b) for a in (1.0, above) for b in (a, 0.0, below)]


def _table_slopes(table: np.ndarray, scale: float) -> np.ndarray:
    """Slopes of a table by differences over ``REACH`` entries to either side; zero on a saturated run."""
    entries = np.arange(256)
    before, after = np.maximum(entries - REACH, 0), np.minimum(entries + REACH, 255)
    stored = table.astype(np.float64)
    slopes = scale * (stored[after] - stored[before]) / (after - before)
    return np.where((stored <= -128) | (stored >= 127), 0.0, slopes).astype(np.float32)
