"""``microtune export``: a package directory as a library of an ecosystem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from microtune.export import FORMATS, export


def export_command(
    package: Annotated[Path, typer.Argument(help="A package directory.")],
    format: Annotated[str, typer.Option("--format", "-f", help=f"{', '.join(each.name for each in FORMATS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the library.")],
    version: Annotated[str, typer.Option(help="Version of the library, such as 1.0.0.")] = "1.0.0",
    author: Annotated[str | None, typer.Option(help="Who made it, for its description.")] = None,
    url: Annotated[str | None, typer.Option(help="Its web page, for its description.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Write a package as a library of Arduino, PlatformIO, ESP-IDF, Zephyr, CMake or Make, with an example."""
    described = {key: text for key, text in (("author", author), ("url", url)) if text is not None}
    directory = export(package, format, out, version=version, **described)
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    if as_json:
        print(json.dumps({"directory": str(directory), "format": format, "files": files}, indent=2))
        return
    print(f"{directory}/: {len(files)} files")
    for file in files:
        if file.startswith(("example", "samples")):
            print(f"  {file}")
