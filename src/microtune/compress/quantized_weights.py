"""Weights as symmetric int8 (-127..127), one scale per output channel, and biases as int32 at the scale of the sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microtune.ops.fixed_point import round_half_away

LARGEST_BIAS = float(1 << 30)
"""Half of what int32 holds is for the bias, half for the products."""

LEAST_STEP = 1e-36
"""Of a bias, so that float32 holds it: weights below 1e-36 / x_scale become zero."""

FRACTIONS = np.linspace(0.5, 1.0, 51)
"""Of the largest weight of a channel, tried as the largest that int8 represents."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """int8 weight in the shape of the float one, int32 bias (O,), real size of a weight's step (O,)."""

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray


def _rounded(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Steps of ``scale`` (one per row), half away from zero, within -127..127."""
    return np.asarray(np.clip(round_half_away(rows / scale[:, None]), -127, 127))


def _scales(rows: np.ndarray, search: bool) -> np.ndarray:
    """One scale per row of (rows, weights): of the largest weight, or of least squared error. 0 for rows of zeros."""
    full = np.abs(rows).max(axis=1) / 127.0
    if not search:
        return np.asarray(full)
    best, least = full, np.full(len(rows), np.inf)
    for fraction in FRACTIONS[::-1]:
        scale = np.where(full > 0.0, full * fraction, 1.0)
        error = ((rows - _rounded(rows, scale) * scale[:, None]) ** 2).sum(axis=1)
        best, least = np.where(error < least, full * fraction, best), np.minimum(error, least)
    return np.asarray(best)


def quantize_weights(
    weight: np.ndarray, bias: np.ndarray, axis: int, x_scale: float, *, search: bool, per_channel: bool
) -> LayerWeights:
    """A layer's float weight and bias (O,) in integers; ``axis`` of the weight counts the outputs.

    ``search`` picks scales of least squared error instead of those of the largest weight. A channel whose bias would
    not fit into int32 gets a coarser scale: its weights are that much smaller than its bias.
    """
    channels = weight.shape[axis]
    rows = np.moveaxis(weight.astype(np.float64), axis, 0).reshape(channels, -1)
    scale = _scales(rows, search) if per_channel else np.repeat(_scales(rows.reshape(1, -1), search), channels)
    scale = np.maximum(scale, np.abs(bias) / (LARGEST_BIAS * x_scale))
    nonzero = scale[scale > 0.0]
    scale = np.where(scale > 0.0, scale, nonzero.max() if len(nonzero) else 1.0)  # any scale serves zeros
    scale = np.maximum(scale, LEAST_STEP / x_scale).astype(np.float32)
    moved = np.moveaxis(weight, axis, 0).shape
    integers = np.moveaxis(_rounded(rows, scale.astype(np.float64)).reshape(moved), 0, axis)
    steps = np.clip(round_half_away(bias / (x_scale * scale.astype(np.float64))), -LARGEST_BIAS, LARGEST_BIAS)
    return LayerWeights(np.ascontiguousarray(integers, np.int8), steps.astype(np.int32), scale)
