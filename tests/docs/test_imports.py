"""Imports run against the arrows of docs/architecture.md only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "microtune"
ALLOWED = {
    "ir": {"errors"},
    "ops": {"errors", "ir"},
    "tuning": {"compress", "errors", "ir", "ops"},
    "frontends": {"compress", "errors", "ir", "ops"},
    "compress": {"errors", "frontends", "ir", "ops"},
    "targets": {"errors", "interface", "network", "package", "toolchain"},
    "simulation": {"curves", "device", "errors", "gallery", "interface", "package", "python_files", "toolchain"},
}
"""Rooms that a room may know beside itself."""
TORCH = ("training/", "frontends/torch.py")
"""Where PyTorch may be imported."""


def imported(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [each.name for each in node.names] if node.module == "microtune" else [""]
            yield from (f"{node.module}.{name}".rstrip(".") for name in names)


def rooms(folder: str) -> set[str]:
    """Rooms and files of the package that the files of a folder import."""
    names = {name for file in (SOURCE / folder).rglob("*.py") for name in imported(file)}
    return {name.split(".")[1] for name in names if name.startswith("microtune.")} - {folder}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_knows_those_below_it_only(room: str) -> None:
    assert rooms(room) <= ALLOWED[room]


def test_the_compiler_knows_no_device() -> None:
    assert not rooms("compiler") & {"device", "simulation", "export", "search", "training", "cli", "choices"}


def test_only_training_imports_pytorch() -> None:
    found = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        if any(name.split(".")[0].startswith("torch") for name in imported(file))
    }
    assert found and all(name.startswith(TORCH) for name in found)
