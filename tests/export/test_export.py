"""mt.export and its command: whole or not at all, errors in sentences, an example that fits the package."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import microtune as mt
from microtune.cli import app
from microtune.export import FORMATS, MARK
from microtune.export.example import example_context, readings

from .conftest import Exported


def changed(package: mt.Package, **fields: Any) -> mt.Package:
    return dataclasses.replace(package, manifest={**package.manifest, **fields})


def test_an_export_replaces_an_export_and_nothing_else(exports: dict[str, Exported], tmp_path: Path) -> None:
    package = exports["blinds"].package
    goal = tmp_path / "deep" / "library"
    assert mt.export(package, "make", goal) == goal
    (goal / "stale.c").write_text("")
    mt.export(package, "arduino", goal)
    assert not (goal / "stale.c").exists() and not (goal / "Makefile").exists() and (goal / MARK).exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("three years")
    with pytest.raises(mt.BuildError, match="exists and is not an export"):
        mt.export(package, "make", other)
    assert (other / "thesis.txt").read_text() == "three years"
    (tmp_path / "file").write_text("")
    with pytest.raises(mt.BuildError, match="exists and is not an export"):
        mt.export(package, "make", tmp_path / "file")
    assert not list(tmp_path.glob("**/.blinds-*"))


def test_the_buttons_step_stays_within_fixed_point_numbers(exports: dict[str, Exported]) -> None:
    package = exports["meter"].package
    for tolerance, step in ((0.25, "MT_NUMBER(0.5)"), (32767.0, "MT_NUMBER(32767)")):
        learner = {**package.manifest["learner"], "tolerance": tolerance}
        assert example_context(changed(package, learner=learner))["step"] == step


def test_an_export_that_fails_leaves_the_old_one(exports: dict[str, Exported], tmp_path: Path) -> None:
    broken = tmp_path / "blinds"
    shutil.copytree(exports["blinds"].package.directory, broken)
    goal = tmp_path / "out"
    mt.export(broken, "make", goal)
    (broken / "mt_store.c").unlink()
    with pytest.raises(mt.BuildError, match=r"is not whole: mt_store\.c, which its manifest names"):
        mt.export(broken, "arduino", goal)
    assert (goal / "Makefile").exists()


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        (("eclipse",), {}, "format 'eclipse' is not known. Known formats: arduino, platformio, esp-idf, zephyr, cmake"),
        (("make",), {"version": "1.0"}, "three numbers are needed, such as 1.0.0"),
        (("make",), {"version": "v1.0.0"}, "three numbers are needed"),
        (("make",), {"author": " "}, "one line of text is needed"),
        (("make",), {"url": "https://a\nb"}, "one line of text is needed"),
    ],
)
def test_what_cannot_be_is_refused(
    exports: dict[str, Exported], tmp_path: Path, arguments: tuple[str], options: dict[str, str], words: str
) -> None:
    with pytest.raises(mt.BuildError, match=re.escape(words)):
        mt.export(exports["blinds"].package, *arguments, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_package_and_export_do_not_lie_in_each_other(exports: dict[str, Exported], tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    mt.export(exports["blinds"].package, "make", outer)
    inner = outer / "blinds"
    shutil.copytree(exports["blinds"].package.directory, inner)
    for goal in (outer, inner / "library"):
        with pytest.raises(mt.BuildError, match="lie in each other"):
            mt.export(inner, "make", goal)
    with pytest.raises(mt.BuildError, match="is not an export"):
        mt.export(inner, "make", inner)
    assert (inner / "manifest.json").exists()


def test_the_same_package_gives_the_same_files(exports: dict[str, Exported], tmp_path: Path) -> None:
    again = mt.export(exports["toaster"].package, "zephyr", tmp_path / "again")
    first = exports["toaster"]["zephyr"]
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((first / each).read_bytes() == (again / each).read_bytes() for each in files)


def test_descriptions_carry_what_they_are_given(exports: dict[str, Exported], tmp_path: Path) -> None:
    given = {"version": "2.10.3", "author": 'Åse "Lamp" Ott <a@lamp.example>', "url": "https://lamp.example/a?b=c#d"}
    files = {"arduino": "library.properties", "platformio": "library.json", "cmake": "CMakeLists.txt"}
    for format, file in files.items():
        mt.export(exports["blinds"].package, format, tmp_path / format, **given)
        assert "2.10.3" in (tmp_path / format / file).read_text()
    library = json.loads((tmp_path / "platformio" / "library.json").read_text())
    assert library["authors"][0]["name"] == given["author"] and library["homepage"] == given["url"]
    assert f"maintainer={given['author']}\n" in (tmp_path / "arduino" / "library.properties").read_text()


def test_the_command(exports: dict[str, Exported], tmp_path: Path) -> None:
    package, run = exports["toaster"].package, CliRunner().invoke
    shown = run(app, ["export", str(package.directory), "--format", "arduino", "-o", str(tmp_path / "a")])
    assert shown.exit_code == 0 and "examples/toaster/toaster.ino" in shown.output
    figures = run(app, ["export", str(package.directory), "-f", "make", "-o", str(tmp_path / "m"), "--json"])
    assert "Makefile" in json.loads(figures.output)["files"]
    refused = run(app, ["export", str(tmp_path), "--format", "make", "-o", str(tmp_path / "x")])
    assert refused.exit_code == 1 and "Traceback" not in refused.output
    assert all(each.name in run(app, ["export", "--help"], env={"COLUMNS": "200"}).output for each in FORMATS)


def test_readings_of_sensors(exports: dict[str, Exported]) -> None:
    """In the range of the manifest, narrowed to what a believed sensor says; steps as steps; names and units told."""
    bread, slices, room = readings(exports["toaster"].package)
    low, high = map(float, re.findall(r"-?[\d.]+", bread.value))
    assert bread.comment == "bread, °C" and -10 <= low < high <= 60 and low < 0 and high > 25
    assert slices.value == "one_of(1.0f, 1.0f, 4u)"
    assert room.comment == "room * /, * /" and room.value.startswith("between(-")
    assert readings(exports["camera"].package) == []
    main = (exports["camera"]["make"] / "example" / "main.c").read_text()
    assert "int8_t" in main and "i < CAMERA_INPUTS" in main


def test_readings_of_bytes(exports: dict[str, Exported]) -> None:
    package = exports["toaster"].package
    described = {"shape": [3], "dtype": "int8", "scale": 0.5, "zero_point": -8, "place": None}
    assert [each.comment[:4] for each in readings(exports["meter"].package)] == ["a, V", "b: 0"]
    bread, slices, room = readings(changed(package, input=described, sensors=[]))
    assert bread.value == "between(-28, 112)" and bread.comment == "bread, °C: 0.5 * (byte + 8)"
    assert slices.value == "between(-6, 0)" and room.value == "between(-128, 127)"


def test_names_cannot_break_comments(exports: dict[str, Exported]) -> None:
    package = exports["toaster"].package
    inputs = [{"name": f"a*/ b\n{i} \\", "low": 0, "high": 1, "unit": "*/"} for i in range(3)]
    for each in readings(changed(package, inputs=inputs, sensors=[])):
        assert "*/" not in each.comment and "\n" not in each.comment and not each.comment.endswith("\\")
