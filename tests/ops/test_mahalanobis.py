"""The anomaly detector's kernels, sample after sample, under the sanitizers: normal is what all windows at once say,
the limit Hotelling's; and whatever finite numbers come, it stays a scatter (SPEC B5)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f as fisher
from tests.ops.sanitized_kernels import SanitizedKernels

from microtune.compiler.hotelling import curve, limit
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle, unpacked
from microtune.ops.mahalanobis import CURVE, LARGE

U = 2.0**-24
WORTH = 40.0
GIVEN = {"worth": WORTH, "memory": 1e6, **dict(zip(CURVE, (12.0, 4.0, 5.0, 6.0, 7.0), strict=True))}
"""A limit so far away that all windows count in full."""
WELL, FAULT = np.zeros(1, np.float32), np.ones(1, np.float32)
BELOW, ABOVE = np.full(1, -0.5, np.float32), np.full(1, 0.5, np.float32)


def single(*values: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(each, np.float32) for each in values]


def scatter(size: int, r: np.random.Generator, spread: float = 1.0) -> np.ndarray:
    """A covariance whose condition is at most 100, float64."""
    turned = np.linalg.qr(r.normal(size=(size, size)))[0]
    return np.asarray(spread**2 * (turned * np.exp(r.uniform(-2.3, 2.3, size))) @ turned.T)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    two = single(np.zeros(2), np.zeros(3), np.zeros(2))
    x, one = np.zeros(2, np.float32), np.zeros(1, np.float32)
    examples = {"mahalanobis": ([x, one, *two], {}), "mahalanobis_learn": ([*two, one, x, one, one], GIVEN)}
    found = SanitizedKernels(tmp_path_factory.mktemp("detector"), examples)
    yield found
    found.close()


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 33), spread=st.sampled_from([1e-3, 1.0, 50.0]), seed=st.integers(0, 2**32 - 1))
def test_the_logit_is_a_quadratic_form(kernels: SanitizedKernels, size: int, spread: float, seed: int) -> None:
    """Every term of the sum goes through at most size + 8 roundings: the gap, its products, a dot product, the sum."""
    r = np.random.default_rng(seed)
    x, mean, precision, limits = single(
        spread * r.normal(size=size), spread * r.normal(size=size), packed(np.linalg.inv(scatter(size, r, spread))),
        np.array([r.uniform(1, 40), r.uniform(1, 60)]),
    )  # fmt: skip
    inputs = [x, BELOW, mean, precision, limits]
    found = kernels.run("mahalanobis", inputs, {})[0]
    want = OPS["mahalanobis"].reference([each.astype(np.float64) for each in inputs], {})[0]
    gap = np.abs(x.astype(np.float64) - mean)
    reach = limits[0] * (gap @ np.abs(unpacked(precision.astype(np.float64))) @ gap) + limits[1]
    assert abs(float(found[0]) - float(want[0])) <= 2 * (size + 8) * U * reach


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 17), steps=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_normal_is_what_all_windows_say(kernels: SanitizedKernels, size: int, steps: int, seed: int) -> None:
    """The mean of the windows, and the factory's scatter with theirs about that mean, inverted at once; what looks
    like a known fault, and what was one, is not among them. Each step is off by its rounding times the condition."""
    r = np.random.default_rng(seed)
    first = WORTH * scatter(size, r)
    old = single(10 * r.normal(size=size), packed(np.linalg.inv(first)), np.array([1.0, 1.0]), np.zeros(1))
    now, learnt, centre = old, [], r.normal(size=size)
    for _ in range(steps):
        x = np.float32(centre + r.normal(size=size))
        # a word of zero is not above it
        known = (ABOVE, BELOW, np.zeros(1, np.float32))[int(r.choice(3, p=(0.2, 0.6, 0.2)))]
        target = FAULT if r.random() < 0.2 else WELL
        before = now
        now = list(kernels.run("mahalanobis_learn", [*now, x, known, target], GIVEN)[:4])
        if known[0] > 0 or target[0] > 0:
            assert all(np.array_equal(a, b) for a, b in zip(now, before, strict=True))
        else:
            learnt.append(x.astype(np.float64))
    count = len(learnt)
    assert now[3] == count
    if not learnt:
        return
    rows = np.array(learnt)
    allowed = 6 * U * (count + 1) * max(np.abs(rows).max(), np.abs(old[0]).max())
    np.testing.assert_allclose(now[0], rows.mean(axis=0), rtol=0, atol=allowed)
    wanted = np.linalg.inv(first + (rows - rows.mean(axis=0)).T @ (rows - rows.mean(axis=0)))
    allowed = 20 * (count + size) * U * np.linalg.cond(first) * np.abs(wanted).max()
    np.testing.assert_allclose(unpacked(now[1].astype(np.float64)), wanted, rtol=0, atol=allowed)
    u = 1 / (WORTH + count - size)
    fitted = np.exp(12 + 4 * u + 5 * u**2 + 6 * u**3 + 7 * u**4) * (1 + 1 / count)
    np.testing.assert_allclose(now[2], np.array([WORTH + count - 1, fitted]) / 2, rtol=1e-5)


def test_it_stays_a_scatter_for_long(kernels: SanitizedKernels) -> None:
    """Four thousand windows, one direction a thousand times as wide as another, in jumps now and then, against all of
    them at once; then the scatter stays, and the mean follows where a thousand more have gone."""
    r, size, memory = np.random.default_rng(3), 8, 4000
    wide = np.geomspace(0.03, 30, size)
    rows = np.float32(wide * r.normal(size=(memory + 1000, size)))
    rows[::397] *= 20
    rows[memory:] += np.float32(2 * wide)
    now = single(np.zeros(size), packed(np.diag(1 / (WORTH * wide**2))), np.ones(2), np.zeros(1))
    for step, x in enumerate(rows):
        if step == memory:
            kept = now[1]
        now = list(kernels.run("mahalanobis_learn", [*now, x, BELOW, WELL], {**GIVEN, "memory": float(memory)})[:4])
    first = rows[:memory].astype(np.float64)
    wanted = np.diag(WORTH * wide**2) + (first - first.mean(axis=0)).T @ (first - first.mean(axis=0))
    # each step rounds an element thrice, by no more than the largest beside it
    off = unpacked(now[1].astype(np.float64)) @ wanted - np.eye(size)
    assert np.abs(off * np.outer(wide, 1 / wide)).max() < 3 * U * memory
    assert np.array_equal(now[1], kept) and now[3] == memory
    assert np.all(np.abs(now[0] / wide - 2 * (1 - np.exp(-1000 / memory))) < 0.3)


def test_a_window_beyond_the_limit_counts_the_less_the_further_it_is(kernels: SanitizedKernels) -> None:
    """One at four times the limit moves the mean, and widens the scatter, as one at a quarter of it does; but the first
    of all tells where the others are, and counts in full."""
    r, size = np.random.default_rng(2), 5
    precision = packed(np.linalg.inv(WORTH * scatter(size, r)))
    old = single(r.normal(size=size), precision, np.array([25.0, 30.0]), np.array([10.0]))
    away = r.normal(size=size)
    at_limit = away * np.sqrt(30 / (25 * (away @ unpacked(precision) @ away)))
    given = [np.float32(old[0] + factor * at_limit) for factor in (0.5, 1.0, 2.0, 1000.0)]  # of distances the roots
    inside, at, beyond, far = (kernels.run("mahalanobis_learn", [*old, x, BELOW, WELL], GIVEN)[:4] for x in given)
    for have, want in zip(beyond, inside, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-6)
    moved = [np.linalg.norm(each[0] - old[0]) for each in (far, inside, at)]
    assert moved[0] < 0.01 * moved[1] and moved[1] == pytest.approx(moved[2] / 2, rel=1e-3)
    want = OPS["mahalanobis_learn"].reference([each.astype(float) for each in [*old, given[2], BELOW, WELL]], GIVEN)
    np.testing.assert_allclose(beyond[0], want[0], rtol=1e-5)
    np.testing.assert_allclose(beyond[1], want[1], rtol=1e-4, atol=1e-5 * np.abs(precision).max())
    none = np.zeros(1, np.float32)
    first = kernels.run("mahalanobis_learn", [*old[:3], none, given[3], BELOW, WELL], GIVEN)
    np.testing.assert_allclose(first[0], old[0] + 1000 * at_limit, rtol=1e-6)
    assert np.array_equal(first[1], old[1])


@pytest.mark.parametrize("value", [1e10, 1e19, 3.4e38, -3.4e38])
def test_wild_windows_are_faults_and_change_nothing_finite(kernels: SanitizedKernels, value: float) -> None:
    mean, precision, limits, state = single(np.zeros(3), packed(np.eye(3)), np.array([2.0, 5.0]), np.array([4.0]))
    x = np.full(3, value, np.float32)
    assert kernels.run("mahalanobis", [x, BELOW, mean, precision, limits], {})[0][0] == np.float32(LARGE)
    old = [mean, precision, limits, state]
    now = kernels.run("mahalanobis_learn", [*old, x, BELOW, WELL], GIVEN)[:4]
    assert all(np.array_equal(a, b) for a, b in zip(now, old, strict=True))


def test_the_limit_is_hotellings() -> None:
    """Against Fisher's F of scipy; and the curve is within 1 % of it wherever it is used."""
    for inputs in (1, 2, 15, 40, 100):
        for freedom in (4.0, 11.5, 100.0, 1e5):
            for share in (0.001, 0.01, 0.2):
                want = fisher.isf(share, inputs, freedom) * inputs * (freedom + inputs - 1) / freedom
                assert limit(inputs, freedom, share) == pytest.approx(want, rel=1e-6)
        least = max(30, 2 * inputs) + 1 - inputs
        found = curve(inputs, least, 0.01)
        for freedom in np.geomspace(least, 1e5, 30):
            fitted = np.exp(sum(c / freedom**power for power, c in enumerate(found)))
            assert fitted == pytest.approx(limit(inputs, float(freedom), 0.01), rel=0.01)


