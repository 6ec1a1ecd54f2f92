"""The C that benchmarks bring along keeps pace with the runtime."""

from pathlib import Path

from benchmarks import change

from microtune.compiler.sources import runtime_directory
from microtune.toolchain import compile_library


def test_the_driver_of_changes_compiles_against_the_runtime(tmp_path: Path) -> None:
    assert compile_library(change.SOURCES, [runtime_directory()], tmp_path / "driver.so", strict=True).exists()
