"""What each Thumb instruction does to the stack, for frames.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import capstone
from capstone import arm, arm_const

from microtune.errors import EmulationError
from microtune.targets.frames import MASK, Frame, State, Value, Walk, signed
from microtune.targets.image import Image, Symbol

_CALL_CLOBBERS = (
    arm_const.ARM_REG_R0,
    arm_const.ARM_REG_R1,
    arm_const.ARM_REG_R2,
    arm_const.ARM_REG_R3,
    arm_const.ARM_REG_R12,
    arm_const.ARM_REG_LR,
)
_SP, _PC, _LR = arm_const.ARM_REG_SP, arm_const.ARM_REG_PC, arm_const.ARM_REG_LR
_MOVES = (arm_const.ARM_INS_MOV, arm_const.ARM_INS_MOVW)  # the disassembler calls either the first
_UNCONDITIONAL = (arm_const.ARM_CC_AL, arm_const.ARM_CC_INVALID)


@dataclass(frozen=True)
class Foreign:
    """An instruction of Armv8.1-M that the disassembler does not know: vectors, conditional selection, loops with a
    counter. None of them moves the stack pointer; the ends of loops jump back to where control has been."""

    address: int
    size: int = 4
    mnemonic: str = "foreign"
    op_str: str = ""


def instructions(image: Image, function: Symbol, detail: bool = False) -> Iterator[capstone.CsInsn | Foreign]:
    """The instructions of a function in order, literal pools and jump tables left out."""
    disassembler = capstone.Cs(
        capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
    )
    disassembler.detail = detail
    address, end = function.address, function.address + function.size
    while address < end:
        run = address
        while run < end and image.is_code(run):
            run += 2
        while address < run:
            # A run of code in one go: the disassembler must see an IT instruction to know what it makes
            # conditional.
            for instruction in disassembler.disasm(image.read(address, run - address) or b"", address):
                yield instruction
                address += instruction.size
            if address < run:
                if not _is_foreign(image.read(address, 4)):
                    raise EmulationError(f"cannot disassemble {image.where(address)}.")
                yield Foreign(address)
                address += 4
        address = run + 2


def _is_foreign(content: bytes | None) -> bool:
    """Whether four bytes are of Armv8.1-M: a loop (DLS, WLS, LE), CSEL and its kin, or a vector instruction."""
    if content is None:
        return False
    first = int.from_bytes(content[:2], "little")
    loop = first & 0xFF80 == 0xF000 and int.from_bytes(content[2:], "little") & 0xC001 == 0xC001
    vector = first & 0xEC00 == 0xEC00  # the space of coprocessors
    selection = first & 0xFFF0 == 0xEA50
    return loop or vector or selection


def addresses_built(image: Image, function: Symbol) -> frozenset[int]:
    """Functions whose address this one may build from two halves (movw, movt), whatever it does with it."""
    starts = {item.address for item in image.functions}
    low: dict[int, set[int]] = {}
    high: list[tuple[int, int]] = []
    for item in instructions(image, function, detail=True):
        if isinstance(item, Foreign) or item.id not in (*_MOVES, arm_const.ARM_INS_MOVT):
            continue
        register, source = item.operands[:2]
        if source.type != arm_const.ARM_OP_IMM:
            continue
        if item.id == arm_const.ARM_INS_MOVT:
            high.append((register.reg, (source.imm & 0xFFFF) << 16))
        else:
            low.setdefault(register.reg, set()).add(source.imm & 0xFFFF)
    values = {upper | lower for register, upper in high for lower in low.get(register, ())}
    return frozenset(value & ~1 for value in values if value & 1 and value & ~1 in starts)


def analyse(image: Image, function: Symbol) -> Frame:
    """The frame of one function; ``EmulationError`` where its stack cannot be bounded."""
    code = {item.address: item for item in instructions(image, function, detail=True)}
    return Walk(image, function, code, _step).run()


def _step(walk: Walk, item: capstone.CsInsn | Foreign, state: State) -> None:
    """One instruction: its effect on the state, and where control goes."""
    following = item.address + item.size
    if isinstance(item, Foreign):
        walk.flow(following, State(state.depth))
        return
    mnemonic = item.mnemonic.split(".")[0]
    operands = item.operands
    conditional = item.cc not in _UNCONDITIONAL
    after = _effect(walk, item, state)
    walk.peak = max(walk.peak, after.depth)
    if item.id in (arm_const.ARM_INS_CBZ, arm_const.ARM_INS_CBNZ):
        walk.flow(operands[1].imm & MASK, state)
    elif item.id == arm_const.ARM_INS_B:
        walk.branch(item.address, operands[0].imm & MASK, state)
        if not conditional:
            return
    elif item.id == arm_const.ARM_INS_BL and _is_far_jump(walk, operands[0]):
        # within a large function the first Thumb has no other jump that reaches
        walk.flow(operands[0].imm & MASK, state)
        return
    elif item.id == arm_const.ARM_INS_BL or item.id == arm_const.ARM_INS_BLX:
        walk.call(item.address, state.depth, _destination(walk, operands[0], state))
        after = state.forget(_CALL_CLOBBERS)
    elif item.id == arm_const.ARM_INS_BX:
        if operands[0].reg != _LR:
            walk.call(item.address, state.depth, _destination(walk, operands[0], state))
        if not conditional:
            return
    elif item.id in (arm_const.ARM_INS_TBB, arm_const.ARM_INS_TBH):
        walk.through_table(state)
        return
    elif item.id == arm_const.ARM_INS_POP and any(operand.reg == _PC for operand in operands):
        if not conditional:
            return
        after = state
    elif mnemonic.startswith("udf") or mnemonic.startswith("trap"):
        return
    elif _PC in item.regs_access()[1] and item.id not in (arm_const.ARM_INS_IT, arm_const.ARM_INS_SVC):
        returns = item.id in (arm_const.ARM_INS_LDR, arm_const.ARM_INS_LDM) and _SP in item.regs_access()[0]
        if not returns:
            walk.through_table(state)
        if not conditional:
            return
        after = state
    walk.flow(following, after.join(state) if conditional else after)


def _is_far_jump(walk: Walk, operand: arm.ArmOp) -> bool:
    if operand.type != arm_const.ARM_OP_IMM:
        return False
    start = walk.function.address
    return bool(start < (operand.imm & MASK & ~1) < start + walk.function.size)


def _destination(walk: Walk, operand: arm.ArmOp, state: State) -> int | None:
    if operand.type == arm_const.ARM_OP_IMM:
        return int(operand.imm) & MASK & ~1
    return walk.function_value(state.value(operand.reg))


def _effect(walk: Walk, item: capstone.CsInsn, state: State) -> State:
    """The state behind an instruction that is neither a call nor a return."""
    operands = item.operands
    if item.id in (arm_const.ARM_INS_PUSH, arm_const.ARM_INS_VPUSH):
        return state.at(state.depth + _bytes(operands))
    written = set(item.regs_access()[1])
    rest = state.forget(written)
    if item.id in (arm_const.ARM_INS_POP, arm_const.ARM_INS_VPOP):
        return rest.at(state.depth - _bytes(operands))
    value = _value(walk.image, item, state)
    if _SP in written:
        if value is not None and value[0] == "below":
            return rest.at(value[1])
        change = _writeback(item)
        if change is None:
            raise walk.unbounded(item.address, f"'{item.mnemonic} {item.op_str}' sets the stack pointer")
        return rest.at(state.depth - change)
    if value is None or operands[0].type != arm_const.ARM_OP_REG:
        return rest
    return rest.learn(operands[0].reg, value)


def _value(image: Image, item: capstone.CsInsn, state: State) -> Value | None:
    """What a register is set to, where that is known."""
    operands = item.operands
    if not operands or operands[0].type != arm_const.ARM_OP_REG:
        return None
    if item.id == arm_const.ARM_INS_LDR and operands[1].type == arm_const.ARM_OP_MEM:
        memory = operands[1].mem
        if memory.base != _PC or memory.index:
            return None
        word = image.word((item.address + 4 & ~3) + memory.disp)
        return None if word is None else ("constant", word)
    values = [_operand(operand, state) for operand in operands]
    if item.id in _MOVES and len(values) == 2:
        return values[1]
    if item.id == arm_const.ARM_INS_MOVT and values[0] and values[1] and values[0][0] == "constant":
        return "constant", values[0][1] & 0xFFFF | values[1][1] << 16
    if item.id == arm_const.ARM_INS_LSL and len(values) == 3:
        return _constant(values, lambda left, right: left << right)
    if item.id == arm_const.ARM_INS_RSB and len(values) == 3:
        return _constant(values, lambda left, right: right - left)
    if item.id == arm_const.ARM_INS_MVN and values[1] and values[1][0] == "constant":
        return "constant", ~values[1][1] & MASK
    if item.id in (
        arm_const.ARM_INS_ADD,
        arm_const.ARM_INS_SUB,
        arm_const.ARM_INS_ADDW,
        arm_const.ARM_INS_SUBW,
    ):
        sign = 1 if item.id in (arm_const.ARM_INS_ADD, arm_const.ARM_INS_ADDW) else -1
        left, right = values[-2], values[-1]
        if left and right and left[0] == "below" and right[0] == "constant":
            return "below", left[1] - sign * signed(right[1])
        if left and right and sign == 1 and left[0] == "constant" and right[0] == "below":
            return "below", right[1] - signed(left[1])
        return _constant([None, left, right], lambda one, two: one + sign * two)
    return None


def _operand(operand: arm.ArmOp, state: State) -> Value | None:
    if operand.shift.type != arm_const.ARM_SFT_INVALID:
        return None
    if operand.type == arm_const.ARM_OP_IMM:
        return "constant", operand.imm & MASK
    if operand.type != arm_const.ARM_OP_REG:
        return None
    return ("below", state.depth) if operand.reg == _SP else state.value(operand.reg)


def _constant(values: Sequence[Value | None], combine: Callable[[int, int], int]) -> Value | None:
    left, right = values[1], values[2]
    if left and right and left[0] == right[0] == "constant":
        return "constant", combine(left[1], right[1]) & MASK
    return None


def _bytes(operands: list[arm.ArmOp]) -> int:
    doubles = range(arm_const.ARM_REG_D0, arm_const.ARM_REG_D31 + 1)
    return sum(8 if operand.reg in doubles else 4 for operand in operands)


def _writeback(item: capstone.CsInsn) -> int | None:
    """Bytes that a load or store with write-back adds to the stack pointer; None for anything else."""
    for operand in item.operands:
        if operand.type == arm_const.ARM_OP_MEM and operand.mem.base == _SP:
            last = item.operands[-1]
            amount = last.imm if last.type == arm_const.ARM_OP_IMM else operand.mem.disp
            return -abs(amount) if operand.subtracted or last.subtracted else int(amount)
    registers = len(item.operands) - 1
    return {"stmdb": -4 * registers, "ldm": 4 * registers}.get(item.mnemonic.split(".")[0])
