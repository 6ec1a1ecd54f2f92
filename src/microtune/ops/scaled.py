"""Scalars of fixed-point heads and losses in whole numbers, with the bits of ``mt_fixed.h`` and ``mt_scaled.h``."""

from __future__ import annotations

import math
from dataclasses import dataclass

FIXED_ONE = 1 << 16
LARGEST = (1 << 31) - 1
LARGEST_WHOLE = 32767
"""The largest whole number that ``mt_fixed`` stands for; its negative is the least."""


def saturated(x: int) -> int:
    """What ``mt_fixed`` holds of a whole number."""
    return max(-LARGEST, min(LARGEST, x))


@dataclass(frozen=True)
class Scaled:
    """mantissa 2^exponent; the mantissa's magnitude is from 2^30 up to 2^31, or both are 0."""

    mantissa: int
    exponent: int

    def __mul__(self, other: Scaled) -> Scaled:
        return scaled(self.mantissa * other.mantissa, self.exponent + other.exponent)

    def __add__(self, other: Scaled) -> Scaled:
        """Of numbers not below 0."""
        a, b = self, other
        if a.mantissa == 0 or (b.mantissa != 0 and b.exponent > a.exponent):
            a, b = b, a
        apart = a.exponent - b.exponent
        if b.mantissa == 0 or apart > 31:
            return a
        return scaled((a.mantissa << 31) + ((b.mantissa << 31) >> apart), a.exponent - 31)

    def __truediv__(self, other: Scaled) -> Scaled:
        """Of numbers not below 0, the divisor above it."""
        return scaled((self.mantissa << 32) // other.mantissa, self.exponent - other.exponent - 32)

    def root(self) -> Scaled:
        """``mt_scaled_root``: to 23 places, of a number not below 0."""
        odd = self.exponent & 1
        return scaled(fixed_sqrt(self.mantissa >> odd), (self.exponent + odd) // 2 - 8)

    def times(self, x: int) -> int:
        """The product with a whole number, rounded half upwards and saturated."""
        product, places = self.mantissa * x, -self.exponent
        if product == 0 or places > 62:
            return 0
        if places > 0:
            return saturated((product + (1 << (places - 1))) >> places)
        return saturated(product << -places)

    def __float__(self) -> float:
        return math.ldexp(self.mantissa, self.exponent)


def scaled(value: int, exponent: int) -> Scaled:
    """value 2^exponent, cut off towards zero."""
    if value == 0:
        return Scaled(0, 0)
    magnitude, more = abs(value), abs(value).bit_length() - 31
    mantissa = magnitude >> more if more > 0 else magnitude << -more
    return Scaled(mantissa if value > 0 else -mantissa, exponent + more)


def scaled_of(real: float) -> Scaled:
    """The number nearest to a real one above 0, which a compiler writes as a constant."""
    fraction, exponent = math.frexp(real)
    mantissa = round(fraction * 2**31)
    return Scaled(mantissa, exponent - 31) if mantissa < 2**31 else Scaled(1 << 30, exponent - 30)


ONE = Scaled(1 << 30, -30)


def fixed_multiply(a: int, b: int) -> int:
    """``mt_fixed_multiply``: rounded to nearest, half away from zero."""
    product = (abs(a) * abs(b) + 0x8000) >> 16
    return saturated(product if (a < 0) == (b < 0) else -product)


def fixed_sqrt(x: int) -> int:
    """``mt_fixed_sqrt``: of two equally near numbers there are none."""
    if x <= 0:
        return 0
    root = math.isqrt(x << 16)
    return root + ((x << 16) - root * root > root)


def fixed_exp(x: int) -> int:
    """``mt_fixed_exp``, whose products of 32 bits never overflow."""
    if x >= 681391:
        return LARGEST
    if x < -786432:
        return 0
    n = (x * 1477 + (1 << 25)) >> 26
    r = x * 256 - n * 11629080
    f = (r + 64) >> 7
    g = 274
    for each in (1371, 5461, 16384):
        g = ((g * f + 65536) >> 17) + each
    e = 16777216 + r + ((((f * f + 32768) >> 16) * g + 256) >> 9)
    if n >= 8:
        return min(LARGEST, e << (n - 8))
    return ((e >> (7 - n)) + 1) >> 1


def fixed_log(x: int) -> int:
    """``mt_fixed_log``."""
    x = max(x, 1)
    n = x.bit_length() - 17
    m = x << (32 - x.bit_length())
    f = (m >> 7) - 16777216
    if f >= 5592405:
        f, n = (m >> 8) - 16777216, n + 1
    s = (f + 64) >> 7
    h = 5482
    for each in (-6223, 6507, -8159, 10923, -16384):
        h = ((h * s + 65536) >> 17) + each
    return (n * 11629080 + f + ((((s * s + 32768) >> 16) * h + 256) >> 9) + 128) >> 8


def fixed_sigmoid(x: int) -> int:
    """``mt_fixed_sigmoid``."""
    e = fixed_exp(-abs(x))
    p = (0xFFFFFFFF - ((FIXED_ONE + e) >> 1)) // (FIXED_ONE + e) + 1
    return FIXED_ONE - p if x < 0 else p
