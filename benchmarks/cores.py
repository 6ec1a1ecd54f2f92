"""Instructions of one training step on emulated cores, and the RAM it takes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from microtune.compiler.layout import lay_out
from microtune.compiler.passes.cut import work
from microtune.compiler.planned import Plan
from microtune.compiler.sources import write_sources
from microtune.targets.emulator import Emulator, Measurement
from microtune.toolchain import compile_image

CORES = ("cortex-m0", "cortex-m4", "cortex-m33")


def measure_step(plan: Plan, core: str) -> Measurement:
    """One call of NAME_step on a core, after one to warm nothing up: the counts repeat exactly."""
    layout = lay_out(plan)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = write_sources(plan, "small", folder)
        keep = ["small_init", "small_step"]
        machine = Emulator(compile_image(sources, [folder], folder / "small.elf", core, keep=keep), core)
    device = machine.allocate(4 + layout.bytes)
    r = np.random.default_rng(1)
    x = r.normal(size=plan.graph.tensor(plan.graph.inputs[0]).size).astype("<f4")
    target, x_at, loss = machine.allocate(1024), machine.allocate(x.nbytes), machine.allocate(4)
    machine.write(x_at, x.tobytes())
    machine.write(target, np.ones(1, "<f4").tobytes())  # a value, or the class 1
    if machine.call("small_init", device, 0) != 0:
        raise RuntimeError("the device did not start")
    found = machine.measure("small_step", device, x_at, target, loss)
    if found.result != 0:
        raise RuntimeError(f"the step was refused with status {found.result}")
    return found


def multiply_adds(plan: Plan) -> int:
    """Multiply-accumulate operations of the frozen part and one training step."""
    programs = [plan.programs.backbone, plan.programs.step]
    return sum(work(program.graph, node) for program in programs if program for node in program.graph.nodes)


def step_ram(plan: Plan) -> int:
    """Bytes a step needs beyond the parameters: activations and gradients, the cut, the optimiser's state."""
    layout = lay_out(plan)
    names = ("arena", "pending_cut", "optimizer")
    return sum(field.bytes for field in layout.fields if field.name in names)


def table(plans: dict[str, Plan]) -> dict[str, dict[str, Any]]:
    """Instructions per step on each core beside the multiply-adds, by the name of the plan."""
    found = {}
    for name, plan in plans.items():
        count = multiply_adds(plan)
        row: dict[str, Any] = {"multiply_adds": count}
        row |= {core: measure_step(plan, core).instructions for core in CORES}
        row["cortex-m4 per multiply-add"] = round(row["cortex-m4"] / count, 2)
        found[name] = row
    return found
