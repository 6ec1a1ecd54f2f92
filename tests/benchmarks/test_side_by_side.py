"""Issue 5, figures beside others: contenders learn the same, what cannot be measured is kept and said to be kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import aifes, integers
from benchmarks.chip import chip_tables
from benchmarks.pages import CHIP
from benchmarks.results import FILE

SMALL, CLASSES = aifes.CASES
CORE = "cortex-m4"


@pytest.mark.parametrize("case", aifes.CASES, ids=lambda case: case.name)
def test_the_package_and_plain_c_learn_the_same_at_the_same_cost(case: aifes.Case, tmp_path: Path) -> None:
    rows = aifes.compare(case, CORE, aifes.with_zig(CORE, tmp_path))
    assert rows[aifes.OURS]["step"] <= 1.1 * rows[aifes.PLAIN]["step"]
    assert rows[aifes.ONLY]["predict"] <= 1.1 * rows[aifes.PLAIN]["predict"]


def test_who_learns_something_else_is_not_compared(tmp_path: Path) -> None:
    text = (aifes.HERE / SMALL.plain).read_text()
    wrong = tmp_path / "wrong.c"
    wrong.write_text(text.replace("net->b2 -= RATE * gradient", "net->b2 -= 1.01f * RATE * gradient"))
    assert wrong.read_text() != text
    with pytest.raises(RuntimeError, match=r"plain C learns something else: .* away from ours"):
        aifes.compare(replace(SMALL, plain=str(wrong)), CORE, aifes.with_zig(CORE, tmp_path))


def test_aifes_takes_as_many_times_more_instructions_as_promised(tmp_path: Path) -> None:
    """Ten times for 4-16-1, three times for 64-128-10, with the sources of AIfES at hand."""
    source = aifes.sources()
    if source is None:
        pytest.skip("MICROTUNE_AIFES does not name the sources of AIfES")
    build = aifes.with_zig(CORE, tmp_path)
    found = aifes.merged(
        {}, {CORE: {case.name: aifes.compare(case, CORE, build, source) for case in aifes.CASES}}, "", ""
    )
    assert all(aifes.AIFES in found["tables"][CORE][case.name] for case in aifes.CASES)
    assert aifes.held(found)


def test_without_its_sources_its_last_figures_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MICROTUNE_AIFES", raising=False)
    assert aifes.sources() is None
    monkeypatch.setenv("MICROTUNE_AIFES", str(tmp_path))
    with pytest.raises(SystemExit, match=r"there is no src/aifes_basic\.h in it"):
        aifes.sources()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "aifes_basic.h").touch()
    (tmp_path / "library.properties").write_text("name=AIfES\nversion=9.8.7\n")
    found = aifes.sources()
    assert found == tmp_path / "src" and aifes.version(found) == "9.8.7"

    def rows(step: int, *others: str) -> dict[str, dict[str, int]]:
        return {name: {"step": step, "predict": 1, "flash": 2, "ram": 3} for name in (aifes.OURS, *others)}

    known = {
        "aifes": "2.2.0",
        "gcc": "12.2.1",
        "tables": {CORE: {case.name: rows(10, aifes.AIFES) for case in aifes.CASES}},
    }
    known["tables"][f"{CORE}, gcc"] = {SMALL.name: rows(20, aifes.AIFES)}
    after = aifes.merged(known, {CORE: {case.name: rows(1) for case in aifes.CASES}}, None, None)
    assert after["kept"] == [aifes.AIFES, "gcc"] and after["aifes"] == "2.2.0" and aifes.held(after)
    assert after["tables"][CORE][SMALL.name][aifes.AIFES]["step"] == 10
    assert after["tables"][CORE][SMALL.name][aifes.OURS]["step"] == 1
    assert after["tables"][f"{CORE}, gcc"] == known["tables"][f"{CORE}, gcc"]
    assert "AIfES 2.2.0 (AIfES and gcc's table: from an earlier run)" in chip_tables({"dense": after})
    slow = aifes.merged(known, {CORE: {case.name: rows(4) for case in aifes.CASES}}, None, None)
    assert not aifes.held(slow)


def test_the_page_shows_the_measured_figures() -> None:
    page, results = CHIP.read_text(), json.loads(FILE.read_text())
    assert aifes.held(results["dense"])
    results["dense"]["tables"][CORE][SMALL.name][aifes.AIFES]["step"] = 98765
    results["dense"]["tables"][CORE][CLASSES.name][aifes.OURS].update(step=43210, ram=1357)
    results["integers"]["steps"]["riscv32"][SMALL.name].update(times_fewer=65.4)
    results["cmsis-nn"]["sounds"]["CMSIS-NN"]["instructions"] = 87654
    changed = chip_tables(results)
    for claim in ("| 98,765 |", "| 43,210 |", "| 1,357 |", "| **65.4** |", "| 87,654 |"):
        assert claim in changed and claim not in page, claim


def test_a_step_in_integers_takes_as_many_times_fewer_instructions_as_promised() -> None:
    """Ten times on a Cortex-M0, against the same net in soft float."""
    name = SMALL.name
    real, whole = (integers.step(plan, SMALL.loss, "cortex-m0") for plan in integers.pair(name))
    assert real["step"] >= integers.TIMES_FEWER * whole["step"]
