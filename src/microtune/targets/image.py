"""A linked ELF image, read once: sections, loadable bytes, functions and the places of data among code."""

import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from microtune.errors import EmulationError
from microtune.targets.calls import SECTION, CallTypes, read_call_types

Machine = Literal["arm", "riscv"]
_MACHINES: dict[str, Machine] = {"EM_ARM": "arm", "EM_RISCV": "riscv"}
_CODE_MARKS = ("$t", "$x")


@dataclass(frozen=True)
class Section:
    """An allocated section; ``content`` is shorter than ``size`` only where memory is cleared at start
    (.bss).
    """

    name: str
    address: int
    size: int
    content: bytes
    code: bool
    writable: bool

    @property
    def cleared(self) -> bool:
        """Takes RAM but no flash."""
        return not self.content


@dataclass(frozen=True)
class Symbol:
    """A function or object; ``address`` is without the Thumb bit, ``names`` holds every alias."""

    names: tuple[str, ...]
    address: int
    size: int
    function: bool

    @property
    def name(self) -> str:
        """The name shown to people: the shortest, which is the public one of the compiler's support
        functions.
        """
        return min(self.names, key=lambda name: (len(name), name))


@dataclass(frozen=True)
class Image:
    """What is needed of the ELF file of a core; read it with ``read_image``."""

    machine: Machine
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]  # by address
    code_marks: tuple[tuple[int, bool], ...]  # (address, code starts here), by address: the ELF mapping symbols
    calls: CallTypes
    vectors: int  # Arm's vector extension (MVE): 0 without, 1 of integers, 2 of floating-point numbers too

    @property
    def code_bit(self) -> int:
        """What a function pointer has set beside the address: the Thumb bit."""
        return 1 if self.machine == "arm" else 0

    @cached_property
    def functions(self) -> tuple[Symbol, ...]:
        """All functions, by address."""
        return tuple(symbol for symbol in self.symbols if symbol.function)

    @cached_property
    def by_name(self) -> dict[str, Symbol]:
        """Symbols under each of their names."""
        return {name: symbol for symbol in self.symbols for name in symbol.names}

    @cached_property
    def _starts(self) -> list[int]:
        return [function.address for function in self.functions]

    def symbol(self, name: str) -> Symbol:
        """The symbol of this name; ``EmulationError`` says what there is instead."""
        if name in self.by_name:
            return self.by_name[name]
        known = ", ".join(sorted(function.name for function in self.functions)[:30])
        raise EmulationError(f"the image has no symbol {name!r}. Its functions: {known}.")

    def function_at(self, address: int) -> Symbol | None:
        """The function that holds this address, if any."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        function = self.functions[index]
        return function if address < function.address + max(function.size, 2) else None

    def where(self, address: int) -> str:
        """An address as people read it: ``symbol+0x12``."""
        function = self.function_at(address)
        return f"{function.name}+{address - function.address:#x}" if function else f"{address:#010x}"

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes of the image as loaded; None where it holds none."""
        for section in self.sections:
            offset = address - section.address
            if offset >= 0 and offset + size <= len(section.content):
                return section.content[offset : offset + size]
        return None

    def word(self, address: int) -> int | None:
        """The little-endian 32-bit word at this address of the image."""
        content = self.read(address, 4)
        return struct.unpack("<I", content)[0] if content else None

    def is_code(self, address: int) -> bool:
        """Whether an address within a function holds instructions, not a literal pool or a jump table."""
        index = bisect_right(self.code_marks, (address, True)) - 1
        return index < 0 or self.code_marks[index][1]


def read_image(path: str | Path) -> Image:
    """Read a linked ELF file; ``EmulationError`` when it is none."""
    try:
        with Path(path).open("rb") as stream:
            elf = ELFFile(stream)
            if elf["e_machine"] not in _MACHINES:
                raise ELFError(f"machine {elf['e_machine']} is neither Arm nor RISC-V")
            machine = _MACHINES[elf["e_machine"]]
            sections = tuple(_sections(elf))
            symbols, marks = _symbols(elf)
            types = elf.get_section_by_name(SECTION)
            vectors = _vectors(elf)
            calls = read_call_types(types.data(), 1 if machine == "arm" else 0) if types else CallTypes()
    except (OSError, ELFError) as error:
        raise EmulationError(f"{path} is not a readable ELF image: {error}") from error
    return Image(machine, sections, symbols, marks, calls, vectors)


def _vectors(elf: ELFFile) -> int:
    attributes = elf.get_section_by_name(".ARM.attributes")
    if attributes is None:
        return 0
    each = (found for part in attributes.iter_subsections() for scope in part.iter_subsubsections() for found in
            scope.iter_attributes("TAG_MVE_ARCH"))  # fmt: skip
    return max((int(found.value) for found in each), default=0)


def _sections(elf: ELFFile) -> list[Section]:
    found = []
    for section in elf.iter_sections():
        flags = section["sh_flags"]
        if not flags & SH_FLAGS.SHF_ALLOC or section["sh_size"] == 0:
            continue
        content = b"" if section["sh_type"] == "SHT_NOBITS" else section.data()
        found.append(
            Section(
                section.name,
                section["sh_addr"],
                section["sh_size"],
                content,
                bool(flags & SH_FLAGS.SHF_EXECINSTR),
                bool(flags & SH_FLAGS.SHF_WRITE),
            )
        )
    return sorted(found, key=lambda section: section.address)


def _symbols(elf: ELFFile) -> tuple[tuple[Symbol, ...], tuple[tuple[int, bool], ...]]:
    table = elf.get_section_by_name(".symtab")
    if table is None:
        raise ELFError("it has no symbol table")
    named: dict[tuple[int, bool], tuple[set[str], int]] = {}
    marks: dict[int, bool] = {}
    for symbol in table.iter_symbols():
        kind, address, name = symbol["st_info"]["type"], symbol["st_value"], symbol.name
        if name.startswith((*_CODE_MARKS, "$d")):
            marks[address] = name.startswith(_CODE_MARKS) or marks.get(address, False)
        if kind not in ("STT_FUNC", "STT_OBJECT") or symbol["st_shndx"] == "SHN_UNDEF":
            continue
        function = kind == "STT_FUNC"
        names, size = named.setdefault((address & ~1 if function else address, function), (set(), 0))
        names.add(name)
        named[(address & ~1 if function else address, function)] = (names, max(size, symbol["st_size"]))
    symbols = [
        Symbol(tuple(sorted(names)), address, size, function)
        for (address, function), (names, size) in sorted(named.items())
    ]
    return tuple(symbols), tuple(sorted(marks.items()))
