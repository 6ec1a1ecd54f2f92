"""One build, a year of uses, the same state byte for byte on host, WebAssembly, Cortex-M and RISC-V (SPEC D2, D3)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import microtune as mt
from microtune.interface import interface_of
from microtune.targets import targets
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_library, compile_wasm

from .conftest import make_net

PORT = Path(mt.__file__).parent / "targets"
DAYS = 365
RECOGNISE = 0xFFFF
CORES = tuple(each.name for each in targets() if each.emulated)


def plans() -> dict[str, mt.Plan]:
    """Different arithmetic: exponentials and divisions, square roots, recursive least squares, integers only; and a
    shared device with all that a learner can keep."""
    short = mt.Learner(buffer=12, every=6, epochs=1, folds=2)
    shared = mt.Learner(
        buffer=12, every=6, epochs=4, folds=2, replay=4, pull=0.001, ewc=0.01, ewc_memory=0.01, recency=8.0, slice=30,
        profiles=2, recognise=True, contexts=(mt.Context(0, (0.0,)),), sensors=True, log=16,
    )  # fmt: skip
    usual = np.random.default_rng(1).normal(size=(100, 3))
    return {
        "adam": mt.plan(make_net([3, 4, 3]), mt.Head(1), "cross_entropy", mt.Adam(0.01, decay=0.01), short),
        "momentum": mt.plan(
            make_net([3, 4, 1]), mt.Full(), "huber", mt.SGD(0.05, momentum=0.5, clip=1), shared, calibration=usual
        ),
        "rls": mt.plan(make_net([3, 4, 1]), mt.Head(1), "mse", mt.RLS(0.98), short),
        "integers": mt.plan(
            mt.quantize(make_net([3, 4, 1]), calibration=usual),
            mt.Full(),
            "mse",
            mt.SGD(0.05, momentum=0.5),
            mt.Learner(buffer=12, every=6, epochs=2, folds=2, replay=4, profiles=2, log=16),
            precision="int8",
        ),
        "map": mt.plan(make_net([3, 4, 3]), mt.Head(1), "cross_entropy", mt.MAP(), short, calibration=np.eye(3)),
    }


def machines(package: mt.Package, folder: Path) -> dict[str, Machine]:
    """The package's sources and a port in memory on every machine there is here."""
    sources, include = [*package.sources, PORT / "memory_port.c"], [package.directory, PORT]
    keep = [*(f"{package.name}_{verb}" for verb in package.verbs), "mt_memory_port_create"]
    found: dict[str, Machine] = {
        "host": HostMachine(compile_library(sources, include, folder / "host.so")),
        "wasm32": WasmMachine(compile_wasm(sources, include, folder / "net.wasm", exports=keep)),
    }
    for core in CORES:
        found[core] = Emulator(compile_image(sources, include, folder / f"{core}.elf", core, keep=keep), core)
    return found


def a_year(package: mt.Package, machine: Machine) -> tuple[bytes, bytes, bytes]:
    """Live through a year; the saved state, the storage's content, and all answers."""
    layout, name = package.manifest["layout"], package.name
    device = machine.allocate(machine.pointer_size + layout["bytes"] + 8)
    port, storage_size = machine.allocate(64), 8192
    storage = machine.allocate(storage_size)
    x, y, output, result = (machine.allocate(64) for _ in range(4))
    machine.call("mt_memory_port_create", port, storage, storage_size, 256)
    r = np.random.default_rng(2)
    classes = package.manifest["outputs"]
    written, answers = interface_of(package.fixed).written, []

    def stored(values: np.ndarray) -> bytes:
        return (np.rint(values * 50).clip(-128, 127).astype("i1") if package.fixed else values).tobytes()

    def call(verb: str, *arguments: int, expect: int = 0) -> None:
        assert machine.call(f"{name}_{verb}", device, *arguments) == expect, verb

    call("init", port)
    for day in range(DAYS):
        values = r.normal(size=3).astype("<f4")
        # numbers lie beyond what the base ever says, so that whatever is learnt beats it: the build's identity seeds
        # the order of the samples, and with any order each person must come to know something
        number = np.tanh(values[0]) + (3.0 if day > 180 else 2.0)
        wish = float(values[0] > 0) + float(values[1] > 0) if classes > 1 else float(number)
        machine.write(x, stored(values))
        machine.write(y, written(np.float32([wish])).tobytes())
        call("predict", x, output, result)
        answers.append(machine.read(output, 4 * classes) + machine.read(result, 4))
        call("observe", y)
        call("idle", result)
        if day % 10 == 9 and package.manifest["learner"]["profiles"] > 1:
            asked = day % 100 == 69 and package.manifest["learner"]["recognise"]
            call("select_profile", RECOGNISE if asked else day // 10 % 2)
        if day == 150:
            call("learning_mode", 5)
        if day % 50 == 49:
            call("step", x, y, result)
        if day == 100:
            call("forget")
        if day == 250:
            call("forget_last", 4)
        if day == 200:
            if not package.fixed:  # whose inputs are all numbers
                machine.write(x, np.full(3, np.nan, "<f4").tobytes())
                call("predict", x, output, result, expect=2)
            call("init", port)  # the power was off
    call("save")
    state = machine.read(device + machine.pointer_size, layout["saved"])
    return state, machine.read(storage, storage_size), b"".join(answers)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adam", "momentum", "rls", "map", "integers"])
def test_a_year_gives_the_same_bits_everywhere(kind: str, tmp_path: Path) -> None:
    package = mt.build(plans()[kind], tmp_path / "net")
    found, seconds = {}, {}
    for name, machine in machines(package, tmp_path).items():
        start = time.perf_counter()
        found[name] = a_year(package, machine)
        seconds[name] = time.perf_counter() - start
    print({name: round(value, 1) for name, value in seconds.items()})
    layout, fresh = package.manifest["layout"], mt.Device(package).state()
    learnt, people = next(field for field in layout["fields"] if field["name"] == "parameters"), layout["people"]
    starts = [learnt["offset"] + person * people["bytes"] for person in range(people["count"])]
    for start in starts:
        assert found["host"][0][start:][: learnt["bytes"]] != fresh[start:][: learnt["bytes"]]
    for name in found:
        for what, have, want in zip(("state", "storage", "answers"), found[name], found["host"], strict=True):
            assert have == want, f"{what} on {name} differs from the host's"
