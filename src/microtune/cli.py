"""The command line: parse, call the public API, show. Every command takes ``--json`` for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import microtune as mt
from microtune import choices, gallery
from microtune.compiler.command import compile_command
from microtune.compiler.picture import plan_picture, plan_tables
from microtune.compiler.show import STAGES, packed_lines, show_stage
from microtune.export.command import export_command
from microtune.inspection.command import inspect_command
from microtune.samples import read_npz
from microtune.search.command import search_command
from microtune.simulation.command import simulate_command
from microtune.targets.command import emulate_command, targets_command
from microtune.training.command import shrink_command

app = typer.Typer(
    help="Compile a small trained model to C that goes on learning on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print figures for machines.")]


@contextmanager
def _spoken() -> Iterator[None]:
    """Our own errors, and files that cannot be read or written, end the command with a sentence, not a traceback."""
    try:
        yield
    except (mt.MicrotuneError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        Console(stderr=True).print(f"[red]microtune:[/red] {escape(text)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _plan(
    model: Path,
    learn: str,
    loss: str,
    optimizer: str,
    buffer: int,
    every: int,
    learner: str,
    precision: str,
    ram: str | None,
    flash: str | None,
    calibration: Path | None,
    quantized: bool,
    sparse: bool,
) -> mt.Plan:
    chosen = choices.optimizer(optimizer)
    graph = mt.load(model)
    samples = read_npz(calibration, "x") if calibration is not None else {}
    if samples and quantized:
        graph = mt.quantize(graph, calibration=samples["x"])
    return mt.plan(
        graph,
        learn=None if isinstance(chosen, mt.Bayes) else choices.scheme(learn),
        loss=loss,
        optimizer=chosen,
        learner=choices.learner(learner, buffer=buffer, every=every),
        precision=precision,
        budget=mt.Budget(ram, flash),
        calibration=(samples["x"], samples["y"]) if "y" in samples else samples.get("x"),
        sparse="auto" if sparse else False,
    )


Model = Annotated[Path, typer.Argument(help="A model file: .onnx or .tflite.")]
Learn = Annotated[
    str,
    typer.Option(
        help="What learns: full, head:N, bias, normaffine, adapter:WIDTH, lora:RANK, sparse:LAYER=PART,biases=N "
        "(PART: a fraction of the input channels, or channels as 8:16)."
    ),
]
Precision = Annotated[
    str,
    typer.Option(help="What learns of an int8 model: float32, mixed (stays int8 in RAM), or int8 (integers only)."),
]
Picture = Annotated[Path | None, typer.Option(help="Write memory over time as an SVG picture.")]
LossName = Annotated[str, typer.Option(help="mse, huber, binary_cross_entropy or cross_entropy.")]
OptimizerName = Annotated[
    str,
    typer.Option(
        help="sgd:LR, momentum:LR, adam:LR, rmsprop:LR, rls:FORGETTING, map:WORTH, slda:WORTH, logistic:WORTH, "
        "leaves:WORTH, mahalanobis:WORTH or bayes."
    ),
]
Buffer = Annotated[int, typer.Option(help="Newest samples kept.")]
Every = Annotated[int, typer.Option(help="New samples that cause an update.")]
LearnerSettings = Annotated[
    str,
    typer.Option(
        "--learner",
        help="More settings of the learner: replay=40,ewc=10,profiles=2,recognise,contexts=0:6/12/18+1:0.5,log=16 "
        "and so on, an input of a context by its place (docs/learner.md).",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="The factory's samples, for heads and sensors: an .npz file with x (samples, input shape), y if known. "
        "A float model is quantised to int8 by them, too."
    ),
]
Quantized = Annotated[
    bool, typer.Option("--quantize/--no-quantize", help="With --calibration: whether a float model is quantised.")
]
Sparse = Annotated[
    bool,
    typer.Option("--sparse/--no-sparse", help="Store frozen weights without their zeros where flash gets smaller."),
]
Ram = Annotated[str | None, typer.Option(help="RAM budget, such as 128KB.")]
Flash = Annotated[str | None, typer.Option(help="Flash budget, such as 1MB.")]


def _memory(plan: mt.Plan) -> dict[str, Any]:
    found = asdict(plan.memory)
    found["timeline"] = [asdict(span) for span in plan.memory.timeline]
    return found


def _show_memory(plan: mt.Plan, console: Console) -> None:
    memory = plan.memory
    table = Table(title="Memory, bytes (32-bit core; flash and stack measured on Cortex-M4)", title_justify="left")
    table.add_column("what")
    table.add_column("bytes", justify="right")
    rows = {
        "RAM in all": memory.ram,
        "  parameters that learn": memory.parameters,
        "  optimiser state": memory.optimizer,
        "  sample buffer": memory.buffers,
        f"  arena (lower bound {memory.bound})": memory.arena,
        "  stack, at worst": memory.stack,
        "flash (code, runtime, base)": memory.flash,
    }
    for name, size in rows.items():
        table.add_row(name, f"{size:,}")
    console.print(table)
    console.print(plan_tables(plan))
    for line in packed_lines(memory.packed, memory.saved):
        console.print(line, highlight=False)


@app.command()
def plan(
    model: Model,
    learn: Learn = "head:1",
    loss: LossName = "mse",
    optimizer: OptimizerName = "sgd",
    buffer: Buffer = 100,
    every: Every = 5,
    learner: LearnerSettings = "",
    precision: Precision = "float32",
    ram: Ram = None,
    flash: Flash = None,
    calibration: Calibration = None,
    quantized: Quantized = True,
    sparse: Sparse = True,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Show what a model would cost on the device: RAM, flash, and the life of every buffer."""
    with _spoken():
        found = _plan(
            model, learn, loss, optimizer, buffer, every, learner, precision, ram, flash, calibration, quantized, sparse
        )  # fmt: skip
        if picture is not None:
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(plan_picture(found))
        if as_json:
            print(json.dumps(_memory(found), indent=2))
        else:
            _show_memory(found, Console())


