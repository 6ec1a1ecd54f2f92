"""README, docs/memory.md and docs/power.md claim what was measured: their figures are those of results.json."""

import json

import pytest
from benchmarks.readme import (
    MEMORY,
    POWER,
    README,
    power_tables,
    rewritten,
    rewritten_memory,
    rewritten_power,
    scheme_table,
    section,
)
from benchmarks.results import FILE

from microtune.targets import targets


def test_readme_shows_the_measured_figures() -> None:
    results = json.loads(FILE.read_text())
    assert README.read_text() == rewritten(README.read_text(), results), "run make bench, or benchmarks.readme.rewrite"


def test_another_result_is_another_readme() -> None:
    results = json.loads(FILE.read_text())
    before = section(results)
    results["toaster"]["flash"] += 1
    assert section(results) != before


def test_the_memory_page_shows_the_measured_figures() -> None:
    page, results = MEMORY.read_text(), json.loads(FILE.read_text())
    assert page == rewritten_memory(page, results), "run make bench, or benchmarks.readme.rewrite"
    assert scheme_table(results) in page


def test_another_plan_is_another_page() -> None:
    results = json.loads(FILE.read_text())
    before = rewritten_memory(MEMORY.read_text(), results)
    results["training memory"]["schemes"][0]["total"] += 1
    assert rewritten_memory(before, results) != before


def test_the_power_page_shows_the_measured_figures_of_every_core() -> None:
    page, results = POWER.read_text(), json.loads(FILE.read_text())
    assert page == rewritten_power(page, results), "run make bench, or benchmarks.readme.rewrite"
    assert power_tables(results) in page
    assert set(results["power"]) == {each.name for each in targets() if each.power is not None}
    for core, row in results["power"].items():
        assert 0 < row["slice"]["instructions"] < row["update"]["instructions"] / 4, core
        assert row["update"]["joules"] == pytest.approx(row["update"]["instructions"] * row["energy"], rel=1e-3)


@pytest.mark.parametrize("part", ["speaker", "camera", "inference"])
def test_what_was_not_measured_is_not_claimed(part: str) -> None:
    results = json.loads(FILE.read_text())
    if part not in results:
        pytest.skip(f"{part} has not been measured yet")
    before = section(results)
    del results[part]
    assert len(section(results)) < len(before)
