"""Settings of training, checked at the border: what cannot be is said in a sentence, whatever type it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from microtune.errors import TrainingError


def number(name: str, given: Any, fits: Callable[[float], bool], wanted: str) -> None:
    """Raises TrainingError for what is no finite real number, or one that does not fit."""
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given) or not fits(float(given)):
        raise TrainingError(f"{name}={given!r}: {wanted}" if isinstance(given, str) else f"{name}={given}: {wanted}")


def whole(name: str, given: Any, least: int) -> None:
    """Raises TrainingError for what is no whole number from ``least`` on; 2.0 is one."""
    wanted = f"a whole number, {least} or more"
    number(name, given, lambda value: value >= least and value == int(value), wanted)


def seed_fits(seed: Any) -> None:
    """Raises TrainingError for what random numbers cannot begin with."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
        raise TrainingError(f"seed={seed!r}: a whole number, 0 to {2**32 - 1}")


def pair_of(data: Any, what: str = "data") -> tuple[Any, Any]:
    """The two of (x, y). Raises TrainingError for anything else."""
    try:
        x, y = data
    except (TypeError, ValueError):
        raise TrainingError(f"{what} must be a pair (x, y): inputs and what the net should answer") from None
    return x, y
