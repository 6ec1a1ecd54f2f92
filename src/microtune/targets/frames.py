"""Stack depth inside one function, instruction by instruction: an abstract interpretation of the machine code.

Followed are the stack pointer, registers that hold a known distance from it (frame pointers), and known constants (a
frame too large for an immediate, a function's address). Where paths meet, the deeper stack wins and only what is known
on both is kept. An instruction that sets the stack pointer to something unknown (a variable-length array, alloca) is an
error: there is no bound. What an instruction does is told by frames_thumb.py and frames_riscv.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from microtune.errors import EmulationError
from microtune.targets.image import Image, Symbol

_LIMIT = 1 << 24  # bytes: a depth that keeps growing is a loop of pushes
MASK = 0xFFFFFFFF
Value = tuple[str, int]
"""``("below", bytes below the stack pointer of the entry)``, ``("constant", value)``, or what an architecture adds."""


@dataclass(frozen=True)
class Call:
    """One call site: ``callee`` is the address of a function, or None when it is not known before run time."""

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
class State:
    """Before an instruction: bytes of stack in use, and registers whose value is known, in their order."""

    depth: int
    known: tuple[tuple[int, Value], ...] = ()

    def join(self, other: State) -> State:
        """What holds on both of two paths that meet."""
        return State(max(self.depth, other.depth), tuple(pair for pair in self.known if pair in other.known))

    def value(self, register: int) -> Value | None:
        """What is known of a register."""
        return next((value for name, value in self.known if name == register), None)

    def forget(self, registers: Iterable[int]) -> State:
        """Without what was known of these registers."""
        gone = set(registers)
        return State(self.depth, tuple(pair for pair in self.known if pair[0] not in gone))

    def learn(self, register: int, value: Value | None) -> State:
        """With a register set to a value, or to something unknown."""
        rest = self.forget([register])
        return rest if value is None else State(rest.depth, tuple(sorted((*rest.known, (register, value)))))

    def at(self, depth: int) -> State:
        """With another depth of the stack."""
        return State(depth, self.known)


class Walk:
    """The fixed point over one function: states at instructions, and what was met on the way.

    ``step(walk, instruction, state)`` is one instruction: it tells ``flow`` where control goes and in what state, and
    ``call`` what is called; ``peak`` is what it raises to the deepest stack.
    """

    def __init__(
        self,
        image: Image,
        function: Symbol,
        code: Mapping[int, Any],
        step: Callable[[Walk, Any, State], None],
    ) -> None:
        self.image, self.function, self.code = image, function, code
        self.starts = {item.address for item in image.functions}
        self.states: dict[int, State] = {}
        self.jump: State | None = None  # at jumps through a table
        self.peak = 0
        self._step = step
        self._pending: list[int] = []
        self._calls: dict[tuple[int, int | None], int] = {}

    def run(self) -> Frame:
        """Until nothing changes; ``EmulationError`` where the stack cannot be bounded."""
        self.flow(self.function.address, State(0))
        while True:
            while self._pending:
                address = self._pending.pop()
                state = self.states[address]
                self.peak = max(self.peak, state.depth)
                self._step(self, self.code[address], state)
            left = [address for address in self.code if address not in self.states]
            if self.jump is None or not left:
                break
            # Targets of a jump table: whatever nothing else reaches, with the stack as it was at the jump.
            self.flow(min(left), self.jump)
        calls = sorted(self._calls.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        found = tuple(Call(address, depth, callee) for (address, callee), depth in calls)
        return Frame(self.function, self.peak, found)

    def flow(self, address: int, state: State) -> None:
        """Control may reach ``address`` with this state."""
        if address not in self.code:
            return  # behind a call that does not return
        known = self.states.get(address)
        joined = state if known is None else known.join(state)
        if joined != known:
            if joined.depth > _LIMIT:
                raise self.unbounded(address, "the stack grows in a loop")
            self.states[address] = joined
            self._pending.append(address)

    def call(self, address: int, depth: int, callee: int | None) -> None:
        """There is a call at ``address`` with so many bytes of stack in use."""
        key = (address, callee)
        self._calls[key] = max(depth, self._calls.get(key, 0))

    def branch(self, address: int, destination: int, state: State) -> None:
        """A jump: within the function, or a call in its last place."""
        if self.holds(destination):
            self.flow(destination, state)
        else:
            self.call(address, state.depth, destination)

    def through_table(self, state: State) -> None:
        """A jump to places that are not known."""
        self.jump = state if self.jump is None else self.jump.join(state)

    def holds(self, address: int) -> bool:
        """Whether an address is within the function."""
        return self.function.address <= address < self.function.address + self.function.size

    def function_value(self, value: Value | None) -> int | None:
        """The function that a known value is the address of."""
        if value is None or value[0] != "constant":
            return None
        address = value[1] & ~self.image.code_bit
        return address if address in self.starts else None

    def unbounded(self, address: int, why: str) -> EmulationError:
        """The error for a stack without a bound."""
        return EmulationError(f"no bound for the stack of {self.function.name}: {why} at {self.image.where(address)}.")


def signed(value: int) -> int:
    """A 32-bit word as a signed number."""
    return value - (1 << 32) if value & 0x80000000 else value
