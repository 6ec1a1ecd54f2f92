"""The command line: parse, call the public API, show. Every command takes ``--json`` for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import microtune as mt
from microtune import gallery
from microtune.compiler.show import STAGES, show_stage
from microtune.targets.catalogue import targets

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
        Console(stderr=True).print(f"[red]microtune:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise mt.PlanError(f"{text!r} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise mt.PlanError(f"{text!r} is not a whole number") from None


def _plain(make: Callable[[], Any]) -> Callable[[str], Any]:
    """For what takes no number."""

    def choose(text: str) -> Any:
        if text:
            raise mt.PlanError(f"{make.__name__} takes no number, not {text!r}")
        return make()

    return choose


# name -> how its argument becomes a scheme
SCHEMES: dict[str, Callable[[str], Any]] = {
    "full": _plain(mt.Full),
    "head": lambda text: mt.Head(_whole(text or "1")),
    "bias": _plain(mt.Bias),
    "lora": lambda text: mt.LoRA(_whole(text or "4")),
}
OPTIMIZERS: dict[str, Callable[[str], Any]] = {
    "sgd": lambda text: mt.SGD(lr=_number(text or "0.05")),
    "momentum": lambda text: mt.SGD(lr=_number(text or "0.02"), momentum=0.9),
    "adam": lambda text: mt.Adam(lr=_number(text or "0.001")),
    "rmsprop": lambda text: mt.RMSProp(lr=_number(text or "0.001")),
    "rls": lambda text: mt.RLS(forgetting=_number(text or "1")),
    "bayes": _plain(mt.Bayes),
}


def _choose(text: str, known: dict[str, Callable[[str], Any]], what: str) -> Any:
    """``head:2`` -> known["head"]("2")."""
    name, _, argument = text.partition(":")
    if name not in known:
        raise mt.PlanError(
            f"unknown {what} {text!r}. Known: {', '.join(known)}; with a number as in '{next(iter(known))}:1'"
        )
    return known[name](argument)


def _plan(
    model: Path,
    learn: str,
    loss: str,
    optimizer: str,
    buffer: int,
    every: int,
    ram: str | None,
    flash: str | None,
) -> mt.Plan:
    chosen = _choose(optimizer, OPTIMIZERS, "optimiser")
    return mt.plan(
        mt.load(model),
        learn=None if isinstance(chosen, mt.Bayes) else _choose(learn, SCHEMES, "update scheme"),
        loss=loss,
        optimizer=chosen,
        learner=mt.Learner(buffer=buffer, every=every),
        budget=mt.Budget(ram, flash),
    )


Model = Annotated[Path, typer.Argument(help="A model file: .onnx.")]
Learn = Annotated[str, typer.Option(help="What learns: full, head:N, bias, lora:RANK.")]
LossName = Annotated[str, typer.Option(help="mse, huber, binary_cross_entropy or cross_entropy.")]
OptimizerName = Annotated[str, typer.Option(help="sgd:LR, momentum:LR, adam:LR, rmsprop:LR, rls:FORGETTING or bayes.")]
Buffer = Annotated[int, typer.Option(help="Samples kept.")]
Every = Annotated[int, typer.Option(help="New samples that cause an update.")]
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
    lives = Table(title="The arena over time", title_justify="left")
    for column in ("program", "tensors", "offset", "bytes", "live"):
        lives.add_column(column)
    for span in memory.timeline:
        bar = " " * span.first + "#" * (span.last - span.first + 1)
        lives.add_row(span.program, span.name, str(span.offset), str(span.bytes), bar)
    console.print(lives)


@app.command()
def plan(
    model: Model,
    learn: Learn = "head:1",
    loss: LossName = "mse",
    optimizer: OptimizerName = "sgd",
    buffer: Buffer = 100,
    every: Every = 5,
    ram: Ram = None,
    flash: Flash = None,
    as_json: Json = False,
) -> None:
    """Show what a model would cost on the device: RAM, flash, and the life of every buffer."""
    with _spoken():
        found = _plan(model, learn, loss, optimizer, buffer, every, ram, flash)
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
    ram: Ram = None,
    flash: Flash = None,
    target: Annotated[list[str] | None, typer.Option(help="A target to compile for; repeat for more.")] = None,
    show: Annotated[str | None, typer.Option(help=f"Print a stage: {', '.join(STAGES)}.")] = None,
    as_json: Json = False,
) -> None:
    """Compile a model into a package directory: C that predicts and learns."""
    with _spoken():
        found = _plan(model, learn, loss, optimizer, buffer, every, ram, flash)
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
def emulate(
    package: Annotated[Path, typer.Argument(help="A package directory.")],
    target: Annotated[list[str] | None, typer.Option(help="An emulated core; repeat for more.")] = None,
    uses: Annotated[
        int, typer.Option(min=1, help="Uses with random inputs in range; the last five are measured.")
    ] = 120,
    as_json: Json = False,
) -> None:
    """Count instructions of a prediction and of an update on emulated cores, with a full buffer."""
    with _spoken():
        from microtune.targets.measure import instructions, random_uses

        opened = mt.open_package(package)
        found = {core: instructions(opened, core, random_uses(opened, uses)) for core in target or ["cortex-m4"]}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table()
    for column in ("core", "prediction, instructions", "update, instructions"):
        table.add_column(column, justify="right")
    for core, counts in found.items():
        table.add_row(core, f"{counts['predict']:,}", f"{counts['update']:,}")
    Console().print(table)


@app.command("targets")
def list_targets(as_json: Json = False) -> None:
    """List the targets that packages can be compiled for."""
    if as_json:
        print(json.dumps({each.name: each.description for each in targets()}, indent=2))
        return
    table = Table()
    table.add_column("target")
    table.add_column("what it is")
    for each in targets():
        table.add_row(each.name, each.description)
    Console().print(table)


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="An example: toaster.")] = "toaster",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Package directory.")] = None,
    as_json: Json = False,
) -> None:
    """Watch a reference device learn: train, compile, live with simulated people, report."""
    with _spoken():
        example = gallery.load_example(name)
        if not hasattr(example, "demo"):
            raise mt.MicrotuneError(f"'{name}' is run by itself: python {gallery.example_folder(name)}/run.py")
        example.demo(out or Path("build") / re.sub(r"\W", "_", name), as_json)


if __name__ == "__main__":
    app()
