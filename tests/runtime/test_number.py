"""mt_number.h in fixed point: each function against exact arithmetic, under the sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from microtune.toolchain import compile_program

from .test_store import RUNTIME

HERE = Path(__file__).parent
NAMES = ("of", "whole", "share", "mean", "lives", "chance", "byte", "float_bits", "running", "share_of_one")
LARGEST, ONE = 2**31 - 1, 65536
ENDS = np.array([-(2**31), -LARGEST, -LARGEST + 1, -ONE, -1, 0, 1, 2, ONE - 1, ONE, ONE + 1, LARGEST - 1, LARGEST])
Function = Callable[..., np.ndarray]


@pytest.fixture(scope="module", params=[[], ["MT_NO_DIVIDER"]], ids=["divider", "no divider"])
def number(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Function:
    """number(name, a, b, c): the function over arrays, as int64; also as cores without a divider compute it."""
    folder = tmp_path_factory.mktemp("number")
    program = compile_program(
        [HERE / "number_probe.c"], [RUNTIME], folder / "number", sanitize=True, defines=request.param
    )

    def call(name: str, *given: np.ndarray) -> np.ndarray:
        columns = np.zeros((np.size(given[0]), 3), np.int64)
        for index, each in enumerate(given):
            columns[:, index] = each
        head = np.array([NAMES.index(name), len(columns)], np.uint32).tobytes()
        stored = head + (columns & 0xFFFFFFFF).astype(np.uint32).tobytes()
        found = subprocess.run([program], input=stored, capture_output=True, check=False)
        assert (found.returncode, found.stderr) == (0, b"")
        return np.frombuffer(found.stdout, np.int32).astype(np.int64)

    return call


def draw(count: int) -> np.ndarray:
    """Numbers of all sizes, and those at the ends."""
    r = np.random.default_rng(0)
    some = np.round(r.choice([-1, 1], count) * 2 ** r.uniform(0, 31, count)).clip(-LARGEST, LARGEST)
    return np.concatenate([some.astype(np.int64), ENDS])


def test_whole_numbers_and_shares(number: Function) -> None:
    whole = np.array([0, 1, 2, 32766, 32767, 32768, 65535, 2**31, 2**32 - 1])
    assert np.array_equal(number("of", whole), np.minimum(whole * ONE, LARGEST))
    x = np.abs(draw(1000)).clip(0, LARGEST)
    assert np.array_equal(number("whole", x), x // ONE)
    a = np.repeat(draw(300), 8)
    counts = np.resize([1, 2, 3, 7, 1000, LARGEST, 2**31, 2**32 - 1], a.size)
    assert np.array_equal(number("share", a, counts), np.trunc(a / counts) * (counts <= LARGEST))


def test_shares_of_one_are_the_nearest(number: Function) -> None:
    e = np.arange(ONE + 1)
    assert np.array_equal(number("share_of_one", e), (2**33 + ONE + e) // (2 * (ONE + e)))  # none is halfway


def test_a_mean_of_few_values_is_rounded_to_nearest(number: Function) -> None:
    values = np.abs(draw(4000)).clip(0, LARGEST)
    mean, value = values[::2], values[1::2][: len(values[::2])]
    mean = mean[: len(value)]
    count = np.resize([1, 2, 3, 32, 34, 1023], value.size)
    exact = mean + (value - mean) / count
    assert (np.abs(number("mean", mean, value, count) - exact) <= 0.5).all()
    for count in (1024, 10**6, 2**31, 2**32 - 1):
        exact = mean + (value - mean) / 1024
        assert (np.abs(number("mean", mean, value, count) - exact) < 1).all()


@pytest.mark.parametrize("share", [0.0005, 0.003, 0.02, 0.5])
def test_a_mean_of_many_values_has_no_bias(number: Function, share: float) -> None:
    """100,000 answers, of which a share is wrong. The mean of the last 1024 varies by sqrt(p / 2048); over 90 such
    stretches, their mean by a ninth of that (and not at all by the half of a 128th that rounding to nearest lost)."""
    values = (np.random.default_rng(1).random(100_000) < share) * ONE
    found = number("running", values) / ONE
    assert np.all(found >= 0) and np.all(found <= 1)
    error = found[8000:].mean() - values[8000:].mean() / ONE
    assert abs(error) <= 4 * (share / 2048) ** 0.5 / 90**0.5 + 1e-4
    constant = number("running", np.concatenate([np.full(1500, ONE), np.full(20_000, 66)]))
    assert abs(constant[-1] - 66) <= 1


def test_half_lives(number: Function) -> None:
    """Where it matters, up to 16 half-lives, to 2^-13 of the larger; beyond, at least 16; never out of range."""
    r = np.random.default_rng(2)
    seconds = np.concatenate([2 ** r.uniform(0, 32, 3000), [0, 1, 2**32 - 1, 2**32 - 1, 2**31]]).astype(np.int64)
    half = np.concatenate([2 ** r.uniform(0, 32, 3000), [1, 2**32 - 1, 1, 2**32 - 1, 2**31]]).astype(np.int64)
    found, exact = number("lives", seconds, half) / ONE, seconds / half
    near = exact <= 16
    assert (np.abs(found - exact)[near] <= np.maximum(exact, 1)[near] ** 2 * 2.0**-13).all()
    assert (found[~near] >= 15.9).all()


def test_chances_and_bytes(number: Function) -> None:
    p = np.repeat([0, 1, 655, 32768, 65535, ONE, LARGEST], 500)
    bits = np.resize(np.random.default_rng(3).integers(0, 2**32, 500), p.size)
    assert np.array_equal(number("chance", p, bits), bits // ONE < p)
    x = draw(1000)
    assert np.array_equal(number("byte", x), np.floor(255 * np.clip(x / ONE, 0, 1)))


def test_bits_of_floats(number: Function) -> None:
    """Exact where a float can be, cut off towards zero elsewhere."""
    x = draw(5000)
    found = number("float_bits", x).astype(np.int32).view(np.float32).astype(np.float64) * ONE
    digits = np.ceil(np.log2(np.maximum(np.abs(x), 1) + 1)) - 24
    unit = 2.0 ** np.maximum(digits, 0)
    assert np.array_equal(found, np.trunc(x / unit) * unit)
