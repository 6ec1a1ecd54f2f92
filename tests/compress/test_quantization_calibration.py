"""Ranges: the histogram against numpy on the values themselves, each way of choosing, and integers of weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.compress.calibration import (
    BINS,
    Spread,
    choose_range,
    merged,
    observe,
    range_quantization,
    spread_of,
)
from microtune.compress.quantized_weights import LARGEST_BIAS, quantize_weights
from microtune.frontends.builder import Builder
from microtune.ops.quantized_build import dequantize_array, quantize_array

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> np.ndarray:
    """Values of one of several kinds: normal, rectified, with outliers, one-sided, few, large, small."""
    r = np.random.default_rng(seed)
    values = r.normal(size=int(r.integers(20, 3000)))
    kind = r.integers(6)
    if kind == 1:
        values = np.maximum(values, 0)
    elif kind == 2:
        values[:3] *= 30
    elif kind == 3:
        values = -np.abs(values) - 2
    elif kind == 4:
        values = r.integers(0, 3, values.size).astype(float)
    elif kind == 5:
        values = np.exp(3 * values)
    return np.asarray(values * 10.0 ** r.integers(-6, 7), np.float32)


def error_of(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of the values in int8 over a range."""
    quantization = range_quantization(low, high)
    shown = dequantize_array(quantize_array(values, quantization), quantization)
    return float(((values.astype(np.float64) - shown) ** 2).mean())


@settings(max_examples=200, deadline=None)
@given(seed=seeds, parts=st.integers(1, 6))
def test_a_histogram_of_parts_is_that_of_the_whole(seed: int, parts: int) -> None:
    """However the values are split, and in which order they come: reach and bins grow together."""
    values = drawn(seed)
    np.random.default_rng(seed + 1).shuffle(values)
    found: Spread | None = None
    for part in np.array_split(values, parts):
        found = merged(found, spread_of(part))
    whole = spread_of(values)
    assert found is not None
    assert (found.low, found.high, found.reach, found.zeros) == (whole.low, whole.high, whole.reach, whole.zeros)
    np.testing.assert_array_equal(found.counts, whole.counts)
    assert whole.counts.sum() + whole.zeros == values.size
    centres = np.repeat(whole.centres, whole.counts)
    np.testing.assert_allclose(centres, np.sort(values[values != 0]), atol=whole.reach / BINS * 1.001)


@settings(max_examples=200, deadline=None)
@given(seed=seeds, percentile=st.sampled_from([90.0, 99.0, 99.9, 99.99, 100.0]))
def test_a_percentile_leaves_out_its_share_at_either_end(seed: int, percentile: float) -> None:
    values = drawn(seed)
    low, high = choose_range(spread_of(values), "percentile", percentile)
    width = 2 * spread_of(values).reach / BINS
    spare = (1 - percentile / 100) * values.size * (1 + 1e-6)
    assert low <= 0 <= high
    assert np.count_nonzero(values < low) <= spare
    assert np.count_nonzero(values > high) <= spare
    # and no fewer: one bin further in, more than that share is left out
    assert low == 0 or np.count_nonzero(values <= low + width * 1.001) > spare
    assert high == 0 or np.count_nonzero(values >= high - width * 1.001) > spare


def expected_error(values: np.ndarray, low: float, high: float) -> float:
    """step^2 / 12 for each value inside the range but the exact zeros, its squared distance to the end outside."""
    inside = (values != 0) & (values >= low) & (values <= high)
    cut = values.astype(np.float64) - np.clip(values, low, high)
    return float((cut**2).sum() + inside.sum() * ((high - low) / 255) ** 2 / 12) / values.size


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_no_other_range_has_less_error(seed: int) -> None:
    """Against 1681 others; 2 % for ends that lie on a grid and values that are known to the width of a bin."""
    values = drawn(seed)
    spread = spread_of(values)
    found = expected_error(values, *choose_range(spread, "mse", 100.0))
    low, high = min(spread.low, 0.0), max(spread.high, 0.0)
    shares = np.linspace(0, 1, 41)
    least = min(expected_error(values, low * a, high * b) for a in shares for b in shares if high * b > low * a)
    assert found <= 1.02 * least


