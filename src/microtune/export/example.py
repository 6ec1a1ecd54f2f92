"""What an example does with a device: made from the package's manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtune.compiler.writing import literal, number_literal
from microtune.ops.scaled import LARGEST_WHOLE
from microtune.package import MOST_SAID, Package

LISTED = 32
"""Inputs that are written one by one; of more, a loop fills all."""


@dataclass(frozen=True)
class Reading:
    """How a stub of a sensor gives one input: a C expression, and what it stands for."""

    value: str
    comment: str


def readings(package: Package) -> list[Reading]:
    """A stub of each sensor, in the order of the inputs; empty where they are not listed one by one."""
    if package.input_size > LISTED or not package.manifest["inputs"]:
        return []
    described = package.manifest["input"]
    usual = package.usual_inputs
    sensors = package.manifest["sensors"] or [{"step": 0.0}] * len(usual)
    return [
        Reading(
            _value(each, sensor) if described["dtype"] == "float32" else _byte(each, described),
            _comment(each, described),
        )
        for each, sensor in zip(usual, sensors, strict=True)
    ]


def _range(described: dict[str, Any]) -> tuple[float, float]:
    """A finite range of an input: 1 wide where a limit is not known."""
    low, high = described["low"], described["high"]
    if low is None and high is None:
        return -1.0, 1.0
    if low is None or high is None:
        return (high - 1.0, high) if low is None else (low, low + 1.0)
    return low, high


def _value(described: dict[str, Any], sensor: dict[str, Any]) -> str:
    low, high = _range(described)
    if sensor["step"] > 0 and sensor["high"] < MOST_SAID:
        # half of what is left for rounding, 1/64 of a step, above the lowest value: as Package.told
        step, lowest = np.float32(sensor["step"]), np.float32(sensor["low"] + sensor["step"] / 128)
        first = lowest + step * np.float32(math.ceil((low - lowest) / step))
        # as the example computes them, so that rounding takes none of them out of range
        values = first + step * np.arange(int((high - first) / step) + 2, dtype=np.float32)
        count = max(1, int((values <= np.float32(high)).sum()))
        return f"one_of({literal(float(first))}, {literal(float(step))}, {count}u)"
    return f"between({literal(low)}, {literal(high)})"


def _byte(described: dict[str, Any], quantized: dict[str, Any]) -> str:
    low, high = described["low"], described["high"]
    scale, zero = quantized["scale"], quantized["zero_point"]
    ends = [
        limit if real is None else min(127, max(-128, rounding(real / scale) + zero))
        for real, limit, rounding in ((low, -128, math.ceil), (high, 127, math.floor))
    ]
    return f"between({min(ends)}, {max(ends)})"


def _comment(described: dict[str, Any], quantized: dict[str, Any]) -> str:
    name = " ".join(str(described["name"]).split()).replace("*/", "* /").replace("\\", "/")
    unit = " ".join(str(described["unit"]).split()).replace("*/", "* /").replace("\\", "/")
    text = f"{name}, {unit}" if unit else name
    if quantized["dtype"] == "int8":
        zero = quantized["zero_point"]
        text += f": {quantized['scale']:.6g} * (byte {'+' if zero < 0 else '-'} {abs(zero)})"
    return text


def storage_bytes(package: Package, sector: int) -> int:
    """What MT_FLASH_BYTES of mt_flash.h comes to: four slots of saved state, and the log."""
    slot = -(-(64 + -(-package.manifest["layout"]["saved"] // 32) * 32) // sector) * sector
    return int(4 * slot + (2 * sector if package.manifest["learner"]["log"] else 0))


def example_context(package: Package) -> dict[str, Any]:
    """Everything templates know of a package."""
    manifest = package.manifest
    integer = package.fixed
    number = number_literal if integer else literal
    given = manifest["input"]["dtype"]
    # an override is outside the tolerance
    override = 2 * float(manifest["learner"]["tolerance"])
    return {
        "name": package.name,
        "upper": package.name.upper(),
        "made": f"microtune {manifest['microtune']}",
        "integer": integer,
        "number": "mt_number" if integer else "float",
        "makes_bytes": f"{package.name}_byte(" in (package.directory / f"{package.name}.h").read_text(),
        "input_type": "int8_t" if given == "int8" else "float",
        "place": manifest["input"]["place"] is not None,
        "input_count": package.input_size,
        "readings": readings(package),
        "stepped": any(each.value.startswith("one_of") for each in readings(package)),
        "outputs": manifest["outputs"],
        "targets": manifest["targets"],
        "task": manifest["task"],
        "step": number(min(override, LARGEST_WHOLE) if integer else override),
        "half": number(0.5),
        "one": number(1.0),
        "zero": number(0.0),
        "log": bool(manifest["learner"]["log"]),
        "profiles": manifest["learner"]["profiles"],
        "ram": 4 + manifest["layout"]["bytes"],  # with the pointer to the port
        # the example's own, and a good margin for interrupts and printing
        "stack": -(-(manifest["memory"]["stack"] + 3072) // 1024) * 1024,
        "flash_sectors": storage_bytes(package, 4096) // 4096,
        "verbs": package.verbs,
    }
