"""Changes of habits, found by the C (``mt_change.h``); docs/change.md shows the figures.

    python -m benchmarks.change

Streams of uses with known labels through mt_samples and mt_change alone (``change.c``), and whole lamps (``lamp.py``).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import microtune as mt
from benchmarks.lamp import lamp, lamp_plan
from benchmarks.results import record
from microtune.compiler.sources import runtime_directory
from microtune.simulation import simulate
from microtune.targets.emulator import Emulator
from microtune.targets.image import read_image
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.size import image_size
from microtune.targets.stack import stack_bounds
from microtune.toolchain import compile_image, compile_library

RUNTIME = runtime_directory()
SOURCES = (RUNTIME / "mt_change.c", RUNTIME / "mt_samples.c", Path(__file__).parent / "change.c")
WRONG = (0.0, 0.1, 0.2)
STEADY, BLOCKS, SWAPS, AT, LAMPS = 20, 20, 60, 100, 60
PEOPLE = ("abrupt", "narrow", "drifting", "consistent", "noisy", "prankster")
ALARMS = 2.0
"""At most so many false alarms in 1000 uses, of anybody measured here."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Stream:
    """Uses: cuts (n, cut), labels (n,), and how many labels there are; two are yes and no."""

    cuts: NDArray[np.float32]
    labels: NDArray[np.int64]
    kinds: int


Draw = Callable[[Rng, int], Stream]


def clusters(kinds: int, cut: int, apart: float) -> Draw:
    """One cloud for each class; ``apart`` is the usual distance of two of them, in standard deviations."""

    def draw(rng: Rng, uses: int) -> Stream:
        centres = rng.normal(0.0, apart / math.sqrt(2.0 * cut), (kinds, cut))
        labels = rng.integers(kinds, size=uses)
        return Stream((centres[labels] + rng.normal(size=(uses, cut))).astype(np.float32), labels, kinds)

    return draw


def toast(rng: Rng, uses: int) -> Stream:
    """Yes on one side of a plane through a toaster's contexts."""
    meals = 2.0 * math.pi / 24.0 * np.where(rng.random(uses) < 0.65, 7.5, 18.5) + 0.2 * rng.normal(size=uses)
    bread, frozen = rng.choice((-1.0, -1 / 3, 1 / 3, 1.0), uses), np.where(rng.random(uses) < 0.25, 1.0, -1.0)
    weekend = np.where(rng.random(uses) < 2 / 7, 1.0, -1.0)
    cuts = np.stack([bread, frozen, np.sin(meals), np.cos(meals), weekend], axis=1)
    yes = cuts @ rng.normal(size=5) + 0.5 * rng.normal() > 0.0
    return Stream(cuts.astype(np.float32), yes.astype(np.int64), 2)


def careless(rng: Rng, stream: Stream, share: float) -> Stream:
    """So many labels are another one, any with the same chance."""
    wrong = rng.random(len(stream.labels)) < share
    other = (stream.labels + rng.integers(1, stream.kinds, len(wrong))) % stream.kinds
    return replace(stream, labels=np.where(wrong, other, stream.labels))


def by_class(stream: Stream) -> Stream:
    """The same uses, a block of each label after the other, round and round."""
    of = [np.flatnonzero(stream.labels == label) for label in range(stream.kinds)]
    longest = max(map(len, of))
    order = np.concatenate([each[i : i + BLOCKS] for i in range(0, longest, BLOCKS) for each in of])
    return replace(stream, cuts=stream.cuts[order], labels=stream.labels[order])


STAYING = {"six": clusters(6, 16, 5.0), "three": clusters(3, 16, 4.0), "yes or no": toast}
"""Who stays the same: six classes 5 deviations apart, three that overlap, and yes or no. Ring of 64."""

CHANGING: dict[str, tuple[Draw, int]] = {
    "six": (clusters(6, 16, 8.0), 0),
    "six, reservoir": (clusters(6, 16, 8.0), 64),
    "ten, reservoir": (clusters(10, 64, 10.0), 64),
    "three": (clusters(3, 16, 4.0), 0),
    "yes or no": (toast, 0),
}
"""Whose labels 0 and 1 change places, and how many samples a reservoir keeps beside the ring of 64."""


@dataclass(frozen=True)
class Find:
    """At which use, and of the older samples by label how many there were before and after."""

    use: int
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def found(machine: Machine, stream: Stream, reservoir: int = 0, since: int = 0) -> list[Find]:
    """Every change found in a stream; ``since``: only the first from that use on."""
    room = machine.allocate(machine.call("life_size"))
    cuts, labels = machine.allocate(stream.cuts.nbytes), machine.allocate(4 * len(stream.labels))
    machine.write(cuts, stream.cuts.tobytes())
    machine.write(labels, stream.labels.astype("<f4").tobytes())
    machine.call("life_begin", room, stream.cuts.shape[1], stream.kinds, 64, reservoir)
    finds = []
    for use in range(len(stream.labels)):
        machine.call("life_add", room, cuts + 4 * use * stream.cuts.shape[1], labels + 4 * use)
        run = machine.call("life_observe", room)
        if run:
            older = [np.array([machine.call("life_older", room, label, run) for label in range(stream.kinds)])]
            machine.call("life_forget", room, run)
            older += [np.array([machine.call("life_older", room, label, run) for label in range(stream.kinds)])]
            if use >= since:
                finds.append(Find(use, *older))
            if since and finds:
                break
    return finds


