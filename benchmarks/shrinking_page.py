"""docs/shrinking.md: the tables of all that makes a net small, one below the other."""

from __future__ import annotations

from typing import Any

from benchmarks.distillation import SECTION as DISTILLATION
from benchmarks.distillation import distillation_table
from benchmarks.packed import SECTION as PACKED
from benchmarks.packed import packed_table
from benchmarks.quantization_aware import SECTION as AWARE
from benchmarks.quantization_aware import quantization_aware_table
from benchmarks.shrinking import SECTION as SHRINKING
from benchmarks.shrinking import shrinking_tables

SECTIONS = (SHRINKING, DISTILLATION, AWARE, PACKED)
RECIPE = """\
The recipe, on the nets of MLPerf Tiny: the keyword net learns spoken digits, the image net handwritten ones. Bytes and
instructions on Cortex-M4.
"""
TRAINED = """\
Weights that learn to be int8, in a deep and narrow net that tells which of six people said which digit. It was sought
among some thirty, of which most lose less than a point by calibration:
"""
STORED = "Weights stored without their zeros, in a net of dense layers:\n"


def shrinking_page(results: dict[str, Any]) -> str:
    """All that was measured for the page."""
    parts = (
        RECIPE,
        shrinking_tables(results),
        distillation_table(results),
        TRAINED,
        quantization_aware_table(results),
        STORED,
        packed_table(results),
    )
    return "\n".join(f"{part.strip()}\n" for part in parts)
