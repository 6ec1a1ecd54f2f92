"""``microtune shrink``: a model file or a PyTorch module becomes small, each step measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from microtune.errors import TrainingError
from microtune.python_files import from_file
from microtune.samples import read_pair
from microtune.training.steps import STEPS
from microtune.tuning.losses import LOSSES

if TYPE_CHECKING:
    from microtune.training.table import Row, Shrunk

Data = Annotated[Path, typer.Option(help="An .npz file with x (samples, input shape) and y (samples) to learn from.")]


def shrink_command(
    model: Annotated[
        str,
        typer.Argument(help="A float model: .onnx, .tflite, or FILE.py:NAME, a PyTorch module or what returns one."),
    ],
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the steps: an .onnx file for each.")],
    test: Annotated[Path | None, typer.Option(help="Samples that are only reported: an .npz with x and y.")] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Samples that decide, .npz; best such as the model has not learnt from. Default: a fifth of --data."
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="A larger net to learn from, given as MODEL is.")] = None,
    loss: Annotated[str, typer.Option(help=f"{', '.join(LOSSES)}.")] = "cross_entropy",
    limit: Annotated[float, typer.Option(help="Points of accuracy that may be lost in all.")] = 1.0,
    core: Annotated[str, typer.Option(help="The core that flash, RAM and instructions are of.")] = "cortex-m4",
    skip: Annotated[
        list[str] | None, typer.Option(help=f"A step to leave out: {', '.join(STEPS)}; repeat for more.")
    ] = None,
    again: Annotated[list[str] | None, typer.Option(help="A step to do again though its file is there.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the samples in each step that learns.")] = 8,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    batch: Annotated[int, typer.Option(help="Samples of an optimiser step.")] = 32,
    seed: Annotated[int, typer.Option(help="The same seed gives the same nets.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Make a trained float net small: prune, quantise, train with quantisation; what each step costs and saves."""
    from microtune.training import require

    require("shrink")
    from microtune.training.recipe import shrink
    from microtune.training.table import figures, tables

    left_out = skip or []
    if unknown := [each for each in left_out if each not in STEPS]:
        raise TrainingError(f"--skip {unknown[0]}: no such step; there are {', '.join(STEPS)}")
    console = Console(stderr=True)
    given, samples = _model(model), read_pair(data)
    tested, deciding = (None if path is None else read_pair(path) for path in (test, validation))
    with _stoppable(console), _shown(console, as_json) as progress:
        found: Shrunk = shrink(
            given, samples, test=tested, validation=deciding, folder=out,
            teacher=None if teacher is None else _model(teacher), loss=loss, limit=limit, core=core,
            steps=[each for each in STEPS if each not in left_out], again=again or [],
            epochs=epochs, lr=lr, batch=batch, seed=seed, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(figures(found), indent=2))
    else:
        terminal = Console()
        terminal.print(tables(found), soft_wrap=not terminal.is_terminal, crop=False)


@contextmanager
def _stoppable(console: Console) -> Iterator[None]:
    """Whoever stops a run with Ctrl-C is told that nothing of it is lost."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last step that was done", highlight=False)
        raise typer.Exit(130) from None


@contextmanager
def _shown(console: Console, silent: bool) -> Iterator[Any]:
    """Each step that ended as a line; in a terminal, what is being done now below them."""
    if silent:
        yield None
        return
    with console.status("") as status:

        def progress(text: str, row: Row | None) -> None:
            if row is not None:
                console.print(Text(text, "" if row.kept else "dim"), soft_wrap=True)
            else:
                status.update(Text(text))

        yield progress


def _model(text: str) -> Any:
    """A file's path, or the module that FILE.py:NAME is or returns."""
    if text.endswith(".py"):
        raise TrainingError(f"{text}: which of its modules? Write {text}:NAME, or :FUNCTION where one returns it")
    if ".py:" not in text:
        return Path(text)
    from torch import nn

    found = from_file(text)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise TrainingError(f"{text}() fails: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise TrainingError(
            f"{text} is no torch.nn.Module, nor a function that returns one, but {type(found).__name__}"
        )
    return found
