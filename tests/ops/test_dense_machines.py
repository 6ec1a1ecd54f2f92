"""Dense kernels block differently from core to core; sums are the same to the last bit on all (SPEC D2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microtune.compiler.sources import runtime_directory
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.toolchain import compile_image, compile_library

PROBE = Path(__file__).parent / "dense_probe.c"
SIZES = [(1, 1), (3, 5), (4, 2), (7, 3), (15, 4), (16, 4), (17, 9), (18, 6), (19, 3), (64, 10)]
F = np.float32


def lanes(a: np.ndarray, b: np.ndarray) -> np.float32:
    """The sum of products in the order of mt_kernels.h, each step rounded to float32."""
    products = (a * b).astype(F)
    lane = [products[j] if len(a) >= 4 else F(0) for j in range(4)]
    for i in range(4 if len(a) >= 4 else 0, len(a)):
        lane[i % 4] = F(lane[i % 4] + products[i])
    return F(F(lane[0] + lane[1]) + F(lane[2] + lane[3]))


@pytest.fixture(scope="module", params=["host", "cortex-m0", "cortex-m4", "riscv32"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder, name = tmp_path_factory.mktemp("dense"), request.param
    if name == "host":
        return HostMachine(compile_library([PROBE], [runtime_directory()], folder / "probe.so", strict=True))
    return Emulator(compile_image([PROBE], [runtime_directory()], folder / "probe.elf", name, strict=True), name)


def run(
    machine: Machine, function: str, given: list[np.ndarray], result: np.ndarray, sizes: tuple[int, int]
) -> np.ndarray:
    content = np.concatenate([each.ravel() for each in given]).astype("<f4").tobytes()
    p, y = machine.allocate(len(content)), machine.allocate(result.nbytes)
    machine.write(p, content)
    machine.write(y, result.tobytes())
    machine.call(function, p, y, *sizes)
    return np.frombuffer(machine.read(y, result.nbytes), "<f4").reshape(result.shape)


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{sizes[0]} to {sizes[1]}")
def test_sums_are_those_of_four_lanes(machine: Machine, sizes: tuple[int, int]) -> None:
    inputs, outputs = sizes
    r = np.random.default_rng(inputs)
    x, weight, bias = (r.normal(size=shape).astype(F) for shape in (inputs, (outputs, inputs), outputs))
    x[r.random(inputs) < 0.3] = -0.0
    bias[0] = -0.0
    y = run(machine, "probe_dense", [x, weight, bias], np.zeros(outputs, F), sizes)
    wanted = np.array([F(b + lanes(row, x)) for row, b in zip(weight, bias, strict=True)])
    assert y.tobytes() == wanted.tobytes()
    dy = r.normal(size=outputs).astype(F)
    dy[::3] = -0.0
    found = run(machine, "probe_grad_input", [dy, weight], np.zeros(inputs, F), sizes)
    sums = (dy[0] * weight[0]).astype(F)
    for o in range(1, outputs):
        sums = (sums + (dy[o] * weight[o]).astype(F)).astype(F)
    assert found.tobytes() == sums.tobytes()


def test_a_row_without_gradient_keeps_its_bits(machine: Machine) -> None:
    """Whatever the input, and -0 among the weights; the others move as they should."""
    r = np.random.default_rng(0)
    x, weight = r.normal(size=6).astype(F), r.normal(size=(5, 6)).astype(F)
    x[2], x[3], weight[1], weight[4, 2] = np.inf, np.nan, -0.0, -0.0
    dy = np.array([0.5, 0.0, -1.5, -0.0, 1e-45], F)
    found = run(machine, "probe_sgd", [dy, x], weight, (6, 5))
    assert found[[1, 3]].tobytes() == weight[[1, 3]].tobytes()
    with np.errstate(invalid="ignore"):
        wanted = (weight - ((F(0.1) * dy).astype(F)[:, None] * x).astype(F)).astype(F)
    finite = np.isfinite(x)
    assert found[[0, 2, 4]][:, finite].tobytes() == wanted[[0, 2, 4]][:, finite].tobytes()
