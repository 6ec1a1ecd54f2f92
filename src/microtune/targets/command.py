"""``microtune emulate`` and ``microtune targets``: what a package takes of cores and boards, and which there are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from microtune.network import DESCRIPTION, Network
from microtune.package import open_package
from microtune.targets.catalogue import Target, boards, targets
from microtune.targets.power import with_unit

if TYPE_CHECKING:
    from microtune.targets.report import Report

SHOWN_FINDINGS = 5


def emulate_command(
    package: Annotated[Path, typer.Argument(help="A package directory, or one of microtune compile.")],
    target: Annotated[list[str] | None, typer.Option(help="A core or board; repeat for more.")] = None,
    uses: Annotated[
        int, typer.Option(min=1, help="Uses with random inputs in range; the last are measured, with an update.")
    ] = 120,
    energy: Annotated[
        str | None, typer.Option(help="Energy of an instruction, such as 150pJ, instead of the catalogue's.")
    ] = None,
    clock: Annotated[str | None, typer.Option(help="Clock, such as 64MHz, instead of the catalogue's.")] = None,
    qemu: Annotated[bool, typer.Option("--qemu", help="Boot it on a board of qemu-system-arm, too.")] = False,
    symbols: Annotated[int, typer.Option(min=0, help="Largest symbols shown.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Run a package on emulated cores with a full buffer: instructions, time, energy, flash, RAM and stack, and whether
    it fits the board."""
    from microtune.targets.measure import random_uses
    from microtune.targets.report import report

    if (package / DESCRIPTION).exists():
        _emulate_network(Network(package), target or ["cortex-m4"], as_json)
        return
    opened = open_package(package)
    given = random_uses(opened, uses)
    found = {
        each: report(opened, each, given, energy=energy, clock=clock, qemu=qemu) for each in target or ["cortex-m4"]
    }
    if as_json:
        print(json.dumps({name: each.figures() for name, each in found.items()}, indent=2))
        return
    console = Console()
    for name, each in found.items():
        show_report(name, each, symbols, console)
    print("Time and energy are estimates, without peripherals, sleep and writing to flash (docs/power.md).")


def _emulate_network(network: Network, names: list[str], as_json: bool) -> None:
    """A network that only predicts: what a prediction takes of each core."""
    from microtune.targets.prediction import prediction_figures

    found = {name: prediction_figures(network, name) for name in names}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(title="A prediction, of ten random inputs", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    rows = {
        "instructions, mean": "instructions",
        "instructions, at most": "most",
        "arena, RAM that you own, bytes": "arena",
        "stack, measured, bytes": "stack",
        "flash, weights included, bytes": "flash",
        "weights, bytes": "weights",
    }
    for label, key in rows.items():
        table.add_row(label, *(f"{found[name][key]:,}" for name in names))
    Console().print(table)


def show_report(name: str, found: Report, symbols: int, console: Console) -> None:
    """The tables of one core or board."""
    title = (
        found.target.description if found.target.board is None else f"{found.target.description}, {found.target.core}"
    )
    console.print(f"\n[bold]{name}[/bold]: {title}", highlight=False)
    if found.cost is not None:
        console.print(_work(found))
        print(f"{with_unit(found.cost.energy, 'J')} an instruction, {with_unit(found.cost.clock, 'Hz')}{_chip(found)}")
    console.print(_memory(found))
    if symbols:
        console.print(_symbols(found, symbols))
    for share in found.shares:
        print(f"{'Fits' if share.bytes <= share.limit else 'Does not fit'}: {share.text}")
    if found.boots:
        console.print(_boots(found))
    if found.floating_point == ():
        print("No floating-point instruction, and no call of a soft-float helper.")
    elif found.floating_point:
        print(f"Floating point in a package of integers, {len(found.floating_point)} times:")
        print(*(f"  {each}" for each in found.floating_point[:SHOWN_FINDINGS]), sep="\n")


def _work(found: Report) -> Table:
    table = Table()
    for column in ("work", "instructions", "time", "energy"):
        table.add_column(column, justify="left" if column == "work" else "right")
    spent = found.cost
    assert spent is not None
    pieces = {
        "prediction": spent.predict,
        "observation": spent.observe,
        "update": spent.update,
        f"longest of {spent.slices} slices": spent.slice,
    }
    for name, work in pieces.items():
        table.add_row(name, f"{work.instructions:,}", with_unit(work.seconds, "s"), with_unit(work.joules, "J"))
    return table


def _chip(found: Report) -> str:
    """Whose current it is, where a board has another chip."""
    power, board = found.target.power, found.target.board
    if board is None or power is None or power is board.power:
        return ""
    return f" (the energy is that of {power.chip}, another chip with this core)"


def _memory(found: Report) -> Table:
    table = Table()
    table.add_column("memory")
    table.add_column("bytes", justify="right")
    rows = {"flash in all": found.size.flash, **{f"  {name}": size for name, size in found.sections.items()}}
    rows |= {"RAM in all": found.ram, "  the device's struct": found.struct, "  static data": found.size.ram}
    rows["  stack, bounded"] = found.stack.worst_bound
    if found.stack.measured:
        rows["  stack, measured by painting"] = found.stack.worst_measured
    for name, size in rows.items():
        table.add_row(name, f"{size:,}")
    return table


def _boots(found: Report) -> Table:
    table = Table(title="The same uses, booted; the most instructions of each", title_justify="left")
    for column in ("machine", "state's CRC-32", "prediction", "observation", "idle"):
        table.add_column(column, justify="left" if column == "machine" else "right")
    for each in found.boots:
        counts = (f"{count:,}" for count in (each.predict, each.observe, each.idle))
        table.add_row(each.machine, f"{each.state:08x}", *counts)
    return table


def _symbols(found: Report, count: int) -> Table:
    table = Table()
    table.add_column("largest in flash")
    table.add_column("section")
    table.add_column("bytes", justify="right")
    for each in found.size.symbols[:count]:
        table.add_row(each.name, each.section, f"{each.size:,}")
    return table


def targets_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """List the cores and boards that packages are compiled for, and what running costs on those that are emulated."""
    if as_json:
        print(json.dumps({each.name: _target_figures(each) for each in (*targets(), *boards())}, indent=2))
        return
    cores, carried = Table(), Table()
    for column in ("target", "what it is", "an instruction", "typical of"):
        cores.add_column(column, justify="right" if column == "an instruction" else "left")
    for column in ("board", "chip", "core", "flash", "RAM", "clock"):
        carried.add_column(column, justify="left" if column in ("board", "chip", "core") else "right")
    for each in targets():
        power = each.power
        energy = "" if power is None else with_unit(power.joules, "J")
        cores.add_row(each.name, each.description, energy, "" if power is None else power.text)
    for each in boards():
        if board := each.board:
            memory = f"{board.flash // 1024:,} KB", f"{board.ram // 1024:,} KB"
            carried.add_row(each.name, board.chip, board.core, *memory, with_unit(board.hertz, "Hz"))
    console = Console()
    console.print(cores)
    console.print(carried)


def _target_figures(each: Target) -> dict[str, Any]:
    power, board = each.power, each.board
    figures = {} if power is None else {**asdict(power), "energy": power.joules, "clock": power.hertz}
    found: dict[str, Any] = {"description": each.description, "power": figures or None}
    if board is not None:
        found |= {key: value for key, value in asdict(board).items() if key not in ("name", "power")}
    return found
