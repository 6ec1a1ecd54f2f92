"""The toaster: a dial that knows its household.

    microtune demo toaster [--out build/toaster] [--json]

Trains the factory's 16-neuron network on a synthetic population, compiles it into a device that learns, lets
simulated households live with it, and prints how many of its suggestions they accept. Everything is computed
by the generated C. Households and base network of the test are not those the learner was tuned on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from curves import draw
from world import WORLD, to_dial, train_base

import microtune as mt
from microtune.simulation import PEOPLE, Driver, Person, Uses, live
from microtune.targets.measure import instructions

BASE_SEED = 30  # of the base network under test
HOUSEHOLD_SEED = 20_000  # of the first household under test
HOUSEHOLDS = 30
CHECKPOINTS = (0, 5, 10, 20, 50, 100)
CHANGE_AT = 40
AFTER_CHANGE = (5, 10, 15)  # uses after CHANGE_AT, for those who change
CHANGED = tuple(CHANGE_AT + more for more in (0, *AFTER_CHANGE))
ABSENCE = 90.0  # days
RETURN = range(1, 11)  # uses after an absence
SHOWN = ("consistent", "noisy", "drifting", "abrupt", "weekday_weekend", "two_people", "narrow", "absence", "prankster")
CORES = ("cortex-m0", "cortex-m4", "cortex-m33")

INPUTS = (
    mt.Input("bread (white to rye)", -1.0, 1.0),
    mt.Input("frozen", -1.0, 1.0),
    mt.Input("sine of the hour", -1.0, 1.0),
    mt.Input("cosine of the hour", -1.0, 1.0),
    mt.Input("weekend", -1.0, 1.0),
)


def plans(seed: int = BASE_SEED) -> dict[str, mt.Plan]:
    """The two learners that are compared: ours and the folklore's, on the same base network."""
    graph = mt.load(train_base(seed), name="toaster")
    default = mt.plan(
        graph,
        optimizer=mt.Bayes(),
        learner=mt.Learner(buffer=64, every=1, disuse=730, tolerance=WORLD.tolerance),
        inputs=INPUTS,
        budget=mt.Budget(ram="12KB", flash="32KB"),
    )
    recipe = mt.plan(
        graph,
        learn=mt.Full(),
        optimizer=mt.SGD(lr=0.001),
        learner=mt.Learner(buffer=100, every=20, epochs=3, folds=0, restart=False, tolerance=WORLD.tolerance),
        inputs=INPUTS,
    )
    return {"default": default, "recipe": recipe}


@dataclass(frozen=True)
class Curve:
    """Share of suggestions accepted by each household, {uses: (households,)}."""

    person: str
    accepted: dict[int, np.ndarray]


def follow(
    package: mt.Package, person: str | Person, seed: int, wanted: Iterable[int] = (*CHECKPOINTS, *CHANGED)
) -> dict[int, float]:
    """One household's life with one device: {uses: share of 200 contexts whose suggestion is accepted at the next}."""
    driver, life, done = Driver(package), live(person, WORLD, seed), 0
    uses, found = life.uses(max(wanted) + 1), {}

    def suggest(contexts: np.ndarray) -> np.ndarray:
        return driver.watch(contexts, uses[done].day).answers

    for count in sorted(set(wanted)):
        if count > done:
            driver.live(Uses.of(uses[done:count]), WORLD, "sets")
        done = count
        found[count] = life.accepted(suggest, count)
    return found


def comes_back(package: mt.Package, households: int) -> dict[str, Any]:
    """After 90 days of absence: what the same person accepts at the first use back, and how many uses it takes until
    somebody else accepts 90 % ({uses: share accepted} is ``successor``)."""
    away = replace(PEOPLE["absence"], absence=ABSENCE)
    other = replace(PEOPLE["successor"], absence=ABSENCE)
    after = [CHANGE_AT + more for more in RETURN]
    seeds = range(HOUSEHOLD_SEED, HOUSEHOLD_SEED + households)
    same = np.mean([follow(package, away, seed, [CHANGE_AT])[CHANGE_AT] for seed in seeds])
    lives = [follow(package, other, seed, after) for seed in seeds]
    shares = {str(uses - CHANGE_AT): round(float(np.mean([life[uses] for life in lives])), 4) for uses in after}
    known = next((int(more) for more, share in shares.items() if share >= 0.9), None)
    return {"same_at_first": round(float(same), 4), "successor": shares, "successor_known_after": known}


def simulate(packages: dict[str, mt.Package], households: int, progress: Progress | None) -> dict[str, list[Curve]]:
    """Nine people of the simulator in every household, with every learner; `microtune simulate` knows more."""
    found: dict[str, list[Curve]] = {}
    for learner, package in packages.items():
        task = (
            progress.add_task(f"{households} households with the {learner} learner", total=len(SHOWN))
            if progress
            else None
        )
        curves = []
        for person in SHOWN:
            lives = [follow(package, person, HOUSEHOLD_SEED + number) for number in range(households)]
            curves.append(Curve(person, {uses: np.array([life[uses] for life in lives]) for uses in lives[0]}))
            if progress and task is not None:
                progress.advance(task)
        found[learner] = curves
    return found


