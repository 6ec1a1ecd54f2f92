"""``compile_inference``: a network that only predicts, as one C function over weights in flash."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from microtune import toolchain
from microtune.compiler.cmsis_nn import CmsisNN, by_library, compiled_with, find, has_vectors
from microtune.compiler.layout import in_row
from microtune.compiler.package import describe_tensor
from microtune.compiler.passes.fuse_trees import fuse_trees
from microtune.compiler.passes.pack_weights import Packing, check_sparse, pack_weights
from microtune.compiler.program import Program, own_inputs, placed
from microtune.compiler.sources import copy_runtime
from microtune.compiler.writing import (
    C_TYPES,
    Writer,
    base_bytes,
    check_name,
    environment,
    rows,
    scale_of,
    shape_of,
    stands_for,
    uses,
)
from microtune.errors import BuildError, PlanError
from microtune.ir import Graph, verify
from microtune.network import DESCRIPTION, Network
from microtune.ops import OPS
from microtune.targets.catalogue import Target, target
from microtune.targets.room import hold_to_board
from microtune.targets.size import image_size
from microtune.targets.stack import stack_bound
from microtune.version import VERSION


def _program(
    graph: Graph, library: CmsisNN | None = None, vectors: bool = False, sparse: bool = True
) -> tuple[Program, Packing]:
    verify(graph)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise PlanError(
            f"'{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; one of each is needed"
        )
    if graph.outputs == graph.inputs:
        raise PlanError(f"'{graph.name}' computes nothing: its output is its input")
    if library is not None:
        graph = verify(by_library(graph, library, vectors), "choosing functions of CMSIS-NN")
    graph = verify(fuse_trees(graph), "fusing trees")
    program = placed(graph, "compiling for prediction", own_inputs(graph))
    (packed,), packing = pack_weights([program.graph]) if sparse else ((program.graph,), Packing())
    return Program(verify(packed, "packing weights"), program.arena), packing


def emit_network(
    graph: Graph, name: str, library: CmsisNN | None = None, vectors: bool = False
) -> dict[str, str | bytes]:
    """The generated files of a network by name: NAME.h, NAME.c, NAME_base.c and NAME_base.bin.

    With a ``library``, ``vectors`` says whether it may be compiled for cores with vector instructions.
    """
    return _emitted(_program(graph, library, vectors)[0], name, vectors)


def _emitted(program: Program, name: str, vectors: bool) -> dict[str, str | bytes]:
    graph = program.graph
    base, base_size = in_row(program.graph.constants)
    writer = Writer(base, 0, check_name(name))
    (source,), (result,) = graph.inputs, graph.outputs
    body = writer.program(program, {**writer.places(learnt=False), source: "input", result: "output"})
    context = {
        "name": name,
        "upper": name.upper(),
        "version": VERSION,
        "input": graph.tensor(source),
        "output": graph.tensor(result),
        "arena_bytes": program.arena.bytes,
        "bound": program.arena.bound,
        "place": program.arena.offset(source),
        "headers": sorted({OPS[node.op].header for node in program.graph.nodes}),
        "defines": ["MT_CMSIS_NN_VECTORS"] if vectors else [],
        "body": body,
        "base": base,
        "learns": 0,
        "layout": {"base_size": base_size},
        "members": writer.members,
        "c_types": C_TYPES,
        "shape": shape_of,
        "scale": scale_of,
        "stands_for": stands_for,
        "rows": rows,
        "uses": uses,
    }
    templates = environment()
    return {
        f"{name}.h": templates.get_template("network.h.jinja").render(**context),
        f"{name}.c": templates.get_template("network.c.jinja").render(**context),
        f"{name}_base.c": templates.get_template("base.c.jinja").render(**context),
        f"{name}_base.bin": base_bytes(base),
    }


def compile_inference(
    graph: Graph,
    directory: str | os.PathLike[str],
    targets: Sequence[str | Target] = ("host",),
    cmsis_nn: str | os.PathLike[str] | None = None,
    sparse: str | bool = "auto",
) -> Network:
    """Write a network that only predicts as C, and compile it for ``targets``.

    The directory's name is the network's: its function is ``NAME_run(input, output, arena)``. An existing network
    there is replaced once the new one is complete. ``cmsis_nn`` is a folder of Arm's CMSIS-NN: int8 layers that it
    has functions for are then its calls, compiled from there (the network's own folder does not hold them).
    ``sparse``: weights with many zeros are stored without them where that makes flash smaller ("auto"; outputs stay
    the same bits; ``Network.packed`` says which), or never (False). Raises PlanError for a graph without one input
    and one output, BuildError for an impossible name, a directory that is something else, or a folder that is not
    CMSIS-NN, BudgetError for a board without room for its code, weights, arena and stack.
    """
    may_pack = check_sparse(sparse)
    library = None if cmsis_nn is None else find(cmsis_nn)
    goal = Path(directory)
    name = check_name(goal.name)
    if goal.exists() and not (goal.is_dir() and ((goal / DESCRIPTION).exists() or not any(goal.iterdir()))):
        raise BuildError(f"{goal} exists and is not a compiled network; choose another directory or remove it")
    goal.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{name}-") as scratch:
        fresh = Path(scratch) / name
        fresh.mkdir()
        chosen = [target(each) for each in targets]
        vectors = library is not None and any(map(has_vectors, chosen))
        program, packing = _program(graph, library, vectors, may_pack)
        files = _emitted(program, name, vectors)
        for file, content in files.items():
            (fresh / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        copy_runtime(str(files[f"{name}.c"]) + str(files[f"{name}.h"]), fresh)
        sources, include = compiled_with(library, fresh)
        folder = fresh / "lib"
        folder.mkdir()
        arena = re.search(r"_ARENA (\d+)u", str(files[f"{name}.h"]))
        assert arena is not None
        built = {}
        for each in chosen:
            if each.kind == "source":  # compiled elsewhere
                continue
            if each.image:
                path = folder / f"{each.name}.elf"
                toolchain.compile_image(sources, include, path, each, keep=[f"{name}_run"])
                if each.board is not None:
                    stack = stack_bound(path, f"{name}_run").size
                    hold_to_board(each, "the network", int(arena[1]) + stack, image_size(path).flash)
            elif each.kind == "wasm":
                path = toolchain.compile_wasm(sources, include, folder / f"{name}.wasm", exports=[f"{name}_run"])
            else:
                path = toolchain.compile_library(sources, include, folder / f"{each.name}{each.suffix}", name=each)
            built[each.name] = f"lib/{path.name}"
        description = {
            "name": name,
            "microtune": VERSION,
            "input": describe_tensor(graph.tensor(graph.inputs[0])),
            "output": describe_tensor(graph.tensor(graph.outputs[0])),
            "arena": int(arena[1]),
            "weights": len(files[f"{name}_base.bin"]),
            "targets_built": built,
            "cmsis_nn": library is not None,
            "packed": {"saved": packing.saved, **asdict(packing)},
        }
        (fresh / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        if goal.exists():
            shutil.rmtree(goal)
        fresh.replace(goal)
    return Network(goal)
