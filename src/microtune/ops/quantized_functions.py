"""Derivatives of what ``lookup_int8`` can hold in its table.

A lookup node may carry the attribute ``function``, a name of ``FUNCTIONS`` (with ``alpha`` or ``beta`` where the
function has them): its gradient is then that function's own derivative. Without it the slopes are taken from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from microtune.ir.tensor import Quantization

# entries to either side that a slope is taken over when only the table is known
REACH = 4

Real = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def _hard_sigmoid(x: np.ndarray, given: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(np.clip(given.get("alpha", 1 / 6) * x + given.get("beta", 0.5), 0, 1))


def _hard_sigmoid_slope(x: np.ndarray, given: Mapping[str, Any]) -> np.ndarray:
    y = _hard_sigmoid(x, given)
    return np.where((y > 0) & (y < 1), given.get("alpha", 1 / 6), 0.0)


def _leaky(x: np.ndarray, given: Mapping[str, Any]) -> np.ndarray:
    return np.where(x > 0, x, given.get("alpha", 0.01) * x)


# {name: (function, derivative)}, both of real values and the node's attributes. At a kink: the side PyTorch takes.
FUNCTIONS: Mapping[str, tuple[Real, Real]] = {
    "identity": (lambda x, _: x, lambda x, _: np.ones_like(x)),
    "relu": (lambda x, _: np.maximum(x, 0), lambda x, _: np.where(x > 0, 1.0, 0.0)),
    "relu6": (lambda x, _: np.clip(x, 0, 6), lambda x, _: np.where((x > 0) & (x < 6), 1.0, 0.0)),
    "leaky_relu": (_leaky, lambda x, given: np.where(x > 0, 1.0, given.get("alpha", 0.01))),
    "sigmoid": (lambda x, _: _sigmoid(x), lambda x, _: _sigmoid(x) * _sigmoid(-x)),
    "tanh": (lambda x, _: np.tanh(x), lambda x, _: 1 - np.tanh(x) ** 2),
    "hard_swish": (
        lambda x, _: x * np.clip(x + 3, 0, 6) / 6,
        lambda x, _: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),
    ),
    "hard_sigmoid": (_hard_sigmoid, _hard_sigmoid_slope),
}


def lookup_slopes(table: np.ndarray, x_q: Quantization, y_q: Quantization, attributes: Mapping[str, Any]) -> np.ndarray:
    """dy/dx in real units for each of the 256 values of x, float32.

    Zero where the function leaves what y can hold, so that the output is saturated. Raises ValueError for a
    ``function`` that is not known.
    """
    x_scale, y_scale = float(x_q.scale), float(y_q.scale)
    name = attributes.get("function")
    if name is None:
        return _table_slopes(table, y_scale / x_scale)
    if name not in FUNCTIONS:
        raise ValueError(f"the derivative of '{name}' is not known; known are {', '.join(FUNCTIONS)}")
    function, derivative = FUNCTIONS[name]
    x = x_scale * (np.arange(-128, 128) - int(x_q.zero_point))
    stored = function(x, attributes) / y_scale + int(y_q.zero_point)
    inside = (stored > -128.5) & (stored < 127.5)
    return np.where(inside, derivative(x, attributes), 0.0).astype(np.float32)


def _table_slopes(table: np.ndarray, scale: float) -> np.ndarray:
    """Slopes of a table by differences over ``REACH`` entries to either side; zero on a saturated run."""
    entries = np.arange(256)
    before, after = np.maximum(entries - REACH, 0), np.minimum(entries + REACH, 255)
    stored = table.astype(np.float64)
    flat = (stored <= -128) | (stored >= 127)
    slopes = scale * (stored[after] - stored[before]) / (after - before)
    return np.where(flat, 0.0, slopes).astype(np.float32)
