"""Tables of pages in docs and examples, written between marks from ``results.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bayes import SECTION as BAYES_SECTION
from benchmarks.bayes import bayes_table
from benchmarks.change import change_tables
from benchmarks.chip import chip_tables
from benchmarks.cmsis_nn import SECTION as CMSIS_NN_SECTION
from benchmarks.cmsis_nn import cmsis_nn_table
from benchmarks.example_pages import camera_table, heart_table, speaker_tables, thermostat_table
from benchmarks.forgetting import JUDGED, MEANS, MEMORIES, text
from benchmarks.integer_accuracy import SECTION as ACCURACY
from benchmarks.integer_accuracy import integers_tables
from benchmarks.joint_search import SECTION as JOINT_SECTION
from benchmarks.joint_search import joint_search_table
from benchmarks.machine import SECTION as MACHINE_SECTION
from benchmarks.machine import machine_table
from benchmarks.playlist import playlist_tables
from benchmarks.shrinking_page import SECTIONS as SHRINKING_SECTIONS
from benchmarks.shrinking_page import shrinking_page
from benchmarks.trees import SECTION as TREES_SECTION
from benchmarks.trees import trees_tables
from microtune.targets.catalogue import targets
from microtune.targets.power import with_unit

DOCS, EXAMPLES = Path(__file__).parent.parent / "docs", Path(__file__).parent.parent / "examples"
MEMORY, POWER, HEADS = DOCS / "memory.md", DOCS / "power.md", DOCS / "heads.md"
FORGETTING = DOCS / "forgetting.md"
CHANGE, SENSORS, CHIP = DOCS / "change.md", DOCS / "sensors.md", DOCS / "chip.md"
CMSIS_NN, TARGETS, INTEGERS = DOCS / "cmsis_nn.md", DOCS / "targets.md", DOCS / "integers.md"
BEGIN, STOP = "<!-- measured: written by benchmarks/readme.py -->\n", "<!-- end of what was measured -->\n"

SCHEME_TABLE = """\
| net | scheme | arena | learns | a step in all | lower bound | device struct | extra, KiB: published / here |
|---|---|---|---|---|---|---|---|
{rows}

"Extra" is the paper's own count: weights that learn, biases, masks, and inputs of the layers that learn. The generator
published with these nets plans **{published}** bytes in all for MCUNet-5FPS, 49kb (arena, kernel buffers and what
learns); the same scheme here takes **{anchor}**. What each measure is worth there, left out one at a time:

| MCUNet-5FPS, 49kb | a step in all, bytes |
|---|---|
{ablation}

As a device, with the stack at its worst, it takes **{ram}** bytes of RAM and {flash} of flash. With
`precision="float32"` its struct would take {float32}.
"""

POWER_TABLES = """\
| core | typical of | cycles per instruction | **an instruction** | source |
|---|---|---|---|---|
{figures}

| the toaster on | clock | a prediction: instructions, time, energy | an update | its longest slice | slices |
|---|---|---|---|---|---|
{costs}
"""

HEADS_TABLES = """\
| | base | SGD | MAP | SLDA |
|---|---|---|---|---|
{classes}

| likes | SGD | Logistic |
|---|---|---|
{likes}

| on an int8 base | with a float head | in integers |
|---|---|---|
{integers}

| instructions of a sample | Cortex-M0, floats | in integers | Cortex-M3, floats | in integers |
|---|---|---|---|---|
{costs}
"""

SENSORS_TABLES = """\
Healthy people, uses with any flag; fewer than 1 in 1000 is wanted:

| world | uses | flagged |
|---|---|---|
{healthy}

The dying sensor of the [simulator](simulation.md), 60 lives in each of the first three worlds. It drifts by 0.02
standard deviations a use, within its everyday range, and stands still 100 uses later:

| sensor | lives | found | at the latest, at its |
|---|---|---|---|
| of few values (bread, frozen, weekend, alcohol) | {few[lives]} | {few[found]} | use {few[latest]} of drifting |
| any other (hour, outdoors, motion, ...) | {other[lives]} | {other[found]} | use {other[latest]} of standing still |

A normally distributed input that jumps by k standard deviations, 1000 such inputs; uses until found, of 200. Below 5 no
promise is made:

| k | learnt from | median | 99 % | all |
|---|---|---|---|---|
{jumps}

