"""RISC-V machine code is read as capstone reads it: every compressed instruction there is, and many full ones."""

from __future__ import annotations

import random
import re

import capstone
import pytest

from microtune.targets.riscv import Instruction, decode

REGISTER = {
    "zero": 0, "ra": 1, "sp": 2, "gp": 3, "tp": 4,
    **{f"t{index}": 5 + index for index in range(3)}, **{f"s{index}": 8 + index for index in range(2)},
    **{f"a{index}": 10 + index for index in range(8)}, **{f"s{index}": 16 + index for index in range(2, 12)},
    **{f"t{index}": 25 + index for index in range(3, 7)},
}  # fmt: skip
SIMPLE = {"addi", "add", "sub", "slli", "lw", "lui", "auipc", "jal", "jalr"}
ORACLE = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)


def expected(mnemonic: str, operands: str) -> tuple[str, list[str | int]] | None:
    """Capstone's text as the operation of ours and its numbers in the order rd, rs1, rs2 or immediate."""
    words: list[str | int] = [
        int(word, 0) if word not in REGISTER else word for word in re.findall(r"[\w-]+", operands)
    ]
    base = mnemonic.removeprefix("c.")
    match base:
        case "addi4spn":
            return "addi", [words[0], "sp", words[2]]
        case "addi16sp":
            return "addi", ["sp", "sp", words[-1]]
        case "li":
            return "addi", [words[0], "zero", words[1]]
        case "mv":  # which is an addition of a register if compressed, else of 0
            return ("add", [words[0], "zero", words[1]]) if mnemonic == "c.mv" else ("addi", [*words, 0])
        case "lwsp":
            return "lw", [words[0], words[1], "sp"]
        case "lui" | "auipc":
            return base, words
        case "addi" | "slli" | "add" | "sub" if mnemonic.startswith("c."):
            return base, [words[0], *words] if len(words) == 2 else words
    return (base, words) if base in SIMPLE - {"jal", "jalr"} else None


def numbers(found: Instruction) -> list[int]:
    match found.operation:
        case "add" | "sub":
            return [found.rd, found.rs1, found.rs2]
        case "lw":
            return [found.rd, found.imm, found.rs1]
        case "lui" | "auipc":
            return [found.rd, found.imm >> 12 & 0xFFFFF]
    return [found.rd, found.rs1, found.imm]


def check(word: int) -> bool:
    """Whether an instruction was compared in full; its kind and size always are."""
    piece = next(ORACLE.disasm_lite(word.to_bytes(4, "little"), 0x1000, 1), None)
    found = decode(word, 0x1000)
    if piece is None:
        return False
    _, size, mnemonic, operands = piece
    if mnemonic.startswith(("f", "c.f")) and not mnemonic.startswith("fence"):
        assert found is None or found.operation == "float", (hex(word), mnemonic)
        return False
    if found is None:  # hints and what is no instruction of RV32IMC
        assert mnemonic in NOT_FOLLOWED or re.search(r"^zero|\b0$", operands), (hex(word), mnemonic, operands)
        return False
    assert found.size == size, hex(word)
    jump = re.fullmatch(r"(?:c\.)?(j|jal|b\w+)", mnemonic)
    if jump and mnemonic != "c.ebreak":
        distance = int(re.findall(r"-?(?:0x)?[0-9a-f]+$", operands)[0], 0)
        assert found.imm == distance, (hex(word), mnemonic, operands, found)
        assert found.operation == ("branch" if jump[1].startswith("b") else "jal")
        return True
    wanted = expected(mnemonic, operands)
    if wanted is None:
        return False
    operation, words = wanted
    if operation == "slli" and isinstance(words[2], int) and words[2] > 31:
        return False  # a shift of RV64
    assert found.operation == operation, (hex(word), mnemonic, operands, found)
    values = [REGISTER[word] if isinstance(word, str) else word for word in words]
    if operation in ("lui", "auipc"):
        values[1] &= 0xFFFFF
    assert numbers(found) == values, (hex(word), mnemonic, operands, found)
    return True


NOT_FOLLOWED = ("c.unimp", "unimp")


def test_every_compressed_instruction_is_read_as_capstone_reads_it() -> None:
    assert sum(check(half) for half in range(1 << 16) if half & 3 != 3) > 20_000


@pytest.mark.parametrize("opcode", [0x03, 0x13, 0x17, 0x33, 0x37, 0x63, 0x6F])
def test_full_instructions_are_read_as_capstone_reads_them(opcode: int) -> None:
    r = random.Random(opcode)
    masks = (0x01FFFFFF, 0x00FFFFFF & ~(0x7F << 18), 0x01FFFFFF & ~(0x5F << 18))  # the last two: few values of funct7
    assert sum(check((r.getrandbits(25) & mask) << 7 | opcode) for _ in range(1000) for mask in masks) > 100
