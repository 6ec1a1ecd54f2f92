"""What a recipe found: a row for each step, and how they are shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microtune.frontends.load import load
from microtune.ir import Graph
from microtune.training.measured import Measured

if TYPE_CHECKING:
    from rich.console import Group

WIDE = 120
"""Columns of a table that is not shown in a terminal."""


@dataclass(frozen=True)
class Row:
    """One step: what it made, what that costs, whether it earned its place and why.

    after: the step whose net it began with; empty for the float net. kept: whether the result goes through it.
    """

    step: str
    after: str
    file: Path
    cost: Measured
    kept: bool
    says: str


@dataclass(frozen=True)
class Shrunk:
    """All steps in the order they were done. ``print(shrunk)`` shows the table.

    limit: points of validation accuracy that might be lost. core: what flash, RAM and instructions are of. counts:
    validation and test samples. notes: what was not done, and why.
    """

    table: tuple[Row, ...]
    best: Row
    limit: float
    core: str
    counts: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> Row:
        """The float net that all steps are compared with."""
        return self.table[0]

    @property
    def graph(self) -> Graph:
        """The net of the best row."""
        return load(self.best.file)

    @property
    def times(self) -> float:
        """How many times smaller the flash of the best row is than that of the float net."""
        return self.base.cost.flash / self.best.cost.flash

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=WIDE, color_system=None)
        with console.capture() as captured:
            console.print(tables(self))
        return captured.get().rstrip()


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def tables(found: Shrunk) -> Group:
    """The table of the terminal, which steps earned their place, and the result in a sentence."""
    from rich import box
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    title = f"Bytes and instructions on {found.core}; right answers of its C, %"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True
    )
    tested = () if found.base.cost.test is None else ("test",)
    columns = ("step", "flash", "weights", "code", "RAM", "instructions", "valid.", *tested)
    for column in columns:
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    said = []
    for row in found.table:
        cost = row.cost
        sizes = (cost.flash, cost.weights, cost.code, cost.ram, cost.instructions)
        style = "bold" if row is found.best else "" if row.kept else "dim"
        often = sum(each.step == row.step for each in found.table) > 1
        name = f"{row.step} of {row.after}" if often else row.step
        right = map(_percent, (cost.validation, cost.test)[: 1 + len(tested)])
        table.add_row(name, *map(_count, sizes), *right, style=style)
        if row.says:
            said.append(Text(f"  {name}: {row.says}", style))
    table.width = Console(width=1000).measure(table).maximum  # figures that are cut are none
    earned = [Text("Which step earned its place:"), *said] if said else []
    return Group(table, Text(), *earned, *map(Text, (*found.notes, summary(found))))


def summary(found: Shrunk) -> str:
    """The result in a sentence."""
    best, base = found.best, found.base
    if best is base:
        return "No step earned its place: the float net stays as it is."
    weights = base.cost.weights / best.cost.weights
    validation, test = found.counts
    lost = f"{points(base.cost.validation - best.cost.validation)} on {validation:,} validation samples"
    if base.cost.test is not None and best.cost.test is not None:
        lost += f", {points(base.cost.test - best.cost.test)} on {test:,} test samples"
    return f"{best.step}: flash {found.times:.1f} times smaller, weights {weights:.1f} times; {lost}. {best.file}"


def points(lost: float) -> str:
    """Points of accuracy lost, or won, in words."""
    return f"{lost:.1f} points lost" if lost >= 0.05 else f"{-lost:.1f} points won" if lost <= -0.05 else "nothing lost"


def figures(found: Shrunk) -> dict[str, Any]:
    """All of it for machines."""
    rows = [
        {
            "step": row.step,
            "after": row.after,
            "file": str(row.file),
            "kept": row.kept,
            "says": row.says,
            "code": row.cost.code,
            **asdict(row.cost),
        }
        for row in found.table
    ]
    return {
        "best": found.best.step,
        "file": str(found.best.file),
        "core": found.core,
        "limit": found.limit,
        "validation_samples": found.counts[0],
        "test_samples": found.counts[1],
        "times_smaller": round(found.times, 2),
        "table": rows,
        "notes": list(found.notes),
    }
