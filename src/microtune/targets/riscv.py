"""RV32IMC machine code, decoded as far as stack, calls and arithmetic go. A compressed instruction is given as the full
one that it stands for (The RISC-V Instruction Set Manual, volume I, chapters RV32I, M and C).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from microtune.errors import EmulationError
from microtune.targets.image import Image, Symbol

RA, SP = 1, 2
Operation = Literal[
    "lui", "auipc", "jal", "jalr", "branch", "lw", "load", "store", "addi", "add", "sub", "slli", "other",
    "float", "stop",
]  # fmt: skip
"""``other`` sets a register to what is not followed, ``stop`` traps."""
_FLOAT = (0x07, 0x27, 0x43, 0x47, 0x4B, 0x4F, 0x53)


@dataclass(frozen=True)
class Instruction:
    """One instruction: registers by number, ``rd`` 0 where it sets none; ``imm`` signed, of jumps the distance."""

    address: int
    size: int
    operation: Operation
    rd: int = 0
    rs1: int = 0
    rs2: int = 0
    imm: int = 0


def instructions(image: Image, function: Symbol) -> Iterator[Instruction]:
    """The instructions of a function in order."""
    address, end = function.address, function.address + function.size
    while address < end:
        if not image.is_code(address):
            address += 2
            continue
        content = image.read(address, 4) or image.read(address, 2)
        found = decode(int.from_bytes(content, "little"), address) if content else None
        if found is None:
            raise EmulationError(f"cannot disassemble {image.where(address)}.")
        yield found
        address += found.size


def decode(word: int, address: int = 0) -> Instruction | None:
    """The instruction that these four bytes begin with; None when it is none of RV32IMC, atomics or floating point."""
    return _full(word, address) if word & 3 == 3 else _compressed(word & 0xFFFF, address)


def _full(word: int, address: int) -> Instruction | None:
    rd, rs1, rs2, funct3 = word >> 7 & 31, word >> 15 & 31, word >> 20 & 31, word >> 12 & 7

    def made(operation: Operation, imm: int = 0, sets: bool = True) -> Instruction:
        return Instruction(address, 4, operation, rd if sets else 0, rs1, rs2, imm)

    match word & 0x7F:
        case 0x37:
            return made("lui", _signed(word & 0xFFFFF000, 32))
        case 0x17:
            return made("auipc", _signed(word & 0xFFFFF000, 32))
        case 0x6F:
            parts = word >> 31 << 20 | (word >> 12 & 0xFF) << 12 | (word >> 20 & 1) << 11 | (word >> 21 & 0x3FF) << 1
            return made("jal", _signed(parts, 21))
        case 0x67 if funct3 == 0:
            return made("jalr", _signed(word >> 20, 12))
        case 0x63:
            parts = word >> 31 << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 0x3F) << 5 | (word >> 8 & 15) << 1
            return made("branch", _signed(parts, 13), sets=False)
        case 0x03:
            return made("lw" if funct3 == 2 else "load", _signed(word >> 20, 12))
        case 0x23:
            return made("store", _signed(word >> 25 << 5 | rd, 12), sets=False)
        case 0x13 if funct3 == 0:
            return made("addi", _signed(word >> 20, 12))
        case 0x13 if funct3 == 1 and word >> 25 == 0:
            return made("slli", rs2)
        case 0x33 if funct3 == 0 and word >> 25 in (0, 0x20):
            return made("sub" if word >> 30 else "add")
        case 0x13 | 0x33 | 0x2F:
            return made("other")
        case 0x0F:
            return made("other", sets=False)
        case 0x73:
            # ecall returns; ebreak does not, nor does the write to a read-only register that "unimp" is
            stops = word == 0x00100073 or word >> 12 == 0xC0001
            return made("stop", sets=False) if stops else made("other", sets=funct3 != 0)
        case opcode if opcode in _FLOAT:
            return made("float", sets=opcode == 0x53)
    return None


def _compressed(half: int, address: int) -> Instruction | None:
    rd, rs2, funct3 = half >> 7 & 31, half >> 2 & 31, half >> 13
    small_1, small_2 = 8 + (half >> 7 & 7), 8 + (half >> 2 & 7)
    imm = _signed((half >> 12 & 1) << 5 | rs2, 6)

    def made(operation: Operation, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0) -> Instruction:
        return Instruction(address, 2, operation, rd, rs1, rs2, imm)

    match half & 3, funct3:
        case 0, 0:
            grown = (half >> 11 & 3) << 4 | (half >> 7 & 15) << 6 | (half >> 6 & 1) << 2 | (half >> 5 & 1) << 3
            if grown == 0:
                return made("stop") if half == 0 else None
            return made("addi", small_2, SP, imm=grown)
        case (0, 2) | (0, 6):
            offset = (half >> 10 & 7) << 3 | (half >> 6 & 1) << 2 | (half >> 5 & 1) << 6
            load = funct3 == 2
            return made("lw", small_2, small_1, imm=offset) if load else made("store", 0, small_1, small_2, offset)
        case (0, 1) | (0, 3) | (0, 5) | (0, 7) | (2, 1) | (2, 3) | (2, 5) | (2, 7):
            return made("float")
        case 1, 0:
            return made("addi", rd, rd, imm=imm)
        case (1, 1) | (1, 5):
            return made("jal", RA if funct3 == 1 else 0, imm=_jump(half))
        case 1, 2:
            return made("addi", rd, 0, imm=imm)
        case 1, 3 if rd == SP:
            parts = (half >> 12 & 1) << 9 | (half >> 6 & 1) << 4 | (half >> 5 & 1) << 6 | (half >> 3 & 3) << 7
            return made("addi", SP, SP, imm=_signed(parts | (half >> 2 & 1) << 5, 10))
        case 1, 3:
            return made("lui", rd, imm=imm << 12) if imm else None
        case 1, 4:
            if half >> 10 & 3 == 3 and half >> 5 & 3 == 0 and not half >> 12 & 1:
                return made("sub", small_1, small_1, small_2)
            return made("other", small_1)
        case (1, 6) | (1, 7):
            parts = (half >> 12 & 1) << 8 | (half >> 10 & 3) << 3 | (half >> 5 & 3) << 6 | (half >> 3 & 3) << 1
            return made("branch", 0, small_1, imm=_signed(parts | (half >> 2 & 1) << 5, 9))
        case 2, 0:
            return made("slli", rd, rd, imm=rs2)
        case 2, 2:
            return made("lw", rd, SP, imm=(half >> 12 & 1) << 5 | (half >> 4 & 7) << 2 | (half >> 2 & 3) << 6)
        case 2, 6:
            return made("store", 0, SP, rs2, (half >> 9 & 15) << 2 | (half >> 7 & 3) << 6)
        case 2, 4 if rs2 == 0:
            if rd == 0:
                return made("stop") if half >> 12 & 1 else None
            return made("jalr", half >> 12 & 1, rd)
        case 2, 4:
            return made("add", rd, rd if half >> 12 & 1 else 0, rs2)
    return None


def _jump(half: int) -> int:
    """The distance of c.j and c.jal: bits 11, 4, 9:8, 10, 6, 7, 3:1, 5 from the left."""
    places = (11, 4, 9, 8, 10, 6, 7, 3, 2, 1, 5)
    return _signed(sum((half >> 12 - index & 1) << place for index, place in enumerate(places)), 12)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