Recognised after ten uses of each, chosen by hand, 20 households:

| who | right |
|---|---|
{recognised}

The last is what one mean and variance cannot tell well: an arc of 17 hours, side by side with one of 7.

| instructions, the most of any use looked at | Cortex-M0, which has no floating-point unit | Cortex-M4F |
|---|---|---|
| a check, for each input | {m0[check]:,} | {m4[check]:,} |
| a choice between two profiles by five inputs | {m0[choice]:,} | {m4[choice]:,} |

Code of the checks is {code[sensors]:,} bytes, of the recognition {code[recognition]:,}.
"""

FORGETTING_TABLES = """\
| one digit after the other | after 50 samples | after 100 |
|---|---|---|
{once}

| longer than the ring: after 200 samples | long runs | twice over |
|---|---|---|
{longer}

| the wearer's updates | gain after 20 | after 50 | harmed after 5 | after 20 | after 50 | the others lose by then |
|---|---|---|---|---|---|---|
{judged}
"""

LEFT_OUT = {
    "everything": "nothing left out",
    "depthwise not in place": "without depthwise in place",
    "nothing in place": "without anything in place",
    "bottlenecks layer by layer": "without row fusion of the frozen stem",
    "updates after the backward pass": "without updates at once: all after the backward pass",
    "without reordering": "without reordering",
}


def anchor(results: dict[str, Any]) -> str:
    """Bytes of a training step of MCUNet-5FPS under scheme 49kb."""
    rows = results["training memory"]["schemes"]
    return f"{next(row['total'] for row in rows if (row['net'], row['scheme']) == ('mcunet-5fps', '49kb')):,}"


def scheme_table(results: dict[str, Any]) -> str:
    """The published schemes for docs/memory.md."""
    memory, devices = results["training memory"], results["training devices"]
    rows = [
        f"| {row['net']} | {row['scheme']} | {row['arena']:,} | {row['trainables']:,} | **{row['total']:,}** "
        f"| {row['total_bound']:,} | {devices['struct'][' '.join((row['net'], row['scheme']))]:,} "
        f"| {row['published_kib']} / {row['extra_kib']} |"
        for row in memory["schemes"]
    ]
    parts = sorted(memory["ablation"].items(), key=lambda item: item[1])
    return SCHEME_TABLE.format(
        rows="\n".join(rows),
        published=f"{memory['published']:,}",
        anchor=anchor(results),
        ablation="\n".join(f"| {LEFT_OUT[name]} | {size:,} |" for name, size in parts),
        ram=f"{devices['anchor']['ram']:,}",
        flash=f"{devices['anchor']['flash']:,}",
        float32=f"{devices['anchor_float32']:,}",
    )


def power_tables(results: dict[str, Any]) -> str:
    """The catalogue's figures and what the toaster takes for docs/power.md."""
    known = {each.name: each.power for each in targets() if each.power is not None}
    figures = [
        f"| {core} | {power.text} | {power.cycles:g} | **{with_unit(power.joules, 'J')}** | {power.source} |"
        for core, power in known.items()
    ]
    costs = [
        f"| {core} | {with_unit(row['clock'], 'Hz')} | {_work(row['predict'])} | {_work(row['update'])} "
        f"| {_work(row['slice'])} | {row['slices']} |"
        for core, row in ((core, results["power"][core]) for core in known)
    ]
    return POWER_TABLES.format(figures="\n".join(figures), costs="\n".join(costs))


def _work(row: dict[str, Any]) -> str:
    return f"{row['instructions']:,}, {with_unit(row['seconds'], 's')}, **{with_unit(row['joules'], 'J')}**"


