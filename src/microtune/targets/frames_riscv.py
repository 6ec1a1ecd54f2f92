"""What each RISC-V instruction does to the stack, for frames.py.

Beside frames.py's values a register can hold ``("near", A)``, an unknown distance from the address A, and
``("word", A)``, a word read from there: so the targets of a jump table are read from the table itself.
"""

from __future__ import annotations

from microtune.targets.frames import MASK, Frame, State, Value, Walk, signed
from microtune.targets.image import Image, Symbol
from microtune.targets.riscv import RA, SP, Instruction, instructions

_CALL_CLOBBERS = (RA, 5, 6, 7, *range(10, 18), *range(28, 32))  # ra, t0 to t6, a0 to a7


def addresses_built(image: Image, function: Symbol) -> frozenset[int]:
    """Functions whose address this one may build of two halves (lui or auipc, then addi), whatever it does with it."""
    code = list(instructions(image, function))
    starts = {item.address for item in image.functions}
    upper: dict[int, set[int]] = {}
    for item in code:
        if item.operation in ("lui", "auipc"):
            base = item.address if item.operation == "auipc" else 0
            upper.setdefault(item.rd, set()).add(base + item.imm)
    return frozenset(
        address
        for item in code
        if item.operation == "addi"
        for high in upper.get(item.rs1, ())
        if (address := high + item.imm & MASK) in starts
    )


def analyse(image: Image, function: Symbol) -> Frame:
    """The frame of one function; ``EmulationError`` where its stack cannot be bounded."""
    code = {item.address: item for item in instructions(image, function)}
    return Walk(image, function, code, _step).run()


def _step(walk: Walk, item: Instruction, state: State) -> None:
    """One instruction: its effect on the state, and where control goes."""
    following = item.address + item.size
    match item.operation:
        case "stop":
            return
        case "branch":
            walk.flow(item.address + item.imm, state)
            walk.flow(following, state)
        case "jal" if item.rd == 0:
            walk.branch(item.address, item.address + item.imm, state)
        case "jal":
            walk.call(item.address, state.depth, item.address + item.imm)
            walk.flow(following, state.forget(_CALL_CLOBBERS))
        case "jalr" if item.rd == 0 and item.rs1 == RA and state.value(RA) is None:
            return
        case "jalr" if item.rd == 0:
            _leap(walk, item, state)
        case "jalr":
            walk.call(item.address, state.depth, walk.function_value(_target(item, state)))
            walk.flow(following, state.forget(_CALL_CLOBBERS))
        case _:
            after = _effect(walk, item, state)
            walk.peak = max(walk.peak, after.depth)
            walk.flow(following, after)


def _leap(walk: Walk, item: Instruction, state: State) -> None:
    """A jump through a register: through a table of places in the function, or a call in its last place."""
    goal = _target(item, state)
    if goal is not None and goal[0] == "constant":
        walk.branch(item.address, goal[1], state)
        return
    places = _table(walk, goal[1]) if goal is not None and goal[0] == "word" else []
    for place in places:
        walk.flow(place, state)
    if not places:
        walk.call(item.address, state.depth, None)


def _table(walk: Walk, address: int) -> list[int]:
    """The places within the function that a table in the image lists from an address on."""
    found = []
    while (word := walk.image.word(address)) is not None and walk.holds(word) and word != walk.function.address:
        found.append(word)
        address += 4
    return found


def _target(item: Instruction, state: State) -> Value | None:
    value = state.value(item.rs1)
    if value is not None and value[0] == "constant":
        return "constant", value[1] + item.imm & MASK & ~1
    return value if item.imm == 0 else None


def _effect(walk: Walk, item: Instruction, state: State) -> State:
    """The state behind an instruction after which control goes on."""
    if item.rd == 0:
        return state
    value = _value(item, state)
    if item.rd != SP:
        return state.learn(item.rd, value)
    if value is None or value[0] != "below":
        raise walk.unbounded(item.address, f"'{item.operation}' sets the stack pointer")
    return state.at(value[1])


def _value(item: Instruction, state: State) -> Value | None:
    """What a register is set to, where that is known."""
    left, right = _register(item.rs1, state), _register(item.rs2, state)
    match item.operation:
        case "lui":
            return "constant", item.imm & MASK
        case "auipc":
            return "constant", item.address + item.imm & MASK
        case "addi":
            return _sum(left, ("constant", item.imm & MASK))
        case "add":
            return _sum(left, right)
        case "sub" if right is not None and right[0] == "constant":
            return _sum(left, ("constant", -right[1] & MASK))
        case "slli" if left is not None and left[0] == "constant":
            return "constant", left[1] << item.imm & MASK
        case "lw" if left is not None and left[0] in ("near", "constant"):
            return "word", left[1] + item.imm & MASK
    return None


def _register(register: int, state: State) -> Value | None:
    if register == 0:
        return "constant", 0
    return ("below", state.depth) if register == SP else state.value(register)


def _sum(left: Value | None, right: Value | None) -> Value | None:
    if left is None or right is None:
        known = left or right
        return ("near", known[1]) if known is not None and known[0] in ("constant", "near") else None
    if right[0] == "below":
        left, right = right, left
    if right[0] != "constant":
        return None
    match left[0]:
        case "below":
            return "below", left[1] - signed(right[1])
        case "constant" | "near":
            return left[0], left[1] + right[1] & MASK
    return None
