"""The geometry of operators that slide a window over an image: convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, Shape


def window_output(size: Sequence[int], kernel: Sequence[int], attributes: Attributes) -> tuple[int, int]:
    """Height and width that a window of ``kernel`` gives over an image of ``size``."""
    found = []
    for length, taps, step, (before, after) in zip(
        size, kernel, attributes["stride"], attributes["padding"], strict=True
    ):
        if step < 1 or min(before, after) < 0 or max(before, after) >= taps:
            raise ValueError(
                f"takes strides of at least 1 and a padding of 0 to {taps - 1}, not {step} and {(before, after)}"
            )
        if length + before + after < taps:
            raise ValueError(f"has a window of {taps} over {length} elements padded by {before} and {after}")
        found.append((length + before + after - taps) // step + 1)
    return found[0], found[1]


def window_sizes(x: Shape, y: Shape, kernel: Sequence[int], attributes: Attributes) -> tuple[int, ...]:
    """What every kernel that slides a window is told: input, output, window, stride, padding before."""
    (top, _), (left, _) = attributes["padding"]
    return (*x[:2], *y[:2], *kernel, *attributes["stride"], top, left)


def windows(x: np.ndarray, kernel: Sequence[int], attributes: Attributes, value: int) -> np.ndarray:
    """x (H, W, C) padded with ``value``, as a view (rows, columns, C, kh, kw) of its windows."""
    padded = np.pad(x, (*attributes["padding"], (0, 0)), constant_values=value)
    sh, sw = attributes["stride"]
    return np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), (0, 1))[::sh, ::sw]


def convolution_multiply_adds(weight: Tensor, y: Tensor, depthwise: bool) -> int:
    """Of a convolution with this weight and output, or of its gradient by the input."""
    return y.size * math.prod(weight.shape[:2] if depthwise else weight.shape[1:])
