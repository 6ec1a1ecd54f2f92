"""``microtune simulate``: people live with the devices of a package, and what came of it is told."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from microtune.errors import MicrotuneError
from microtune.package import open_package
from microtune.simulation.many import Summary, simulate
from microtune.simulation.people import FEEDBACKS, PEOPLE
from microtune.simulation.picture import picture as draw
from microtune.simulation.places import find_person, find_world, gallery_worlds

SHOWN_WEEKS = 12


def simulate_command(
    package: Annotated[Path, typer.Argument(help="A package directory, built for host.")],
    person: Annotated[str, typer.Option(help=f"Who: {', '.join(PEOPLE)}, or your own as FILE.py:NAME.")] = "consistent",
    days: Annotated[float | None, typer.Option(help="Days to live through; 90 unless --years is given.")] = None,
    years: Annotated[float | None, typer.Option(help="Years to live through.")] = None,
    uses_per_day: Annotated[float, typer.Option(help="Uses a day, on average.")] = 3.0,
    devices: Annotated[int, typer.Option(help="Devices, each with a household of its own.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed gives the same lives.")] = 0,
    world: Annotated[
        str | None,
        typer.Option(
            help="Where they live: an example of the gallery that has a world, 'generic' (made from the ranges of "
            "the inputs), or your own as FILE.py:NAME. Default: the example of the package's name, else generic."
        ),
    ] = None,
    feedback: Annotated[
        str | None, typer.Option(help=f"What the device is told, in place of the person's own: {', '.join(FEEDBACKS)}.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one a processor.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write acceptance by week as an SVG picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Let simulated people live with a package's devices for days or years, and count what they accept."""
    if days is not None and years is not None:
        raise MicrotuneError("--days and --years both say how long; give one of them")
    if feedback is not None and feedback not in FEEDBACKS:
        raise MicrotuneError(f"no feedback '{feedback}'. There are: {', '.join(FEEDBACKS)}")
    span = years * 365.0 if years is not None else 90.0 if days is None else days
    opened = open_package(package)
    place, who = find_world(opened, world), find_person(person)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    begun = time.perf_counter()
    # hidden where nobody watches: a progress bar in a log file helps nobody
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{who.name}, {span:g} days", total=devices)
        found = simulate(
            opened, place, who, days=span, uses_per_day=uses_per_day, devices=devices, seed=seed,
            feedback=feedback, processes=processes,
            progress=lambda done: progress.update(task, completed=done),
        )  # fmt: skip
    seconds = time.perf_counter() - begun
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(draw(found))
    rate = found.devices * found.days / 365.0 / seconds * 60.0
    if as_json:
        figures = {**asdict(found), "seconds": round(seconds, 3), "device_years_per_minute": round(rate)}
        print(json.dumps(figures, indent=2))
        return
    show(found, Console())
    if place.name == "generic":
        worlds = ", ".join(gallery_worlds())
        text = f"The world is generic, made from the ranges of the inputs. Others: {worlds}, or FILE.py:NAME"
        Console().print(text, soft_wrap=True)
    Console().print(f"{rate:,.0f} device-years a minute")


def show(summary: Summary, console: Console) -> None:
    """The tables people read: up to SHOWN_WEEKS weeks, the first ones close together."""
    title = f"{summary.devices} x {summary.package}: {summary.person}, {summary.days:g} days, world {summary.world}"
    table = Table(title=title, title_justify="left")
    for column in ("week", "accepted, %", "worst tenth", "base alone"):
        table.add_column(column, justify="right")
    total = len(summary.weeks)
    chosen = sorted({round(total ** (each / (SHOWN_WEEKS - 1))) for each in range(SHOWN_WEEKS)})
    for index in chosen:
        week = summary.weeks[index - 1]
        shares = (week.accepted, week.worst_tenth, week.base)
        table.add_row(str(week.week), *("away" if share is None else f"{100 * share:.1f}" for share in shares))
    console.print(table)
    rows = {
        "accepted over all": f"{100 * summary.accepted:.1f} % of {summary.uses:,} uses",
        "the base alone": f"{100 * summary.base:.1f} %",
        "the worst tenth of devices": f"{100 * summary.worst_tenth:.1f} %",
        "harmed: worse than the base by over a point": f"{100 * summary.harmed:.1f} % of devices",
        "updates accepted, rolled back": f"{summary.updates_accepted:,}, {summary.updates_rolled_back:,}",
        "saves a device and year": f"{summary.saves:,.0f}",
        "left alone": f"{summary.left_alone:,} uses",
        "nothing learnt, input refused": f"{summary.not_learnt:,}, {summary.refused:,} uses",
        "a sensor not believed": f"{summary.suspect:,} uses",
        "changes of habits found": f"{summary.changes:,}",
    }
    if summary.feedback == "sets":
        del rows["left alone"]
    figures = Table(show_header=False, box=None)
    for name, text in rows.items():
        figures.add_row(name, text)
    console.print(figures)
