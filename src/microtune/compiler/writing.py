"""How C is written: names, constants, and the programs of a net as statements."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np

from microtune.compiler.layout import WORD, Slice
from microtune.compiler.program import Program
from microtune.errors import BuildError
from microtune.ir import Node, Tensor
from microtune.ops import OPS
from microtune.ops.op import KernelCall
from microtune.ops.scaled import LARGEST_WHOLE

C_WORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    bool class new delete this template typename namespace operator private public protected try catch throw
    using virtual friend
    input output cut arena parameters learnt optimizer target rate correction noise loss device base hidden
    model""".split()  # noqa: SIM905
)


WIDTH = 110
"""Columns of generated statements."""
C_TYPES = {"float32": "float", "int8": "int8_t", "int16": "mt_int16", "int32": "int32_t"}


def identifier(name: str) -> str:
    """A C identifier close to any name."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "tensor"
    # mt_ is the runtime's
    plain = f"t_{plain}" if plain[0].isdigit() or plain.startswith("mt_") else plain
    return f"{plain}_" if plain in C_WORDS or keyword.iskeyword(plain) else plain


def check_name(name: str) -> str:
    """A device name is part of every C name, so it must be a C identifier."""
    if name in C_WORDS or name.startswith("mt_"):
        raise BuildError(
            f"'{name}' cannot name a device: it means something else in the generated C. Use another directory name, "
            "such as build/toaster"
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name):
        raise BuildError(
            f"'{name}' cannot name a device: its C functions are called NAME_predict and so on. "
            "Use a directory name of letters, digits and underscores that starts with a letter, such as build/toaster"
        )
    return name


def literal(value: float) -> str:
    """A float constant in C that reads back as the same bits."""
    single = np.float32(value)
    if not np.isfinite(single):
        raise BuildError(f"{value} cannot be written as a C constant")
    text = (
        np.format_float_positional(single, unique=True, trim="0")
        if 1e-4 <= abs(single) < 1e7 or single == 0
        else f"{float(single):.9g}"
    )
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def number_literal(value: float) -> str:
    """A fixed-point constant in C, of 16 binary places."""
    if abs(value) > LARGEST_WHOLE:
        raise BuildError(f"{value} cannot be written as a fixed-point number: they reach from -32767 to 32767")
    return f"MT_NUMBER({value:.9g})"


def shape_of(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"


@dataclass(frozen=True)
class Statement:
    """A statement of a program, broken where it would be too long. ``comment`` tells what it computes."""

    code: str
    comment: str = ""

    @property
    def text(self) -> str:
        """The statement with its comment behind it, or above where it is long."""
        comment = f"/* {self.comment} */" if self.comment else ""
        line = f"    {self.code} {comment}".rstrip()
        if len(line) <= WIDTH:
            return line
        broken = textwrap.wrap(
            self.code, WIDTH, initial_indent="    ", subsequent_indent="        ", break_long_words=False
        )
        return "\n".join([f"    {comment}", *broken] if comment else broken)


def _unique(names: list[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Distinct C identifiers for tensor names, none of them reserved."""
    used = set(reserved)
    found: dict[str, str] = {}
    for name in names:
        wish, count = identifier(name), 1
        while wish in used:
            count += 1
            wish = f"{identifier(name)}_{count}"
        used.add(wish)
        found[name] = wish
    return found


NUMBERS = {False: "float32", True: "int32"}
"""Types of ``mt_number``: in fixed point it is an int32_t."""
# Bytes may lie in an array of numbers, for C lets any object be accessed as characters; mt_int16 is declared to be
# allowed it too. No other type is.
LODGERS = {"int8": ("int8_t", 1), "int16": ("mt_int16", 2)}


def pointer(base: str, offset: int, dtype: str = "float32", fixed: bool = False) -> str:
    """A pointer to ``dtype``, ``offset`` bytes behind ``base``, a pointer to numbers: floats, or fixed-point."""
    if dtype == NUMBERS[fixed]:
        return base if offset == 0 else f"{base} + {offset // 4}"
    if dtype not in LODGERS or (dtype == "int16" and not fixed):
        kinds = "int32, int16 and int8" if fixed else "float32 and int8"
        raise BuildError(f"a tensor of type {dtype} cannot be computed at run time here; only {kinds} can")
    c_type, size = LODGERS[dtype]
    return f"({c_type} *){base}" if offset == 0 else f"({c_type} *){base} + {offset // size}"


