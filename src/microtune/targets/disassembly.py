"""What compiled code asks of others: undefined symbols of an object, soft-float calls and forbidden names in
an image.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from microtune.targets.image import Image, read_image
from microtune.targets.machine_code import analyse

# Run-time helpers of the Arm ABI and of compilers' libraries that compute in floating point.
_SOFT_FLOAT = re.compile(
    r"^__aeabi_([fd](add|sub|rsub|mul|div|neg|cmp\w*|2\w+)|c[fd]r?cmp\w*|u?[il]2[fd]|h2f\w*)$"
    r"|^__(add|sub|mul|div|neg|eq|ne|lt|le|gt|ge|unord|cmp)[sdt]f[23]$"
    r"|^__(fix|fixuns)[sdt]f[sdt]i$|^__(float|floatun)[sdt]i[sdt]f$|^__(extend|trunc)[hsdt]f[hsdt]f2$|^__powi[sdt]f2$"
)
_ALLOCATION = frozenset(["malloc", "calloc", "realloc", "free", "aligned_alloc", "alloca"])
_LIBM = re.compile(
    r"^(a?(sin|cos|tan)h?|atan2|exp2?|expm1|log|log2|log10|log1p|pow|sqrt|cbrt|hypot|erfc?|[tl]gamma|floor"
    r"|ceil|round|trunc|l?lrint|rint|nearbyint|fma|fmod|fabs|fmin|fmax|frexp|ldexp|modf|copysign)[fl]?$"
)


@dataclass(frozen=True)
class HelperCall:
    """A call site of a run-time helper."""

    caller: str
    helper: str
    address: int


def undefined_symbols(path: str | Path) -> frozenset[str]:
    """Names that an ELF object or shared library expects from outside."""
    with Path(path).open("rb") as stream:
        elf = ELFFile(stream)
        table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
        return frozenset(
            symbol.name
            for symbol in (table.iter_symbols() if table else ())
            if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name
        )


def is_soft_float(symbol: str) -> bool:
    """Whether this is a helper that computes in floating point without a floating-point unit."""
    return _SOFT_FLOAT.match(symbol) is not None


def is_forbidden(symbol: str) -> bool:
    """Whether the runtime may never ask for this symbol: it allocates, or it is of libm."""
    return symbol in _ALLOCATION or _LIBM.match(symbol) is not None


def soft_float_calls(image: Image | str | Path) -> tuple[HelperCall, ...]:
    """Every direct call in a linked image to a soft-float helper, by address; helpers calling each other left
    out.
    """
    loaded = image if isinstance(image, Image) else read_image(image)
    found = []
    for function in loaded.functions:
        if any(is_soft_float(name) or name.startswith("compiler_rt.") for name in function.names):
            continue
        for call in analyse(loaded, function).calls:
            callee = None if call.callee is None else loaded.function_at(call.callee)
            helper = next((name for name in callee.names if is_soft_float(name)), None) if callee else None
            if helper:
                found.append(HelperCall(function.name, helper, call.address))
    return tuple(sorted(found, key=lambda call: call.address))
