"""What learning with integers only costs in accuracy: the examples with ``precision="int8"`` beside their own figures.

Same people, same samples, same settings; docs/integers.md shows the figures. The speaker has six people only: there
both are the means of several seeds.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import FILE, record
from microtune import gallery

WITHIN = 1.0
"""Points that integers may lose."""
SEEDS = (11, 12, 13)
LABELS = {"wearer": "samples", "speaker": "samples", "camera": "pictures"}
SECTION = "integers: accuracy"
"""Of results.json."""
TABLE = """\
| accuracy, % | learnt | float32 | integers |
|---|---|---|---|
{rows}

The speaker: means of seeds {seeds}. A training step on a Cortex-M0 takes **{times} times** fewer instructions than with
soft float: {int8} for a 4-16-1 net instead of {float32}.
"""


Both = dict[str, dict[str, float]]
"""{precision: {samples learnt: accuracy in %}}."""


def _wearer(results: dict[str, Any], scratch: Path) -> Both | None:
    example = gallery.load_example("wearer")
    path = example.data.DEFAULT_PATH
    if not path.is_dir():
        return None
    integers = example.summary(example.run(path, scratch, precision="int8"))
    return {"float32": results["wearer"]["accuracy"], "int8": integers["accuracy"]}


def _speaker(results: dict[str, Any], scratch: Path) -> Both | None:
    example = gallery.load_example("speaker")
    path = example.data.DEFAULT_PATH
    try:
        takes = example.data.load(path)
    except FileNotFoundError:
        return None
    heard = example.hear(takes, path, scratch)
    found: Both = {}
    for precision in ("float32", "int8"):
        outcomes = [each for seed in SEEDS for each in example.run(heard, takes, scratch, seed, precision=precision)]
        found[precision] = example.summary(outcomes)["accuracy"]
    return found


def _camera(results: dict[str, Any], scratch: Path) -> Both | None:
    example = gallery.load_example("camera")
    if not example.DIRECTORY.is_dir():
        return None
    pictures = example.data.digits()
    graph = example.network(example.DIRECTORY, len(pictures.classes), "int8")
    choices = {"Head": example.INTEGERS["Head"]}
    integers = example.run(pictures, graph, choices, example.IMAGES, scratch)
    # the classifier of the other run is float32
    both = {"float32": results["camera"], "int8": integers}
    return {precision: each["schemes"]["Head"]["accuracy"] for precision, each in both.items()}


def run_integer_accuracy() -> bool:
    """After ``run_examples``. False when one loses more than ``WITHIN`` points at its last two checkpoints."""
    results = json.loads(FILE.read_text())
    figures: dict[str, Any] = {}
    print(f"\nlearning with integers only, accuracy in % beside float32 (may lose {WITHIN} at the last two)")
    held = True
    for name, measure in (("wearer", _wearer), ("speaker", _speaker), ("camera", _camera)):
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(results, Path(scratch))
        if found is None:
            print(f"  {name}: not run, its data is not there")
            continue
        figures[name] = found
        floats, integers = found["float32"], found["int8"]
        for count, value in integers.items():
            print(f"  {name:8}{count:>5} {LABELS[name]:9}{floats[count]:8.2f}{value:8.2f}")
        held = held and all(integers[count] >= floats[count] - WITHIN for count in sorted(integers, key=int)[-2:])
    record(SECTION, figures)
    return held


def integers_tables(results: dict[str, Any]) -> str:
    """Accuracy and the step on a Cortex-M0 for docs/integers.md."""
    rows = [
        f"| {name} | {count} {LABELS[name]} | {found['float32'][count]:.1f} | {found['int8'][count]:.1f} |"
        for name, found in results[SECTION].items()
        for count in sorted(found["int8"], key=int)  # a JSON file has them in the order of the alphabet
        if count != "0"
    ]
    step = results["integers"]["steps"]["cortex-m0"]["4-16-1"]
    counts = {kind: f"{step[kind]['step']:,}" for kind in ("float32", "int8")}
    return TABLE.format(seeds=f"{SEEDS[0]} to {SEEDS[-1]}", rows="\n".join(rows), times=step["times_fewer"], **counts)


if __name__ == "__main__":
    raise SystemExit(0 if run_integer_accuracy() else 1)
