"""Closed-form heads in C, sample after sample, under the sanitizers: the same as all samples at once, where that is
exact; and finite, whatever finite numbers come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.sanitized_kernels import SanitizedKernels

from microtune.ops import OPS
from microtune.ops.closed_form import LEAST_CURVATURE, packed, triangle, unpacked

U = 2.0**-24
HEADS = tuple(op.name for op in OPS.values() if op.header.removeprefix("mt_kernels_") in (
    "rls.h", "map.h", "logistic.h", "slda.h",
))  # fmt: skip
GIVEN = {"forgetting": 1.0, "prior": 1.0, "walk": 0.0, "memory": 2.0**24}


def arrays(op: str, outputs: int, inputs: int, r: np.random.Generator) -> list[np.ndarray]:
    """Weight, bias, state and constants of a head: an untouched prior."""
    layer = [r.normal(size=(outputs, inputs)), r.normal(size=outputs)]
    root = r.normal(size=(inputs + 1, inputs + 1))
    if op == "slda":
        worth = r.integers(0, 4, outputs).astype(float)
        state = np.concatenate([r.normal(size=outputs * inputs), worth, [0.0]])
        precision = packed(root[1:] @ root[1:].T)[: triangle(inputs)]
        return single([*layer, state, precision, -np.abs(r.normal(size=outputs))])
    prior = packed(root @ root.T / inputs + 0.1 * np.eye(inputs + 1))
    if op == "logistic":
        most = np.append(np.full(inputs, 1.0), 0.5)
        return single([*layer, np.tile(packed(np.diag(most)), outputs), most])
    return single([*layer, prior])


def single(values: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(each, np.float32) for each in values]


def sample(op: str, x: np.ndarray, y: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """What a head reads of one sample, behind its state and constants."""
    return single({"rls": [x, 2 / y.size * (y - target)], "slda": [x, target[:1]]}.get(op, [x, y, target]))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    r = np.random.default_rng(0)
    examples = {op: ([*arrays(op, 3, 2, r), *sample(op, *np.zeros((3, 3)))], GIVEN) for op in HEADS}
    for op, (inputs, _) in examples.items():
        inputs[{"slda": 5, "logistic": 4}.get(op, 3)] = np.zeros(2, np.float32)
    found = SanitizedKernels(tmp_path_factory.mktemp("heads"), examples)
    yield found
    found.close()


SIZES = {"outputs": st.integers(2, 6), "inputs": st.integers(1, 11), "steps": st.integers(1, 30)}


@settings(max_examples=15, deadline=None)
@given(**SIZES, seed=st.integers(0, 2**32 - 1), memory=st.sampled_from([2.0**24, 6.0]))
def test_slda_is_the_discriminant_of_all_samples(
    kernels: SanitizedKernels, outputs: int, inputs: int, steps: int, seed: int, memory: float
) -> None:
    """A running mean is the mean of what came and of the prior, as many samples as it is worth; with a memory, new
    samples keep the weight 1 / memory. Each step rounds a mean four times, by no more than the largest number in it."""
    r = np.random.default_rng(seed)
    weight, bias, state, precision, prior = before = arrays("slda", outputs, inputs, r)
    means = state[: outputs * inputs].reshape(outputs, inputs).astype(np.float64)
    worth = state[outputs * inputs : -1].astype(np.float64)
    sums, largest = means * worth[:, None], np.abs(means).max()
    for _ in range(steps):
        x, label = np.float32(r.normal(size=inputs)), int(r.integers(outputs))
        target = np.array([label])
        weight, bias, state = kernels.run("slda", [*before, *sample("slda", x, x, target)], {**GIVEN, "memory": memory})
        before = [weight, bias, state, precision, prior]
        sums[label] += x
        worth[label] += 1
        if worth[label] > memory:
            sums[label] *= memory / worth[label]
            worth[label] = memory
        largest = max(largest, float(np.abs(x).max()))
    exact = np.where(worth[:, None] > 0, sums / np.maximum(worth, 1e-9)[:, None], means)
    allowed = 6 * U * (steps + 1) * largest
    found = state[: outputs * inputs].reshape(outputs, inputs)
    np.testing.assert_allclose(found, exact, rtol=0, atol=allowed)
    np.testing.assert_array_equal(state[outputs * inputs : -1], worth)
    # every row is a discriminant of its mean, those of classes that never came too
    matrix = unpacked(precision.astype(np.float64))
    reach = np.abs(matrix).sum(axis=1).max() * np.abs(found).max()
    np.testing.assert_allclose(weight, found @ matrix, rtol=0, atol=(inputs + 4) * U * reach)
    offsets = prior - np.einsum("ch,hk,ck->c", found, matrix, found) / 2
    np.testing.assert_allclose(bias, offsets, rtol=0, atol=2 * (inputs + 8) * U * (inputs * reach * largest + 4))


@settings(max_examples=15, deadline=None)
@given(**SIZES, seed=st.integers(0, 2**32 - 1))
def test_map_and_logistic_hold_the_inverse_of_all_information(
    kernels: SanitizedKernels, outputs: int, inputs: int, steps: int, seed: int
) -> None:
    """P = (P0^-1 + sum_i h_i phi_i phi_i')^-1, h_i the curvature of sample i, inverted at once. Each step is off by its
    rounding times the condition of the matrix."""
    r = np.random.default_rng(seed)
    for op in ("map", "logistic"):
        before = arrays(op, outputs, inputs, r)
        # one covariance, or one of each output
        information = [np.linalg.inv(unpacked(each.astype(np.float64))) for each in np.split(
            before[2], 1 if op == "map" else outputs
        )]  # fmt: skip
        for _ in range(steps):
            x = np.float32(r.normal(size=inputs))
            phi = np.append(x, 1.0).astype(np.float64)
            y = before[0] @ x + before[1]
            label = np.array([r.integers(outputs)]) if op == "map" else r.integers(0, 2, outputs)
            for index, each in enumerate(information):
                moderated = np.float64(y) / np.sqrt(1 + np.pi / 8 * (phi @ np.linalg.solve(each, phi)))
                if op == "map":
                    p = np.exp(moderated - moderated.max())
                    p = p / p.sum()
                    curvature = max(LEAST_CURVATURE, (p * (1 - p)).max())
                else:
                    p = 1 / (1 + np.exp(-moderated[index]))
                    curvature = p * (1 - p)
                information[index] = each + curvature * np.outer(phi, phi)
            before[:3] = kernels.run(op, [*before, *sample(op, x, y, label)], GIVEN)[:3]
        for have, want in zip(np.split(before[2], len(information)), map(np.linalg.inv, information), strict=True):
            allowed = 20 * steps * U * np.linalg.cond(want) * np.abs(want).max()
            np.testing.assert_allclose(unpacked(have), want, rtol=0, atol=max(allowed, 1e-6))


def test_logistic_moves_by_its_closed_form_at_the_first_sample(kernels: SanitizedKernels) -> None:
    """One output, one input, all of it by hand: P = diag(1, 1/2), x = 2, weight = bias = 0, the answer yes.

    phi = (2, 1), P phi = (2, 1/2), phi' P phi = 4.5; p = 1/2, curvature 1/4, spread 1 + 1.125; the step 0.5 / 2.125.
    """
    zero = np.zeros(1)
    weight, bias, rows, _ = kernels.run(
        "logistic",
        single([zero[None], zero, np.array([1.0, 0.0, 0.5]), np.array([1.0, 0.5]), np.array([2.0]), zero, np.ones(1)]),
        GIVEN,
    )
    np.testing.assert_allclose([weight[0, 0], bias[0]], np.array([2.0, 0.5]) * 0.5 / 2.125, rtol=1e-6)
    np.testing.assert_allclose(rows, [1 - 4 / 8.5, -1 / 8.5, 0.5 - 0.25 / 8.5], rtol=1e-6)


def test_a_walk_gives_back_variance_up_to_the_prior(kernels: SanitizedKernels) -> None:
    """Without it a weight is learnt ever more slowly; with it, an input never seen stays exactly at its prior."""
    spread = {}
    for walk in (0.0, 0.125):
        state = arrays("logistic", 1, 2, np.random.default_rng(0))
        for index in range(200):
            x = np.array([1.0 if index % 2 else -1.0, 0.0])
            y = state[0] @ np.float32(x) + state[1]
            state[:3] = kernels.run(
                "logistic", [*state, *sample("logistic", x, y, np.ones(1))], {**GIVEN, "walk": walk}
            )[:3]
        spread[walk] = unpacked(state[2]).diagonal()
    assert spread[0.125][0] > 3 * spread[0.0][0]
    assert spread[0.0][1] == spread[0.125][1] == 1.0
    assert spread[0.125][2] <= 0.5


@pytest.mark.parametrize("op", HEADS)
@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=32)
        | st.sampled_from([0.0, 1e-45, 1e9, -1e9, 1e19, 3e38, -3e38]),
        min_size=3, max_size=3,
    ),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_finite_numbers_stay_finite(op: str, kernels: SanitizedKernels, values: list[float], seed: int) -> None:
    """Three samples of any size, one after the other: nothing is ever infinite or no number, and a variance never
    negative. The logits are those of the layer, so they may be infinite themselves. (Least squares follows its target
    wherever that is: there only the covariance is held to it.)"""
    r = np.random.default_rng(seed)
    before = arrays(op, 3, 2, r)
    for _ in range(3):
        x = np.float32(values[:2]) if r.integers(2) else np.float32(r.normal(size=2))
        with np.errstate(over="ignore", invalid="ignore"):
            y = before[0] @ x + before[1]
        target = np.array([2.0]) if op == "map" else np.array([1.0, 0.0, 1.0])
        if op == "rls":
            y = np.clip(np.nan_to_num(y), -1e6, 1e6)
        updated = kernels.run(op, [*before, *sample(op, x, y, target)], GIVEN)[:3]
        assert all(np.isfinite(each).all() for each in updated[0 if op != "rls" else 2 :])
        before = [*updated, *before[3:]]
    if op in ("map", "rls"):
        assert unpacked(before[2]).diagonal().min() >= 0
