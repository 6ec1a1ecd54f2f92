"""Write a package directory: generated C, the runtime sources it needs, base weights, manifest, libraries."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from microtune import toolchain
from microtune.compiler.footprint import entries, image_footprint
from microtune.compiler.layout import Slice, lay_out
from microtune.compiler.planned import Plan, lists_inputs, target_size
from microtune.compiler.sources import write_sources
from microtune.compiler.writing import check_name
from microtune.errors import BudgetError, BuildError
from microtune.ir import Tensor
from microtune.package import FORMAT, Package, open_package
from microtune.targets.catalogue import Target, target
from microtune.targets.room import hold_to_board
from microtune.tuning.schemes import Outputs
from microtune.version import VERSION


def _slices(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.tensor.name,
            "shape": list(each.tensor.shape),
            "dtype": each.tensor.dtype,
            "offset": each.offset,
        }
        for each in slices
    ]


def describe_tensor(tensor: Tensor) -> dict[str, Any]:
    """Shape and type of an input or output; scale and zero point where it is int8."""
    quantization = tensor.quantization
    return {
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": None if quantization is None else float(quantization.scale),
        "zero_point": None if quantization is None else int(quantization.zero_point),
    }


def _written(value: object) -> object:
    """What JSON has no word for: a range of channels."""
    if isinstance(value, slice):
        return {"start": value.start, "stop": value.stop}
    if isinstance(value, Outputs):
        return {"outputs": value.part}
    raise TypeError(f"{type(value).__name__} does not go into a manifest")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _identity(source: str) -> str:
    match = re.search(r"(0x[0-9A-F]{8})u, /\* identity", source)
    assert match is not None
    return match[1]


def describe(plan: Plan, name: str, directory: Path) -> dict[str, Any]:
    """The manifest of a package (see docs/manifest.md), without its targets."""
    layout = lay_out(plan)
    output = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1])
    memory = plan.memory
    return {
        "format": FORMAT,
        "name": name,
        "microtune": VERSION,
        "identity": _identity((directory / f"{name}.c").read_text()),
        "task": plan.loss.task,
        "loss": plan.loss.operator,
        "delta": plan.loss.delta,
        "optimizer": {"name": type(plan.optimizer).__name__, **asdict(plan.optimizer)},
        "scheme": {"name": "residual head"}
        if plan.programs.hidden
        else {"name": type(plan.scheme).__name__, **vars(plan.scheme)},
        "precision": plan.precision,
        "learner": asdict(plan.learner),
        "input": describe_tensor(plan.graph.tensor(plan.graph.inputs[0])) | {"place": layout.input},
        "inputs": [
            {"name": each.name, "low": _finite(each.low), "high": _finite(each.high), "unit": each.unit}
            for each in (plan.inputs if lists_inputs(plan) else ())
        ],
        "sensors": [{"name": each.name, **each.constants} for each in plan.sensors],
        "outputs": output.size,
        "targets": target_size(plan),
        "tensors": {
            "trained": _slices(layout.parameters),
            "base": _slices(layout.base),
            "optimizer": _slices(layout.optimizer),
            "cut": _slices(layout.cut),
        },
        "layout": {
            "bytes": layout.bytes,
            "saved": layout.saved,
            "fields": [{"name": each.name, "offset": each.offset, "bytes": each.bytes} for each in layout.fields],
            "people": {"offset": layout.people, "bytes": layout.person, "count": layout.sets},
        },
        "memory": {
            "ram": memory.ram,
            "stack": memory.stack,
            "flash": memory.flash,
            "arena": memory.arena,
            "arena_lower_bound": memory.bound,
            "parameters": memory.parameters,
            "optimizer": memory.optimizer,
            "buffers": memory.buffers,
            "timeline": [asdict(span) for span in memory.timeline],
            "packed": [asdict(each) for each in memory.packed],
            "saved": memory.saved,
        },
        "targets_built": {},
        "files": {},
    }


def build(plan: Plan, directory: str | os.PathLike[str], targets: Sequence[str | Target] = ("host",)) -> Package:
    """Write the package directory of a plan and compile it for ``targets``.

    The directory's name is the device's name. An existing package there is replaced as a whole, once the new
    one is complete. Raises BuildError for an impossible name or a directory that is something else,
    BudgetError when a target's measured size exceeds the plan's budget, or what the board of that name has.
    """
    if isinstance(targets, str):
        raise BuildError(f"targets={targets!r}: a list of names, such as targets=[{targets!r}]")
    goal = Path(directory)
    name = check_name(goal.name)
    chosen = [target(each) for each in targets]
    if goal.exists() and not (goal.is_dir() and ((goal / "manifest.json").exists() or not any(goal.iterdir()))):
        raise BuildError(f"{goal} exists and is not a microtune package; choose another directory or remove it")
    goal.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{name}-") as scratch:
        fresh = Path(scratch) / name
        sources = write_sources(plan, name, fresh)
        manifest = describe(plan, name, fresh)
        library = fresh / "lib"
        library.mkdir()
        for each in chosen:
            manifest["targets_built"][each.name] = _compile(plan, name, sources, fresh, library, each)
        manifest["files"] = {
            str(path.relative_to(fresh)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(fresh.rglob("*"))
            if path.is_file()
        }
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2, default=_written) + "\n")
        if goal.exists():
            shutil.rmtree(goal)
        fresh.replace(goal)
    return open_package(goal)


def _compile(
    plan: Plan, name: str, sources: list[Path], include: Path, library: Path, chosen: Target
) -> dict[str, Any]:
    if chosen.image:
        image = library / f"{chosen.name}.elf"
        flash, stack = image_footprint(plan, name, sources, include, image, chosen)
        _hold(plan, chosen, plan.memory.ram - plan.memory.stack + stack, flash)
        return {"file": f"lib/{image.name}", "flash": flash, "stack": stack}
    if chosen.kind == "source":  # compiled elsewhere: held to the figures of the reference core
        _hold(plan, chosen, plan.memory.ram, plan.memory.flash)
        return {"flash": plan.memory.flash, "stack": plan.memory.stack}
    if chosen.kind == "wasm":
        module = toolchain.compile_wasm(sources, [include], library / f"{name}.wasm", exports=entries(plan, name))
        return {"file": f"lib/{module.name}"}
    built = toolchain.compile_library(sources, [include], library / f"{chosen.name}{chosen.suffix}", name=chosen)
    return {"file": f"lib/{built.name}"}


def _hold(plan: Plan, where: Target, ram: int, flash: int) -> None:
    for what, need, limit in (("RAM", ram, plan.budget.ram_bytes), ("flash", flash, plan.budget.flash_bytes)):
        if limit is not None and need > limit:
            over = f"the budget is {limit} ({need - limit} too many)"
            raise BudgetError(f"on {where.name} the package takes {need} bytes of {what}; {over}")
    hold_to_board(where, "the package", ram, flash)