def false_alarms(machine: Machine) -> dict[str, Any]:
    """In 1000 uses of somebody who stays the same, the mean of STEADY lives: in any order, and in blocks of a label."""

    def mean(draw: Draw, share: float, sort: bool) -> float:
        alarms = 0
        for seed in range(STEADY):
            rng = np.random.default_rng(seed)
            stream = careless(rng, draw(rng, 1000), share)
            alarms += len(found(machine, by_class(stream) if sort else stream))
        return round(alarms / STEADY, 2)

    return {
        order: {
            f"{share:.0%}": {name: mean(draw, share, order == "blocks") for name, draw in STAYING.items()}
            for share in WRONG[: 3 if order == "any order" else 2]
        }
        for order in ("any order", "blocks")
    }


def swaps(machine: Machine) -> dict[str, Any]:
    """Uses of the two labels until their swap is known: median (None: of more than half it never was), per cent never
    found within AT uses; per cent dropped of the older samples of the two labels, and of the others."""

    def row(draw: Draw, reservoir: int, share: float) -> dict[str, Any]:
        needed, stale, others = [], [], []
        for seed in range(SWAPS):
            rng = np.random.default_rng(1000 + seed)
            stream = draw(rng, 2 * AT)
            concerned = (stream.labels < 2) & (np.arange(2 * AT) >= AT)
            stream = replace(stream, labels=np.where(concerned, 1 - stream.labels, stream.labels))
            first = found(machine, careless(rng, stream, share), reservoir, AT)
            needed.append(math.inf)
            for each in first:
                gone = each.before - each.after
                needed[-1] = float(concerned[: each.use + 1].sum())
                stale.append(gone[:2].sum() / each.before[:2].sum())
                others.append(gone[2:].sum() / max(1, each.before[2:].sum()))
        median = float(np.median(needed))
        return {
            "median": None if math.isinf(median) else math.ceil(median),
            "never": _percent(np.mean(np.isinf(needed))),
            "overtaken dropped": _percent(np.mean(stale)),
            "others dropped": _percent(np.mean(others)),
        }

    return {f"{share:.0%}": {name: row(*each, share) for name, each in CHANGING.items()} for share in WRONG}


def _percent(share: Any) -> float:
    return round(100.0 * float(share), 1)


def lamps(folder: Path) -> dict[str, Any]:
    """Per cent of suggestions accepted in 40 days at 3 uses, and of people harmed, without and with ``changes``."""
    rows: dict[str, Any] = {}
    for name in ("levels", "switch"):
        world = lamp(name)
        packages = [mt.build(lamp_plan(world, changes), folder / f"{name}{changes}") for changes in (False, True)]
        rows[name] = {}
        for person in PEOPLE:
            without, watching = (simulate(each, world, person, days=40.0, devices=LAMPS) for each in packages)
            rows[name][person] = {
                "accepted": [_percent(each.accepted) for each in (without, watching)],
                "harmed": [_percent(each.harmed) for each in (without, watching)],
            }
    return rows


def cost(folder: Path) -> dict[str, Any]:
    """Instructions of a use on Cortex-M4F with 64 samples kept, of the forgetting, bytes of code and stack."""
    image = compile_image(SOURCES, [RUNTIME], folder / "change.elf", "cortex-m4", strict=True)
    mine = compile_image(SOURCES[1:2], [RUNTIME], folder / "samples.elf", "cortex-m4", strict=True)
    theirs = {each.name for each in image_size(mine).symbols}
    code = sum(
        each.size for each in image_size(image).symbols if each.name not in theirs and not each.name.startswith("life_")
    )
    bounds = stack_bounds(read_image(image), ["mt_change_observe", "mt_change_forget"])
    rows = {}
    for cut in (5, 16, 64):
        machine = Emulator(image, "cortex-m4")
        stream = clusters(6, cut, 8.0)(np.random.default_rng(1), 140)
        after = np.where((stream.labels < 2) & (np.arange(140) >= 80), 1 - stream.labels, stream.labels)
        room, given, label = (machine.allocate(each) for each in (machine.call("life_size"), 4 * cut, 4))
        machine.call("life_begin", room, cut, 6, 64, 0)
        usual: list[int] = []
        contradicted: list[int] = []
        forgetting = 0
        for use in range(140):
            machine.write(given, stream.cuts[use].tobytes())
            machine.write(label, np.float32(after[use]).tobytes())
            machine.call("life_add", room, given, label)
            if use < 64:
                machine.call("life_observe", room)
                continue
            taken = machine.measure("life_observe", room)
            (usual if after[use] == stream.labels[use] else contradicted).append(taken.instructions)
            if taken.result:
                forgetting = machine.measure("life_forget", room, taken.result).instructions
                break
        rows[str(cut)] = {"use": max(usual), "contradiction": max(contradicted), "forgetting": forgetting}
    return {"instructions": rows, "code": code, "stack": max(each.size for each in bounds.values())}


