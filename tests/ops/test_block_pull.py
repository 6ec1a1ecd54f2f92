"""Integers on their way back to the base: by the share asked for, in the mean, and never beyond it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from microtune.compiler.sources import runtime_directory
from microtune.toolchain import compile_library

SOURCE = """
#include "mt_kernels_block_move.h"
void pull8(int8_t *w, int8_t *rest, const int8_t *base, uint32_t size, int32_t share, uint32_t *random);
void pull32(int32_t *b, const int32_t *base, uint32_t size, int32_t share, uint32_t *random);
void pull8(int8_t *w, int8_t *rest, const int8_t *base, uint32_t size, int32_t share, uint32_t *random)
{
    mt_pull_int8(w, rest, base, size, share, random);
}
void pull32(int32_t *b, const int32_t *base, uint32_t size, int32_t share, uint32_t *random)
{
    mt_pull_int32(b, base, size, share, random);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("pull")
    (folder / "pull.c").write_text(SOURCE)
    return ctypes.CDLL(str(compile_library([folder / "pull.c"], [runtime_directory()], folder / "pull.so")))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_weights(share: float, library: ctypes.CDLL) -> None:
    random = np.array([7], np.uint32)
    r = np.random.default_rng(1)
    size = 20_000
    w, base = (r.integers(-128, 128, size).astype(np.int8) for _ in range(2))
    rest = r.integers(-128, 128, size).astype(np.int8)
    old = w + rest / 256
    library.pull8(pointer(w), pointer(rest), pointer(base), size, round(share * (2**31 - 1)), pointer(random))
    away, moved = old - base, old - (w + rest / 256)
    # the share is read to 23 places, a move rounded down to a 256th after a dither; a weight of -128 stays one
    assert np.all(np.abs(moved - share * away) <= 1 / 256 + np.abs(away) * 2.0**-22)
    # 20 000 roundings of less than a 256th, evenly spread: Hoeffding at 1e-9
    assert abs(np.mean(moved - share * away)) <= np.sqrt(np.log(2e9) / (2 * size)) / 256 + 1e-5


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0])
def test_biases(share: float, library: ctypes.CDLL) -> None:
    random = np.array([9], np.uint32)
    r = np.random.default_rng(2)
    b, base = (r.integers(-(2**30), 2**30, 5000).astype(np.int32) >> np.int32(12) for _ in range(2))
    old = b.astype(float)
    library.pull32(pointer(b), pointer(base), b.size, round(share * (2**31 - 1)), pointer(random))
    assert np.all(np.abs(old - b - share * (old - base)) <= 1 + np.abs(old - base) * 2.0**-30)
