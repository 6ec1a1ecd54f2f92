"""The machine listener: a fan mounted again, by the generated C (``examples/machine``).

    python -m benchmarks.machine

What docs/anomaly.md and examples/machine/README.md show. The figures that are promised are those of low speed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import record
from benchmarks.tables import row_of, table_of
from microtune import gallery

SECTION = "machine"
FALSE_ALARMS, FOUND, LEAST_FOUND = 2.0, 97.0, 90.0
"""Per cent: at most, and at least, after 20 windows of the fan mounted again, at low speed and at medium speed; and in
the worst life in which few windows with the coin on were learnt."""
DETECTORS = ("features", "autoencoder")
PROMISED = tuple((speed, detector) for speed in ("low", "medium") for detector in DETECTORS)
SHOWN = (*PROMISED, *(("high", detector) for detector in DETECTORS))


def measure() -> dict[str, Any]:
    """{"cases": {speed: {detector: figures in per cent}}, "device": {detector: bytes and instructions}}."""
    machine = gallery.load_example("machine")
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = machine.run(machine.data.DEFAULT_PATH, Path(folder) / "machine")
    return found


def missed(found: dict[str, Any]) -> list[str]:
    """What does not hold of what is promised."""
    lost = []
    for speed, detector in PROMISED:
        figures = found["cases"][speed][detector]
        where = f"machine, {speed} speed, {detector}"
        if figures["false_alarms"] > FALSE_ALARMS:
            lost.append(f"{where}: {figures['false_alarms']} % false alarms, at most {FALSE_ALARMS:g} are promised")
        after = "found after a refusal"
        for key, what in (("found", "found"), ("found_after", after), ("half_found_after", after)):
            if figures[key] < FOUND:
                lost.append(f"{where}: {figures[key]} % of the coin {what}, at least {FOUND:g} are promised")
        if figures["least_found_after_few"] < LEAST_FOUND:
            lost.append(
                f"{where}: few windows with the coin on hide all but {figures['least_found_after_few']} % of it"
            )
        for key, what in (("coin_refused", "the coin, refused"), ("half_refused", "half of it the coin, refused"),
                          ("taken", "well, learnt")):  # fmt: skip
            if figures[key] < 100:
                lost.append(f"{where}: {what} in {figures[key]} % of lives, and in all is promised")
    return lost


def machine_table(results: dict[str, Any]) -> str:
    """Rows of both pages, and what the device takes."""
    found = results[SECTION]
    figures = [
        row_of(label, *(f"{found['cases'][speed][detector][key]:.1f}" for speed, detector in SHOWN))
        for key, label in gallery.load_example("machine").LINES.items()
    ]
    takes = [
        row_of(
            detector,
            *(f"{found['device'][detector][key]:,} bytes" for key in ("ram", "flash")),
            *(f"{found['device'][detector][key]:,} instructions" for key in ("predict", "update")),
        )
        for detector in DETECTORS
    ]
    device = ("on a Cortex-M4F", "RAM, stack included", "flash", "a prediction", "learning 20 windows")
    heard = table_of(row_of("%", *(f"{speed} speed, {detector}" for speed, detector in SHOWN)), *figures)
    return f"{heard}\n{table_of(row_of(*device), *takes)}"


def run_machine() -> bool:
    """Measure, print and record; False when a limit is missed."""
    path = gallery.load_example("machine").data.DEFAULT_PATH
    if not path.exists():
        print(f"\nthe machine listener: not run, no data in {path}")
        return True
    found = measure()
    record(SECTION, found)
    print(f"\n{machine_table({SECTION: found})}")
    lost = missed(found)
    print("\n".join(lost))
    return not lost


if __name__ == "__main__":
    run_machine()