class Writer:
    """C names of all weights of a net, and its programs as C statements."""

    def __init__(self, base: Sequence[Slice], learns: int, name: str, fixed: bool = False) -> None:
        """``base``: all constants, of which the first ``learns`` learn. fixed: numbers are fixed-point."""
        self.name, self.fixed = name, fixed
        self.members = _unique([each.tensor.name for each in base])
        self.learns = {each.tensor.name for each in base[:learns]}

    def places(self, learnt: bool) -> dict[str, str]:
        """C expressions of the weights; of what learns only where a pointer ``learnt`` to it is at hand."""
        found = {name: f"{self.name}_base.{word}" for name, word in self.members.items() if name not in self.learns}
        if learnt:
            found |= {name: f"learnt->{self.members[name]}" for name in self.learns}
        return found

    def start(self, name: str) -> str:
        """The C expression of what learns, as it left the factory."""
        return f"{self.name}_base.start.{self.members[name]}"

    def program(self, program: Program, places: Mapping[str, str]) -> list[Statement]:
        """Declarations of arena pointers, then one statement per node."""
        graph = program.graph
        expressions = dict(places)
        local = [
            name
            for node in graph.nodes
            for name in node.outputs
            if program.arena.offset(name) is not None and name not in graph.inputs
        ]
        names = _unique(local, [f"{self.name}_base"])
        declared: list[Statement] = []
        for name in local:
            tensor, offset = graph.tensor(name), program.arena.offset(name)
            assert offset is not None
            place = pointer("arena", offset, tensor.dtype, self.fixed)
            text = f"{C_TYPES[tensor.dtype]} *const {names[name]} = {place};"
            declared.append(Statement(text, shape_of(tensor)))
            expressions[name] = names[name]
        for node in graph.nodes:
            expressions.update({new: expressions[old] for new, old in node.updates.items()})
        return [*declared, *(self._statement(node, graph.tensors, expressions) for node in graph.nodes)]

    def _statement(self, node: Node, tensors: Mapping[str, Tensor], expressions: Mapping[str, str]) -> Statement:
        call = OPS[node.op].kernel(node, tensors)
        assert call is not None
        comment = node.name if not node.updates else f"{', '.join(node.updates.values())} learn in place"
        return self.call(call, expressions, comment.replace("*/", "* /"))

    def call(self, call: KernelCall, expressions: Mapping[str, str], comment: str = "") -> Statement:
        """A call of a kernel on tensors at these places."""
        arguments = []
        for argument in call.arguments:
            if isinstance(argument, str):
                arguments.append(expressions[argument])
            else:
                arguments.append(literal(argument) if isinstance(argument, float) else str(argument))
        result = "" if call.result is None else f"const {'mt_number' if self.fixed else 'float'} loss = "
        return Statement(f"{result}{call.function}({', '.join(arguments)});", comment)


def scale_of(tensor: Tensor) -> tuple[float, int] | None:
    """Scale and zero point of an int8 tensor."""
    if tensor.quantization is None:
        return None
    return float(tensor.quantization.scale), int(tensor.quantization.zero_point)


def stands_for(scale: tuple[float, int]) -> str:
    """What a byte of this scale and zero point stands for."""
    return f"{scale[0]} * (byte {'+' if scale[1] < 0 else '-'} {abs(scale[1])})"


def steps_of(scale: tuple[float, int] | None) -> float | None:
    """How many steps of a byte make one, where numbers with 16 binary places hold as many."""
    return 1 / scale[0] if scale is not None and 1 / scale[0] < 32767 else None


def rows(each: Slice) -> list[str]:
    """The values of a constant in C, some to a line."""
    values = np.asarray(each.tensor.data).ravel()
    if each.tensor.dtype == "float32":
        flat, length = [literal(value) for value in values], 8
    else:
        flat, length = [str(value) for value in values.tolist()], 24 if each.tensor.dtype == "int8" else 10
        # INT32_MIN has no literal in C
        flat = ["(-2147483647 - 1)" if text == "-2147483648" else text for text in flat]
    return [", ".join(flat[start : start + length]) for start in range(0, len(flat), length)]


def uses(statements: list[Statement], word: str) -> bool:
    return any(re.search(rf"\b{word}\b", statement.code) for statement in statements)


@cache
def environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["c"] = literal
    return found


def base_bytes(base: Sequence[Slice]) -> bytes:
    """The factory's weights as they lie in memory, little-endian: what learns first, in the order of the parameters."""
    found = []
    for each in base:
        data = np.asarray(each.tensor.data)
        row = data.astype(data.dtype.newbyteorder("<")).tobytes()
        found.append(row + bytes(-len(row) % WORD))
    return b"".join(found)