def measured() -> dict[str, Any]:
    """All figures of docs/change.md."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        machine = HostMachine(compile_library(SOURCES, [RUNTIME], folder / "change.so", strict=True))
        return {
            "false alarms": false_alarms(machine),
            "swaps": swaps(machine),
            "lamps": lamps(folder),
            "cost": cost(folder),
        }


def run_change() -> bool:
    """All of it; False when somebody who stays the same raises too many alarms."""
    figures = measured()
    record("change", figures)
    alarms = [each for order in figures["false alarms"].values() for row in order.values() for each in row.values()]
    print("\nchange of habits: false alarms in 1000 uses, of those who raise most")
    print(f"  {max(alarms):6.2f}   <= {ALARMS}")
    return bool(max(alarms) <= ALARMS)


CHANGE_TABLES = """\
False alarms in 1000 uses of somebody who stays the same: 20 lives of 1000 uses each, ring of 64.

| wrong labels | six classes, 5 deviations apart | three that overlap, 4 apart | yes/no in a toaster's contexts |
|---|---|---|---|
{alarms}

Uses of the two labels until their swap is known, 60 lives, ring of 64, change at use 100: median; share never found in
100 uses. In brackets, of the older samples of the two labels the share dropped, and of the others.

| wrong labels | six, 8 apart | and a reservoir of 64 | ten, 10 apart, and a reservoir | three, overlap | yes/no flips |
|---|---|---|---|---|---|
{swaps}

Classes have 16 inputs, the ten have 64.

What it is worth in a whole device, without and with `changes`: share of suggestions accepted in 40 days, 3 uses a day,
60 lamps each, and share of the lamps harmed (accepted less often than their base, by more than a point). A lamp
(`benchmarks/lamp.py`) has three inputs, `Full`, SGD, `buffer=64, every=2, epochs=4, folds=4`. The first two people
change at use 40, the third a little all the time, the others never.

| % | {people} |
|---|---|---|---|---|---|---|
{lamps}

Instructions on a Cortex-M4F with 64 samples kept, the most of any use looked at:

| cut of | a use | a use that contradicts | once, to drop what is overtaken |
|---|---|---|---|
{instructions}

Code {code:,} bytes, stack {stack} bytes.
"""


def change_tables(results: dict[str, Any]) -> str:
    """What looking for changes finds, does and takes for docs/change.md."""
    change = results["change"]
    alarms, swaps, lamps, cost = (change[part] for part in ("false alarms", "swaps", "lamps", "cost"))
    people = ("abrupt", "narrow", "drifting", "consistent", "noisy", "prankster")

    def row(name: str, *cells: str) -> str:
        return f"| {' | '.join((name, *cells))} |"

    def wrong(share: str) -> str:
        return "none" if share == "0%" else share.replace("%", " %")

    def swap(found: dict[str, Any]) -> str:
        median = "over 100" if found["median"] is None else found["median"]
        return f"{median}; {found['never']:.0f} % ({found['overtaken dropped']:.0f} %, {found['others dropped']:.0f} %)"

    return CHANGE_TABLES.format(
        alarms="\n".join(
            row(wrong(share) + where, *(f"{found[name]:g}" for name in ("six", "three", "yes or no")))
            for order, where in (("any order", ""), ("blocks", ", in blocks of 20 of a label"))
            for share, found in alarms[order].items()
        ),
        swaps="\n".join(
            row(
                wrong(share),
                *(swap(found[name]) for name in ("six", "six, reservoir", "ten, reservoir", "three")),
                swap(found["yes or no"]).replace(", 0 %)", ")"),  # it has no other labels
            )
            for share, found in swaps.items()
        ),
        people=" | ".join(people),
        lamps="\n".join(
            row(f"{text}, {what}", *("{:.1f} to {:.1f}".format(*lamps[world][person][what]) for person in people))
            for world, text in (("levels", "three levels"), ("switch", "on or off"))
            for what in ("accepted", "harmed")
        ),
        instructions="\n".join(
            row(
                f"{cut} floats",
                *(f"{cost['instructions'][cut][what]:,}" for what in ("use", "contradiction", "forgetting")),
            )
            for cut in ("5", "16", "64")
        ),
        code=cost["code"],
        stack=cost["stack"],
    )


if __name__ == "__main__":
    print(json.dumps(measured(), indent=2))
