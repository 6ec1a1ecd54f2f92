"""mt_math.h keeps the error bounds it states over all floats, and is defined for all of them."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import microtune.toolchain
from microtune.toolchain import compile_library

RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
SMALLEST, LARGEST = float(np.finfo("f4").tiny), float(np.finfo("f4").max)

Function = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Oracle = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@pytest.fixture(scope="module")
def math(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Function]:
    source = Path(__file__).parent / "math_probe.c"
    library = ctypes.CDLL(
        str(compile_library([source], [RUNTIME], tmp_path_factory.mktemp("math") / "math.so", strict=True))
    )

    def function(name: str) -> Function:
        def call(x: NDArray[np.float32]) -> NDArray[np.float32]:
            x = np.ascontiguousarray(x, "f4")
            y = np.empty_like(x)
            library[f"probe_{name}"](
                ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_uint32(x.size)
            )
            return y

        return call

    return function


def every_so_many_floats(step: int = 509) -> NDArray[np.float32]:
    """One in ``step`` (a prime) of all finite floats of either sign, about 8 million: every binade alike."""
    bits = np.arange(0, 0x7F800000, step, dtype="u4")
    return np.concatenate([bits, bits | np.uint32(0x80000000)]).view("f4")


def units_in_the_last_place(y: NDArray[np.float32], truth: NDArray[np.float64]) -> float:
    """Largest error in units of the last place of the truth rounded to float32."""
    spacing = np.spacing(np.maximum(np.abs(truth), SMALLEST).astype("f4")).astype("f8")
    return float(np.max(np.abs(y.astype("f8") - truth) / spacing))


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


# name, oracle, range in which the bound holds (beyond it see below), bound stated in mt_math.h
CASES = {
    "exp": (np.exp, -87.0, 88.0, 1.1),
    "log": (np.log, SMALLEST, LARGEST, 1.0),
    "tanh": (np.tanh, -LARGEST, LARGEST, 2.5),
    "sigmoid": (sigmoid, -87.0, LARGEST, 2.5),
    "sqrt": (np.sqrt, SMALLEST, LARGEST, 0.8),
}


@pytest.mark.parametrize("name", CASES)
def test_error_bound(math: Callable[[str], Function], name: str) -> None:
    oracle, low, high, bound = CASES[name]
    # the binades where most of the work is done are sampled evenly too
    x = np.concatenate(
        [
            every_so_many_floats(),
            np.linspace(-88, 88, 4_000_000, dtype="f4"),
            np.linspace(0, 4, 2_000_000, dtype="f4"),
        ]
    )
    x = x[(x >= np.float32(low)) & (x <= np.float32(high))]
    measured = units_in_the_last_place(math(name)(x), oracle(x.astype("f8")))
    print(f"mt_{name}: {measured:.3f} units in the last place over {x.size} values")
    assert measured <= bound


def test_exp_saturates(math: Callable[[str], Function]) -> None:
    low, high = math("exp")(np.array([-87, 88], "f4"))
    x = np.array([-np.inf, -LARGEST, -88, np.nan], "f4")
    assert (math("exp")(x) == low).all()
    assert low > SMALLEST / 2
    assert (math("exp")(np.array([np.inf, LARGEST, 89], "f4")) == high).all()
    assert np.isfinite(high)


def test_every_float_is_a_defined_argument(math: Callable[[str], Function]) -> None:
    nan, infinity = np.float32(np.nan), np.float32(np.inf)
    x = np.array([nan, -infinity, infinity, -0.0, 1e-45, -1e-45], "f4")
    logarithm = math("log")(x)
    assert np.isfinite(logarithm).all()
    assert (logarithm[[0, 1, 3, 4, 5]] == math("log")(np.array([SMALLEST], "f4"))).all()
    assert logarithm[2] == pytest.approx(128 * np.log(2))
    assert math("tanh")(x).tolist() == [-1, -1, 1, 0, x[4], x[5]]
    sigmoids = math("sigmoid")(x)
    assert sigmoids[[0, 2, 3, 4, 5]].tolist() == [1, 1, 0.5, 0.5, 0.5]
    assert 0 < sigmoids[1] < 2e-38
    roots = math("sqrt")(x)
    assert roots[[0, 1, 3, 4, 5]].tolist() == [0] * 5
    assert np.isnan(roots[2])


def test_monotonic_where_decisions_hang_on_it(math: Callable[[str], Function]) -> None:
    """Probabilities and activations keep the order of what they are made from, but for their rounding."""
    x = np.linspace(-20, 20, 4001, dtype="f4")
    for name in ("exp", "tanh", "sigmoid"):
        assert (np.diff(math(name)(x)) >= 0).all()
