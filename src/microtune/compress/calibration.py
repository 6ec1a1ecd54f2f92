"""What values each tensor of a float graph takes on calibration samples, and the range of int8 chosen from that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from microtune.compress.batched import walk
from microtune.ir import Graph, Quantization
from microtune.ops.quantized_build import activation_quantization

BINS = 8192
"""Of a histogram symmetric about zero: at least 2048 of them lie between zero and the largest value."""

CANDIDATES = 192
"""Limits tried at either end of a range by the search for the least error."""

LEVELS = 255.0
"""Steps between the ends of int8."""

CHUNK = 16
"""Samples run at once: all tensors of that many samples of a 96 x 96 image net take some 20 MB."""

TINY = 1e-30
"""A range narrower than this is taken as that of a tensor which is always zero."""

RANGES = ("percentile", "mse", "minmax")


@dataclass(frozen=True, eq=False)
class Spread:
    """The distribution of a tensor's values.

    ``counts`` (BINS,) are the values within -reach..reach, where ``reach`` is a power of two; ``zeros`` are the exact
    zeros, of which rectified layers are full and which any range represents. ``low`` and ``high`` are the extremes.
    """

    low: float
    high: float
    reach: float
    counts: np.ndarray
    zeros: int

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, (BINS,)."""
        return (np.arange(BINS) + 0.5) * (2.0 * self.reach / BINS) - self.reach


def spread_of(values: np.ndarray, reach: float = 0.0) -> Spread:
    """The distribution of some finite values; its histogram reaches at least as far as ``reach``."""
    flat = values.ravel()
    low, high = float(flat.min()), float(flat.max())
    largest = max(-low, high)
    while reach < largest:  # of both, the next power of two
        reach = math.ldexp(1.0, math.frexp(largest)[1])
    if reach == 0.0:
        return Spread(low, high, 0.0, np.zeros(BINS, np.int64), flat.size)
    kept = flat[flat != 0.0]
    place = ((kept.astype(np.float64) + reach) * (BINS / (2.0 * reach))).astype(np.int64)
    counts = np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS)
    return Spread(low, high, reach, counts, flat.size - kept.size)


def _stretched(spread: Spread, reach: float) -> np.ndarray:
    """The counts in bins that reach farther: pairs of bins become one, about the middle, until they do."""
    counts, own = spread.counts, spread.reach
    if own == 0.0:
        return counts
    while own < reach:
        pairs = counts.reshape(-1, 2).sum(axis=1)
        if not pairs.any():
            break
        counts = np.concatenate([np.zeros(BINS // 4, np.int64), pairs, np.zeros(BINS // 4, np.int64)])
        own *= 2.0
    return counts


def merged(first: Spread | None, second: Spread) -> Spread:
    """The distribution of the values of both."""
    if first is None:
        return second
    reach = max(first.reach, second.reach)
    return Spread(
        min(first.low, second.low),
        max(first.high, second.high),
        reach,
        _stretched(first, reach) + _stretched(second, reach),
        first.zeros + second.zeros,
    )


def observe(graph: Graph, x: np.ndarray) -> Mapping[str, Spread]:
    """The distribution of the input and of every computed tensor, by name, over the samples ``x`` (n, *input shape).

    Raises FloatingPointError, naming the tensor, where the graph computes something that is not finite.
    """
    found: dict[str, Spread] = {}

    def add(name: str, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise FloatingPointError(name)
        before = found.get(name)
        found[name] = merged(before, spread_of(values, before.reach if before else 0.0))

    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK]
        add(graph.inputs[0], chunk)
        with np.errstate(over="ignore", invalid="ignore"):
            for node, values in walk(graph, chunk):
                for name in node.outputs:
                    add(name, values[name])
    return found


def _percentile(spread: Spread, share: float) -> tuple[float, float]:
    """The values below and above which at most 1 - ``share`` of all values lie, to the width of a bin."""
    counts = spread.counts.copy()
    counts[BINS // 2] += spread.zeros  # the bin from 0 upwards
    total = counts.sum()
    edges = np.linspace(-spread.reach, spread.reach, BINS + 1)
    below = np.concatenate([[0], np.cumsum(counts)])
    spare = (1.0 - share) * total + 1e-9 * total
    low = edges[np.searchsorted(below, spare, side="right") - 1]
    high = edges[np.searchsorted(below, total - spare, side="left")]
    return max(spread.low, float(low)), min(spread.high, float(high))


def _least_error(spread: Spread) -> tuple[float, float]:
    """The range of least mean squared error: step^2 / 12 for each value inside, its distance to the end outside.

    Searched on a grid over both ends (Banner et al., "Post training 4-bit quantization", NeurIPS 2019, do so
    for a symmetric range and assumed distributions). Exact zeros cost nothing.
    """
    c = spread.centres
    moments = [np.concatenate([[0.0], np.cumsum(spread.counts * c**power)]) for power in range(3)]
    edges = np.linspace(-spread.reach, spread.reach, BINS + 1)
    lows = np.linspace(min(spread.low, 0.0), 0.0, CANDIDATES)
    highs = np.linspace(0.0, max(spread.high, 0.0), CANDIDATES)
    first, last = np.searchsorted(edges, lows, side="left"), np.searchsorted(edges, highs, side="right") - 1
    first, last = np.clip(first, 0, BINS), np.clip(last, 0, BINS)
    n, s, q = (moment[first] for moment in moments)
    cut_low = q - 2.0 * lows * s + lows**2 * n
    n, s, q = (moment[-1] - moment[last] for moment in moments)
    cut_high = q - 2.0 * highs * s + highs**2 * n
    inside = np.maximum(moments[0][last][None, :] - moments[0][first][:, None], 0.0)
    step = (highs[None, :] - lows[:, None]) / LEVELS
    error = step**2 / 12.0 * inside + cut_low[:, None] + cut_high[None, :]
    error[step <= 0.0] = np.inf
    row, column = np.unravel_index(np.argmin(error), error.shape)
    return float(lows[row]), float(highs[column])


def choose_range(spread: Spread, ranges: str, percentile: float) -> tuple[float, float]:
    """The range of real values that int8 will cover; always with zero in it. ``ranges`` is one of RANGES."""
    if spread.reach < TINY:
        return 0.0, 1.0
    low, high = spread.low, spread.high
    if ranges == "percentile":
        low, high = _percentile(spread, percentile / 100.0)
    elif ranges == "mse":
        low, high = _least_error(spread)
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high - low >= TINY else (min(spread.low, 0.0), max(spread.high, 0.0))


def range_quantization(low: float, high: float) -> Quantization:
    """Asymmetric int8 over low <= 0 <= high. Zero is one of the steps; for that the ends move by up to half a step."""
    scale = float(np.float32((high - low) / LEVELS))
    return activation_quantization(scale, int(np.clip(math.floor(-128.0 - low / scale + 0.5), -128, 127)))
