"""A RAM and flash budget, in bytes or as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from microtune.errors import PlanError

UNITS = {"": 1, "B": 1, "KB": 1024, "KIB": 1024, "MB": 1024**2, "MIB": 1024**2}


def parse_bytes(text: str | int | None) -> int | None:
    """Bytes from ``65536``, ``"64KB"`` or ``"1.5 MB"`` (1 KB = 1024 bytes, as in data sheets)."""
    if text is None or isinstance(text, int):
        value = text
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
        if not match or match[2].upper() not in UNITS:
            raise PlanError(f"cannot read {text!r} as a size. Write bytes, or a number with KB or MB, such as '128KB'")
        value = int(float(match[1]) * UNITS[match[2].upper()])
    if value is not None and value <= 0:
        raise PlanError(f"a budget must be above 0, not {text!r}")
    return value


@dataclass(frozen=True)
class Budget:
    """What the device can spare. None means no limit. Sizes: bytes, or text such as ``"128KB"``.

    instructions: of one training step on Cortex-M4; only the search (``Auto``) measures and holds it.
    """

    ram: str | int | None = None
    flash: str | int | None = None
    instructions: int | None = None

    def __post_init__(self) -> None:
        parse_bytes(self.ram)
        parse_bytes(self.flash)
        if self.instructions is not None and self.instructions < 1:
            raise PlanError(f"a budget must be above 0, not {self.instructions} instructions")

    @property
    def ram_bytes(self) -> int | None:
        return parse_bytes(self.ram)

    @property
    def flash_bytes(self) -> int | None:
        return parse_bytes(self.flash)
