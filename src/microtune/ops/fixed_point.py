"""Scaling integers by real numbers with integers alone, exactly as gemmlowp and TFLite do it.

A real factor is held as ``multiplier`` * 2^(``shift`` - 31) with a multiplier of 31 significant bits. Everything
here works on arrays of int64, in which no step can overflow; the C of ``mt_kernels_int8.h`` gives the same numbers.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference (2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

INT32 = np.iinfo(np.int32)
INT8 = np.iinfo(np.int8)
# beyond these a factor is not representable: 2^30 and more is refused, below 2^-32 it is zero
LARGEST_SHIFT, SMALLEST_SHIFT = 30, -31


def round_half_away(x: ArrayLike) -> np.ndarray:
    """The nearest whole number in the type of ``x``; of two equally near ones that farther from zero."""
    array = np.asarray(x)
    whole = np.trunc(array)
    # exact, where adding a half first would round 0.49999997 up
    return np.asarray(whole + np.copysign(np.abs(array - whole) >= 0.5, array), array.dtype)


def quantize_multipliers(factors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (int32) and shifts (int8) of factors >= 0, each in the shape of ``factors``.

    Raises ValueError for a factor that is negative, not finite, or 2^30 and more.
    """
    real = np.asarray(factors, np.float64)
    if not (np.all(np.isfinite(real)) and np.all(real >= 0)):
        raise ValueError(f"a scale factor must be finite and not negative, not {real}")
    fraction, shift = np.frexp(real)
    multiplier = round_half_away(fraction * 2.0**31).astype(np.int64)
    full = multiplier == 2**31
    multiplier, shift = np.where(full, 2**30, multiplier), shift + full
    if np.any(shift > LARGEST_SHIFT):
        raise ValueError(f"a scale factor must be below 2^{LARGEST_SHIFT}, not {real.max():g}")
    vanishes = shift < SMALLEST_SHIFT
    return np.where(vanishes, 0, multiplier).astype(np.int32), np.where(vanishes, 0, shift).astype(np.int8)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """``(multiplier, shift)`` of one factor; see ``quantize_multipliers``."""
    multiplier, shift = quantize_multipliers(real)
    return int(multiplier), int(shift)


def saturate(x: np.ndarray) -> np.ndarray:
    """int64 limited to what int32 holds."""
    return np.asarray(np.clip(x, INT32.min, INT32.max))


def rounding_doubling_high_multiply(a: np.ndarray, b: ArrayLike) -> np.ndarray:
    """a b / 2^31, rounded half up: gemmlowp's SaturatingRoundingDoublingHighMul, ``b`` being above -2^31."""
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + 2**30) >> 31


def rounding_divide(x: np.ndarray, exponent: ArrayLike) -> np.ndarray:
    """x / 2^exponent, rounded half away from zero: gemmlowp's RoundingDivideByPOT."""
    power = np.asarray(exponent, np.int64)
    half = (np.int64(1) << power) >> 1
    return np.asarray(np.sign(x) * ((np.abs(x) + half) >> power))


def rescale(accumulator: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> np.ndarray:
    """accumulator * multiplier * 2^(shift - 31) as gemmlowp rounds it (twice), in int64.

    ``multiplier`` and ``shift`` are numbers or arrays along the last axis. A shift to the left saturates.
    """
    power = np.asarray(shift, np.int64)
    moved = saturate(np.asarray(accumulator, np.int64) << np.maximum(power, 0))
    return rounding_divide(rounding_doubling_high_multiply(moved, multiplier), np.maximum(-power, 0))


def rescale_once(accumulator: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> np.ndarray:
    """accumulator * multiplier * 2^(shift - 31) rounded half up, in int64: TFLite's fully connected layers."""
    places = 31 - np.asarray(shift, np.int64)
    product = np.asarray(accumulator, np.int64) * np.asarray(multiplier, np.int64)
    return np.asarray((product + (np.int64(1) << (places - 1))) >> places)
