"""NAME_byte of a package of integers: a value as a byte of the input, as quantisation rounds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import microtune as mt
from microtune.compiler.sources import write_sources
from microtune.ir import Quantization
from microtune.targets.machine import HostMachine
from microtune.toolchain import compile_library


@pytest.mark.parametrize(("scale", "zero"), [(0.0078, 0), (0.5847, 83), (1e-4, -128), (200.0, -17)])
def test_a_value_as_a_byte(scale: float, zero: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    graph = mt.quantize(mt.load(LinearRegression().fit(x, x[:, 0])), x)
    entry = graph.tensor(graph.inputs[0])
    entry = replace(entry, quantization=Quantization(np.float32(scale), np.int32(zero)))
    plan = mt.plan(replace(graph, tensors={**graph.tensors, entry.name: entry}), precision="int8")
    write_sources(plan, "net", tmp_path)
    probe = tmp_path / "probe.c"
    probe.write_text(
        '#include "net.h"\nint probe(mt_number value);\nint probe(mt_number value) { return net_byte(value); }\n'
    )
    machine = HostMachine(compile_library([probe], [tmp_path], tmp_path / "probe.so"))
    ends = min(32767.0, 200 * scale)
    values = np.round(np.linspace(-ends, ends, 500) * 65536).astype(int)
    found = np.array([machine.call("probe", int(value) & 0xFFFFFFFF) for value in values])
    found = np.where(found >= 2**31, found - 2**32, found)
    real = values / 65536
    exact = np.clip(real / scale + zero, -128, 127)
    # half a step, and the rounding of two numbers of 16 places: of steps in one, times the value, and of their product
    assert np.all(np.abs(found - exact) <= 0.5 + (np.abs(real) + 1) / 2**17)
    assert len(set(found)) > 100
