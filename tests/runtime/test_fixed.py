"""mt_fixed.h keeps the error bounds it states, for every argument, under the sanitizers."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import microtune.toolchain
from microtune.toolchain import compile_program

HERE = Path(__file__).parent
RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
NAMES = (
    "add",
    "subtract",
    "multiply",
    "divide",
    "exp",
    "log",
    "sigmoid",
    "sqrt",
    "absolute",
    "of_int",
    "floor",
    "round",
)
ONE, LARGEST = 65536, 2**31 - 1

Numbers = NDArray[np.int32]
Function = Callable[..., Numbers]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """fixed(name, a, b): the function over arrays, in one process under the sanitizers."""
    program = compile_program(
        [HERE / "fixed_probe.c"], [RUNTIME], tmp_path_factory.mktemp("fixed") / "fixed", sanitize=True
    )
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    answers, questions = process.stdout, process.stdin

    def call(name: str, a: Numbers, b: Numbers | None = None) -> Numbers:
        b = np.zeros_like(a) if b is None else b
        assert a.dtype == b.dtype == np.int32 and a.shape == b.shape
        head = np.array([NAMES.index(name), a.size], "u4")
        writer = threading.Thread(
            target=lambda: (questions.write(head.tobytes() + a.tobytes() + b.tobytes()), questions.flush())
        )
        writer.start()
        raw = answers.read(a.nbytes)
        writer.join()
        assert len(raw) == a.nbytes, "the sanitizers stopped the program: see its standard error"
        return np.frombuffer(raw, np.int32)

    yield call
    questions.close()
    assert process.wait(10) == 0


def every_size(seed: int, count: int = 400_000) -> Numbers:
    """Both signs and every number of binary digits alike, and the corners."""
    random = np.random.default_rng(seed)
    digits = random.integers(0, 32, count)
    x = (random.integers(0, 2**31, count) >> digits) * random.choice([-1, 1], count)
    corners = [0, 1, -1, ONE, -ONE, ONE - 1, LARGEST, -LARGEST, -LARGEST - 1, 2**30, 3 << 15]
    return np.concatenate([x, np.resize(corners, 200)]).astype(np.int32)


def pairs() -> tuple[Numbers, Numbers]:
    """Pairs of every size, and every corner with every other."""
    a, b = every_size(1), every_size(2)
    corners = a[-11:]
    return (
        np.concatenate([a, np.repeat(corners, 11)]).astype(np.int32),
        np.concatenate([b, np.tile(corners, 11)]).astype(np.int32),
    )


def saturated(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(x, -LARGEST, LARGEST)


def half_away(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def test_sums_are_exact_and_saturate(fixed: Function) -> None:
    a, b = pairs()
    wide = a.astype("i8"), b.astype("i8")
    assert np.array_equal(fixed("add", a, b), np.clip(wide[0] + wide[1], -LARGEST, LARGEST))
    assert np.array_equal(fixed("subtract", a, b), np.clip(wide[0] - wide[1], -LARGEST, LARGEST))
    assert np.array_equal(fixed("absolute", a), np.minimum(np.abs(wide[0]), LARGEST))


def test_products_are_rounded_to_nearest_and_saturate(fixed: Function) -> None:
    a, b = pairs()
    product = np.abs(a.astype(object) * b.astype(object))
    truth = np.sign(a.astype("i8") * np.sign(b)) * np.minimum((product + 0x8000) // ONE, LARGEST).astype("i8")
    assert np.array_equal(fixed("multiply", a, b), truth)


def test_quotients_are_rounded_to_nearest_and_saturate(fixed: Function) -> None:
    a, b = pairs()
    p, q = np.abs(a.astype(object)) * ONE, np.abs(b.astype(object))
    some = b != 0
    quotient = np.where(a != 0, LARGEST, 0).astype(object)
    quotient[some] = (2 * p[some] + q[some]) // (2 * q[some])
    sign = np.where((a < 0) != (b < 0), -1, 1)
    truth = sign * np.minimum(quotient, LARGEST).astype("i8")
    assert np.array_equal(fixed("divide", a, b), truth)


def test_square_roots_are_rounded_to_nearest(fixed: Function) -> None:
    x = np.concatenate([np.arange(1 << 18, dtype=np.int32), every_size(3)])
    root = np.sqrt(np.maximum(x, 0).astype("f8") * ONE)
    assert np.array_equal(fixed("sqrt", x), np.floor(root + 0.5))


def test_whole_numbers(fixed: Function) -> None:
    x = every_size(4)
    assert np.array_equal(fixed("of_int", x), np.where(
        np.abs(x.astype("i8")) > 32767, np.sign(x.astype("i8")) * LARGEST, x.astype("i8") * ONE))  # fmt: skip
    assert np.array_equal(fixed("floor", x), np.floor(x / ONE))
    assert np.array_equal(fixed("round", x), np.floor(x / ONE + 0.5))


def test_exponential_of_every_argument(fixed: Function) -> None:
    x = np.arange(-800_000, 681_391, dtype=np.int32)
    truth = np.exp(x / ONE) * ONE
    error = np.abs(fixed("exp", x) - truth)
    print(f"exp: 0.5 steps and {np.max((error - 0.5) / truth) * 2**17:.3f} 2^-17 of its value")
    assert (error <= 0.5 + truth * 2.0**-17).all()
    assert (np.diff(fixed("exp", x)) >= 0).all()
    beyond = np.array([681_391, LARGEST, -800_001, -LARGEST - 1], np.int32)
    assert fixed("exp", beyond).tolist() == [LARGEST, LARGEST, 0, 0]


def test_logarithm(fixed: Function) -> None:
    x = np.unique(np.concatenate([np.arange(1, 1 << 20), np.abs(every_size(5).astype("i8")), [LARGEST]]))
    x = x[(x > 0) & (x <= LARGEST)].astype(np.int32)
    y = fixed("log", x)
    error = np.abs(y - np.log(x / ONE) * ONE).max()
    print(f"log: {error:.3f} steps")
    assert error <= 1.0
    least = y[0]
    assert (fixed("log", np.array([0, -1, -LARGEST - 1], np.int32)) == least).all()
    assert fixed("log", np.array([ONE], np.int32)).tolist() == [0]


def test_sigmoid_of_every_argument(fixed: Function) -> None:
    x = np.arange(-900_000, 900_001, dtype=np.int32)
    y = fixed("sigmoid", x)
    error = np.abs(y - ONE / (1 + np.exp(-x / ONE))).max()
    print(f"sigmoid: {error:.3f} steps")
    assert error <= 1.0
    assert (np.diff(y) >= 0).all()
    assert np.array_equal(y + y[::-1], np.full(x.size, ONE))
    assert fixed("sigmoid", np.array([LARGEST, -LARGEST, -LARGEST - 1], np.int32)).tolist() == [ONE, 0, 0]
