"""int8 inference beside CMSIS-NN: the page shows what was measured, limits hold, and without the library it says so."""

from __future__ import annotations

import copy
import json

import pytest
from benchmarks.cmsis_nn import FURTHEST, MOST, NETS, SECTION, VARIABLE, cmsis_nn_table, run_cmsis_nn
from benchmarks.pages import CMSIS_NN
from benchmarks.results import FILE


def test_the_page_shows_the_measured_figures() -> None:
    page, results = CMSIS_NN.read_text(), json.loads(FILE.read_text())
    found = results[SECTION]
    assert set(found) == set(NETS)
    for name, row in found.items():
        ours, theirs = row["microtune"], row["CMSIS-NN"]
        assert row["ratio"] == pytest.approx(ours["instructions"] / theirs["instructions"], abs=1e-3), name
        assert row["ratio"] <= MOST, name
        assert ours["flash"] <= theirs["flash"] and row["furthest"] <= FURTHEST, name
    changed = copy.deepcopy(results)
    changed[SECTION]["person"].update(ratio=0.123, gcc={"microtune": 98, "CMSIS-NN": 100})
    changed[SECTION]["person"]["CMSIS-NN"].update(instructions=7654321, flash=6543, ram=5432)
    table = cmsis_nn_table(changed)
    for claim in ("**0.12**", "| 0.98 |", "| 7,654,321 |", "| 6,543 |", "| 5,432 |"):
        assert claim in table and claim not in page, claim


def test_without_the_library_the_last_figures_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    before = FILE.read_text()
    assert run_cmsis_nn() and FILE.read_text() == before
    said = capsys.readouterr().out
    monkeypatch.setenv(VARIABLE, str(FILE.parent))
    with pytest.raises(SystemExit, match=r"MICROTUNE_CMSIS_NN: .*benchmarks is not CMSIS-NN"):
        run_cmsis_nn()
    assert VARIABLE in said and "github.com/ARM-software/CMSIS-NN" in said and "Last figures kept" in said
