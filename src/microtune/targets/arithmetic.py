"""Floating-point arithmetic in an image: what a package that computes in integers only must not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from microtune.targets import frames_thumb, riscv
from microtune.targets.disassembly import is_soft_float
from microtune.targets.image import Image, Symbol, read_image
from microtune.targets.machine_code import analyse

_FLOAT = re.compile(r"\.f(16|32|64)")


def floating_point_in(image: Image | str | Path) -> tuple[str, ...]:
    """Each floating-point instruction and each call of a soft-float helper, as ``function: what`` with the address.

    On Arm every instruction that touches the registers of the floating-point unit counts, loads and moves too; on a
    core whose integer vectors lie in those registers, those that compute. The helpers themselves are left out: they are
    only in an image when something calls them.
    """
    loaded = image if isinstance(image, Image) else read_image(image)
    found = []
    for function in loaded.functions:
        if not _is_support(function):
            found += [
                f"{function.name}: {what}" for what in (*_instructions(loaded, function), *_calls(loaded, function))
            ]
    return tuple(found)


def _is_support(function: Symbol) -> bool:
    """Whether it is of the compiler's own library."""
    return any(is_soft_float(name) or name.startswith("compiler_rt.") for name in function.names)


def _instructions(image: Image, function: Symbol) -> Iterator[str]:
    if image.machine == "riscv":
        for each in riscv.instructions(image, function):
            if each.operation == "float":
                yield f"a floating-point instruction at {each.address:#010x}"
        return
    for item in frames_thumb.instructions(image, function):
        if isinstance(item, frames_thumb.Foreign):
            if image.vectors > 1:
                yield f"maybe a vector of floating-point numbers at {item.address:#010x}"
        elif _FLOAT.search(item.mnemonic) if image.vectors else item.mnemonic.startswith("v"):
            yield f"{item.mnemonic} {item.op_str} at {item.address:#010x}"


def _calls(image: Image, function: Symbol) -> Iterator[str]:
    for call in analyse(image, function).calls:
        callee = None if call.callee is None else image.function_at(call.callee)
        helper = next((name for name in callee.names if is_soft_float(name)), None) if callee else None
        if helper:
            yield f"call of {helper} at {call.address:#010x}"