def heads_tables(results: dict[str, Any]) -> str:
    """What each head reaches for docs/heads.md; the base is the same for all of them."""
    heads = results["heads"]
    speaker, wearer, likes = heads["speaker"], heads["wearer"], heads["likes"]

    def said(order: str, head: str, count: str) -> str:
        reached = speaker[f"{order}: {head}"]
        return f"{reached['own'][count]:.1f} ({reached['others'][count]:.1f})"

    def worn(head: str, count: str) -> str:
        return f"{wearer[head]['own'][count]:.1f}"

    def row(name: str, *cells: str) -> str:
        return f"| {' | '.join((name, *cells))} |"

    names, heard, moved = ("SGD", "MAP", "SLDA"), said("any order", "SGD", "0"), worn("SGD", "0")
    classes = [
        row("speaker, 20 samples in any order", heard, *(said("any order", name, "20") for name in names)),
        row("the same, 50 samples", heard, *(said("any order", name, "50") for name in names)),
        row("the same, 100 samples, digit by digit", heard, *(said("digit by digit", name, "100") for name in names)),
        row("accelerometer mounted otherwise, 5 samples", moved, *(worn(name, "5") for name in names)),
        row("the same, 20 samples", moved, *(worn(name, "20") for name in names)),
        row("the same, 50 samples", moved, *(worn(name, "50") for name in names)),
    ]
    tastes = [
        row(f"tastes that {what}, {count} answers", *(f"{likes[name][key][count]:.1f}" for name in ("SGD", "Logistic")))
        for key, what in (("steady", "stay"), ("changing", "change"))
        for count in ("20", "100")
    ]
    fixed = results["heads in integers"]
    kinds = ("float32", "integers")

    def both(place: str, name: str, what: str, count: str) -> list[str]:
        cells = []
        for kind in kinds:
            found = fixed["places"][place][f"{name}, {kind}"]
            others = f" ({found['others'][count]:.1f})" if "others" in found else ""
            cells.append(f"{found[what][count]:.1f}{others}")
        return cells

    integers = [
        *(
            row(f"speaker, {title}, {name}", *both("speaker", f"{order}: {name}", "own", count))
            for name in ("MAP", "SLDA")
            for title, order, count in (
                ("50 samples", "any order", "50"), ("100 digit by digit", "digit by digit", "100"),
            )
        ),
        *(row(f"accelerometer, 50 samples, {name}", *both("wearer", name, "own", "50")) for name in ("MAP", "SLDA")),
        *(
            row(f"tastes that {title}, 100 answers, Logistic", *both("likes", "Logistic", key, "100"))
            for key, title in (("steady", "stay"), ("changing", "change"))
        ),
    ]  # fmt: skip
    counts = fixed["instructions"]
    costs = [
        row(name, *(f"{counts[core][name][kind]:,}" for core in ("cortex-m0", "cortex-m3") for kind in kinds))
        for name in counts["cortex-m0"]
    ]
    return HEADS_TABLES.format(
        classes="\n".join(classes), likes="\n".join(tastes), integers="\n".join(integers), costs="\n".join(costs)
    )


def sensors_tables(results: dict[str, Any]) -> str:
    """Sensors suspected and people recognised for docs/sensors.md."""
    sensors = results["sensors"]
    healthy, wearers, right = sensors["healthy"], sensors["wearers"], sensors["recognised"]
    instructions = sensors["cost"]["instructions"]

    def row(*cells: object) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    def lived(name: str, found: dict[str, int]) -> str:
        return row(name, f"{found['uses']:,}", f"{found['flagged']:,}")

    def needed(uses: int | None) -> str:
        return "over 200" if uses is None else str(uses)

    names = {
        "0": "wearer: {people} people of WISDM, {inputs} inputs, new to the constants, windows in order",
        "300": "the same, constants from 300 windows of other people",
        "100": "the same, from 100",
    }
    hours = right["hours"]
    who = [
        *((f"at {each} h, give or take half an hour", hours[each]) for each in ("7, 18", "7, 12", "23.5, 6")),
        *((f"at {each} h", hours[each]) for each in ("7, 12.5, 19", "7, 9.5", "7, 9", "7, 8")),
        ("toaster, one by day and one in the evening", right["toaster"]),
        ("thermostat, one from 17 to 24 h, the other all the rest", right["thermostat"]),
    ]
    return SENSORS_TABLES.format(
        healthy="\n".join(
            [
                lived(f"{name}: {found['people']} people of the simulator, two years", found)
                for name, found in healthy.items()
            ]
            + [lived(text.format(**wearers[count]), wearers[count]) for count, text in names.items()]
        ),
        few=sensors["dying"]["few"],
        other=sensors["dying"]["other"],
        jumps="\n".join(
            row(k, f"{count} samples", *map(needed, sensors["jumps"][k][count]))
            for k in ("5", "6", "8")
            for count in ("1000", "5000")
        ),
        recognised="\n".join(row(name, f"{share:.1f} %") for name, share in who),
        m0=instructions["cortex-m0"],
        m4=instructions["cortex-m4"],
        code=sensors["cost"]["code"],
    )