def figures(curves: dict[str, list[Curve]], packages: dict[str, mt.Package]) -> dict[str, Any]:
    """What ``--json`` prints."""
    package = packages["default"]
    memory = package.manifest["memory"]

    def shares(each: Curve) -> dict[str, Any]:
        found: dict[str, Any] = {str(uses): round(float(values.mean()), 4) for uses, values in each.accepted.items()}
        found["worst_tenth"] = {
            str(uses): round(float(np.sort(values)[: max(1, len(values) // 10)].mean()), 4)
            for uses, values in each.accepted.items()
        }
        found["after_change"] = {str(more): found[str(CHANGE_AT + more)] for more in AFTER_CHANGE}
        return found

    return {
        "acceptance": {learner: {each.person: shares(each) for each in found} for learner, found in curves.items()},
        "flash": memory["flash"],
        "ram": memory["ram"],
        "stack": memory["stack"],
        "instructions": {core: cost(package, core) for core in CORES},
        "households": len(curves["default"][0].accepted[0]),
        "package": str(package.directory),
    }


def cost(package: mt.Package, core: str) -> dict[str, int]:
    """Instructions of one prediction, and of one whole update (observe and idle), with a full buffer."""
    uses = live("consistent", WORLD, HOUSEHOLD_SEED).uses(70)
    return instructions(package, core, [(use.context, [use.sets]) for use in uses])


def show_life(package: mt.Package, console: Console) -> None:
    """The first ten uses of one household, as they happen."""
    device = mt.Device(package)
    table = Table(title="A household and its new toaster", title_justify="left")
    for column in ("use", "suggested dial", "set by the person", "sure", "accepted"):
        table.add_column(column, justify="right")
    for use in live("consistent", WORLD, HOUSEHOLD_SEED).uses(10):
        found = device.predict(use.context)
        right = bool(WORLD.accepts(found.value[:1], np.array([use.prefers]))[0])
        suggested, dial = (float(to_dial(np.array([value]))[0]) for value in (found.value[0], use.sets))
        answer = "yes" if right else "no"
        table.add_row(str(use.number + 1), f"{suggested:.1f}", f"{dial:.1f}", f"{found.confidence:.0%}", answer)
        device.observe([use.sets])
        device.idle()
    console.print(table)


def show(found: dict[str, Any], console: Console) -> None:
    """The tables people read."""
    for learner, people in found["acceptance"].items():
        title = {
            "default": "Suggestions accepted, %: this learner",
            "recipe": "The same with the folklore recipe",
        }[learner]
        table = Table(title=title, title_justify="left")
        table.add_column("person \\ uses")
        columns = sorted({*CHECKPOINTS, CHANGE_AT + 5, CHANGE_AT + 10})
        for uses in columns:
            table.add_column(
                f"{uses}" if uses in CHECKPOINTS and uses != CHANGE_AT + 10 else f"{uses}*", justify="right"
            )
        for person, shares in people.items():
            table.add_row(person, *(f"{100 * shares[str(uses)]:.0f}" for uses in columns))
        console.print(table)
    console.print(f"* habits change after use {CHANGE_AT}: 'abrupt' and 'narrow' are tested on what is wanted then")
    absence, acceptance = found["absence"], found["acceptance"]["default"]
    loss = acceptance["consistent"]["50"] - acceptance["prankster"]["50"]
    console.print(f"after 90 days of absence, the first use back: {100 * absence['same_at_first']:.0f} % accepted")
    known = absence["successor_known_after"]
    console.print(f"somebody else then: 90 % after {known if known is not None else f'more than {RETURN[-1]}'} uses")
    console.print(f"what a prankster costs after 50 uses: {100 * loss:.1f} points")
    table = Table(title="What it costs", title_justify="left")
    for column in ("core", "a prediction, instructions", "a whole update, instructions"):
        table.add_column(column, justify="right")
    for core, counts in found["instructions"].items():
        table.add_row(core, f"{counts['predict']:,}", f"{counts['update']:,}")
    console.print(table)
    console.print(f"flash {found['flash']:,} bytes: code, runtime and base")
    console.print(f"RAM {found['ram']:,} bytes: all of it, {found['stack']} of them stack")


def demo(out: Path = Path("build/toaster"), as_json: bool = False, households: int = HOUSEHOLDS) -> dict[str, Any]:
    """The whole way, from a trained model to households that are known. Returns the figures."""
    console = Console(stderr=as_json)
    console.print("Training the factory's network and compiling the device ...")
    both = plans()
    packages = {
        "default": mt.build(both["default"], out, targets=["host", "cortex-m4", "wasm32"]),
        "recipe": mt.build(both["recipe"], out.parent / f"{out.name}_recipe"),
    }
    if not as_json:
        show_life(packages["default"], console)
    with Progress(console=console, transient=True) as progress:
        curves = simulate(packages, households, progress)
    found = figures(curves, packages)
    found["absence"] = comes_back(packages["default"], households)
    picture = draw(
        {learner: {each.person: each.accepted for each in lives} for learner, lives in curves.items()},
        out.parent / f"{out.name}_learning.png",
    )
    found["picture"] = str(picture)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show(found, console)
        console.print(f"The C is in {out}/ (start with {out.name}.h); learning curves in {picture}")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/toaster"), help="package directory")
    parser.add_argument("--households", type=int, default=HOUSEHOLDS)
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    chosen = parser.parse_args()
    try:
        demo(chosen.out, chosen.json, chosen.households)
    except mt.MicrotuneError as error:
        sys.exit(f"toaster: {error}")


if __name__ == "__main__":
    main()
