"""What each ecosystem asks of a library's description, and of where its files lie.

Arduino: the library specification of arduino-cli and the rules of arduino-lint (LS, LP, LD). PlatformIO: its schema of
library.json. ESP-IDF: the manifest of the component manager. Zephyr: the schema in scripts/zephyr_module.py and that of
twister's testsuites. The exports of this suite were also accepted by PlatformIO 6.2 (`pio pkg pack`), by the component
manager 3.1 and by kconfiglib 14.1.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from microtune.export import MARK
from microtune.export.formats import FORMATS
from microtune.version import VERSION

from .conftest import NAMES, Exported

SEMVER = re.compile(r"\d+\.\d+\.\d+")


def properties(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def settings(path: Path) -> dict[str, str]:
    """Lines NAME=value of a .conf or a .defaults file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))


def test_every_export_says_what_it_was_made_from(exports: dict[str, Exported]) -> None:
    for name in NAMES:
        for each in FORMATS:
            about = json.loads((exports[name][each.name] / MARK).read_text())
            assert about == {
                "export": each.name, "name": name, "version": "1.0.0", "microtune": VERSION,
                "identity": exports[name].package.manifest["identity"],
            }  # fmt: skip


def test_exports_hold_the_package_as_it_is(exports: dict[str, Exported]) -> None:
    """Every C file unchanged, but for Arduino's first line; no library, no leftover of a template."""
    for name in NAMES:
        package = exports[name].package
        for each in FORMATS:
            root = exports[name][each.name]
            for file in package.manifest["files"]:
                if file.endswith((".c", ".h")):
                    text = (root / (each.headers if file.endswith(".h") else each.sources) / file).read_text()
                    text = text.removeprefix('#include "mt_exact.h"\n\n') if each.exact else text
                    assert text == (package.directory / file).read_text()
            ours = [path for path in root.rglob("*") if path.is_file() and path.name not in package.manifest["files"]]
            for path in ours:
                text = path.read_text()
                assert not re.search(r"\{\{|\{%|\{#", text) and "NAME" not in path.name, path
                assert text.endswith("\n") and not text.endswith("\n\n") and "\n\n\n" not in text, path


def test_arduino_library(exports: dict[str, Exported]) -> None:
    root = exports["toaster"]["arduino"]
    found = properties(root / "library.properties")
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert set(found) == required | {"includes", "dot_a_linkage"}
    assert all(value.strip() == value and value for value in found.values())
    # LP009 to LP014: characters and length of the name, not Arduino's
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9 _.\-]{0,62}", found["name"]) and found["name"] == "toaster"
    assert SEMVER.fullmatch(found["version"]) and not found["maintainer"].lower().startswith("arduino")
    assert found["category"] in (
        "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage",
        "Data Processing", "Other",
    )  # fmt: skip
    assert found["url"].startswith("https://") and found["dot_a_linkage"] in ("true", "false")
    # LP036: the paragraph does not repeat the sentence
    assert found["sentence"] not in found["paragraph"]
    assert "avr" not in found["architectures"].split(",")  # 16-bit int and 2 KB
    for header in found["includes"].split(","):
        assert (root / "src" / header).exists()
    # LS008, LS007: a header of the library's name; no .exe, no symbolic links
    assert (root / "src" / "toaster.h").exists()
    assert not [path for path in root.rglob("*") if path.is_symlink() or path.suffix == ".exe"]
    # a sketch has its folder's name
    assert (root / "examples" / "toaster" / "toaster.ino").exists()
    for line in (root / "keywords.txt").read_text().splitlines():
        word, kind = line.split("\t")
        assert re.fullmatch(r"\w+", word) and kind in ("KEYWORD1", "KEYWORD2", "LITERAL1")
    assert "toaster_predict\tKEYWORD2" in (root / "keywords.txt").read_text()


def test_platformio_library(exports: dict[str, Exported]) -> None:
    root = exports["toaster"]["platformio"]
    found = json.loads((root / "library.json").read_text())
    assert re.fullmatch(r"[a-zA-Z0-9_\-. ]{1,50}", found["name"]) and SEMVER.fullmatch(found["version"])
    assert 1 <= len(found["description"]) <= 255 and found["frameworks"] == found["platforms"] == "*"
    assert found["authors"][0]["name"] and found["homepage"].startswith("https://")
    assert "-ffp-contract=off" in found["build"]["flags"]
    for header in found["headers"]:
        assert (root / found["build"]["includeDir"] / header).exists()
    for example in found["examples"]:
        assert all((root / example["base"] / file).exists() for file in example["files"])
    project = (root / "examples" / "toaster" / "platformio.ini").read_text()
    boards = re.findall(r"^\[env:(.+)\]\nplatform = \w+\nboard = (.+)$", project, re.MULTILINE)
    assert len(boards) == 6 and all(name == board for name, board in boards)
    assert "lib_deps = symlink://../.." in project


