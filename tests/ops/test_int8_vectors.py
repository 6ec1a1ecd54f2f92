"""int8 kernels give the same bits where the compiler makes vectors of them: Cortex-M55, on qemu's board."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.compiler.sources import runtime_directory
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, verify
from microtune.targets.qemu import available, boot, lived
from microtune.toolchain import compile_objects

SAME: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
LETP = re.compile(rb"\x1f\xf0.[\xc0-\xcf]", re.DOTALL)  # halfwords F01F, Cxxx
FLAT: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}


def _net(channels: int) -> Graph:
    """Convolutions 3 x 3 and 1 x 1, one by channel, pools and two dense layers, in int8."""
    r = np.random.default_rng(channels)
    b = Builder("vectors")

    def constant(name: str, *shape: int) -> Tensor:
        return b.constant(name, r.normal(size=shape) / np.sqrt(np.prod(shape[1:])), "test")

    x = b.input("x", (6, 7, 5))
    x = b.emit("conv2d", [x, constant("w1", channels, 3, 3, 5), constant("b1", channels)], "c1", "test", **SAME)
    x = b.emit("relu", [x], "r1", "test")
    x = b.emit("depthwise_conv2d", [x, constant("w2", 3, 3, channels), constant("b2", channels)], "c2", "test", **SAME)
    x = b.emit("conv2d", [x, constant("w3", 18, 1, 1, channels), constant("b3", 18)], "c3", "test", **FLAT)
    x = b.emit("max_pool2d", [x], "p", "test", kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)))
    x = b.reshape(x, (162,), "flat", "test")
    x = b.emit("relu", [b.emit("dense", [x, constant("w4", 33, 162), constant("b4", 33)], "d", "test")], "r2", "test")
    y = b.emit("dense", [x, constant("w5", 4, 33), constant("b5", 4)], "y", "test")
    samples = r.normal(size=(40, 6, 7, 5)).astype(np.float32)
    return mt.quantize(verify(b.finish(y, "test")), calibration=samples)


@pytest.mark.skipif(not available(), reason="qemu-system-arm is not installed")
def test_the_same_bits_by_vectors(tmp_path: Path) -> None:
    """A device with a frozen int8 net lives the same life on a Cortex-M55 and on a Cortex-M33, which has none."""
    r = np.random.default_rng(0)
    plan = mt.plan(_net(19), mt.Head(1), "cross_entropy", mt.SGD(0.05), mt.Learner(buffer=8, every=4))
    package = mt.build(plan, tmp_path / "vectors", targets=[])
    uses = [(r.integers(-128, 128, (6, 7, 5)).astype(np.int8), [r.integers(4)]) for _ in range(8)]
    with_vectors, without = boot(package, "cortex-m55", uses), lived(package, "cortex-m33", uses)
    assert (with_vectors.answers, with_vectors.state) == (without.answers, without.state)
    # sixteen at a time where the other has two
    assert with_vectors.predict < without.predict


def test_sums_become_vectors(tmp_path: Path) -> None:
    """Loops with predicated tails: a compiler that stopped making them would make a Cortex-M55 slow in silence."""
    source = tmp_path / "sums.c"
    source.write_text(
        '#include "mt_kernels_int8_layers.h"\n'
        "int32_t sum(const int8_t *x, const int8_t *w, int32_t zero, uint32_t size);\n"
        "int32_t sum(const int8_t *x, const int8_t *w, int32_t zero, uint32_t size)\n"
        "{\n    return mt_int8_dot(x, w, zero, size);\n}\n"
    )
    (made,) = compile_objects([source], [runtime_directory()], "cortex-m55", strict=True)
    assert re.search(LETP, made.read_bytes()), "no loop ends in LETP"
