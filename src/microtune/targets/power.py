"""Energy and time of instructions on a core: what a data sheet says of one chip that has it.

An estimate: instructions are counted exactly, what one takes is a mean. Not in it are wait states of flash beyond the
data sheet's own, peripherals, sleep before and after, and writing and erasing flash when a state is saved.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from microtune.errors import PlanError

_ENERGY = {"fJ": 1e-15, "pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "µJ": 1e-6}
_CLOCK = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9}


@dataclass(frozen=True)
class Power:
    """Typical current of one chip at 25 °C while its core runs from flash, peripherals off.

    cycles: mean clock cycles per instruction. For Cortex-M0, M3 and M4 they are counted over the toaster's update with
        the instruction timings of Arm's technical reference manuals and rounded up; for the others, whose timings are
        not published, they are assumed.
    """

    chip: str
    milliamperes: float
    volts: float
    megahertz: float
    cycles: float
    source: str

    @property
    def joules(self) -> float:
        """Per instruction."""
        return self.milliamperes * 1e-3 * self.volts / self.hertz * self.cycles

    @property
    def hertz(self) -> float:
        """The clock at which the current was given."""
        return self.megahertz * 1e6

    @property
    def text(self) -> str:
        """For tables."""
        return f"{self.chip}: {self.milliamperes:g} mA at {self.volts:g} V, {self.megahertz:g} MHz"


def parse_energy(value: str | float) -> float:
    """Joules per instruction from ``150e-12`` or ``"150pJ"``. Raises PlanError for what is none."""
    return _quantity(value, _ENERGY, "an energy per instruction", "150pJ")


def parse_clock(value: str | float) -> float:
    """Hertz from ``64e6`` or ``"64MHz"``. Raises PlanError for what is none."""
    return _quantity(value, _CLOCK, "a clock", "64MHz")


def _quantity(value: str | float, units: dict[str, float], what: str, example: str) -> float:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)\s*", value)
        known = {unit.lower(): factor for unit, factor in units.items()}
        if not match or match[2].lower() not in known:
            raise PlanError(
                f"cannot read {value!r} as {what}. Write a number with {', '.join(units)}, such as '{example}'"
            )
        value = float(match[1]) * known[match[2].lower()]
    if not (math.isfinite(value) and value > 0):
        raise PlanError(f"{what} must be a finite number above 0, not {value}")
    return value


def with_unit(value: float, unit: str) -> str:
    """Three digits for people: ``with_unit(4.7e-10, "J")`` is ``470 pJ``."""
    for factor, prefix in ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"
