"""Tables of docs/chip.md: what training and inference cost on the chip, beside others."""

from __future__ import annotations

from typing import Any

from benchmarks.aifes import AIFES, ONLY, OURS, PLAIN
from benchmarks.cmsis_nn import SECTION as CMSIS_NN
from benchmarks.cmsis_nn import cmsis_nn_table

DENSE_TABLES = """\
{sections}

AIfES {aifes}{kept}; {compilers}.
"""

STEPS_TABLE = """\
| a training step on | net | soft float | integers | times fewer | RAM: float, integers |
|---|---|---|---|---|---|
{rows}
"""

PLACES = {
    "cortex-m4": "Cortex-M4F, zig clang -O2",
    "cortex-m4, gcc": "Cortex-M4F, arm-none-eabi-gcc -O2",
    "cortex-m0": "Cortex-M0, soft float, zig clang -O2",
}
NAMES = {AIFES: "AIfES", PLAIN: "C by hand", OURS: "the package", ONLY: "the package, `compile_inference`"}


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _times(theirs: int, ours: int) -> str:
    return f"{theirs / ours:.1f}"


def dense_tables(dense: dict[str, Any]) -> str:
    """A table for each core and compiler; how many times as many instructions the package's step would make."""
    sections = []
    for place, title in PLACES.items():
        if place not in dense["tables"]:
            continue
        lines = [
            row(title, "step, instructions", "times ours", "prediction, instructions", "flash, bytes", "RAM, bytes"),
            "|---|---|---|---|---|---|",
        ]
        for case, rows in dense["tables"][place].items():
            for name in (each for each in NAMES if each in rows):
                found, ours = rows[name], rows[OURS]
                trained = (f"{found['step']:,}", _times(found["step"], ours["step"])) if "step" in found else ("", "")
                sizes = (f"{found[key]:,}" for key in ("predict", "flash", "ram"))
                lines.append(row(f"{case}, {NAMES[name]}", *trained, *sizes))
        sections.append("\n".join(lines))
    compilers = f"zig {dense['zig']}" + (f", gcc {dense['gcc']}" if dense["gcc"] else "")
    old = [{"gcc": "gcc's table"}.get(each, each) for each in dense["kept"]]
    kept = f" ({' and '.join(old)}: from an earlier run)" if old else ""
    version = dense["aifes"] or "was never measured"
    return DENSE_TABLES.format(sections="\n\n".join(sections), aifes=version, kept=kept, compilers=compilers)


def steps_table(integers: dict[str, Any]) -> str:
    """Float and integer steps by core and net."""
    rows = [
        row(
            core, net, f"{found['float32']['step']:,}", f"{found['int8']['step']:,}", f"**{found['times_fewer']}**",
            f"{found['float32']['ram']:,}, {found['int8']['ram']:,}",
        )
        for core, nets in integers["steps"].items()
        for net, found in nets.items()
    ]  # fmt: skip
    return STEPS_TABLE.format(rows="\n".join(rows))


def chip_tables(results: dict[str, Any]) -> str:
    """All that was measured."""
    parts = ["## Dense nets in float32, side by side", dense_tables(results["dense"])]
    if "integers" in results:
        parts += ["## Integers where there is no floating-point unit", steps_table(results["integers"])]
    if CMSIS_NN in results:
        parts += ["## Inference in int8 beside CMSIS-NN", cmsis_nn_table(results)]
    return "\n\n".join(part.strip() for part in parts) + "\n"
