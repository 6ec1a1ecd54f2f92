"""The static memory plan: which tensors share a buffer, and where in the arena each buffer lies."""

from __future__ import annotations

from dataclasses import dataclass

from microtune.ir import Graph
from microtune.ops import OPS


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


def lifetimes(graph: Graph, outside: frozenset[str], placed_inputs: tuple[str, ...] = ()) -> list[Buffer]:
    """Buffers of everything a graph computes that does not live elsewhere (``outside``), unplaced.

    ``placed_inputs`` are inputs of the graph that lie in the arena too, from its start to their last use.
    """
    last: dict[str, int] = {}
    for position, node in enumerate(graph.nodes):
        for name in node.inputs:
            last[name] = position
    owner: dict[str, int] = {}
    groups: list[tuple[list[str], int, int, int]] = []
    for name in placed_inputs:
        owner[name] = len(groups)
        groups.append(([name], aligned(graph.tensor(name).bytes), 0, last.get(name, 0)))
    for position, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name in outside or name in node.updates:
                continue
            end = max(last.get(name, position), position)
            taken = None
            if name == node.outputs[0]:
                for index in OPS[node.op].in_place:
                    source = node.inputs[index]
                    fits = source in owner and graph.tensor(source).bytes == graph.tensor(name).bytes
                    if fits and last[source] == position and groups[owner[source]][3] == position:
                        taken = owner[source]
                        break
            if taken is None:
                owner[name] = len(groups)
                groups.append(([name], aligned(graph.tensor(name).bytes), position, end))
            else:
                names, size, first, _ = groups[taken]
                owner[name] = taken
                groups[taken] = ([*names, name], size, first, end)
    return [Buffer(graph.name, tuple(names), size, first, end) for names, size, first, end in groups]


def _place(buffers: list[Buffer]) -> tuple[list[Buffer], int]:
    placed: list[Buffer] = []
    for buffer in buffers:
        offset = 0
        neighbours = sorted(
            (other for other in placed if other.first <= buffer.last and buffer.first <= other.last),
            key=lambda other: other.offset,
        )
        for other in neighbours:
            if offset + buffer.bytes <= other.offset:
                break
            offset = max(offset, other.offset + other.bytes)
        placed.append(Buffer(buffer.program, buffer.tensors, buffer.bytes, buffer.first, buffer.last, offset))
    return placed, max((buffer.offset + buffer.bytes for buffer in placed), default=0)


def plan_arena(graph: Graph, outside: frozenset[str], placed_inputs: tuple[str, ...] = ()) -> Arena:
    """Place every buffer: first fit, in the best of several orders (largest first, longest first, by time)."""
    buffers = lifetimes(graph, outside, placed_inputs)
    steps = range(len(graph.nodes))
    bound = max((sum(b.bytes for b in buffers if b.first <= at <= b.last) for at in steps), default=0)
    orders = (
        lambda b: (-b.bytes, b.first),
        lambda b: (b.first - b.last, -b.bytes),
        lambda b: (b.first, -b.bytes),
        lambda b: (-(b.last - b.first + 1) * b.bytes, b.first),
    )
    best = min((_place(sorted(buffers, key=order)) for order in orders), key=lambda plan: plan[1])
    return Arena(tuple(sorted(best[0], key=lambda b: (b.first, b.offset))), best[1], bound)
