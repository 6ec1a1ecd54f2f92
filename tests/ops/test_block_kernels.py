"""Every operator on blocks: its C gives the bits of its reference, under the sanitizers and on every kind of core."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from microtune.compiler.sources import runtime_directory
from microtune.ops import OPS
from microtune.targets.emulator import Emulator
from microtune.targets.machine import Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_wasm

from .block_cases import BLOCK_OPS, case
from .sanitized_kernels import BY_VALUE, SanitizedKernels, node_of

ROOM = 1 << 18
# dense_int8_logits with and without learnt inputs
EXAMPLES = {f"{op} {seed}": case(op, seed) for op in BLOCK_OPS for seed in (0, 1, 2)}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    found = SanitizedKernels(tmp_path_factory.mktemp("blocks"), EXAMPLES)
    yield found
    found.close()


@pytest.mark.parametrize("op", BLOCK_OPS)
def test_the_bits_of_the_reference(op: str, kernels: SanitizedKernels) -> None:
    for seed, over in itertools.product(range(100), (None, *OPS[op].in_place)):
        inputs, given = case(op, seed)
        expected = OPS[op].reference(inputs, given)
        found = kernels.run(op, inputs, given, over)
        for each, truth in zip(found, expected, strict=True):
            np.testing.assert_array_equal(each, truth, f"case {seed} over {over}", strict=True)


def _write_entries(folder: Path) -> Path:
    """A C source with each kernel behind an entry that takes its pointers and its integers."""
    texts = {}
    for name, (inputs, given) in EXAMPLES.items():
        op = name.partition(" ")[0]
        call = OPS[op].kernel(*node_of(op, inputs, given))
        assert call is not None
        pointer, number = itertools.count(), itertools.count()
        arguments = ", ".join(
            f"{BY_VALUE.get(each, '')}p[{next(pointer)}]" if isinstance(each, str) else f"n[{next(number)}]"
            for each in call.arguments
        )
        result = f"*(int32_t *)p[{next(pointer)}] = " if call.result is not None else ""
        texts[call.function] = (
            f"void call_{call.function}(void **p, const int32_t *n);\n"
            f"void call_{call.function}(void **p, const int32_t *n)\n"
            f"{{\n    (void)n;\n    {result}{call.function}({arguments});\n}}\n"
        )
    headers = sorted({op.header for op in BLOCK_OPS.values()})
    source = folder / "block_entries.c"
    source.write_text("".join(f'#include "{header}"\n' for header in headers) + "\n".join(texts.values()))
    return source


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Machine, int]]:
    """Each machine with the kernels, and the address of some memory of it."""
    folder = tmp_path_factory.mktemp("machines")
    source, include = [_write_entries(folder)], [runtime_directory()]
    found: dict[str, Machine] = {"wasm32": WasmMachine(compile_wasm(source, include, folder / "block.wasm"))}
    for core in ("cortex-m0", "cortex-m4"):
        found[core] = Emulator(compile_image(source, include, folder / f"{core}.elf", core), core)
    return {name: (machine, machine.allocate(ROOM)) for name, machine in found.items()}


@pytest.mark.parametrize("op", BLOCK_OPS)
def test_the_same_bits_on_every_machine(op: str, machines: dict[str, tuple[Machine, int]]) -> None:
    for seed in range(100, 104):
        inputs, given = case(op, seed)
        expected = OPS[op].reference(inputs, given)
        node, tensors = node_of(op, inputs, given)
        call = OPS[op].kernel(node, tensors)
        assert call is not None
        arrays = dict(zip(node.inputs, inputs, strict=True))
        names = [each for each in call.arguments if isinstance(each, str)]
        names += [call.result] if call.result is not None else []
        integers = np.array([each for each in call.arguments if isinstance(each, int)], np.int32)
        contents = [arrays[name].tobytes() if name in arrays else b"U" * tensors[name].bytes for name in names]
        contents.append(integers.tobytes())
        offsets = np.cumsum([0, *((len(content) + 7) // 8 * 8 for content in contents)])
        for machine_name, (machine, memory) in machines.items():
            addresses = [memory + int(offset) for offset in offsets]
            pointers = np.array(addresses[: len(names)], np.uint32).tobytes()
            for address, content in zip(addresses, [*contents, pointers], strict=True):
                machine.write(address, content)
            machine.call(f"call_{call.function}", addresses[-1], addresses[len(names)])
            for name, truth in zip(node.outputs, expected, strict=True):
                place = node.updates.get(name, name)
                raw = machine.read(addresses[names.index(place)], truth.nbytes)
                result = np.frombuffer(raw, truth.dtype).reshape(truth.shape)
                np.testing.assert_array_equal(result, truth, f"{machine_name}, case {seed}")
