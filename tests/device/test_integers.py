"""Whole packages of integers only: lives under the sanitizers, all machines, power cuts, learning, time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler.living import live
from tests.tuning.networks import random_int8_net

import microtune as mt
from microtune.compiler.layout import lay_out
from microtune.compiler.sources import write_sources
from microtune.frontends.builder import Builder
from microtune.interface import interface_of
from microtune.ir import Graph, verify
from microtune.targets.arithmetic import floating_point_in
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_library, compile_wasm
from microtune.tuning.losses import Loss

PORT = Path(mt.__file__).parent / "targets"
CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m33", "riscv32")  # cortex-m7 runs cortex-m4's instructions
COMPILERS = tuple(
    each for each in ("gcc -O3", "clang -O0") if shutil.which(each.partition(" ")[0])
)


def dense_net(seed: int, inputs: int, outputs: int, size: float = 1.0) -> Graph:
    """Two branches by look-ups and a gate, added up, as int8; weights of this size."""
    r = np.random.default_rng(seed)
    builder = Builder("net")
    x = builder.input("x", (inputs,))

    def layer(name: str, source: Any, count: int, op: str = "") -> Any:
        weight = builder.constant(f"{name}.w", size * r.normal(size=(count, source.size)) / source.size**0.5, "test")
        bias = builder.constant(f"{name}.b", 0.3 * r.normal(size=count), "test")
        made = builder.emit("dense", [source, weight, bias], name, "test")
        return builder.emit(op, [made], f"{name}.{op}", "test") if op else made

    one, two, gate = (layer(op, x, 6, op) for op in ("tanh", "relu", "sigmoid"))
    gated = builder.emit("multiply", [two, gate], "gated", "test")
    together = builder.emit("add", [one, gated], "together", "test")
    net = verify(builder.finish(layer("last", together, outputs), "test"))
    return mt.quantize(net, r.normal(size=(60, inputs)).astype(np.float32))


def random_plan(seed: int) -> mt.Plan:
    """Any net, scheme, loss, optimiser and way of learning that go together in integers."""
    r = np.random.default_rng(seed)
    images = seed % 3 == 2
    graph = random_int8_net(r) if images else dense_net(seed, int(r.integers(2, 6)), 3, float(r.choice([0.3, 1, 4])))
    outputs = graph.tensor(graph.outputs[0]).size
    regression, half = seed % 4 in (0, 3), [0.5, 0.25, 0.25, 0.0][:outputs]
    losses: list[str | Loss] = ["mse", "cross_entropy", "binary_cross_entropy", mt.Huber(0.5)]
    optimizer = mt.SGD(float(r.choice([0.01, 0.3, 8.0])), momentum=float(r.choice([0.0, 0.5, 0.99])),
                       decay=float(r.choice([0.0, 0.01])))  # fmt: skip
    schemes = [mt.Full(), mt.Head(1), mt.Head(2), mt.Bias(), mt.Sparse({0: 1.0, 1: 0.5}, biases_from=1)]
    ways: list[dict[str, Any]] = [
        {"folds": 5}, {"folds": 2, "restart": False}, {"folds": 0}, {"folds": 0, "restart": False, "in_place": True},
    ]  # fmt: skip
    learner = mt.Learner(
        buffer=8, every=4, epochs=int(r.integers(1, 3)), replay=int(r.choice([0, 5])), log=int(r.choice([0, 3])),
        profiles=int(r.integers(1, 3)), slice=int(r.choice([0, 7])), recency=float(r.choice([0.0, 3.0])),
        pull=float(r.choice([0.0, 0.01, 1.0])), disuse=float(r.choice([0.0, 30.0])),
        caution=float(r.choice([0.0, 0.5])), threshold=float(r.choice([0.0, 0.6])),
        tolerance=float(r.choice([0.0625, 5.0, 32767.0])),
        fallback=None if r.integers(2) else [32767.0, -32767.0, 0.0, 0.25][:outputs] if regression else half,
        **ways[int(r.integers(len(ways)))],
    )  # fmt: skip
    return mt.plan(graph, schemes[seed % len(schemes)], losses[seed % 4], optimizer, learner, precision="int8")


HEADS: dict[str, tuple[str, Any]] = {
    "rls": ("mse", mt.RLS(0.9)), "map": ("cross_entropy", mt.MAP()), "slda": ("cross_entropy", mt.SLDA(memory=10)),
    "logistic": ("binary_cross_entropy", mt.Logistic()),
}  # fmt: skip


def head_plan(kind: str, **given: Any) -> mt.Plan:
    loss, head = HEADS[kind]
    graph, r = dense_net(1, 4, 3), np.random.default_rng(0)
    x = r.normal(size=(60, 4)).astype(np.float32)
    y = {"rls": r.normal(size=(60, 3)), "logistic": r.integers(0, 2, (60, 3))}.get(kind, r.integers(0, 3, 60))
    learner = mt.Learner(**{"buffer": 8, "every": 4, "folds": 2, "profiles": 2, "log": 3, "disuse": 30, **given})
    return mt.plan(graph, loss=loss, optimizer=head, learner=learner, calibration=(x, y), precision="int8")


@pytest.mark.slow
def test_whole_lives_are_clean_under_the_sanitizers(tmp_path: Path) -> None:
    """Any bytes as inputs, both ends, targets at the ends of all numbers, steps far too large, rotten storage."""
    plans = {f"net{seed}": random_plan(seed) for seed in range(11)}
    plans |= {f"{kind}{folds}": head_plan(kind, folds=folds) for kind, folds in zip(HEADS, (0, 2, 0, 2), strict=True)}
    updates = live(plans, tmp_path, lives=8)
    assert all(updates.values()), updates


# One build on all machines


def image_plan(momentum: float = 0.9) -> mt.Plan:
    """A net of convolutions, one of them depthwise, that learns as a whole with a momentum and a pull."""
    graph = random_int8_net(np.random.default_rng(4))
    learner = mt.Learner(buffer=6, every=3, epochs=2, folds=0, replay=4, pull=0.01, recency=4.0, log=2)
    optimizer = mt.SGD(0.1, momentum=momentum, decay=0.01)
    return mt.plan(graph, mt.Full(), "cross_entropy", optimizer, learner, precision="int8")


def everywhere_plans() -> dict[str, mt.Plan]:
    sgd = mt.Learner(buffer=8, every=4, epochs=1, folds=2, profiles=2, tolerance=0.25)
    found = {
        "image": image_plan(),
        "plain": mt.plan(dense_net(2, 4, 3), mt.Full(), mt.Huber(0.5), mt.SGD(0.1), sgd, precision="int8"),
        "yes": mt.plan(dense_net(3, 4, 3), mt.Head(1), "binary_cross_entropy", mt.SGD(0.1), sgd, precision="int8"),
    }
    return found | {kind: head_plan(kind) for kind in HEADS}


def compiled(compiler: str, sources: list[Path], include: list[Path], output: Path) -> Path:
    """A library by a compiler of this machine, in one go."""
    flags = ["-std=c99", "-shared", "-fPIC", "-ffp-contract=off", *(f"-I{each}" for each in include)]
    subprocess.run([*compiler.split(), *flags, "-o", output, *sources], check=True)
    return output


def lived(plan: mt.Plan, name: str, machine: Machine, uses: int) -> bytes:
    """The saved state, the storage and all answers after so many uses; one in four inputs lies at the ends."""
    layout, fixed = lay_out(plan), interface_of(True)
    device = machine.allocate(machine.pointer_size + layout.bytes + 8)
    size = int(np.prod(plan.graph.tensor(plan.graph.inputs[0]).shape))
    outputs = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    port, storage, x, y, output, result = (machine.allocate(each) for each in (64, 16384, size + 4, 64, 64, 64))
    machine.call("mt_memory_port_create", port, storage, 16384, 256)
    r = np.random.default_rng(5)
    answers = []

    def call(verb: str, *arguments: int) -> None:
        assert machine.call(f"{name}_{verb}", device, *arguments) == 0, verb

    call("init", port)
    for use in range(uses):
        values = r.integers(-128, 128, size)
        values = r.choice([-128, 127], size) if use % 4 == 3 else values
        wish = {
            "MT_REGRESSION": np.where(use % 7 == 6, 32767.0, 1.0) * np.tanh(values[:3] / 64.0),
            "MT_BINARY": (values[:3] > 0).astype(float),
            "MT_MULTICLASS": np.array([float(np.sum(values[:2] > 0))]),
        }[plan.loss.task]
        machine.write(x, values.astype(np.int8).tobytes())
        machine.write(y, fixed.written(wish.astype(np.float32)).tobytes())
        call("predict", x, output, result)
        answers.append(machine.read(output, 4 * outputs) + machine.read(result, 4))
        call("observe", y)
        call("idle", result)
        answers.append(machine.read(result, 16))
        if use % 10 == 9:
            call("step", x, y, result)
            if plan.learner.profiles > 1:
                call("select_profile", use // 10 % 2)
        if use == uses // 2:
            call("forget_last", 2)
            call("save")
            call("init", port)
    call("save")
    state = machine.read(device + machine.pointer_size, layout.saved)
    return state + machine.read(storage, 16384) + b"".join(answers)


@pytest.mark.slow
def test_the_same_bits_on_all_machines_by_all_compilers_without_floats(tmp_path: Path) -> None:
    """Convolutions, momentum, pulls, all losses and all heads in one image, which has no floating point on any core."""
    plans, written = everywhere_plans(), set[Path]()
    for name, plan in plans.items():
        written.update(write_sources(plan, name, tmp_path))
    sources, include = [*sorted(written), PORT / "memory_port.c"], [tmp_path, PORT]
    sources = [each for each in sources if each.suffix == ".c"]
    verbs = ("init", "predict", "observe", "idle", "step", "select_profile", "forget_last", "save")
    keep = [f"{name}_{verb}" for name in plans for verb in verbs if (name, verb) != ("image", "select_profile")]
    keep.append("mt_memory_port_create")
    host = HostMachine(compile_library(sources, include, tmp_path / "host.so"))
    want = {name: lived(plan, name, host, 60) for name, plan in plans.items()}
    fresh = {name: lived(plan, name, host, 1) for name, plan in plans.items()}
    for name, plan in plans.items():
        learnt, layout = lay_out(plan).field("parameters"), lay_out(plan)
        assert want[name][learnt.offset : layout.saved] != fresh[name][learnt.offset : layout.saved]
    machines: dict[str, Machine] = {
        "wasm32": WasmMachine(compile_wasm(sources, include, tmp_path / "all.wasm", exports=keep))
    }
    for index, compiler in enumerate(COMPILERS):
        machines[compiler] = HostMachine(compiled(compiler, sources, include, tmp_path / f"by{index}.so"))
    for core in CORES:
        image = compile_image(sources, include, tmp_path / f"{core}.elf", core, keep=keep)
        assert floating_point_in(image) == (), core
        machines[core] = Emulator(image, core)
    for where, machine in machines.items():
        for name, plan in plans.items():
            assert lived(plan, name, machine, 60) == want[name], f"{name} on {where} differs from the host's"
