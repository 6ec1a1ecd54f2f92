"""``microtune compile``: a model that only predicts, as C."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from microtune.compiler.inference import compile_inference
from microtune.compiler.passes.pack_weights import PackedWeight
from microtune.compiler.show import packed_lines
from microtune.compress.quantization import quantize
from microtune.frontends.load import load
from microtune.network import Network
from microtune.samples import read_npz
from microtune.targets.size import image_size


def compile_command(
    model: Annotated[Path, typer.Argument(help="A model file: .onnx or .tflite.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the C; its name names the function.")],
    target: Annotated[list[str] | None, typer.Option(help="A target to compile for; repeat for more.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Samples that a float model is quantised to int8 by: an .npz file with x.")
    ] = None,
    cmsis_nn: Annotated[
        Path | None, typer.Option("--cmsis-nn", help="Your folder of CMSIS-NN: int8 layers become its calls.")
    ] = None,
    sparse: Annotated[
        bool, typer.Option("--sparse/--no-sparse", help="Store weights without zeros where that makes flash smaller.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Compile a model that only predicts and does not learn: one C function over weights in flash."""
    graph = load(model)
    if calibration is not None:
        graph = quantize(graph, calibration=read_npz(calibration, "x")["x"])
    network = compile_inference(graph, out, target or ["host"], cmsis_nn=cmsis_nn, sparse="auto" if sparse else False)
    found = _figures(network)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(title="Bytes", title_justify="left")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    table.add_row("arena, RAM that you own", f"{found['arena']:,}")
    table.add_row("weights, in flash", f"{found['weights']:,}")
    for name, size in found["flash"].items():
        table.add_row(f"flash on {name}, weights included", f"{size:,}")
    console = Console()
    console.print(table)
    packed = [PackedWeight(**each) for each in network.packed]
    print(*packed_lines(packed, found["saved"]), sep="\n", end="\n" if packed else "")
    console.print(f"The C is in {network.directory}/ (start with {network.name}.h)", soft_wrap=True)


def _figures(network: Network) -> dict[str, Any]:
    built = network.description["targets_built"]
    images = {name: network.directory / file for name, file in built.items() if file.endswith(".elf")}
    return {
        "network": str(network.directory),
        "arena": network.description["arena"],
        "weights": network.description["weights"],
        "flash": {name: image_size(path).flash for name, path in images.items()},
        "cmsis_nn": network.description["cmsis_nn"],
        "packed": network.packed,
        "saved": network.description["packed"]["saved"],
    }
