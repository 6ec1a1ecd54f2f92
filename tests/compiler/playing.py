"""Programs played on the bytes of their arena.

The checker knows nothing of lifetimes: the bytes remember which tensor was written there last. When a node reads a
tensor, every byte of it must still be that tensor's.
"""

from __future__ import annotations

import numpy as np

from microtune.compiler.program import Program
from microtune.ops import OPS


def play(program: Program) -> None:
    """Raise AssertionError where the program reads what another tensor has written over."""
    graph, arena = program.graph, program.arena
    owner: list[str | None] = [None] * arena.bytes

    def cells(name: str) -> range | None:
        offset = arena.offset(name)
        return None if offset is None else range(offset, offset + graph.tensor(name).bytes)

    for name in graph.inputs:
        for cell in cells(name) or ():
            assert owner[cell] is None
            owner[cell] = name
    for node in graph.nodes:
        placed = {name: cells(name) for name in (*node.inputs, *node.outputs)}
        for name in node.inputs:
            lost = [owner[cell] for cell in placed[name] or () if owner[cell] != name]
            assert not lost, f"'{node.name}' reads '{name}', but '{lost[0]}' is there"
        written: set[int] = set()
        for name in node.outputs:
            where = placed[name]
            if where is None:
                continue
            assert where.start % 4 == 0 and where.stop <= arena.bytes
            assert written.isdisjoint(where), f"two outputs of '{node.name}' overlap"
            written.update(where)
            for source in node.inputs:
                taken = placed[source]
                if taken is not None and set(taken) & set(where):
                    allowed = [node.inputs[index] for index in OPS[node.op].in_place]
                    assert source in allowed and taken == where, f"'{node.name}' writes over '{source}'"
            for cell in where:
                owner[cell] = name
    for name in graph.outputs:
        assert all(owner[cell] == name for cell in cells(name) or ())


def run(program: Program, given: dict[str, np.ndarray], shared: bool) -> dict[str, bytes]:
    """The graph's outputs and updated parameters; ``shared`` runs it within the bytes of the arena.

    Workspaces are filled with noise, as a kernel may leave them.
    """
    graph, arena = program.graph, np.full(program.arena.bytes, 0x5A, np.uint8)
    r = np.random.default_rng(0)
    values = {tensor.name: np.array(tensor.data) for tensor in graph.constants} | dict(given)
    found = {}

    def cells(name: str) -> np.ndarray | None:
        offset, tensor = program.arena.offset(name) if shared else None, graph.tensor(name)
        return None if offset is None else arena[offset : offset + tensor.bytes].view(tensor.dtype)

    for name in graph.inputs:
        place = cells(name)
        if place is not None:
            place[...] = values[name].ravel()
    for node in graph.nodes:
        inputs = []
        for name in node.inputs:
            place = cells(name)
            inputs.append(values[name] if place is None else place.reshape(graph.tensor(name).shape).copy())
        results = OPS[node.op].reference(inputs, node.attributes)
        for index, (name, result) in enumerate(zip(node.outputs, results, strict=True)):
            tensor, place = graph.tensor(name), cells(name)
            value = np.asarray(result, tensor.dtype)
            if index and not graph.consumers(name) and name not in (*graph.outputs, *node.updates):
                value = r.integers(0, 256, tensor.bytes).astype(np.uint8).view(tensor.dtype).reshape(tensor.shape)
            if name in node.updates or name in graph.outputs:
                found[name] = value.tobytes()
            if place is None:
                values[name] = value
            else:
                place[...] = value.ravel()
    return found
