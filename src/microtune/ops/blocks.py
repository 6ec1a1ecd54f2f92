"""Blocks: tensors of one exponent, as gradients are held where all is integers.

A block is int16 (2 + size,): the exponent of two, an empty place, then a mantissa for each element in the order of the
tensor it belongs to. It keeps the 15 highest bits of the largest sum, rounded down, and is shifted up where fewer than
11 are in use. A block of zeros has the exponent ``ZERO``. (Block floating point: Wang et al., NITI: Training Integer
Neural Networks Using Integer-only Arithmetic, 2020.) ``mt_kernels_block.h`` gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from microtune.ir.tensor import Tensor

HEAD = 2
ZERO = -32768
DIGITS, LEAST_DIGITS = 15, 11
WIDEST = 2**9


def block_size(tensor: Tensor) -> int:
    """Elements of a block. Raises ValueError for a tensor that is none."""
    if tensor.dtype != "int16" or len(tensor.shape) != 1 or tensor.shape[0] <= HEAD:
        raise ValueError(f"takes a block, int16 ({HEAD} + size,), not {tensor.dtype} {tensor.shape}")
    return tensor.shape[0] - HEAD


def write(values: np.ndarray, exponent: int) -> np.ndarray:
    """The block of whole numbers (int64) in units of 2^exponent."""
    flat = np.asarray(values, np.int64).ravel()
    block = np.zeros(HEAD + flat.size, np.int16)
    if not flat.any():
        block[0] = ZERO
        return block
    # of a number below zero, the bits that are not sign
    length = int(np.max(flat ^ (flat >> 63))).bit_length()
    shift = length - DIGITS if length > DIGITS or length < LEAST_DIGITS else 0
    block[0] = exponent + shift
    block[HEAD:] = flat >> shift if shift > 0 else flat << -shift
    return block


def mantissas(block: np.ndarray) -> np.ndarray:
    """As int64."""
    return np.asarray(block[HEAD:], np.int64)


def real(block: np.ndarray) -> np.ndarray:
    """What a block stands for, in float64."""
    return np.ldexp(block[HEAD:].astype(np.float64), int(block[0]))


def divided(block: np.ndarray, divisor: int) -> np.ndarray:
    """The block of all elements divided by a whole number."""
    power = divisor.bit_length() - 1
    if block[0] == ZERO:
        return block
    found = block.copy()
    found[0] -= power
    if divisor != 1 << power:
        factor = ((1 << (power + DIGITS)) + divisor // 2) // divisor
        found[HEAD:] = (mantissas(block) * factor) >> DIGITS
    return found


def block_of(reals: ArrayLike) -> np.ndarray:
    """The block nearest to real numbers, for constants."""
    array = np.asarray(reals, np.float64).ravel()
    block = np.zeros(HEAD + array.size, np.int16)
    largest = float(np.max(np.abs(array)))
    if largest == 0:
        block[0] = ZERO
        return block
    exponent = int(np.frexp(largest)[1]) - DIGITS
    # the largest may be rounded up to 2^15
    exponent += bool(np.rint(np.ldexp(largest, -exponent)) > 32767)
    block[0] = exponent
    block[HEAD:] = np.rint(np.ldexp(array, -exponent))
    return block


def factors_of(reals: ArrayLike) -> np.ndarray:
    """The block of numbers above 0, none of which counts more than ``WIDEST`` times the least: that has 6 digits then,
    where channels whose weights are nearly nothing would leave it none."""
    array = np.asarray(reals, np.float64)
    return block_of(np.minimum(array, WIDEST * array.min()))