def test_esp_idf_component(exports: dict[str, Exported]) -> None:
    root = exports["toaster"]["esp-idf"]
    text = (root / "idf_component.yml").read_text()
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    known = {"version", "description", "url", "maintainers", "tags", "dependencies", "examples"}
    assert set(keys) == known and len(keys) == len(known)
    version = re.search(r'^version: "(.*)"$', text, re.MULTILINE)
    assert version and SEMVER.fullmatch(version[1])
    # tags: 3 to 32 of a-z, 0-9, - and _
    (tags,) = re.findall(r"^tags:\n((?:  - .*\n)+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"[a-z0-9_-]{3,32}", each) for each in re.findall(r"  - (.*)", tags))
    (example,) = re.findall(r"^  - path: (.*)$", text, re.MULTILINE)
    assert (root / example / "CMakeLists.txt").exists()
    kconfig = (root / "Kconfig").read_text()
    assert (
        "config MICROTUNE_TOASTER_PARTITION" in kconfig
        and "CONFIG_MICROTUNE_TOASTER_PARTITION" in (root / "CMakeLists.txt").read_text()
    )
    given = settings(root / example / "sdkconfig.defaults")
    assert given["CONFIG_PARTITION_TABLE_CUSTOM"] == "y"
    assert (root / example / given["CONFIG_PARTITION_TABLE_CUSTOM_FILENAME"].strip('"')).exists()


@pytest.mark.parametrize("name", NAMES)
def test_partition_tables(exports: dict[str, Exported], name: str) -> None:
    """ESP-IDF's rules: applications begin at 64 KB, all at sectors, nothing overlaps, labels of 16 characters."""
    manifest, tables = exports[name].package.manifest, []
    for format in ("arduino", "platformio", "esp-idf"):
        path = exports[name][format] / "examples" / name / "partitions.csv"
        tables.append(path.read_text())
    assert len(set(tables)) == 1
    rows = [[cell.strip() for cell in row] for row in csv.reader(tables[0].splitlines()) if not row[0].startswith("#")]
    end = 0x9000
    for label, kind, _, offset, size in rows:
        assert len(label) <= 16 and int(offset, 0) >= end
        assert int(offset, 0) % (0x10000 if kind == "app" else 0x1000) == 0 and int(size, 0) % 0x1000 == 0
        end = int(offset, 0) + int(size, 0)
    assert end <= 4 << 20
    label, kind, subtype, _, size = rows[-1]
    assert (label, kind, subtype) == ("microtune", "data", "undefined")
    slot = -(-(64 + -(-manifest["layout"]["saved"] // 32) * 32) // 4096)
    assert int(size, 0) == (4 * slot + (2 if manifest["learner"]["log"] else 0)) * 4096


def test_zephyr_module(exports: dict[str, Exported]) -> None:
    root = exports["toaster"]["zephyr"]
    module = (root / "zephyr" / "module.yml").read_text()
    assert module == "name: toaster\nbuild:\n  cmake: zephyr\n  kconfig: zephyr/Kconfig\nsamples:\n  - samples\n"
    assert (root / "zephyr" / "CMakeLists.txt").exists()
    kconfig = (root / "zephyr" / "Kconfig").read_text()
    declared = re.findall(r"^config (\w+)$", kconfig, re.MULTILINE)
    assert declared == ["MICROTUNE_TOASTER", "MICROTUNE_TOASTER_FLASH"]
    assert all(re.match(r"(\t| {0}$|config )", line) for line in kconfig.splitlines())
    # tabs inside an entry, a help text two more
    assert not re.search(r"^ ", kconfig, re.MULTILINE)
    sample = root / "samples" / "toaster"
    given = settings(sample / "prj.conf")
    assert given["CONFIG_MICROTUNE_TOASTER"] == "y" and set(given) - {"CONFIG_MAIN_STACK_SIZE"} == {
        f"CONFIG_{each}" for each in ("MICROTUNE_TOASTER", "GPIO", "FLASH", "FLASH_MAP", "FLASH_PAGE_LAYOUT")
    }
    assert int(given["CONFIG_MAIN_STACK_SIZE"]) > exports["toaster"].package.manifest["memory"]["stack"] + 2048
    twister = (sample / "sample.yaml").read_text()
    assert re.findall(r"^(\w+):", twister, re.MULTILINE) == ["sample", "common", "tests"]
    keys = re.findall(r"^ {2}(?: {2})?(?: {2})?([\w.]+):", twister, re.MULTILINE)
    assert keys == [
        "name", "description", "tags", "integration_platforms", "sample.microtune.toaster", "harness",
        "harness_config", "type", "regex",
    ]  # fmt: skip
    # what twister waits for is what the sample says
    (regex,) = re.findall(r'- "(.*)"', twister)
    assert re.search(regex, "toaster: 0 uses so far") and " uses so far" in (sample / "src" / "main.c").read_text()
