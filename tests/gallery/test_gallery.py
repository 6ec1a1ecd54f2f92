"""E1, E4: the examples are found by name, and load as their scripts would run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from microtune import gallery
from microtune.errors import MicrotuneError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two examples that both have a neighbour called ``weather``, and a folder that is no example."""
    for name in ("boat", "kite"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "weather.py").write_text(f"SEEN_FROM = '{name}'\n")
        (folder / "run.py").write_text("import weather\nSEEN_FROM = weather.SEEN_FROM\n")
    (tmp_path / "notes").mkdir()
    monkeypatch.setattr(gallery, "examples_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("run", "weather"):
        sys.modules.pop(name, None)


def test_examples_of_the_clone_are_found() -> None:
    assert gallery.examples_folder().samefile(ROOT / "examples")
    assert "toaster" in gallery.example_names()
    assert gallery.example_folder("toaster").samefile(ROOT / "examples" / "toaster")


def test_an_unknown_example_lists_those_there_are(two_examples: Path) -> None:
    with pytest.raises(MicrotuneError, match=r"no example 'notes'\. Examples: boat, kite$"):
        gallery.load_example("notes")


def test_neighbours_of_one_example_are_not_taken_for_anothers(two_examples: Path) -> None:
    sys.modules["weather"] = ModuleType("weather")  # somebody else's, without a file
    seen = [gallery.load_example(name).SEEN_FROM for name in ("boat", "kite", "boat")]
    assert seen == ["boat", "kite", "boat"]


def test_loading_twice_gives_the_same_module(two_examples: Path) -> None:
    assert gallery.load_example("kite") is gallery.load_example("kite")


def test_a_package_that_is_missing_is_named_with_what_to_install(two_examples: Path) -> None:
    (two_examples / "kite" / "run.py").write_text("import not_installed_anywhere.part\n")
    with pytest.raises(MicrotuneError, match=r"^the example 'kite' needs not_installed_anywhere: pip install"):
        gallery.load_example("kite")
    (two_examples / "boat" / "run.py").write_text("import weather.tides\n")  # a mistake of the example's own
    with pytest.raises(ModuleNotFoundError):
        gallery.load_example("boat")
