"""Weights as symmetric int8 (-127..127), one scale per output channel, and biases as int32 at the scale of the sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microtune.ops.fixed_point import round_half_away

LARGEST_BIAS = float(1 << 30)
"""Half of what int32 holds is for the bias, half for the products."""

LEAST_STEP = 1e-36
"""Of a bias, so that float32 holds it: weights below 1e-36 / x_scale become zero."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """int8 weight in the shape of the float one, int32 bias (O,), real size of a weight's step (O,)."""

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray


def _rounded(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Steps of ``scale`` (one per row), half away from zero, within -127..127."""
    return np.asarray(np.clip(round_half_away(rows / scale[:, None]), -127, 127))


def quantize_weights(
    weight: np.ndarray,
    bias: np.ndarray,
    axis: int,
    x_scale: float,
    *,
    per_channel: bool,
    own_scale: np.ndarray | None = None,
) -> LayerWeights:
    """A layer's float weight and bias (O,) in integers; ``axis`` of the weight counts the outputs.

    The largest weight of a channel (of the layer, unless ``per_channel``) becomes 127; scales of least squared error
    were no better on the MLPerf Tiny nets. Weights that lie on a grid already keep its scales ``own_scale`` (O,), and
    so are exact. A channel whose bias would not fit into int32 gets a coarser scale: its weights are that much smaller.
    """
    channels = weight.shape[axis]
    rows = np.moveaxis(weight.astype(np.float64), axis, 0).reshape(channels, -1)
    if own_scale is not None:
        scale = own_scale.astype(np.float64)
    else:
        largest = np.abs(rows).max(axis=1)
        scale = (largest if per_channel else np.full(channels, largest.max())) / 127.0
    scale = np.maximum(scale, np.abs(bias) / (LARGEST_BIAS * x_scale))
    nonzero = scale[scale > 0.0]
    scale = np.where(scale > 0.0, scale, nonzero.max() if len(nonzero) else 1.0)  # any scale serves zeros
    scale = np.maximum(scale, LEAST_STEP / x_scale).astype(np.float32)
    moved = np.moveaxis(weight, axis, 0).shape
    integers = np.moveaxis(_rounded(rows, scale.astype(np.float64)).reshape(moved), 0, axis)
    steps = np.clip(round_half_away(bias / (x_scale * scale.astype(np.float64))), -LARGEST_BIAS, LARGEST_BIAS)
    return LayerWeights(np.ascontiguousarray(integers, np.int8), steps.astype(np.int32), scale)
