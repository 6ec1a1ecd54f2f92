"""All C of a device in one folder: what is generated, and the runtime files it needs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from microtune.compiler.emit import emit
from microtune.compiler.planned import Plan


def runtime_directory() -> Path:
    """The C runtime shipped with microtune."""
    return Path(__file__).parent.parent / "runtime"


def runtime_sources(generated: str) -> list[Path]:
    """The runtime files a generated source needs: the headers it reaches, and the sources of those headers."""
    folder = runtime_directory()
    found: dict[str, Path] = {}
    waiting = re.findall(r'#include "(mt_\w+\.h)"', generated)
    while waiting:
        name = waiting.pop()
        path = folder / name
        if name in found or not path.exists():
            continue
        found[name] = path
        waiting += re.findall(r'#include "(mt_\w+\.h)"', path.read_text())
        source = path.with_suffix(".c")
        if path.suffix == ".h" and source.exists():
            found[source.name] = source
            waiting += re.findall(r'#include "(mt_\w+\.h)"', source.read_text())
    return [found[name] for name in sorted(found)]


def copy_runtime(generated: str, directory: Path) -> None:
    """The runtime files a generated source needs into ``directory``."""
    for source in runtime_sources(generated):
        shutil.copy(source, directory / source.name)


def write_sources(plan: Plan, name: str, directory: Path) -> list[Path]:
    """Generated and runtime sources into ``directory``; returns the C sources."""
    directory.mkdir(parents=True, exist_ok=True)
    files = emit(plan, name)
    for file, content in files.items():
        if isinstance(content, bytes):
            (directory / file).write_bytes(content)
        else:
            (directory / file).write_text(content)
    copy_runtime(str(files[f"{name}.c"]) + str(files[f"{name}.h"]), directory)
    return sorted(directory.glob("*.c"))
