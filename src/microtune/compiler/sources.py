"""All C of a device in one folder: what is generated, and the runtime files it needs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from microtune.compiler.emit import emit
from microtune.compiler.planned import Plan

FIXED = {"mt_number.h": "mt_number_fixed.h"}
"""Runtime files of which integer-only packages hold another form, under the same name."""


def runtime_directory() -> Path:
    """The C runtime shipped with microtune."""
    return Path(__file__).parent.parent / "runtime"


def runtime_sources(generated: str, fixed: bool = False) -> dict[str, Path]:
    """The runtime files a generated source needs, by name: the headers it reaches, the sources of those headers, and
    those of functions that it names and that have a file of their own. fixed: for integers only."""
    folder = runtime_directory()
    found: dict[str, Path] = {}
    waiting = re.findall(r'#include "(mt_\w+\.h)"', generated)
    waiting += sorted({f"{name}.c" for name in re.findall(r"\bmt_\w+", generated)})
    while waiting:
        name = waiting.pop()
        path = folder / (FIXED.get(name, name) if fixed else name)
        if name in found or not path.exists():
            continue
        found[name] = path
        waiting += re.findall(r'#include "(mt_\w+\.h)"', path.read_text())
        if path.suffix == ".h":
            waiting.append(Path(name).with_suffix(".c").name)
    return {name: found[name] for name in sorted(found)}


def copy_runtime(generated: str, directory: Path, fixed: bool = False) -> None:
    """The runtime files a generated source needs into ``directory``."""
    for name, source in runtime_sources(generated, fixed).items():
        shutil.copy(source, directory / name)


def write_sources(plan: Plan, name: str, directory: Path) -> list[Path]:
    """Generated and runtime sources into ``directory``; returns the C sources."""
    directory.mkdir(parents=True, exist_ok=True)
    files: Mapping[str, str | bytes] = emit(plan, name)
    for file, content in files.items():
        if isinstance(content, bytes):
            (directory / file).write_bytes(content)
        else:
            (directory / file).write_text(content)
    copy_runtime(str(files[f"{name}.c"]) + str(files[f"{name}.h"]), directory, plan.fixed)
    return sorted(directory.glob("*.c"))
