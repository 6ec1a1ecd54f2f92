"""Training in integers beside training in floats, where there is no floating-point unit: instructions of a step."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import microtune as mt
from benchmarks.nets import RATE, dense_net
from benchmarks.results import record
from microtune.compiler.layout import lay_out
from microtune.compiler.planned import Plan
from microtune.compiler.sources import write_sources
from microtune.targets.emulator import Emulator
from microtune.targets.size import image_size
from microtune.toolchain import compile_image

CORES = ("cortex-m0", "cortex-m3", "riscv32")
NETS = {"4-16-1": ([4, 16, 1], "mse"), "64-128-10": ([64, 128, 10], "cross_entropy")}
TIMES_FEWER = 10
"""A step of 4-16-1 on a Cortex-M0, against ours in soft float."""
STEPS = 8


def pair(name: str) -> tuple[Plan, Plan]:
    """The net in float32, and in integers only."""
    sizes, loss = NETS[name]
    graph, learn = dense_net(sizes), mt.Full()
    stored = mt.quantize(graph, calibration=np.random.default_rng(3).normal(size=(500, sizes[0])).astype(np.float32))
    return (
        mt.plan(graph, learn, loss, mt.SGD(RATE)),
        mt.plan(stored, learn, loss, mt.SGD(RATE), precision="int8"),
    )


def _samples(plan: Plan, loss: str) -> list[tuple[bytes, bytes]]:
    """Inputs and targets as the C takes them; the same samples for both kinds."""
    entry, outputs = plan.graph.tensor(plan.graph.inputs[0]), plan.graph.tensor(plan.graph.outputs[0]).size
    r = np.random.default_rng(4)
    x = r.normal(size=(STEPS, entry.size))
    y = np.sin(x.sum(axis=1, keepdims=True)) if loss == "mse" else r.integers(0, outputs, (STEPS, 1)).astype(float)
    form = entry.quantization
    if form is not None:
        x = np.clip(np.round(x / form.scale) + form.zero_point, -128, 127)
    taken = x.astype(np.int8 if form is not None else "<f4")
    numbers = np.round(y * 65536).astype("<i4") if plan.fixed else y.astype("<f4")
    return [(a.tobytes(), b.tobytes()) for a, b in zip(taken, numbers, strict=True)]


def step(plan: Plan, loss: str, core: str) -> dict[str, int]:
    """Instructions of a step (mean), flash without the start weights, RAM beside them with the stack."""
    layout = lay_out(plan)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = write_sources(plan, "net", folder)
        image = compile_image(sources, [folder], folder / "net.elf", core, keep=["net_init", "net_step"])
        machine = Emulator(image, core)
        flash = image_size(image).flash - (folder / "net_base.bin").stat().st_size
    device, x, target, loss_at = (machine.allocate(size) for size in (4 + layout.bytes, 1024, 1024, 4))
    if machine.call("net_init", device, 0) != 0:
        raise RuntimeError("the device did not start")
    found = []
    for given, wanted in _samples(plan, loss):
        machine.write(x, given)
        machine.write(target, wanted)
        found.append(machine.measure("net_step", device, x, target, loss_at))
        if found[-1].result != 0:
            raise RuntimeError(f"the step was refused with status {found[-1].result}")
    working = sum(each.bytes for each in layout.fields if each.name in ("arena", "pending_cut", "optimizer"))
    return {
        "step": round(sum(each.instructions for each in found) / STEPS),
        "flash": flash,
        "ram": working + max(each.stack for each in found),
    }


def steps() -> dict[str, Any]:
    """By core and net: the step in float32 and in integers, and how many times fewer instructions that is."""
    table: dict[str, Any] = {}
    for name, (_, loss) in NETS.items():
        plans = dict(zip(("float32", "int8"), pair(name), strict=True))
        for core in CORES:
            row: dict[str, Any] = {kind: step(plan, loss, core) for kind, plan in plans.items()}
            row["times_fewer"] = round(row["float32"]["step"] / row["int8"]["step"], 1)
            table.setdefault(core, {})[name] = row
    return table


def run_integers() -> bool:
    """False when a limit is missed."""
    found = {"steps": steps()}
    print("\na training step in soft float and in integers: instructions")
    for core, nets in found["steps"].items():
        for name, row in nets.items():
            print(
                f"  {core:11}{name:11}{row['float32']['step']:>12,}{row['int8']['step']:>11,}"
                f"{row['times_fewer']:>8} times fewer"
            )
    record("integers", found)
    promised = found["steps"]["cortex-m0"]["4-16-1"]
    return bool(promised["float32"]["step"] >= TIMES_FEWER * promised["int8"]["step"])


if __name__ == "__main__":
    raise SystemExit(0 if run_integers() else 1)
