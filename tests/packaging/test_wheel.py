"""The wheel holds what an installed microtune needs: the C runtime, templates, linker scripts, examples."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    made = subprocess.run([*command, "-w", str(folder), str(ROOT)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("microtune-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def tracked(folder: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_every_tracked_file_of_the_package_ships(installed: Path) -> None:
    names = {name.removeprefix("src/") for name in tracked("src")}
    assert {"microtune/py.typed", "microtune/runtime/mt_port.h", "microtune/targets/core.ld"} <= names
    assert not {name for name in names if not (installed / name).is_file()}


def test_the_examples_ship_and_are_found(installed: Path) -> None:
    names = tracked("examples")
    assert names and not {name for name in names if not (installed / "microtune" / name).is_file()}
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);from microtune import gallery; print(gallery.examples_folder())"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, str(installed)],
        cwd=installed, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.strip() == str(installed / "microtune" / "examples"), ran.stderr


def test_nothing_that_was_only_built_ships(installed: Path) -> None:
    assert not [path for path in installed.rglob("*") if path.suffix == ".pyc" or path.name == "__pycache__"]


def test_the_licence_and_the_command_are_declared(installed: Path) -> None:
    (information,) = installed.glob("microtune-*.dist-info")
    assert "microtune = microtune.cli:app" in (information / "entry_points.txt").read_text()
    assert "Apache License" in (information / "licenses" / "LICENSE").read_text()
