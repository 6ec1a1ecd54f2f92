"""int8 kernels give the bits of their references on Cortex-M cores with and without DSP, RISC-V and WebAssembly."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.int8_kernels import INT8_OPS, draw_inputs, node_of, write_entries

from microtune.compiler.sources import runtime_directory
from microtune.ops import OPS
from microtune.targets.emulator import Emulator
from microtune.targets.machine import Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_objects, compile_wasm, link_image

ROOM = 1 << 18
GCC = "arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Machine, int]]:
    """Each machine with the kernels, and the address of some memory of it."""
    folder = tmp_path_factory.mktemp("machines")
    source, include = [write_entries(folder)], [runtime_directory()]
    found: dict[str, Machine] = {"wasm32": WasmMachine(compile_wasm(source, include, folder / "int8.wasm"))}
    for core in ("cortex-m0", "cortex-m4", "cortex-m7", "cortex-m33", "riscv32"):
        found[core] = Emulator(compile_image(source, include, folder / f"{core}.elf", core), core)
    if shutil.which(GCC.split()[0]):
        objects = compile_objects(source, include, "cortex-m4", cc=GCC)
        found["gcc"] = Emulator(link_image(objects, folder / "gcc.elf", "cortex-m4"), "cortex-m4")
    return {name: (machine, machine.allocate(ROOM)) for name, machine in found.items()}


@pytest.mark.parametrize("op", INT8_OPS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_same_bits_on_every_machine(op: str, machines: dict[str, tuple[Machine, int]], data: st.DataObject) -> None:
    inputs, attributes = draw_inputs(op, data.draw)
    expected = OPS[op].reference(inputs, attributes)[0]
    node, tensors = node_of(op, inputs, attributes)
    call = OPS[op].kernel(node, tensors)
    assert call is not None
    arrays = dict(zip(node.inputs, inputs, strict=True))
    names = [each for each in call.arguments if isinstance(each, str)]
    integers = np.array([each for each in call.arguments if isinstance(each, int)], np.int32)
    floats = np.array([each for each in call.arguments if isinstance(each, float)], np.float32)
    # what lies in memory, one after the other; the pointers come last, when the addresses are known
    contents = [arrays[name].tobytes() if name in arrays else b"U" * tensors[name].bytes for name in names]
    contents += [integers.tobytes(), floats.tobytes()]
    offsets = np.cumsum([0, *((len(content) + 11) // 8 * 8 for content in contents)])
    assert offsets[-1] + 4 * len(names) <= ROOM
    # bytes may lie anywhere
    moved = [data.draw(st.integers(0, 3)) if tensors[name].dtype == "int8" else 0 for name in names] + [0, 0, 0]
    for machine_name, (machine, memory) in machines.items():
        addresses = [memory + int(offset) + move for offset, move in zip(offsets, moved, strict=True)]
        pointers = np.array(addresses[: len(names)], np.uint32).tobytes()
        for address, content in zip(addresses, [*contents, pointers], strict=True):
            machine.write(address, content)
        machine.call(f"call_{call.function}", addresses[-1], *addresses[len(names) : len(names) + 2])
        result = np.frombuffer(machine.read(addresses[names.index(node.output)], expected.nbytes), expected.dtype)
        np.testing.assert_array_equal(result.reshape(expected.shape), expected, machine_name)