@pytest.mark.parametrize("ends", [(-4.5, 4.5), (-2.0, 3.0), (-1.0, 1.0)])
def test_the_expected_error_is_the_measured_one(ends: tuple[float, float]) -> None:
    """Of 200 000 values the mean square is known to 1 %; ends move by up to half a step so that zero is one."""
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    assert error_of(values, *ends) == pytest.approx(expected_error(values, *ends), rel=0.03)


def test_the_least_error_gives_up_part_of_an_outlier() -> None:
    """One value v among n others down to -l: (v - h)^2 + n (h + l)^2 / (12 255^2) is least where both slopes agree."""
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[0] = 60.0
    low, high = choose_range(spread_of(values), "mse", 100.0)
    assert values.min() <= low < -3
    slope = 200_000 / (12 * 255**2)
    assert high == pytest.approx((60.0 + slope * low) / (1 + slope), abs=2 * 60 / 192)
    assert choose_range(spread_of(values), "minmax", 100.0)[1] == 60.0


@pytest.mark.parametrize("value", [0.0, 1e-35])
@pytest.mark.parametrize("ranges", ["mse", "percentile", "minmax"])
def test_a_tensor_that_is_always_zero_has_a_range(value: float, ranges: str) -> None:
    assert choose_range(spread_of(np.full(50, value, np.float32)), ranges, 99.0) == (0.0, 1.0)


@settings(max_examples=200, deadline=None)
@given(low=st.floats(-1e6, 0), high=st.floats(0, 1e6))
def test_a_range_becomes_steps_of_which_zero_is_one(low: float, high: float) -> None:
    if high - low < 1e-20:
        return
    quantization = range_quantization(low, high)
    ends = dequantize_array(np.array([-128, 127], np.int8), quantization)
    step = float(quantization.scale)
    np.testing.assert_allclose(ends, [low, high], atol=0.501 * step)
    assert dequantize_array(quantize_array(np.zeros(1), quantization), quantization)[0] == 0.0


def test_what_is_not_finite_is_named() -> None:
    builder = Builder("net")
    x = builder.input("x", (2,))
    squared = builder.emit("multiply", [x, x], "squared", "test")
    graph = builder.finish(builder.emit("relu", [squared], "y", "test"), "test")
    with pytest.raises(FloatingPointError, match=r"^squared$"):
        observe(graph, np.full((40, 2), 1e30, np.float32))


@settings(max_examples=200, deadline=None)
@given(
    seed=seeds,
    axis=st.sampled_from([0, 2]),
    per_channel=st.booleans(),
    x_scale=st.floats(1e-25, 1e6),
    bias_size=st.sampled_from([0.0, 1.0, 1e9]),
)
def test_weights_and_biases_are_the_nearest_steps_that_fit(
    seed: int, axis: int, per_channel: bool, x_scale: float, bias_size: float
) -> None:
    r = np.random.default_rng(seed)
    shape = tuple(int(n) for n in r.integers(1, 5, 3))
    size = 10.0 ** r.integers(-9, 5, shape[axis])
    size[r.uniform(size=size.shape) < 0.2] = 0.0
    along = [1, 1, 1]
    along[axis] = -1
    weight = (r.normal(size=shape) * size.reshape(along)).astype(np.float32)
    bias = (r.normal(size=shape[axis]) * bias_size).astype(np.float32)
    found = quantize_weights(weight, bias, axis, x_scale, per_channel=per_channel)
    assert found.weight.dtype == np.int8
    assert found.weight.shape == shape
    assert found.weight.min() >= -127
    assert found.bias.dtype == np.int32
    assert np.abs(found.bias.astype(np.int64)).max() <= LARGEST_BIAS
    assert (found.scale > 0).all()
    step = found.scale.astype(np.float64)
    shown = found.weight * step.reshape(along)
    assert (np.abs(shown - weight) <= 0.5001 * np.broadcast_to(step.reshape(along), shape)).all()
    bias_step = step * x_scale
    assert (np.abs(found.bias * bias_step - bias) <= bias_step * 0.51 + np.abs(bias) * 1e-6).all()
    if not per_channel and bias_size == 0.0:
        assert len(set(found.scale.tolist())) == 1
