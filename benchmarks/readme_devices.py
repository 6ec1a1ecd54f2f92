"""README's figures of the playlist, the machine listener, nets made small and trees."""

from __future__ import annotations

from textwrap import fill
from typing import Any

PLAYLIST = """\
**The playlist** (`examples/playlist`): all that a music player knows of its listener is 42 numbers, moved by each skip.
Area under the ROC curve over {listeners} simulated listeners, on songs they have never heard; RAM is the whole device,
with {float_stack} and {fixed_stack} bytes of stack besides:

| 42 parameters | RAM | one micro-update | as delivered | after 20 songs |
|---|---|---|---|---|
| floats, Cortex-M4F | {float_ram} bytes | {float_update} instructions | {float_base} | **{float_learnt}** |
| integers, Cortex-M0 | {fixed_ram} bytes | {fixed_update} instructions | {fixed_base} | **{fixed_learnt}** |

"""

MACHINE = (
    "**The machine listener** (`examples/machine`): a real fan, its accelerometer fixed anew. Of its healthy seconds "
    "{before:.0f} % are false alarms at first, and **{after:.1f} %** after 20 windows; of those with a coin on a blade "
    "it finds **{found:.0f} %**. Twenty windows with the coin on, said to be well, are refused in {refused:.0f} % of "
    "trials. That is at low speed, and as good at medium; at high speed it cannot tell the coin "
    "([why](docs/anomaly.md))."
)

SMALL = """\
**Made small** by `microtune shrink` ([how](docs/shrinking.md)): channels pruned, then int8. Accuracy is of test samples
that decided nothing.

| MLPerf Tiny's net, trained on | flash, bytes | weights | instructions, Cortex-M4F | accuracy, % |
|---|---|---|---|---|
{rows}

"""
TRAINED_ON = {"keywords": "keywords, on spoken digits", "images": "images, on handwritten digits"}

TREES = (
    "**Trees**: scikit-learn's forest of ten trees on iris is {iris} bytes on Cortex-M0, code included (emlearn: "
    "1,060), with equal answers; boosted stumps whose leaves learn are accepted by **{accepted:.1f} %** of the "
    "toaster's households after 20 uses ([how](docs/trees.md))."
)


def _paragraph(text: str) -> str:
    return fill(text, 120, break_on_hyphens=False, break_long_words=False) + "\n\n"


def _playlist(found: dict[str, Any]) -> str:
    figures: dict[str, str] = {}
    for kind, name in (("float", "float"), ("integers", "fixed")):
        row, cost = found[kind], found[kind]["cost"]
        figures[f"{name}_ram"], figures[f"{name}_update"] = f"{cost['ram']:,}", f"{cost['update']:,}"
        figures[f"{name}_stack"] = f"{cost['stack']:,}"
        figures[f"{name}_base"] = f"{row['base']['20']['area']:.3f}"
        figures[f"{name}_learnt"] = f"{row['learnt']['20']['area']:.3f}"
    return PLAYLIST.format(listeners=found["listeners"], **figures)


def _machine(found: dict[str, Any]) -> str:
    case = found["cases"]["low"]["features"]
    text = MACHINE.format(
        before=case["before"], after=case["false_alarms"], found=case["found"], refused=case["coin_refused"]
    )
    return _paragraph(text)


def _small(found: dict[str, Any]) -> str:
    rows = []
    for name, net in found.items():
        first = net["steps"][0]
        last = next(row for row in net["steps"] if row["step"] == net["best"] and row["kept"])
        sizes = (f"{first[key]:,} to **{last[key]:,}**" for key in ("flash", "weights", "instructions"))
        rows.append(f"| {TRAINED_ON[name]} | {' | '.join(sizes)} | {first['test']:.1f} to {last['test']:.1f} |")
    return SMALL.format(rows="\n".join(rows))


def _trees(found: dict[str, Any]) -> str:
    iris = found["equal"]["iris, forest of 10, depth 6"]["cortex-m0"]["flash"]
    accepted = found["households"]["Leaves()"]["consistent"]["20"]
    return _paragraph(TREES.format(iris=f"{iris:,}", accepted=accepted))


def devices(results: dict[str, Any]) -> str:
    """The paragraphs, of what was measured."""
    parts = {"playlist": _playlist, "machine": _machine, "shrinking": _small, "trees": _trees}
    return "".join(write(results[section]) for section, write in parts.items() if section in results)
