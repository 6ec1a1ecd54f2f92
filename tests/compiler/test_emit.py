"""Generated C: reproducible, clean under every warning, freestanding, sound under sanitizers (SPEC B4)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtune.compiler.emit import emit
from microtune.compiler.layout import lay_out
from microtune.compiler.package import build
from microtune.compiler.plan import plan
from microtune.compiler.planned import Plan
from microtune.compiler.sources import runtime_directory, write_sources
from microtune.compiler.writing import identifier, literal
from microtune.errors import BuildError
from microtune.frontends.builder import Builder
from microtune.ir import verify
from microtune.package import VERBS
from microtune.targets.disassembly import is_forbidden, undefined_symbols
from microtune.targets.emulator import Emulator
from microtune.toolchain import compile_image, compile_objects
from microtune.tuning.heads import RLS
from microtune.tuning.learner import Input, Learner
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Bias, Full, Head, LoRA

from .living import live

ALLOWED = re.compile(r"^(memcpy|memset|memmove|_GLOBAL_OFFSET_TABLE_|mt_\w+|net_\w+)$")


def plans(net: Any) -> dict[str, Plan]:
    small = Learner(buffer=20, every=5, epochs=2)
    unit = [Input(f"feature {index}", -1, 1, "mV") for index in range(4)]
    return {
        "Full SGD mse": plan(net([4, 6, 2]), Full(), "mse", SGD(), small),
        "Head Adam cross entropy": plan(
            net([4, 6, 3], "tanh"), Head(1), "cross_entropy", Adam(clip=1, decay=0.1), small, inputs=unit
        ),
        "LoRA RMSProp binary": plan(
            net([4, 5, 4, 2], ["relu6", "sigmoid"]), LoRA(1), "binary_cross_entropy", RMSProp(), small
        ),
        "Bias momentum huber": plan(
            net([4, 6, 1], "leaky_relu"), Bias(), "huber", SGD(momentum=0.9),
            Learner(buffer=20, every=5, epochs=2, restart=False, pull=0.01, threshold=0.5, fallback=[0.5]),
        ),
        "Head RLS": plan(net([4, 6, 2], "softmax"), Head(1), "mse", RLS(0.99), small),
    }  # fmt: skip


@pytest.fixture(
    scope="module",
    params=["Full SGD mse", "Head Adam cross entropy", "LoRA RMSProp binary", "Bias momentum huber", "Head RLS"],
)
def made(request: pytest.FixtureRequest, net: Any) -> Plan:
    return plans(net)[request.param]


def test_same_plan_same_bytes(net: Any) -> None:
    for name, first in plans(net).items():
        again = plans(net)[name]
        assert emit(first, "net") == emit(first, "net") == emit(again, "net")


def test_identity_covers_weights_and_settings(net: Any) -> None:
    def identity(seed: int = 0, **changes: Any) -> str:
        source = emit(plan(net([3, 4, 1], seed=seed), Full(), "mse", SGD(), Learner(**changes)), "net")["net.c"]
        found = re.search(r"(0x[0-9A-F]{8})u, /\* identity", str(source))
        assert found is not None
        return found[1]

    assert len({identity(), identity(seed=1), identity(buffer=50), identity(pull=0.5)}) == 4
    assert identity() == identity()


@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m4", "cortex-m33", "wasm32"])
def test_clean_under_all_warnings_and_freestanding(made: Plan, target: str, tmp_path: Path) -> None:
    sources = write_sources(made, "net", tmp_path)
    objects = compile_objects(sources, [tmp_path], target, strict=True)
    if target in ("host", "wasm32"):
        if target == "host":
            asked = frozenset().union(*(undefined_symbols(path) for path in objects))
            assert all(ALLOWED.match(name) for name in asked), asked
        return
    asked = frozenset().union(*(undefined_symbols(path) for path in objects))
    assert not [name for name in asked if is_forbidden(name)]
    helpers = [name for name in asked if not ALLOWED.match(name) and not name.startswith("__")]
    assert not helpers


def test_clean_as_cpp_when_included(made: Plan, tmp_path: Path) -> None:
    write_sources(made, "net", tmp_path)
    user = tmp_path / "user.cpp"
    user.write_text(
        '#include "net.h"\nnet device;\nmt_status start(const mt_port *port) { return net_init(&device, port); }\n'
    )
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wdouble-promotion", "-Werror"]
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "c++",
        *flags,
        "-c",
        "-o",
        f"{tmp_path}/user.o",
        f"-I{tmp_path}",
        str(user),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_whole_lives_are_clean_under_the_sanitizers(net: Any, tmp_path: Path) -> None:
    updates = live({f"net{number}": made for number, made in enumerate(plans(net).values())}, tmp_path)
    assert min(updates.values()) >= 10


def test_worst_stack_is_within_the_manifest(made: Plan, tmp_path: Path) -> None:
    """Painted stacks of a life on Cortex-M4 never exceed the bound that the manifest states."""
    package = build(made, tmp_path / "net", targets=["cortex-m4"])
    keep = [f"net_{verb}" for verb in VERBS]
    image = compile_image(package.sources, [package.directory], tmp_path / "net.elf", "cortex-m4", keep=keep)
    machine = Emulator(image, "cortex-m4")
    layout = package.manifest["layout"]
    device = machine.allocate(4 + layout["bytes"])
    x, y, result = (machine.allocate(64) for _ in range(3))
    deepest = machine.measure("net_init", device, 0).stack
    r = np.random.default_rng(0)
    ran = 0
    for index in range(30):
        machine.write(x, r.uniform(-1, 1, 4).astype("<f4").tobytes())
        machine.write(y, np.full(2, index % 2, "<f4").tobytes())
        calls: list[tuple[str, tuple[int, ...]]] = [("predict", (x, result, result + 32)), ("observe", (y,))]
        calls += [("idle", (result,)), ("step", (x, y, result)), ("status", (result,)), ("metrics", (result,))]
        for verb, arguments in calls:
            found = machine.measure(f"net_{verb}", device, *arguments)
            assert found.result == 0, verb
            deepest = max(deepest, found.stack)
            ran += verb == "idle" and machine.read(result, 1) == b"\x01"
    for verb in ("forget", "reset", "save"):
        deepest = max(deepest, machine.measure(f"net_{verb}", device).stack)
    assert ran >= 5
    stated = package.manifest["targets_built"]["cortex-m4"]["stack"]
    assert 0 < deepest <= stated <= 2 * deepest + 512
    assert package.manifest["memory"]["ram"] == 4 + layout["bytes"] + package.manifest["memory"]["stack"]


def test_one_plain_step_costs_what_is_promised(net: Any, tmp_path: Path) -> None:
    """The 4-16-1 ReLU net on squared error: at most 1 300 instructions on M4F, 200 bytes beyond the parameters."""
    made = plan(net([4, 16, 1]), Full(), "mse", SGD())
    sources = write_sources(made, "net", tmp_path)
    keep = ["net_init", "net_step"]
    machine = Emulator(compile_image(sources, [tmp_path], tmp_path / "n.elf", "cortex-m4", keep=keep), "cortex-m4")
    layout = lay_out(made)
    device, x, y, loss = (machine.allocate(size) for size in (4 + layout.bytes, 16, 4, 4))
    machine.write(x, np.ones(4, "<f4").tobytes())
    assert machine.call("net_init", device, 0) == 0
    found = machine.measure("net_step", device, x, y, loss)
    assert found.result == 0 and 500 < found.instructions <= 1300
    needed = ("arena", "pending_cut", "optimizer")
    assert sum(field.bytes for field in layout.fields if field.name in needed) <= 200


NASTY = (
    "rate",
    "correction",
    "target",
    "loss",
    "covariance",
    "gain",
    "int",
    "H",
    "inputs",
    "ram",
    "mt_dense",
    "net_base",
    "2nd */ weight",
    "target.w",
)


@pytest.mark.parametrize("optimizer", [SGD(), Adam(decay=0.1), SGD(momentum=0.5)], ids=["sgd", "adam", "momentum"])
def test_tensors_may_have_any_names(optimizer: Any, tmp_path: Path) -> None:
    """Names that are words of C, of the runtime or of the compiler itself do not disturb the device."""
    from dataclasses import replace

    r = np.random.default_rng(0)

    def device(names: list[str]) -> Plan:
        builder = Builder("net")
        tensor = builder.input("x", (2,))
        rename = {}
        for index in range(len(names) // 2):
            weight = builder.constant(f"w{index}", weights[index], "test")
            tensor = builder.emit("dense", [tensor, weight], f"h{index}", "test")
            rename |= {weight.name: names[2 * index], tensor.name: names[2 * index + 1]}
        graph = builder.finish(tensor, "test")
        new = lambda name: rename.get(name, name)  # noqa: E731
        graph = replace(
            graph,
            tensors={new(key): replace(value, name=new(key)) for key, value in graph.tensors.items()},
            nodes=tuple(
                replace(node, inputs=tuple(map(new, node.inputs)), outputs=tuple(map(new, node.outputs)))
                for node in graph.nodes
            ),
            outputs=tuple(map(new, graph.outputs)),
        )
        return plan(verify(graph), Full(), "mse", optimizer)

    weights = [r.normal(size=(2, 2)).astype(np.float32) for _ in NASTY]
    for start in range(0, len(NASTY), 2):
        chosen = NASTY[start : start + 2]
        for order in (chosen, chosen[::-1]):
            folder = tmp_path / f"{start}{order[0] == chosen[0]}"
            nasty, plain = device(list(order)), device(["wa", "ha"])
            sources = write_sources(nasty, "net", folder)
            compile_objects(sources, [folder], "host", strict=True)
            assert nasty.programs.step is not None and plain.programs.step is not None
            assert [node.op for node in nasty.programs.step.graph.nodes] == [
                node.op for node in plain.programs.step.graph.nodes
            ]


@pytest.mark.parametrize("name", ["1st", "a-b", "ü", "while", "mt_device", "", "a" * 41])
def test_names_that_cannot_be_c_are_refused(name: str, net: Any) -> None:
    with pytest.raises(BuildError, match="cannot name a device"):
        emit(plan(net([2, 1])), name)


def test_literals_read_back_as_the_same_bits() -> None:
    r = np.random.default_rng(0)
    values = np.concatenate([
        r.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32),
        np.float32([0, -0.0, 1, 0.1, 1e-4, 1e7, 1.17549435e-38, 1e-45, 3.4028235e38, 16777216, 0.05]),
    ])  # fmt: skip
    for value in values[np.isfinite(values)]:
        text = literal(float(value))
        assert re.fullmatch(r"-?\d+\.?\d*(e[+-]?\d+)?f", text) and ("." in text or "e" in text)
        assert np.float32(text[:-1]).tobytes() == value.tobytes()
    for value in (np.nan, np.inf):
        with pytest.raises(BuildError):
            literal(value)


def test_identifiers_are_c() -> None:
    for name in ("layer.0/weight:0", "0", "", "int", "Ünicode", "a b", "class", "_x"):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", identifier(name))


def test_the_runtime_that_ships_is_what_is_included(made: Plan, tmp_path: Path) -> None:
    write_sources(made, "net", tmp_path)
    shipped = {path.name for path in runtime_directory().iterdir()}
    copied = {path.name for path in tmp_path.iterdir()} & shipped
    for path in tmp_path.iterdir():
        if path.suffix in (".c", ".h"):
            assert set(re.findall(r'#include "(mt_\w+\.h)"', path.read_text())) <= copied
