"""Of what type functions are, and of what types those that they call through pointers: the section that the compiler
writes with ``-fexperimental-call-graph-section``.

In C a pointer calls a function of its own type, so the functions of one type are all that a call of that type can
reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from microtune.errors import EmulationError

SECTION = ".llvm.callgraph"
_TARGET, _DIRECT, _INDIRECT = 1, 2, 4


@dataclass(frozen=True)
class CallTypes:
    """By the address of a function, without the Thumb bit. own: its type, where its address may be taken. called: the
    types it calls through pointers. What is not listed is not known."""

    own: dict[int, bytes] = field(default_factory=dict)
    called: dict[int, frozenset[bytes]] = field(default_factory=dict)

    def may_reach(self, caller: int, callee: int) -> bool:
        """Whether a call through a pointer in one function can be one of the other."""
        types, own = self.called.get(caller), self.own.get(callee)
        return types is None or own is None or own in types


def read_call_types(content: bytes, code_bit: int) -> CallTypes:
    """Read the section of a linked image: version 0, flags, address, type, then the callees that the flags announce."""
    found = CallTypes()
    place = 0

    def taken(size: int) -> bytes:
        nonlocal place
        place += size
        if place > len(content):
            raise EmulationError(f"the section {SECTION} ends within a record; compile the image again.")
        return content[place - size : place]

    def number() -> int:
        """An unsigned LEB128."""
        value = shift = 0
        while True:
            [byte] = taken(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(content):
        version, flags = taken(2)
        if version != 0:
            return CallTypes()  # of a later compiler: nothing is known
        address = int.from_bytes(taken(4), "little") & ~code_bit
        own = taken(8)
        if flags & _DIRECT:
            taken(4 * number())
        if flags & _TARGET and any(own):
            found.own[address] = own
        if flags & _INDIRECT:
            found.called[address] = frozenset(taken(8) for _ in range(number()))
    return found
