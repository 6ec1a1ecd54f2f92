"""Stack depth inside one Thumb function, instruction by instruction: an abstract interpretation of the
machine code.

Followed are the stack pointer, registers that hold a known distance from it (frame pointers), and known
constants (a frame too large for an immediate, a function's address). Where paths meet, the deeper stack wins
and only what is known on both is kept. An instruction that sets the stack pointer to something unknown (a
variable-length array, alloca) is an error: there is no bound.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import capstone
from capstone import arm, arm_const

from microtune.errors import EmulationError
from microtune.targets.image import Image, Symbol

_LIMIT = 1 << 24  # bytes: a depth that keeps growing is a loop of pushes
_MASK = 0xFFFFFFFF
_CALL_CLOBBERS = (
    arm_const.ARM_REG_R0,
    arm_const.ARM_REG_R1,
    arm_const.ARM_REG_R2,
    arm_const.ARM_REG_R3,
    arm_const.ARM_REG_R12,
    arm_const.ARM_REG_LR,
)
_SP, _PC, _LR = arm_const.ARM_REG_SP, arm_const.ARM_REG_PC, arm_const.ARM_REG_LR
_Value = tuple[str, int] | None
_UNCONDITIONAL = (arm_const.ARM_CC_AL, arm_const.ARM_CC_INVALID)


@dataclass(frozen=True)
class Call:
    """One call site: ``callee`` is the address of a function, or None when it is not known before run time.
    """

    address: int
    depth: int  # bytes of this function's stack in use at the call
    callee: int | None


@dataclass(frozen=True)
class Frame:
    """One function: its deepest own stack in bytes, and its calls."""

    function: Symbol
    peak: int
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class _State:
    """``below``: registers at a known distance below the stack pointer of the entry; ``constants``: known
    values.
    """

    depth: int
    below: tuple[tuple[int, int], ...] = ()
    constants: tuple[tuple[int, int], ...] = ()

    def join(self, other: "_State") -> "_State":
        return _State(
            max(self.depth, other.depth),
            tuple(pair for pair in self.below if pair in other.below),
            tuple(pair for pair in self.constants if pair in other.constants),
        )


def instructions(image: Image, function: Symbol, detail: bool = False) -> Iterator[capstone.CsInsn]:
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
        # A run of code in one go: the disassembler must see an IT instruction to know what it makes
        # conditional.
        for instruction in disassembler.disasm(image.read(address, run - address) or b"", address):
            yield instruction
            address += instruction.size
        if address < run:
            raise EmulationError(f"cannot disassemble {image.where(address)}.")
        address = run + 2


def addresses_built(image: Image, function: Symbol) -> frozenset[int]:
    """Functions whose address this one builds from two halves (movw, movt), whatever it does with it."""
    starts = {item.address for item in image.functions}
    low: dict[int, int] = {}
    found = set()
    for item in instructions(image, function, detail=True):
        if item.id == arm_const.ARM_INS_MOVW:
            low[item.operands[0].reg] = item.operands[1].imm & 0xFFFF
        elif item.id == arm_const.ARM_INS_MOVT:
            value = low.get(item.operands[0].reg, 0) | (item.operands[1].imm & 0xFFFF) << 16
            if value & 1 and value & ~1 in starts:
                found.add(value & ~1)
    return frozenset(found)


def analyse(image: Image, function: Symbol) -> Frame:
    """The frame of one function; ``EmulationError`` where its stack cannot be bounded."""
    return _Walk(image, function).run()


class _Walk:
    """The fixed point over one function: states at instructions, and what was met on the way."""

    def __init__(self, image: Image, function: Symbol) -> None:
        self.image, self.function = image, function
        self.code = {item.address: item for item in instructions(image, function, detail=True)}
        self.starts = {item.address for item in image.functions}
        self.states: dict[int, _State] = {}
        self.pending: list[int] = []
        self.jump: _State | None = None  # at jumps through a table
        self.calls: dict[tuple[int, int | None], int] = {}
        self.peak = 0

    def run(self) -> Frame:
        self.flow(self.function.address, _State(0))
        while True:
            while self.pending:
                address = self.pending.pop()
                self.step(self.code[address], self.states[address])
            left = [address for address in self.code if address not in self.states]
            if self.jump is None or not left:
                break
            # Targets of a jump table: whatever nothing else reaches, with the stack as it was at the jump.
            self.flow(min(left), self.jump)
        calls = tuple(
            Call(address, depth, callee)
            for (address, callee), depth in sorted(
                self.calls.items(), key=lambda item: (item[0][0], item[0][1] or 0)
            )
        )
        return Frame(self.function, self.peak, calls)

    def flow(self, address: int, state: _State) -> None:
        """Control may reach ``address`` with this state."""
        if address not in self.code:
            return  # behind a call that does not return
        known = self.states.get(address)
        joined = state if known is None else known.join(state)
        if joined != known:
            if joined.depth > _LIMIT:
                raise self.unbounded(address, "the stack grows in a loop")
            self.states[address] = joined
            self.pending.append(address)

    def call(self, address: int, depth: int, callee: int | None) -> None:
        key = (address, callee)
        self.calls[key] = max(depth, self.calls.get(key, 0))

    def unbounded(self, address: int, why: str) -> EmulationError:
        return EmulationError(
            f"no bound for the stack of {self.function.name}: {why} at {self.image.where(address)}."
        )

    def step(self, item: capstone.CsInsn, state: _State) -> None:
        """One instruction: its effect on the state, and where control goes."""
        mnemonic = item.mnemonic.split(".")[0]
        operands = item.operands
        following = item.address + item.size
        conditional = item.cc not in _UNCONDITIONAL
        after = self.effect(item, state)
        self.peak = max(self.peak, after.depth)
        if item.id in (arm_const.ARM_INS_CBZ, arm_const.ARM_INS_CBNZ):
            self.flow(operands[1].imm & _MASK, state)
        elif item.id == arm_const.ARM_INS_B:
            self.branch(item.address, operands[0].imm & _MASK, state)
            if not conditional:
                return
        elif item.id == arm_const.ARM_INS_BL and self._is_far_jump(operands[0]):
            # within a large function the first Thumb has no other jump that reaches
            self.flow(operands[0].imm & _MASK, state)
            return
        elif item.id == arm_const.ARM_INS_BL or item.id == arm_const.ARM_INS_BLX:
            self.call(item.address, state.depth, self.destination(operands[0], state))
            after = _forget(state, _CALL_CLOBBERS)
        elif item.id == arm_const.ARM_INS_BX:
            if operands[0].reg != _LR:
                self.call(item.address, state.depth, self.destination(operands[0], state))
            if not conditional:
                return
        elif item.id in (arm_const.ARM_INS_TBB, arm_const.ARM_INS_TBH):
            self.jump = state if self.jump is None else self.jump.join(state)
            return
        elif item.id == arm_const.ARM_INS_POP and any(operand.reg == _PC for operand in operands):
            if not conditional:
                return
            after = state
        elif mnemonic.startswith("udf") or mnemonic.startswith("trap"):
            return
        elif _PC in item.regs_access()[1] and item.id not in (arm_const.ARM_INS_IT, arm_const.ARM_INS_SVC):
            returns = item.id in (arm_const.ARM_INS_LDR, arm_const.ARM_INS_LDM) and _touches(item, _SP)
            if not returns:
                self.jump = state if self.jump is None else self.jump.join(state)
            if not conditional:
                return
            after = state
        self.flow(following, after.join(state) if conditional else after)

    def branch(self, address: int, destination: int, state: _State) -> None:
        inside = self.function.address <= destination < self.function.address + self.function.size
        if inside:
            self.flow(destination, state)
        else:
            self.call(address, state.depth, destination)

    def _is_far_jump(self, operand: arm.ArmOp) -> bool:
        if operand.type != arm_const.ARM_OP_IMM:
            return False
        start = self.function.address
        return bool(start < (operand.imm & _MASK & ~1) < start + self.function.size)

    def destination(self, operand: arm.ArmOp, state: _State) -> int | None:
        if operand.type == arm_const.ARM_OP_IMM:
            return int(operand.imm) & _MASK & ~1
        known = dict(state.constants).get(operand.reg)
        return known & ~1 if known is not None and known & ~1 in self.starts else None

    def effect(self, item: capstone.CsInsn, state: _State) -> _State:
        """The state behind an instruction that is neither a call nor a return."""
        operands = item.operands
        if item.id in (arm_const.ARM_INS_PUSH, arm_const.ARM_INS_VPUSH):
            return _State(state.depth + _bytes(operands), state.below, state.constants)
        written = set(item.regs_access()[1])
        if item.id in (arm_const.ARM_INS_POP, arm_const.ARM_INS_VPOP):
            return _State(state.depth - _bytes(operands), *_without(state, written))
        rest = _State(state.depth, *_without(state, written))
        value = self.value(item, state)
        if _SP in written:
            if value is not None and value[0] == "below":
                return _State(value[1], rest.below, rest.constants)
            change = _writeback(item)
            if change is None:
                raise self.unbounded(item.address, f"'{item.mnemonic} {item.op_str}' sets the stack pointer")
            return _State(state.depth - change, rest.below, rest.constants)
        if value is None or operands[0].type != arm_const.ARM_OP_REG:
            return rest
        pair = ((operands[0].reg, value[1]),)
        if value[0] == "below":
            return _State(rest.depth, tuple(sorted(rest.below + pair)), rest.constants)
        return _State(rest.depth, rest.below, tuple(sorted(rest.constants + pair)))

    def value(self, item: capstone.CsInsn, state: _State) -> _Value:
        """What a register is set to: ("below", bytes below the entry's stack pointer), ("constant", value),
        or None.
        """
        operands = item.operands
        if not operands or operands[0].type != arm_const.ARM_OP_REG:
            return None
        if item.id == arm_const.ARM_INS_LDR and operands[1].type == arm_const.ARM_OP_MEM:
            memory = operands[1].mem
            if memory.base != _PC or memory.index:
                return None
            word = self.image.word((item.address + 4 & ~3) + memory.disp)
            return None if word is None else ("constant", word)
        values = [self.operand(operand, state) for operand in operands]
        if item.id in (arm_const.ARM_INS_MOV, arm_const.ARM_INS_MOVW) and len(values) == 2:
            return values[1]
        if item.id == arm_const.ARM_INS_MOVT and values[0] and values[1] and values[0][0] == "constant":
            return "constant", values[0][1] & 0xFFFF | values[1][1] << 16
        if item.id == arm_const.ARM_INS_LSL and len(values) == 3:
            return _constant(values, lambda left, right: left << right)
        if item.id == arm_const.ARM_INS_RSB and len(values) == 3:
            return _constant(values, lambda left, right: right - left)
        if item.id == arm_const.ARM_INS_MVN and values[1] and values[1][0] == "constant":
            return "constant", ~values[1][1] & _MASK
        if item.id in (
            arm_const.ARM_INS_ADD,
            arm_const.ARM_INS_SUB,
            arm_const.ARM_INS_ADDW,
            arm_const.ARM_INS_SUBW,
        ):
            sign = 1 if item.id in (arm_const.ARM_INS_ADD, arm_const.ARM_INS_ADDW) else -1
            left, right = values[-2], values[-1]
            if left and right and left[0] == "below" and right[0] == "constant":
                return "below", left[1] - sign * _signed(right[1])
            if left and right and sign == 1 and left[0] == "constant" and right[0] == "below":
                return "below", right[1] - _signed(left[1])
            return _constant([None, left, right], lambda one, two: one + sign * two)
        return None

    def operand(self, operand: arm.ArmOp, state: _State) -> _Value:
        if operand.shift.type != arm_const.ARM_SFT_INVALID:
            return None
        if operand.type == arm_const.ARM_OP_IMM:
            return "constant", operand.imm & _MASK
        if operand.type != arm_const.ARM_OP_REG:
            return None
        if operand.reg == _SP:
            return "below", state.depth
        if (below := dict(state.below).get(operand.reg)) is not None:
            return "below", below
        constant = dict(state.constants).get(operand.reg)
        return None if constant is None else ("constant", constant)


def _constant(values: Sequence[_Value], combine: Callable[[int, int], int]) -> _Value:
    left, right = values[1], values[2]
    if left and right and left[0] == right[0] == "constant":
        return "constant", combine(left[1], right[1]) & _MASK
    return None


def _without(
    state: _State, registers: set[int]
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    return (
        tuple(pair for pair in state.below if pair[0] not in registers),
        tuple(pair for pair in state.constants if pair[0] not in registers),
    )


def _forget(state: _State, registers: tuple[int, ...]) -> _State:
    return _State(state.depth, *_without(state, set(registers)))


def _bytes(operands: list[arm.ArmOp]) -> int:
    doubles = range(arm_const.ARM_REG_D0, arm_const.ARM_REG_D31 + 1)
    return sum(8 if operand.reg in doubles else 4 for operand in operands)


def _touches(item: capstone.CsInsn, register: int) -> bool:
    return register in item.regs_access()[0]


def _writeback(item: capstone.CsInsn) -> int | None:
    """Bytes that a load or store with write-back adds to the stack pointer; None for anything else."""
    for operand in item.operands:
        if operand.type == arm_const.ARM_OP_MEM and operand.mem.base == _SP:
            last = item.operands[-1]
            amount = last.imm if last.type == arm_const.ARM_OP_IMM else operand.mem.disp
            return -abs(amount) if operand.subtracted or last.subtracted else int(amount)
    registers = len(item.operands) - 1
    return {"stmdb": -4 * registers, "ldm": 4 * registers}.get(item.mnemonic.split(".")[0])


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x80000000 else value
