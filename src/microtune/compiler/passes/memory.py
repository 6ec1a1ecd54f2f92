"""The static memory plan: which tensors share a buffer, and where in the arena each buffer lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from microtune.ir import Graph, Node
from microtune.ops import OPS

ROUNDS = 2000
"""Most placements that are tried when the first ones leave holes; a second or two for a few hundred buffers."""


@dataclass(frozen=True)
class Buffer:
    """Bytes of the arena from the node ``first`` to the node ``last`` of a program (positions, inclusive).

    ``tensors`` share it one after the other: an operator that may work in place writes over its input.
    """

    program: str
    tensors: tuple[str, ...]
    bytes: int
    first: int
    last: int
    offset: int = 0


@dataclass(frozen=True)
class Arena:
    """The placed buffers of one program. ``bound`` is the most bytes live at once: no plan can be smaller."""

    buffers: tuple[Buffer, ...]
    bytes: int
    bound: int

    def offset(self, tensor: str) -> int | None:
        return next((buffer.offset for buffer in self.buffers if tensor in buffer.tensors), None)


def aligned(size: int) -> int:
    """Bytes rounded up to whole words: every buffer starts where a float may."""
    return (size + 3) // 4 * 4


def in_place_sources(graph: Graph, node: Node) -> tuple[str, ...]:
    """Inputs that the first output of a node may lie over, if nobody reads them afterwards."""
    allowed = OPS[node.op].in_place
    size = graph.tensor(node.outputs[0]).bytes
    return tuple(
        name
        for index in allowed
        if graph.tensor(name := node.inputs[index]).bytes == size
        and all(position in allowed for position, other in enumerate(node.inputs) if other == name)
    )


def lifetimes(graph: Graph, outside: frozenset[str], placed_inputs: tuple[str, ...] = ()) -> list[Buffer]:
    """Buffers of everything a graph computes that does not live elsewhere (``outside``), unplaced.

    ``placed_inputs`` are inputs of the graph that lie in the arena too, from its start to their last use.
    """
    last: dict[str, int] = {}
    for position, node in enumerate(graph.nodes):
        for name in node.inputs:
            last[name] = position
    owner: dict[str, int] = {}
    buffers: list[Buffer] = []
    for name in placed_inputs:
        owner[name] = len(buffers)
        buffers.append(Buffer(graph.name, (name,), aligned(graph.tensor(name).bytes), 0, last.get(name, 0)))
    for position, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name in outside or name in node.updates:
                continue
            end = max(last.get(name, position), position)
            sources = in_place_sources(graph, node) if name == node.outputs[0] else ()
            taken = next((owner[each] for each in sources if each in owner and last[each] == position), None)
            if taken is None:
                owner[name] = len(buffers)
                buffers.append(Buffer(graph.name, (name,), aligned(graph.tensor(name).bytes), position, end))
            else:
                owner[name] = taken
                shared = buffers[taken]
                buffers[taken] = replace(shared, tensors=(*shared.tensors, name), last=end)
    return buffers


class _Packing:
    """Buffers by number: their sizes, and which of them are live together."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.sizes = [buffer.bytes for buffer in buffers]
        self.together = [
            [j for j, b in enumerate(buffers) if i != j and b.first <= a.last and a.first <= b.last]
            for i, a in enumerate(buffers)
        ]

    def place(self, order: Sequence[int], tightest: bool, limit: int | None = None) -> tuple[list[int], int] | None:
        """Offsets and the bytes they take, each buffer in the lowest (or the tightest) hole that it fits into.

        None as soon as more than ``limit`` bytes are needed.
        """
        offsets = [-1] * len(self.sizes)
        most = 0
        for index in order:
            size, found, slack, end = self.sizes[index], -1, 0, 0
            for start, stop in sorted(
                (offsets[other], offsets[other] + self.sizes[other])
                for other in self.together[index]
                if offsets[other] >= 0
            ):
                hole = start - end
                if hole >= size and (found < 0 or hole < slack):
                    found, slack = end, hole
                    if not tightest:
                        break
                end = max(end, stop)
            offsets[index] = end if found < 0 else found
            most = max(most, offsets[index] + size)
            if limit is not None and most > limit:
                return None
        return offsets, most

    def improved(self, order: list[int], offsets: list[int], most: int, bound: int) -> tuple[list[int], int]:
        """Buffers at the top are placed earlier, until nothing is wasted or ``ROUNDS`` trials have been made.

        Trials that are no worse are kept, so that the search moves on. Seeded: the same every time.
        """
        dice = random.Random(len(order))
        for _ in range(ROUNDS):
            if most == bound:
                break
            top = [index for index in order if offsets[index] + self.sizes[index] == most]
            moved = dice.choice(top)
            # the buffer itself, or one of those it sits on
            if self.together[moved] and dice.random() < 0.3:
                moved = dice.choice(self.together[moved])
            trial = [index for index in order if index != moved]
            trial.insert(dice.randrange(len(order)), moved)
            result = self.place(trial, False, most)
            if result is not None:
                order, (offsets, most) = trial, result
        return offsets, most


Order = Callable[[Buffer], tuple[int, ...]]
# what is hard to place goes first
ORDERS: tuple[Order, ...] = (
    lambda b: (-b.bytes, b.first),
    lambda b: (-b.bytes, b.first - b.last),
    lambda b: (b.first - b.last, -b.bytes),
    lambda b: (b.first, -b.bytes),
    lambda b: (-b.last, -b.bytes),
    lambda b: (-(b.last - b.first + 1) * b.bytes, b.first),
)


def pack(buffers: Sequence[Buffer], bound: int) -> tuple[list[int], int]:
    """Offsets for the buffers, no two that are live together overlapping, and the bytes they take.

    The search ends at ``bound``, the most bytes live at once.
    """
    packing = _Packing(buffers)
    best: tuple[int, list[int], list[int]] | None = None
    for key in ORDERS:
        order = sorted(range(len(buffers)), key=lambda index: key(buffers[index]))
        for tightest in (False, True):
            result = packing.place(order, tightest)
            assert result is not None
            if best is None or result[1] < best[0]:
                best = result[1], order, result[0]
            if best[0] == bound:
                return best[2], bound
    assert best is not None
    return packing.improved(best[1], best[2], best[0], bound)


def plan_arena(graph: Graph, outside: frozenset[str], placed_inputs: tuple[str, ...] = ()) -> Arena:
    """Place every buffer: first and best fit in several orders, then a local search over orders.

    The arena is as small as ``bound``, the most bytes live at once, in nearly every case.
    """
    buffers = lifetimes(graph, outside, placed_inputs)
    if not buffers:
        return Arena((), 0, 0)
    # what is live grows only where a buffer begins
    bound = max(sum(b.bytes for b in buffers if b.first <= a.first <= b.last) for a in buffers)
    offsets, most = pack(buffers, bound)
    placed = [replace(buffer, offset=offset) for buffer, offset in zip(buffers, offsets, strict=True)]
    return Arena(tuple(sorted(placed, key=lambda b: (b.first, b.offset))), most, bound)