def forgetting_tables(results: dict[str, Any]) -> str:
    """What each means against forgetting is worth for docs/forgetting.md."""
    speaker, wearer = results["forgetting"]["speaker"], results["forgetting"]["wearer"]

    def right(reached: dict[str, Any], count: str) -> str:
        return f"{reached['own'][count]:.1f} ({reached['others'][count]:.1f})"

    untouched = right(speaker["once"][text(MEANS[0])], "0")
    once = [f"| the base, nothing learnt | {untouched} | {untouched} |"]
    for name in map(text, MEANS):
        reached = speaker["once"][name]
        once.append(f"| `{name}` | {right(reached, '50')} | {right(reached, '100')} |")
    longer = [
        f"| `{name}` | {right(speaker['long runs'][name], '200')} | {right(speaker['twice over'][name], '200')} |"
        for name in map(text, MEMORIES)
    ]
    judged = [
        f"| `{name}` | {row['gain']['20']:.1f} | {row['gain']['50']:.1f} | {row['harmed']['5']:.1f} "
        f"| {row['harmed']['20']:.1f} | {row['harmed']['50']:.1f} | {row['others_lose']['50']:.1f} |"
        for name, row in ((name, wearer[name]) for name in map(text, JUDGED))
    ]
    return FORGETTING_TABLES.format(once="\n".join(once), longer="\n".join(longer), judged="\n".join(judged))


def stack_table(results: dict[str, Any]) -> str:
    """Stacks measured and bounded, for docs/targets.md."""
    found = results["stack"]
    cores = list(next(iter(found.values())))
    head = ["| stack in bytes: measured, bound | " + " | ".join(cores) + " |", "|---" * (len(cores) + 1) + "|"]
    rows = []
    for name, row in found.items():
        cells = (f"{row[core]['measured']}, {row[core]['bound']}" for core in cores)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    worst = max(each["times"] for row in found.values() for each in row.values())
    return "\n".join([*head, *rows]) + f"\n\nAt most {worst:g} times what was measured.\n"


PAGES: dict[Path, tuple[tuple[str, ...], Callable[[dict[str, Any]], str]]] = {
    MEMORY: (("training memory", "training devices"), scheme_table),
    POWER: (("power",), power_tables),
    HEADS: (("heads", "heads in integers"), heads_tables),
    FORGETTING: (("forgetting",), forgetting_tables),
    CHANGE: (("change",), change_tables),
    SENSORS: (("sensors",), sensors_tables),
    TARGETS: (("stack",), stack_table),
    CHIP: (("dense",), chip_tables),
    INTEGERS: (("integers", ACCURACY), integers_tables),
    CMSIS_NN: ((CMSIS_NN_SECTION,), cmsis_nn_table),
    DOCS / "bayes.md": ((BAYES_SECTION,), bayes_table),
    DOCS / "shrinking.md": (SHRINKING_SECTIONS, shrinking_page),
    DOCS / "search.md": ((JOINT_SECTION,), joint_search_table),
    DOCS / "trees.md": ((TREES_SECTION,), trees_tables),
    DOCS / "anomaly.md": ((MACHINE_SECTION,), machine_table),
    EXAMPLES / "playlist" / "README.md": (("playlist",), playlist_tables),
    EXAMPLES / "machine" / "README.md": ((MACHINE_SECTION,), machine_table),
    EXAMPLES / "heart" / "README.md": (("heart",), heart_table),
    EXAMPLES / "thermostat" / "README.md": (("thermostat",), thermostat_table),
    EXAMPLES / "camera" / "README.md": (("camera",), camera_table),
    EXAMPLES / "speaker" / "README.md": (("speaker",), speaker_tables),
}
"""Of each page: the sections of results.json it needs, and what writes its tables."""


def rewritten_page(path: Path, page: str, results: dict[str, Any]) -> str:
    """The text of a page with what lies between its marks replaced."""
    _, tables = PAGES[path]
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(STOP)
    return head + BEGIN + "\n" + tables(results) + "\n" + STOP + tail


def rewrite_pages(results: dict[str, Any]) -> None:
    """Bring them up to date, but for what was never measured."""
    for path, (sections, _) in PAGES.items():
        if all(section in results for section in sections):
            path.write_text(rewritten_page(path, path.read_text(), results))
