"""The test programs, built once per session for every machine."""

from pathlib import Path

import pytest

from microtune.targets import Target, targets
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_library, compile_wasm

HERE = Path(__file__).parent
CORES = [target for target in targets() if target.emulated]


@pytest.fixture(params=CORES, ids=lambda core: core.name)
def core(request: pytest.FixtureRequest) -> Target:
    return request.param


@pytest.fixture
def kernel_image(core: Target, tmp_path: Path) -> Path:
    return compile_image([HERE / "kernel.c"], [], tmp_path / "kernel.elf", core)


@pytest.fixture
def kernel(core: Target, kernel_image: Path) -> Emulator:
    return Emulator(kernel_image, core)


@pytest.fixture
def stacks_image(core: Target, tmp_path: Path) -> Path:
    return compile_image([HERE / "stacks.c"], [], tmp_path / "stacks.elf", core)


@pytest.fixture
def machines(tmp_path: Path) -> dict[str, Machine]:
    """The same program on every machine there is here."""
    source = [HERE / "kernel.c"]
    found: dict[str, Machine] = {
        "host": HostMachine(compile_library(source, [], tmp_path / "kernel.so")),
        "wasm32": WasmMachine(compile_wasm(source, [], tmp_path / "kernel.wasm")),
    }
    for core in CORES:
        found[core.name] = Emulator(compile_image(source, [], tmp_path / f"{core.name}.elf", core), core)
    return found
