"""The table of docs/schemes.md says what the planner says today."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import microtune as mt

PROJECT = Path(__file__).parents[2]
MODEL = PROJECT.parent / "shared" / "data" / "models" / "mlperf_tiny" / "kws_ref_model.tflite"
PAGE = PROJECT / "docs" / "schemes.md"
ROW = re.compile(r"\| `(\w+\(.*\))` \| (float32|mixed) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|")


def rows() -> list[tuple[str, str, list[int]]]:
    found = ROW.findall(PAGE.read_text())
    return [(scheme, precision, [int(each.replace(",", "")) for each in rest]) for scheme, precision, *rest in found]


def figures(graph: Any, scheme: str, precision: str) -> list[int]:
    """Numbers that learn, their bytes, the arena, the cut."""
    chosen = eval(scheme, {name: getattr(mt, name) for name in mt.__all__})
    programs = mt.plan(graph, chosen, "cross_entropy", precision=precision).programs
    parts = [each for each in (programs.backbone, programs.head, programs.step) if each]
    words = [(tensor.bytes + 3) // 4 * 4 for tensor in programs.cut]
    trained = programs.trained
    padded = [(tensor.bytes + 3) // 4 * 4 for tensor in trained]
    return [sum(each.size for each in trained), sum(padded), max(each.arena.bytes for each in parts), sum(words)]


@pytest.mark.skipif(not MODEL.is_file(), reason=f"{MODEL} is missing")
def test_the_table_is_what_the_planner_says() -> None:
    graph = mt.load(MODEL)
    assert len(rows()) >= 10
    written = {(scheme, precision): numbers for scheme, precision, numbers in rows()}
    found = {key: figures(graph, *key) for key in written}
    assert found == written
