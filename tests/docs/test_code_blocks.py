"""README and docs tell the truth: their Python runs, their C compiles, the files and commands named exist.

Python blocks of one page run in order in one namespace, in a temporary folder. A block marked ``c`` is
compiled against the runtime headers; one marked ``c NAME`` against the package ``build/NAME`` that the Python
blocks of its page have built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import microtune
from microtune import toolchain

ROOT = Path(__file__).parents[2]
PACKAGE = Path(microtune.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    package: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    content = page.read_text()
    found = []
    for match in FENCE.finditer(content):
        language, _, package = match[1].strip().partition(" ")
        found.append(Block(language, package, content.count("\n", 0, match.start()) + 2, match[2]))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


CODE = [page for page in PAGES if any(each.language in ("python", "c") for each in blocks(page))]


@pytest.mark.parametrize("page", CODE, ids=name_of)
def test_code_blocks_work(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    found = blocks(page)
    for block in found:
        if block.language == "python":
            # blank lines in front, so that a traceback gives the line of the page
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
    for block in found:
        if block.language != "c":
            continue
        include = tmp_path / "build" / block.package if block.package else PACKAGE / "runtime"
        assert include.is_dir(), f"{page}:{block.line}: no Python block here builds build/{block.package}"
        source = tmp_path / f"{page.stem}_{block.line}.c"
        source.write_text(f'#line {block.line} "{page.name}"\n{block.text}')
        for target in ("host", "cortex-m0"):
            toolchain.compile_objects([source], [include], target, strict=True)


def test_the_pages_have_code_to_check() -> None:
    kinds = {(each.language, bool(each.package)) for page in PAGES for each in blocks(page)}
    assert {("python", False), ("c", False), ("c", True)} <= kinds


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    present = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()]
    named = set(re.findall(r"`([\w/]+\.(?:py|h|c))`", text)) - {"NAME.h", "NAME.c", "run.py"}
    missing = {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in present)}
    assert named and not missing


def test_architecture_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert rooms and not {room for room in rooms if f"`{room}/`" not in text}


def test_architecture_names_every_operator_family() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    families = {path.name for path in (PACKAGE / "ops").glob("*.py")} - {"__init__.py"}
    assert families and not {name for name in families if not re.search(rf"`(?:ops/)?{re.escape(name)}`", text)}


def test_readme_lists_exactly_the_commands_there_are() -> None:
    from typer.main import get_command

    from microtune.cli import app

    named = set(re.findall(r"^\| `microtune (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named == set(getattr(get_command(app), "commands", {}))