def test_a_limit_keeps_its_share_of_false_alarms_after_few_windows(kernels: SanitizedKernels) -> None:
    """Windows of a normal distribution, adapted to 20 of it, 120 times: the share of next windows beyond the limit is
    the one asked for, within four standard errors. (The factory's covariance counts like 30 windows drawn here too. The
    few that count as one at the limit, one in fifty, are nearly there.)"""
    r, size, share = np.random.default_rng(0), 5, 0.02
    given = {"worth": 30.0, "memory": 1e6, **dict(zip(CURVE, curve(size, 31 - size, share), strict=True))}
    alarms = []
    for _ in range(120):
        drawn = r.normal(size=(30, size))
        now = single(np.zeros(size), packed(np.linalg.inv(drawn.T @ drawn)), np.ones(2), np.zeros(1))
        for x in r.normal(size=(20, size)):
            now = list(kernels.run("mahalanobis_learn", [*now, np.float32(x), BELOW, WELL], given)[:4])
        gap = r.normal(size=(100, size)) - now[0]
        distance = np.einsum("ni,ij,nj->n", gap, unpacked(now[1].astype(np.float64)), gap)
        alarms.append(np.mean(now[2][0] * distance > now[2][1]))
    assert triangle(size) == len(now[1])
    assert abs(np.mean(alarms) - share) < 4 * np.std(alarms) / np.sqrt(120)
