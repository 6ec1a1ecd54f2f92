"""The same C gives the same bits on every machine, and every machine has the same face (SPEC D2, D3)."""

import struct

import numpy as np
import pytest

from microtune.errors import EmulationError
from microtune.targets.machine import Machine


def test_float_kernel_gives_the_same_bits_on_every_machine(machines: dict[str, Machine]) -> None:
    generator = np.random.default_rng(7)
    values = (generator.standard_normal(500) * 10.0 ** generator.integers(-30, 6, 500)).astype("<f4")
    outcomes = {}
    for name, machine in machines.items():
        address = machine.allocate(values.nbytes)
        machine.write(address, values.tobytes())
        bits = machine.call("smooth", address, len(values))
        outcomes[name] = (bits, machine.read(address, values.nbytes))
    # An independent oracle: float32 arithmetic of numpy, one rounding per operation.
    state, expected = np.float32(0), []
    for index, value in enumerate(values):
        state = state * np.float32(0.99) + value / np.float32(3)
        expected.append(state * np.float32(1e-38) + (state - value) * np.float32(index))
    oracle = (int(state.view("<u4")), np.array(expected, "<f4").tobytes())
    assert {name: outcome == oracle for name, outcome in outcomes.items()} == dict.fromkeys(machines, True)


def test_arguments_beyond_the_registers_data_and_constants(machines: dict[str, Machine]) -> None:
    for machine in machines.values():
        assert machine.call("six", 1, 2, 3, 4, 5, 6) == 654321
        assert [machine.call("bump"), machine.call("bump")] == [42001, 43002]  # .data copied, .bss cleared
        assert [machine.call("constant_at", index) for index in range(4)] == [2, 3, 5, 7]


def test_allocated_memory_is_aligned_zeroed_and_apart(machines: dict[str, Machine]) -> None:
    for machine in machines.values():
        first, second = machine.allocate(5, 16), machine.allocate(100_000, 64)
        assert first % 16 == second % 64 == 0
        assert machine.read(second, 100_000) == bytes(100_000)
        machine.write(second, b"\xff" * 100_000)
        assert machine.read(first, 5) == bytes(5)
        assert machine.call("load", second + 99_996) == 0xFFFFFFFF


def test_unknown_function_is_named(machines: dict[str, Machine]) -> None:
    for machine in machines.values():
        with pytest.raises(EmulationError, match="nowhere"):
            machine.call("nowhere")


@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m33", "wasm32"])
def test_faults_are_explained_and_leave_the_machine_usable(machines: dict[str, Machine], name: str) -> None:
    machine = machines[name]
    for symbol, arguments in (("load", (0x40000000,)), ("trap", ()), ("endless", (0,))):
        with pytest.raises(EmulationError, match=f"{name}.*{symbol}"):
            machine.call(symbol, *arguments)
    assert machine.call("constant_at", 3) == 7
    with pytest.raises(EmulationError, match="no memory"):
        machine.read(0x70000000, struct.calcsize("<I"))
