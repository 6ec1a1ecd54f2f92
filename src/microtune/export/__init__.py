"""A built package as a library of Arduino, PlatformIO, ESP-IDF, Zephyr, CMake or Make, with an example to run."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import jinja2

from microtune.errors import BuildError
from microtune.export.example import example_context
from microtune.export.formats import DRIVERS, FORMATS, TEMPLATES, Format, driver_source, format_of
from microtune.package import Package, open_package
from microtune.version import VERSION

__all__ = ["FORMATS", "export"]

MARK = "microtune.json"
"""In the root of an export: what it was made from. A directory with it may be replaced."""
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


def export(
    package: Package | str | os.PathLike[str],
    format: str,
    directory: str | os.PathLike[str],
    *,
    version: str = "1.0.0",
    author: str = "the makers of this device",
    url: str = "https://example.com/",
) -> Path:
    """Write a package as a library of an ecosystem, with an example; returns the directory.

    ``version``, ``author`` and ``url`` go into the library's description; set them before you publish it.
    An existing export there is replaced as a whole, once the new one is complete. Raises BuildError for an unknown
    format, a package that is not whole, a directory that is something else, or a version that no registry takes.
    """
    chosen = format_of(format)
    opened = open_package(package)
    goal = Path(directory)
    _check(opened, goal, version, author=author, url=url)
    files = _files(opened, chosen, {"version": version, "author": author, "url": url})
    goal.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=f".{opened.name}-") as scratch:
        fresh = Path(scratch) / opened.name
        for path, content in files.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_bytes(content.encode())
        if goal.exists():
            shutil.rmtree(goal)
        fresh.replace(goal)
    return goal


def _check(package: Package, goal: Path, version: str, **described: str) -> None:
    if goal.exists() and not (goal.is_dir() and ((goal / MARK).exists() or not any(goal.iterdir()))):
        raise BuildError(f"{goal} exists and is not an export; choose another directory or remove it")
    target, source = goal.resolve(), package.directory.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise BuildError(
            f"{goal} and the package {package.directory} lie in each other: writing one anew would remove the other. "
            "Choose a directory beside it"
        )
    if not _VERSION.fullmatch(version):
        raise BuildError(f"version '{version}': three numbers are needed, such as 1.0.0")
    for what, text in described.items():
        if not text.strip() or not text.isprintable():
            raise BuildError(f"{what} {text!r}: one line of text is needed")


def _package_file(package: Package, file: str) -> str:
    try:
        return (package.directory / file).read_text(encoding="utf-8")
    except OSError:
        raise BuildError(
            f"{package.directory} is not whole: {file}, which its manifest names, cannot be read. Build it again"
        ) from None


def _files(package: Package, chosen: Format, described: dict[str, str]) -> dict[str, str]:
    """All files of an export by path."""
    found: dict[str, str] = {}
    for file in package.manifest["files"]:
        if "/" in file or not file.endswith((".h", ".c")):
            continue
        text = _package_file(package, file)
        if file.endswith(".h"):
            found[f"{chosen.headers}/{file}"] = text
        else:
            found[f"{chosen.sources}/{file}"] = f'#include "mt_exact.h"\n\n{text}' if chosen.exact else text
    sources = [path for path in found if path.endswith(".c")]
    drivers = [each for each in DRIVERS if each.name in chosen.drivers]
    for driver in drivers:
        found[f"{chosen.flash}/{driver.name}.c"] = driver_source(driver, chosen)
    context = {
        **example_context(package),
        **described,
        "format": chosen,
        "sources": [Path(path).name for path in sources],
        "drivers": drivers,
    }
    templates = _environment()
    found[f"{chosen.headers}/mt_flash.h"] = templates.get_template("mt_flash.h.jinja").render(context)
    if chosen.exact:
        found[f"{chosen.headers}/mt_exact.h"] = templates.get_template("mt_exact.h.jinja").render(context)
    for template in sorted(templates.list_templates(filter_func=lambda name: name.startswith(f"{chosen.name}/"))):
        path = template.removeprefix(f"{chosen.name}/").removesuffix(".jinja").replace("NAME", package.name)
        found[path] = templates.get_template(template).render(context)
    about = {
        "export": chosen.name,
        "name": package.name,
        "version": described["version"],
        "microtune": VERSION,
        "identity": package.manifest["identity"],
    }
    found[MARK] = json.dumps(about, indent=2) + "\n"
    return found


def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["json"] = lambda text: json.dumps(text, ensure_ascii=False)
    return found
