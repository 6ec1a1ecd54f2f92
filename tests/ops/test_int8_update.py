"""Stochastic rounding of int8 weights: its mean is the step asked for, its numbers repeat, its noise has no pattern.

Noise values are counted 0, 1, 2, ...: nothing here is left to chance. A mean of N numbers in [0, 1] that behave as
independent ones is farther than sqrt(ln(2 / p) / 2 N) from their expectation with probability at most p (Hoeffding
1963); p = 1e-9 for each comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from microtune.ops import OPS
from microtune.ops.quantized_update import FUSED, noise_fractions

from .sanitized_kernels import SanitizedKernels

UNLIKELY = 1e-9
GIVEN = {"clip": 0.0, "salt": 3, "axis": 0}


def hoeffding(count: int, reach: float = 1.0) -> float:
    """How far the mean of ``count`` numbers within ``reach`` of each other may be off."""
    return reach * math.sqrt(math.log(2 / UNLIKELY) / (2 * count))


def inputs_of(moves: np.ndarray, noise: int, dtype: str = "int8", weight: int = 10) -> list[np.ndarray]:
    """A weight per move; each step goes ``-move`` steps of a grid of 1/64."""
    stored = np.full(moves.shape, weight, dtype)
    scale = np.full(moves.shape, 2.0**-6, np.float32)
    rate = np.array(0.5, np.float32)
    gradient = (moves / 32).astype(np.float32)  # rate / scale = 32
    return [stored, rate, np.array(noise, np.int32), gradient, scale]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    example = {f"sgd_{dtype}": (inputs_of(np.zeros(2), 0, dtype), GIVEN) for dtype in ("int8", "int32")}
    found = SanitizedKernels(tmp_path_factory.mktemp("updates"), example)
    yield found
    found.close()


MOVES = np.array([0.5, -0.5, 0.01, -0.01, 0.999, -0.999, 1.25, -3.75, 2.0, -2.0, 0.0, 2.0**-12, -(2.0**-12)])


@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_mean_over_noise_is_the_step(dtype: str, kernels: SanitizedKernels) -> None:
    op, count = f"sgd_{dtype}", 4000
    moved = np.zeros((count, MOVES.size))
    for noise in range(count):
        inputs = inputs_of(MOVES, noise, dtype)
        moved[noise] = kernels.run(op, inputs, GIVEN)[0].astype(float) - inputs[0]
    assert np.all(np.abs(moved.mean(0) + MOVES) <= hoeffding(count) * (MOVES % 1 != 0) + 2.0**-24)
    assert np.all((moved == np.floor(-MOVES)) | (moved == np.ceil(-MOVES)))


@pytest.mark.parametrize("noise", [0, 1, 12345, 2**31 - 1, -1])
@pytest.mark.parametrize("move", [0.3, -0.02])
def test_mean_over_elements_is_the_step(noise: int, move: float, kernels: SanitizedKernels) -> None:
    inputs = inputs_of(np.full(20_000, move), noise)
    (found,) = kernels.run("sgd_int8", inputs, GIVEN)
    assert abs(np.mean(found.astype(float) - inputs[0]) + move) <= hoeffding(found.size)


def test_small_steps_add_up() -> None:
    """A hundredth of a grid step, a thousand times: truncation would never move, here the mean moves by ten."""
    weights, given = np.full(2000, 10, np.int8), {**GIVEN, "salt": 9}
    moves = np.full(weights.shape, 0.01)
    for noise in range(1000):
        weights = OPS["sgd_int8"].reference([weights, *inputs_of(moves, noise)[1:]], given)[0]
    # each of the 2 000 000 roundings is a number of 0 or 1
    assert abs(np.mean(weights.astype(float)) - 0.0) <= 1000 * hoeffding(2_000_000)


def test_noise_is_uniform_and_without_pattern() -> None:
    count = 100_000
    for noise, salt in ((0, 0), (1, 0), (0, 1), (7, 2**31 - 1)):
        drawn = noise_fractions(noise, salt, count)
        assert np.all((drawn >= 0) & (drawn < 1))
        assert np.all(drawn * 2**24 == np.floor(drawn * 2**24))
        for edge in np.arange(1, 32) / 32:
            assert abs(np.mean(drawn < edge) - edge) <= hoeffding(count)
    centred = [noise_fractions(noise, salt, count) - 0.5 for noise in (0, 1, 2) for salt in (0, 1, 2)]
    for index, first in enumerate(centred):
        # neighbouring elements, steps and tensors: products lie within 1/4 of zero
        others = [first[shift:] for shift in (1, 2, 3, 64)] + centred[index + 1 :]
        for other in others:
            assert abs(np.mean(first[: other.size] * other)) <= hoeffding(other.size, 0.5)


def test_noise_of_an_element_is_uniform_over_steps() -> None:
    count = 20_000
    for element in (0, 1, 17):
        drawn = np.array([noise_fractions(noise, 5, element + 1)[element] for noise in range(count)])
        assert abs(drawn.mean() - 0.5) <= hoeffding(count)
        assert abs(np.mean((drawn[1:] - 0.5) * (drawn[:-1] - 0.5))) <= hoeffding(count - 1, 0.5)


def test_clip_limits_the_real_gradient(kernels: SanitizedKernels) -> None:
    inputs = inputs_of(np.array([640.0, -640.0, 16.0]), 0, weight=0)  # gradients of 20, -20 and 0.5
    (found,) = kernels.run("sgd_int8", inputs, {**GIVEN, "clip": 1.0})
    np.testing.assert_array_equal(found, [-32, 32, -16])


@pytest.mark.parametrize(("dtype", "limit"), [("int8", 127), ("int32", 2**30 - 1)])
def test_steps_end_at_the_limits(dtype: str, limit: int, kernels: SanitizedKernels) -> None:
    huge = np.array([1e30, -1e30, 3e38, -3e38])
    inputs = inputs_of(huge / 1e20, 0, dtype)
    inputs[3] = huge.astype(np.float32)
    with np.errstate(over="ignore"):
        (found,) = OPS[f"sgd_{dtype}"].reference(inputs, GIVEN)
    for weight in (-100, 0, 100) if dtype == "int8" else (-(2**31), 0, 2**31 - 1):
        inputs[0] = np.full(4, weight, dtype)
        (found,) = kernels.run(f"sgd_{dtype}", inputs, GIVEN)
        if dtype == "int8":
            np.testing.assert_array_equal(found, [-limit, limit, -limit, limit])
        assert np.all(np.abs(found.astype(np.int64)) <= limit)


def test_every_fused_update_exists() -> None:
    assert set(FUSED) <= set(OPS) and set(FUSED.values()) <= set(OPS)
