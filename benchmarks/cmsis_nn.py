"""int8 inference beside Arm's CMSIS-NN: the four MLPerf Tiny nets on an emulated Cortex-M4F.

Both sides are generated from the same graph, compiled by the same compiler and run on the same input; instructions are
counted, flash and RAM as linked and run. CMSIS-NN is not part of this repository: ``MICROTUNE_CMSIS_NN`` names a clone
of github.com/ARM-software/CMSIS-NN. It is compiled with -O2 and with -O3, and the better one counts for each
figure. Without it the last figures are kept. Where arm-none-eabi-gcc is installed, both are compiled by it as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import microtune as mt
from benchmarks.results import record
from microtune.compiler.cmsis_nn import CmsisNN, compiled_with, find
from microtune.ir import Graph
from microtune.targets.catalogue import Target, target
from microtune.targets.prediction import answers_of_core
from microtune.targets.size import image_size
from microtune.toolchain import compile_objects, link_image

VARIABLE = "MICROTUNE_CMSIS_NN"
SECTION = "cmsis-nn"
MODELS = Path(__file__).parents[2] / "shared" / "data" / "models" / "mlperf_tiny"
NETS = {"keywords": "kws_ref_model", "images": "pretrainedResnet_quant", "person": "vww_96_int8", "sounds": "ad01_int8"}
CORE = "cortex-m4"
MOST = 1.1
# a dense layer of CMSIS-NN rounds twice, where LiteRT and we round once; its softmax is in integers
FURTHEST = 1
# zig takes -O3 for -O2 unless the compiler itself is told
LEVELS = {"-O2": (), "-O3": ("-Xclang", "-O3")}
GCC = "arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard"


def _core(level: str) -> Target:
    core = target(CORE)
    return replace(core, flags=(*core.flags, *LEVELS[level]))


def _measured(
    network: mt.Network, core: Target, x: np.ndarray, image: Path | None = None
) -> tuple[dict[str, int], np.ndarray]:
    """Of one inference, and its output; by ``image``, else by what the network was built to."""
    image = image or network.directory / network.description["targets_built"][CORE]
    (answer,), (taken,) = answers_of_core(network, core, x[None], image)
    figures = {
        "instructions": taken.instructions,
        "flash": image_size(image).flash,
        "ram": network.description["arena"] + taken.stack,
    }
    return figures, answer.ravel()


def _by_gcc(graph: Graph, library: CmsisNN | None, folder: Path, x: np.ndarray) -> int:
    """Instructions when gcc compiles it, at -O2."""
    network = mt.compile_inference(graph, folder, [], cmsis_nn=library and library.path, sparse=False)
    sources, include = compiled_with(library, network.directory)
    objects = compile_objects(sources, include, CORE, cc=GCC)
    image = link_image(objects, folder / "gcc.elf", CORE, keep=[f"{network.name}_run"])
    return _measured(network, target(CORE), x, image)[0]["instructions"]


def beside(name: str, library: Path, folder: Path) -> dict[str, Any]:
    """One net by both: figures of each, and how far their outputs are apart in steps of int8."""
    graph = mt.load(MODELS / f"{NETS[name]}.tflite")
    x = np.random.default_rng(0).integers(-128, 128, graph.tensor(graph.inputs[0]).shape).astype(np.int8)
    ours, expected = _measured(mt.compile_inference(graph, folder / name, [CORE], sparse=False), target(CORE), x)
    theirs = {}
    for level in LEVELS:
        core = _core(level)
        network = mt.compile_inference(graph, folder / f"{name}_cmsis", [core], cmsis_nn=library)
        theirs[level], found = _measured(network, core, x)
    best = {key: min(each[key] for each in theirs.values()) for key in ours}
    gcc = {}
    if shutil.which(GCC.split()[0]):
        for who, given in (("microtune", None), ("CMSIS-NN", find(library))):
            gcc[who] = _by_gcc(graph, given, folder / f"{name}_gcc", x)
    apart = np.abs(expected.astype(int) - found.astype(int))
    return {
        "microtune": ours,
        "CMSIS-NN": best,
        "ratio": round(ours["instructions"] / best["instructions"], 3),
        "gcc": gcc,
        "furthest": int(apart.max()),
        "differ": int((apart > 0).sum()),
        "outputs": int(apart.size),
    }


def run_cmsis_nn() -> bool:
    """False when a limit is missed."""
    path = os.environ.get(VARIABLE)
    if not path:
        print(f"\nCMSIS-NN: not run; {VARIABLE} names no clone of github.com/ARM-software/CMSIS-NN. Last figures kept")
        return True
    try:
        find(path)
    except mt.MicrotuneError as error:
        raise SystemExit(f"{VARIABLE}: {error}") from None
    if not MODELS.is_dir():
        print(f"\nCMSIS-NN: not run, no models in {MODELS}")
        return True
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: beside(name, Path(path), Path(scratch)) for name in NETS}
    print("\nint8 inference on Cortex-M4F: instructions, flash and RAM of microtune / CMSIS-NN")
    for name, row in found.items():
        sides = (row["microtune"], row["CMSIS-NN"])
        pairs = ([f"{side[key]:,}" for side in sides] for key in ("instructions", "flash", "ram"))
        columns = "".join(f"{' / '.join(pair):>26}" for pair in pairs)
        print(f"  {name:10}{row['ratio']:6.2f}{columns}  {row['differ']} of {row['outputs']} outputs differ")
    record(SECTION, found)
    return all(row["ratio"] <= MOST and row["furthest"] <= FURTHEST for row in found.values())


TABLE = """\
| int8, Cortex-M4F | instructions | CMSIS-NN | ratio | flash, bytes | CMSIS-NN | RAM, bytes | CMSIS-NN | ratio by gcc |
|---|---|---|---|---|---|---|---|---|
{rows}
"""


def cmsis_nn_table(results: Mapping[str, Any]) -> str:
    """For docs/cmsis_nn.md."""

    def row(name: str, found: Mapping[str, Any]) -> str:
        ours, theirs, gcc = found["microtune"], found["CMSIS-NN"], found["gcc"]
        figures = (f"{ours[key]:,} | {theirs[key]:,}" for key in ("instructions", "flash", "ram"))
        instructions, flash, ram = figures
        by_gcc = f"{gcc['microtune'] / gcc['CMSIS-NN']:.2f}" if gcc else ""
        return f"| {name} | {instructions} | **{found['ratio']:.2f}** | {flash} | {ram} | {by_gcc} |"

    return TABLE.format(rows="\n".join(row(name, found) for name, found in results[SECTION].items()))
