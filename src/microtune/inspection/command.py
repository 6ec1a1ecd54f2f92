"""``microtune inspect``: what a device's storage tells, as tables, JSON or a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microtune.inspection.image import KINDS, Image, Log, Record, Slot, State, read_image
from microtune.inspection.picture import log_picture, unwrapped
from microtune.package import Package, open_package

SHOWN_RECORDS = 40
DETAILS = {name: what for name, what in KINDS.values()}


def inspect_command(
    file: Annotated[
        Path, typer.Argument(help="A device's storage: a state file, or what was read out of a chip; or a package.")
    ],
    package: Annotated[Path | None, typer.Option(help="The package directory it is thought to be of.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the log over the uses as an SVG picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Read a device's storage of any build: states, counters, wear, the log. No inputs, no labels."""
    is_package = (file / "manifest.json").exists()
    directory = file if is_package else package
    opened = None if directory is None else open_package(directory)
    image = None if is_package else read_image(file)
    if picture is not None:
        drawing = log_picture(None if image is None else image.log, f"{file.name}: the log")
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(drawing)
    if as_json:
        found: dict[str, Any] = {} if image is None else {"file": str(file), **asdict(image)}
        if opened is not None:
            found["package"] = summary(opened)
        print(json.dumps(found, indent=2, allow_nan=False))
        return
    console = Console()
    if opened is not None:
        _show_package(opened, image, console)
    if image is not None:
        _show_image(image, console)


def summary(package: Package) -> dict[str, Any]:
    """The few lines of a manifest that tell what a device is."""
    manifest = package.manifest
    learner = manifest["learner"]
    return {
        "name": package.name,
        "microtune": manifest["microtune"],
        "identity": manifest["identity"],
        "task": manifest["task"],
        "optimizer": manifest["optimizer"]["name"],
        "scheme": manifest["scheme"]["name"],
        "inputs": package.input_size,
        "outputs": manifest["outputs"],
        "samples": learner["buffer"],
        "update_every": learner["every"],
        "saved": manifest["layout"]["saved"],
        "ram": manifest["memory"]["ram"],
        "targets": sorted(manifest["targets_built"]),
    }


def _facts(title: str, rows: dict[str, str], console: Console) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _show_package(package: Package, image: Image | None, console: Console) -> None:
    told = summary(package)
    shown = {key: f"{value:,}" if isinstance(value, int) else str(value) for key, value in told.items()}
    _facts(
        escape(f"Package {package.directory}"),
        {key.replace("_", " "): value for key, value in shown.items()} | {"targets": ", ".join(told["targets"])},
        console,
    )
    if image is not None and image.state is not None:
        same = image.state.identity == told["identity"]
        console.print("The newest state is of this build." if same else "The newest state is of another build.")


def _show_image(image: Image, console: Console) -> None:
    for note in image.notes:
        console.print(f"[yellow]{note}[/yellow]")
    if image.slots:
        _show_slots(image.slots, image.newest, console)
    if image.wear is not None:
        console.print(
            f"{image.wear.saves:,} saves; erases of the most worn of {image.wear.slots} slots: {image.wear.erases:,}"
        )
    if image.state is not None and image.state.version is not None:
        _show_state(image.state, console)
    if image.log is not None and image.log.records:
        _show_log(image.log, console)


def _show_slots(slots: tuple[Slot, ...], newest: int | None, console: Console) -> None:
    table = Table(title="States", title_justify="left")
    for name in ("at byte", "number", "build", "format", "bytes", ""):
        table.add_column(name, justify="right")
    for index, slot in enumerate(slots):
        mark = "newest" if index == newest else "" if slot.whole else "not whole"
        cells = (f"{slot.at:,}", f"{slot.sequence:,}", slot.identity, slot.format, f"{slot.bytes:,}", mark)
        table.add_row(*cells)
    console.print(table)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _show_state(state: State, console: Console) -> None:
    rows = {} if state.profile == 0 else {"profile": "recognised" if state.profile is None else str(state.profile)}
    if state.teaching:
        rows["uses left of the learning mode"] = f"{state.teaching:,}"
    for name, value in (state.metrics or {}).items():
        rows[name.replace("_", " ")] = "not finite" if value is None else f"{value:,}"
    _facts("Metrics", rows, console)
    if not state.people:
        return
    table = Table(title="Getting to know", title_justify="left")
    for name in ("profile", "context", "uses", "right of the last 32", "confidence"):
        table.add_column(name, justify="right")
    for each in state.people:
        right = f"{_percent(each.right)} of {each.recent}" if each.recent else ""
        table.add_row(str(each.profile), str(each.context), f"{each.uses:,}", right, _percent(each.confidence))
    console.print(table)


def _days(seconds: int, start: int) -> str:
    """Since the first record whose time is known."""
    return f"{(seconds - start) / 86400:,.1f}" if seconds and seconds >= start else ""


def _what(record: Record) -> str:
    detail = DETAILS.get(record.kind, "detail")
    return f"{record.kind} ({detail} {record.detail})" if detail and record.detail else record.kind


def _show_log(log: Log, console: Console) -> None:
    left_out = len(log.records) - SHOWN_RECORDS
    table = Table(title="Log" + (f" (the newest {SHOWN_RECORDS})" if left_out > 0 else ""), title_justify="left")
    several = any(record.profile for record in log.records)
    start = next((record.time for record in log.records if record.time), 0)
    optional = {"days": start > 0, "profile": several}
    names = ("no", "days", "what", "uses", "profile", "right", "sure", "error", "updates")
    for name in names:
        if optional.get(name, True):
            table.add_column(name, justify="left" if name == "what" else "right", no_wrap=name == "what")
    taken = unwrapped([record.taken for record in log.records])
    dropped = unwrapped([record.dropped for record in log.records])
    for index in range(max(left_out, 0), len(log.records)):
        record = log.records[index]
        cells = (
            f"{record.number:,}",
            _days(record.time, start),
            _what(record),
            f"{record.uses:,}",
            str(record.profile),
            _percent(record.right),
            _percent(record.confidence),
            "" if record.error is None else f"{record.error:.4g}",
            f"{taken[index]:,.0f} of {taken[index] + dropped[index]:,.0f}",
        )
        table.add_row(*(cell for name, cell in zip(names, cells, strict=True) if optional.get(name, True)))
    console.print(table)
    count = len(log.records)
    lost = f", {log.missing:,} between them are not whole" if log.missing else ""
    console.print(f"{count:,} records are kept{lost}; erases of the log's most worn sector: {log.erases:,}")
