"""What weights stored without their zeros save of flash, and what reading them costs: one net, pruned by magnitude."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import microtune as mt
from benchmarks.results import record
from benchmarks.tables import row_of, table_of
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, verify
from microtune.targets.prediction import prediction_instructions
from microtune.targets.size import image_size

SECTION = "packed"
CORES = ("cortex-m0", "cortex-m4")
ZEROS = (0.65, 0.8, 0.9)
SHAPE = (8, 8, 8)
SLOWEST = {"float32": 3.5, "int8": 7.5}
"""Limits of ``benchmarks``: times the instructions of the dense form, at any share of zeros."""


def net(zeros: float) -> Graph:
    """8 x 8 x 8 > convolutions 3 x 3 to 32, 1 x 1 to 64, 3 x 3 in steps of two to 32 > dense 10; all pruned alike."""
    r = np.random.default_rng(0)
    builder = Builder("net")

    def layer(x: Tensor, outputs: int, taps: int, stride: int, name: str) -> Tensor:
        weight = r.normal(size=(outputs, taps, taps, x.shape[2])) / np.sqrt(taps * taps * x.shape[2])
        around = (taps // 2, taps // 2)
        given = {"stride": (stride, stride), "padding": (around, around)}
        x = builder.emit("conv2d", [x, *_constants(builder, r, weight, zeros, name)], name, name, **given)
        return builder.emit("relu", [x], f"{name}.relu", name)

    x = builder.input("x", SHAPE)
    for index, (outputs, taps, stride) in enumerate(((32, 3, 1), (64, 1, 1), (32, 3, 2))):
        x = layer(x, outputs, taps, stride, f"conv{index}")
    x = builder.emit("reshape", [x], "flat", "flat", shape=(x.size,))
    weight = r.normal(size=(10, x.size)) / np.sqrt(x.size)
    return verify(
        builder.finish(builder.emit("dense", [x, *_constants(builder, r, weight, zeros, "dense")], "y", "y"), "net")
    )


def _constants(
    builder: Builder, r: np.random.Generator, weight: np.ndarray, zeros: float, name: str
) -> tuple[Tensor, Tensor]:
    """The weight without its smallest elements, and a bias."""
    kept = np.where(np.abs(weight) > np.quantile(np.abs(weight), zeros), weight, 0.0)
    bias = 0.1 * r.normal(size=len(weight))
    return builder.constant(f"{name}.weight", kept, name), builder.constant(f"{name}.bias", bias, name)


def _cost(graph: Graph, x: np.ndarray, sparse: str | bool, folder: Path) -> tuple[mt.Network, dict[str, Any]]:
    network = mt.compile_inference(graph, folder / "net", ["host", *CORES], sparse=sparse)
    found = {
        core: {
            "flash": image_size(network.directory / network.description["targets_built"][core]).flash,
            "instructions": prediction_instructions(network, core, x[None]),
        }
        for core in CORES
    }
    return network, found


def measure() -> dict[str, Any]:
    """By type and share of zeros: forms, bytes said to be saved, flash and instructions by core, dense and packed.

    Outputs of both are the same bits, on the host and on each core; what is not stops here.
    """
    found: dict[str, Any] = {}
    x = np.random.default_rng(1).normal(size=(64, *SHAPE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        for zeros in ZEROS:
            plain = net(zeros)
            for dtype, graph in (("float32", plain), ("int8", mt.quantize(plain, calibration=x))):
                packed, after = _cost(graph, x[0], "auto", Path(scratch))
                forms = sorted({each["form"] for each in packed.packed})
                answers, saved = packed.run(x), packed.description["packed"]["saved"]
                dense, before = _cost(graph, x[0], False, Path(scratch))
                assert answers.tobytes() == dense.run(x).tobytes()
                cores = {
                    core: {"dense": before[core], "packed": after[core]}
                    | {"times": round(after[core]["instructions"] / before[core]["instructions"], 2)}
                    for core in CORES
                }
                found.setdefault(dtype, {})[f"{zeros:g}"] = {"forms": forms, "saved": saved} | cores
    return found


def packed_table(results: dict[str, Any]) -> str:
    """The table of docs/shrinking.md."""
    rows = []
    for dtype, shares in results[SECTION].items():
        for zeros, each in shares.items():
            m0, m4 = (each[core] for core in CORES)
            rows.append(
                row_of(
                    dtype, f"{100 * float(zeros):.0f} %", ", ".join(each["forms"]) or "dense",
                    f"{m4['dense']['flash']:,}, {m4['packed']['flash']:,}", f"{m0['times']:.2f}", f"{m4['times']:.2f}",
                )
            )  # fmt: skip
    titles = ("weights", "zeros", "stored as", "flash on M4: dense, packed")
    return table_of(row_of(*titles, "instructions, packed / dense: M0", "M4F"), *rows)


def run_packed() -> bool:
    """Print, keep, and tell whether flash is smaller by what is said at least, at no more than the slowest allowed."""
    found = measure()
    print("\n" + packed_table({SECTION: found}))
    record(SECTION, found)
    held = True
    for dtype, rows in found.items():
        for row in rows.values():
            for core in CORES:
                less = row[core]["dense"]["flash"] - row[core]["packed"]["flash"]
                held &= bool(row["forms"]) and less >= row["saved"] > 0 and row[core]["times"] <= SLOWEST[dtype]
    return held
