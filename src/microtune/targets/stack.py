"""A bound on the worst stack of a function, from the linked image: no run can use more.

Direct calls are followed exactly. A call through a pointer may reach every function of its type whose address is taken
anywhere in the image (calls.py; without types, as other compilers leave it, every one), unless the caller names the
candidates. One assumption makes that useful: **no function is entered again through a pointer while it is already
running** (our C has no recursion). So a path that would come back to itself only through such a guess is dropped, while
a cycle of direct calls is an error. What is not in the image is not counted: a port whose functions are the firmware's,
interrupts, their handlers and the frames the core pushes for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microtune.errors import EmulationError
from microtune.targets.frames import Call, Frame
from microtune.targets.image import Image, read_image
from microtune.targets.machine_code import addresses_built, analyse


@dataclass(frozen=True)
class StackBound:
    """``size`` bytes, reached along ``path``: (function, bytes of its own on that path), the entry first."""

    size: int
    path: tuple[tuple[str, int], ...]


def stack_bound(
    image: Image | str | Path, entry: str, candidates: Mapping[str, Sequence[str]] | None = None
) -> StackBound:
    """The worst stack of a call of ``entry``, in bytes below the stack pointer at the call.

    Arguments and errors: see ``stack_bounds``.
    """
    return stack_bounds(image, [entry], candidates)[entry]


def stack_bounds(
    image: Image | str | Path,
    entries: Sequence[str],
    candidates: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, StackBound]:
    """The worst stack of a call of each entry; a function that several of them reach is read once.

    ``candidates`` maps a calling function to the names of all functions its indirect calls can reach. Errors:
    direct recursion, a frame of variable size, an indirect call that nothing can answer.
    """
    loaded = image if isinstance(image, Image) else read_image(image)
    named = {
        caller: frozenset(loaded.symbol(name).address for name in names) for caller, names in (candidates or {}).items()
    }
    graph = _CallGraph(loaded, named)
    return {entry: graph.worst(loaded.symbol(entry).address) for entry in entries}


def address_taken(image: Image) -> frozenset[int]:
    """Functions whose address stands in data, in a literal pool, or is built by instructions."""
    starts = {function.address | image.code_bit for function in image.functions}
    found: set[int] = set()
    for section in image.sections:
        if section.code and image.machine == "riscv":
            continue  # it has no literal pools: a word that looks like an address is an instruction
        first = -section.address % 4
        for offset in range(first, len(section.content) - 3, 4):
            word = int.from_bytes(section.content[offset : offset + 4], "little")
            if word in starts:
                found.add(word & ~1)
    return frozenset(found).union(*(addresses_built(image, function) for function in image.functions))


class _CallGraph:
    def __init__(self, image: Image, candidates: Mapping[str, frozenset[int]]) -> None:
        self.image, self.candidates = image, candidates
        self.frames: dict[int, Frame] = {}
        self.reach: dict[int, frozenset[int]] = {}
        self.memory: dict[tuple[int, frozenset[int]], StackBound | None] = {}
        self._taken: frozenset[int] | None = None

    def frame(self, address: int) -> Frame:
        if address not in self.frames:
            function = self.image.function_at(address)
            if function is None or function.address != address:
                raise EmulationError(f"a call to {self.image.where(address)}, which is no function.")
            self.frames[address] = analyse(self.image, function)
        return self.frames[address]

    @property
    def taken(self) -> frozenset[int]:
        if self._taken is None:
            self._taken = address_taken(self.image)
        return self._taken

    def callees(self, frame: Frame, call: Call) -> frozenset[int]:
        if call.callee is not None:
            return frozenset([call.callee])
        for name in frame.function.names:
            if name in self.candidates:
                return self.candidates[name]
        caller, types = frame.function.address, self.image.calls
        if not self.taken and caller not in types.called:
            raise EmulationError(
                f"the indirect call at {self.image.where(call.address)} can reach nothing: no function "
                "of the image has its address taken; name its candidates."
            )
        return frozenset(callee for callee in self.taken if types.may_reach(caller, callee))

    def reachable(self, address: int) -> frozenset[int]:
        """Everything a function can call, itself included: what its bound can depend on."""
        if address not in self.reach:
            seen, pending = {address}, [address]
            while pending:
                frame = self.frame(pending.pop())
                for call in frame.calls:
                    fresh = self.callees(frame, call) - seen
                    seen |= fresh
                    pending.extend(fresh)
            self.reach[address] = frozenset(seen)
        return self.reach[address]

    def worst(self, entry: int) -> StackBound:
        self.refuse_recursion(entry)
        bound = self.descend(entry, frozenset())
        assert bound is not None  # nothing is on the path above the entry
        return bound

    def refuse_recursion(self, entry: int) -> None:
        """A cycle of direct calls anywhere below the entry has no bound."""
        finished: set[int] = set()

        def visit(address: int, path: tuple[int, ...]) -> None:
            if address in path:
                names = " -> ".join(self.image.where(item).split("+")[0] for item in (*path, address))
                raise EmulationError(f"no bound for the stack: recursion {names}.")
            if address in finished:
                return
            for call in self.frame(address).calls:
                if call.callee is not None:
                    visit(call.callee, (*path, address))
            finished.add(address)

        for address in sorted(self.reachable(entry)):
            visit(address, ())

    def descend(self, address: int, path: frozenset[int]) -> StackBound | None:
        """The bound of a function called below ``path``; None when the path already holds it."""
        if address in path:
            return None
        key = (address, path & self.reachable(address))
        if key not in self.memory:
            self.memory[key] = self.measure(address, path | {address})
        return self.memory[key]

    def measure(self, address: int, path: frozenset[int]) -> StackBound:
        frame = self.frame(address)
        name = frame.function.name
        best = StackBound(frame.peak, ((name, frame.peak),))
        for call in frame.calls:
            for callee in sorted(self.callees(frame, call)):
                below = self.descend(callee, path)
                if below is not None and call.depth + below.size > best.size:
                    best = StackBound(call.depth + below.size, ((name, call.depth), *below.path))
        return best
