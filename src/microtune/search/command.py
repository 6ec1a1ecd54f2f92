"""``microtune search``: which update scheme, and which form of a model, learns best within a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from microtune import choices, saving
from microtune.samples import read_pair
from microtune.search.picture import frontier_figures, frontier_picture, frontier_tables
from microtune.search.run import search
from microtune.search.variants import load_models, read_models
from microtune.tuning.budget import Budget
from microtune.tuning.learner import Learner
from microtune.tuning.losses import LOSSES


def search_command(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="A model file: .onnx or .tflite; several forms of one net, or a folder that microtune shrink wrote, "
            "are searched together."
        ),
    ],
    data: Annotated[Path, typer.Option(help="An .npz file with x (samples, input shape) and y (samples).")],
    loss: Annotated[str, typer.Option(help=f"{', '.join(LOSSES)}.")] = "cross_entropy",
    optimizer: Annotated[
        str, typer.Option(help="sgd:LR, momentum:LR, adam:LR or rmsprop:LR; rates around LR are tried.")
    ] = "sgd:0.01",
    buffer: Annotated[int, typer.Option(help="Newest samples kept.")] = 100,
    every: Annotated[int, typer.Option(help="New samples that cause an update.")] = 5,
    ram: Annotated[str | None, typer.Option(help="RAM budget, such as 128KB.")] = None,
    flash: Annotated[str | None, typer.Option(help="Flash budget, such as 1MB.")] = None,
    instructions: Annotated[int | None, typer.Option(help="Most instructions of a training step on Cortex-M4.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the learnt samples.")] = 3,
    seconds: Annotated[float, typer.Option(help="After so long nothing more is tried.")] = 600.0,
    quantized: Annotated[
        bool | None,
        typer.Option(
            "--int8/--no-int8",
            help="Try the int8 form of each float model too, by calibration with the samples; by default where several "
            "models are given and none is int8.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the model of the pick: an .onnx file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write accuracy against RAM as an SVG picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Measure on your samples which update scheme, and which form of the model, learns best within a budget."""
    console = Console(stderr=True)
    found = search(
        load_models(models),
        read_pair(data),
        loss,
        choices.optimizer(optimizer),
        Budget(ram, flash, instructions),
        learner=Learner(buffer=buffer, every=every),
        epochs=epochs,
        seconds=seconds,
        progress=None if as_json else lambda text, point: console.print(Text(text, "bold" if point else "dim")),
        quantized=quantized,
    )
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(frontier_picture(found, f"{models[0].stem}: update schemes"))
    if not as_json:
        terminal = Console()
        terminal.print(frontier_tables(found), crop=False)
    best = found.best
    if save is not None:
        saving.save(found.models[best.model], save)
    if as_json:
        print(json.dumps(frontier_figures(found), indent=2))
        return
    kept = "" if (buffer, every) == (100, 5) else f" --buffer {buffer} --every {every}"
    print(f"\nPick: {best.name}, {100 * best.accuracy:.1f} % right")
    if found.base > best.accuracy:
        whose = max(found.bases, key=lambda name: found.bases[name]) or "the model"
        print(f"  {whose} as it is, learning nothing, is righter: {100 * found.base:.1f} %")
    model = save or (read_models(models).get(best.model) if best.model else models[0])
    if model is None:
        print("  Its model was made here, by calibration: --save PICK.onnx keeps it.")
    print(f"  microtune build {model or 'PICK.onnx'} --loss {loss} {best.command}{kept} -o build/device")
    print(f'  mt.plan(graph, loss="{loss}", {best.python})')