@app.command()
def build(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Package directory; its name names the device.")],
    learn: Learn = "head:1",
    loss: LossName = "mse",
    optimizer: OptimizerName = "sgd",
    buffer: Buffer = 100,
    every: Every = 5,
    learner: LearnerSettings = "",
    precision: Precision = "float32",
    ram: Ram = None,
    flash: Flash = None,
    calibration: Calibration = None,
    quantized: Quantized = True,
    sparse: Sparse = True,
    target: Annotated[list[str] | None, typer.Option(help="A target to compile for; repeat for more.")] = None,
    show: Annotated[str | None, typer.Option(help=f"Print a stage: {', '.join(STAGES)}.")] = None,
    as_json: Json = False,
) -> None:
    """Compile a model into a package directory: C that predicts and learns."""
    with _spoken():
        found = _plan(
            model, learn, loss, optimizer, buffer, every, learner, precision, ram, flash, calibration, quantized, sparse
        )  # fmt: skip
        stage = {show: show_stage(found, show, out.name)} if show else {}
        if not as_json:
            print(*stage.values(), sep="\n", end="\n" if stage else "")
        package = mt.build(found, out, targets=target or ["host"])
        if as_json:
            print(json.dumps({"package": str(package.directory), "memory": _memory(found), **stage}, indent=2))
            return
        console = Console()
        _show_memory(found, console)
        console.print(f"The C is in {package.directory}/ (start with {package.name}.h)")


@app.command()
def quantize(
    model: Model,
    data: Annotated[Path, typer.Option(help="An .npz file with x (samples, input shape), and y (samples) if known.")],
    ranges: Annotated[str, typer.Option(help="How ranges are chosen: mse, percentile or minmax.")] = "mse",
    as_json: Json = False,
) -> None:
    """Report what int8 quantisation would do to a float model, layer by layer: noise, saturation, size, accuracy."""
    with _spoken():
        samples, graph = read_npz(data, "x"), mt.load(model)
        stored = mt.quantize(graph, calibration=samples["x"], ranges=ranges)
        report = mt.quantization_report(graph, stored, samples["x"], samples.get("y"))
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(report)


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="An example: toaster, playlist or machine.")] = "toaster",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Package directory.")] = None,
    as_json: Json = False,
) -> None:
    """Watch a reference device learn: train, compile, live with simulated people, report."""
    with _spoken():
        example = gallery.load_example(name)
        if not hasattr(example, "demo"):
            raise mt.MicrotuneError(f"'{name}' is run by itself: python {gallery.example_folder(name)}/run.py")
        example.demo(out or Path("build") / re.sub(r"\W", "_", name), as_json)


app.command("compile")(_spoken()(compile_command))
app.command("shrink")(_spoken()(shrink_command))
app.command("search")(_spoken()(search_command))
app.command("targets")(_spoken()(targets_command))
app.command("simulate")(_spoken()(simulate_command))
app.command("inspect")(_spoken()(inspect_command))
app.command("emulate")(_spoken()(emulate_command))
app.command("export")(_spoken()(export_command))


if __name__ == "__main__":
    app()
