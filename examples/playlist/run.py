"""The playlist: a music player whose whole idea of its owner is 42 numbers.

    microtune demo playlist [--out build/playlist] [--json]

A larger network learns from a synthetic listening population and teaches the 42 numbers that the factory ships. Then
people nobody has seen listen: each song that is skipped or heard to the end is one micro-update, by the generated C.
What is shown is a morning run, a session as it happens, and how well the player knows a hundred people after 20
songs, in floats (the Bayesian logistic head) and in integers only.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from integers import stored
from network import LEARN, SLOTS, graph
from player import HISTORY, SKIPS, Play, Player, session
from teacher import Parameters, factory, songs_of
from trial import COUNTS, Trial, known, learn, trial
from words import describe, numbers, tell
from world import FEATURES, Array, Song, draw_listener
from world import SLOTS as TIMES

import microtune as mt
from microtune.targets.measure import micro_updates

BASE_SEED = 30  # of the population that teaches the factory
SONG_SEED = 530  # of the songs that are heard under test
LISTENER_SEED = 20_000  # of the first listener under test
LISTENERS = 100
SHOWN_LISTENER = LISTENER_SEED + 7_000  # whose first session is shown; none of the hundred
RATE = 0.1
LEARNER = mt.Learner(buffer=1, every=1, epochs=1, folds=0, restart=False, in_place=True, changes=False)
"""One micro-update for each song, at once and in place; the newest song is all that is kept of it."""
KINDS = {"float": "cortex-m4", "integers": "cortex-m0"}
"""The two players, and the core on which each is counted."""

INPUTS = (
    *(mt.Input(name, -1.0, 1.0) for name in FEATURES),
    *(mt.Input(name, -6.0, 2.0) for name in (*HISTORY, *SKIPS)),
    *(mt.Input(name, 0.0, 1.0) for name in TIMES),
)


def plans(parameters: Parameters, calibration: Array) -> dict[str, mt.Plan]:
    """The two players of the same 42 numbers; ``calibration`` (n, 24), inputs as they come, sets the scales of int8."""
    return {
        "float": mt.plan(
            graph(parameters), learn=mt.Full(), loss="binary_cross_entropy", optimizer=mt.Logistic(), learner=LEARNER,
            inputs=INPUTS,
        ),
        "integers": mt.plan(
            stored(parameters, calibration), learn=LEARN, loss="binary_cross_entropy", optimizer=mt.SGD(lr=RATE),
            learner=LEARNER, inputs=INPUTS, precision="int8",
        ),
    }  # fmt: skip


# The morning run of the classic example

ACOUSTIC_AND_SLOW = Song(
    "an acoustic, slow song", 3, np.array([0.1, -0.9, -0.9, 0.9, -0.4, -0.8, -0.5, 0.3, -0.2, -0.3]), 200.0
)
MORNING_SLOT, SCORE, SECONDS = 1, 0.85, 3.0


def calm_mornings() -> Parameters:
    """42 numbers of a player that believes in calm mornings: it gives the acoustic, slow song 0.85."""
    taste = np.array([0.2, -0.3, -0.3, 0.5, 0.2, 0.0, -0.3, -0.2, -0.1, 0.5])
    history, skips = np.array([0.6, 0.2, 0.2, -0.2]), np.array([-0.3, -0.4, -0.3, -0.1])
    own = {"mood": 2.0 * np.ones(10), "history": 2.0 * np.ones(4), "skip": 2.0 * np.ones(4), "time": np.zeros(6)}
    inputs = Player().inputs(ACOUSTIC_AND_SLOW, MORNING_SLOT)
    scoring = np.concatenate([taste, history, skips])
    scoring *= np.log(SCORE / (1.0 - SCORE)) / (2.0 * scoring @ inputs[:-SLOTS])
    return {name: values.astype(np.float32) for name, values in {**own, "scoring": scoring}.items()}


@dataclass(frozen=True)
class Run:
    """What happened on the morning run: the score when the song came up, what the 42 numbers alone give it after the
    skip, and what it would get now that the player also knows of that skip; and what was said."""

    first: float
    learnt: float
    now: float
    said: list[str]


def morning_run(package: mt.Package, plan: mt.Plan) -> Run:
    """It is morning; the acoustic, slow song is suggested, and skipped after three seconds."""
    device, player = mt.Device(package), Player()
    inputs, before = player.inputs(ACOUSTIC_AND_SLOW, MORNING_SLOT), numbers(device, plan)
    first = float(device.predict(inputs).value[0])
    device.observe([0.0])
    device.idle()
    player.add(ACOUSTIC_AND_SLOW, SECONDS)
    learnt, now = (
        float(device.predict(each).value[0]) for each in (inputs, player.inputs(ACOUSTIC_AND_SLOW, MORNING_SLOT))
    )
    return Run(first, learnt, now, tell(before, numbers(device, plan), inputs, most=4))


def show_run(found: Run, kind: str, console: Console) -> None:
    """The morning run, told."""
    console.print(f"\n[bold]A morning run[/], {kind}")
    now = f"{found.learnt:.2f} by the 42 numbers alone, {found.now:.2f} with that skip in the session"
    what = f"{ACOUSTIC_AND_SLOW.title}: {found.first:.2f}. Skipped after {SECONDS:.0f} seconds; now {now}"
    _print_lines([what, *found.said], console)


def _print_lines(lines: list[str], console: Console) -> None:
    for number, line in enumerate(lines):
        console.print(f"  {'  ' if number else ''}{line}", highlight=False, soft_wrap=True)


# A session as it happens


def show_session(package: mt.Package, plan: mt.Plan, console: Console, sessions: int = 1) -> None:
    """The first sessions of somebody with a new player, song by song."""
    device, player, rng = mt.Device(package), Player(), np.random.default_rng((SHOWN_LISTENER, 0))
    listener, songs = draw_listener(rng), songs_of(SONG_SEED)
    for number in range(sessions):
        for each, play in enumerate(session(listener, player, songs, rng)):
            if each == 0:
                console.print(f"\n[bold]Session {number + 1}[/], {TIMES[play.slot]}")
            before = numbers(device, plan)
            first = float(device.predict(play.inputs).value[0])
            learn(device, play)
            again = float(device.predict(play.inputs).value[0])
            what = f"{play.song.title} ({describe(play.song.features)}): {first:.2f}. {_went(play)}; now {again:.2f}"
            _print_lines([what, *tell(before, numbers(device, plan), play.inputs)], console)


def _went(play: Play) -> str:
    if play.liked:
        return "Heard to the end"
    return f"Skipped after {play.seconds:.0f} seconds"


# A hundred people


def listeners(count: int, progress: Progress | None = None) -> list[Trial]:
    """People nobody has tuned on."""
    task = progress.add_task(f"{count} people listen", total=count) if progress else None
    found = []
    for number in range(count):
        found.append(trial(LISTENER_SEED + number, songs_of(SONG_SEED)))
        if progress and task is not None:
            progress.advance(task)
    return found


def reached(package: mt.Package, trials: list[Trial]) -> dict[str, Any]:
    """{"base", "learnt"}: of each {plays: area, share heard to the end with a choice}; the gain, and whom it harmed."""
    both = [(known(package, each, learns=False), known(package, each)) for each in trials]
    found: dict[str, Any] = {"base": {}, "learnt": {}, "gain": {}, "error": {}, "harmed": {}}
    for count in COUNTS:
        areas = np.array([[each[count].area for each in pair] for pair in both])
        gains = areas[:, 1] - areas[:, 0]
        for column, name in enumerate(("base", "learnt")):
            found[name][str(count)] = {
                "area": round(float(areas[:, column].mean()), 4),
                "heard": round(float(np.mean([pair[column][count].heard for pair in both])), 4),
            }
        found["gain"][str(count)] = round(float(gains.mean()), 4)
        found["error"][str(count)] = round(float(gains.std(ddof=1) / np.sqrt(len(gains))), 4) if len(gains) > 1 else 0.0
        found["harmed"][str(count)] = round(float(np.mean(gains < -0.01)), 4)
    return found


def cost(package: mt.Package, core: str, plays: list[Play]) -> dict[str, Any]:
    """Bytes of RAM (the whole device), stack and flash; instructions on that core: a prediction, a micro-update by
    itself (``NAME_step``, which runs the network too), and the same in the whole loop (observe and idle)."""
    device = mt.Device(package)
    counted = micro_updates(package, core, [(device.stored_input(play.inputs), [play.liked]) for play in plays])
    parameters = sum(int(np.prod(each["shape"])) for each in package.manifest["tensors"]["trained"])
    return {"core": core, "parameters": parameters, "flash": package.manifest["memory"]["flash"], **counted}


def figures(packages: dict[str, mt.Package], trials: list[Trial]) -> dict[str, Any]:
    """What ``--json`` prints."""
    found: dict[str, Any] = {kind: reached(package, trials) for kind, package in packages.items()}
    for kind, core in KINDS.items():
        found[kind]["cost"] = cost(packages[kind], core, trials[0].plays[:12])
    return {"listeners": len(trials), **found}


def show(found: dict[str, Any], console: Console) -> None:
    """The tables people read."""
    title = f"{found['listeners']} people: area under the curve, on songs they never heard"
    table = Table(title=title, title_justify="left")
    table.add_column("after so many songs")
    for count in COUNTS:
        table.add_column(str(count), justify="right")
    for kind in KINDS:
        for name in ("base", "learnt"):
            areas = (f"{found[kind][name][str(count)]['area']:.3f}" for count in COUNTS)
            table.add_row(f"{kind}, {'as delivered' if name == 'base' else 'learning'}", *areas)
        table.add_row(f"{kind}, gain", *(f"{found[kind]['gain'][str(count)]:+.3f}" for count in COUNTS))
    console.print(table)
    for kind in KINDS:
        base, learnt = (found[kind][name]["20"]["heard"] for name in ("base", "learnt"))
        says = f"{kind}: of the best of three songs {base:.0%} are heard to the end as delivered, {learnt:.0%} after 20"
        console.print(says)
    console.print()
    table = Table(title="What it costs", title_justify="left")
    table.add_column("")
    for kind, core in KINDS.items():
        table.add_column(f"{kind}, {core}", justify="right")
    for label, name in (
        ("parameters that learn", "parameters"), ("RAM of the whole device, bytes", "ram"), ("stack, bytes", "stack"),
        ("flash, bytes", "flash"), ("a prediction, instructions", "predict"),
        ("a micro-update, instructions", "step"), ("the same, in the whole loop", "update"),
    ):  # fmt: skip
        table.add_row(label, *(f"{found[kind]['cost'][name]:,}" for kind in KINDS))
    console.print(table)


def demo(out: Path = Path("build/playlist"), as_json: bool = False, count: int = LISTENERS) -> dict[str, Any]:
    """The whole way, from a listening population to players that know their owners. Returns the figures."""
    if count < 1:
        raise mt.MicrotuneError(f"{count} listeners: at least one is needed, such as --listeners 20")
    console = Console(stderr=as_json)
    console.print("A larger network learns from a listening population, and teaches 42 numbers ...")
    made = factory(BASE_SEED, out.parent)
    both = plans(made.parameters, made.inputs)
    packages = {
        "float": mt.build(both["float"], out, targets=["host", "cortex-m4"]),
        "integers": mt.build(both["integers"], out.parent / f"{out.name}_integers", targets=["host", "cortex-m0"]),
    }
    morning = {
        kind: (mt.build(plan, out.parent / f"{out.name}_morning_{kind}"), plan)
        for kind, plan in plans(calm_mornings(), made.inputs).items()
    }
    runs = {kind: morning_run(*each) for kind, each in morning.items()}
    if not as_json:
        for kind, each in runs.items():
            show_run(each, kind, console)
        show_session(packages["float"], both["float"], console)
    with Progress(console=console, transient=True) as progress:
        trials = listeners(count, progress)
    found = figures(packages, trials)
    found["morning"] = {
        kind: {"first": round(each.first, 3), "learnt": round(each.learnt, 3), "now": round(each.now, 3)}
        for kind, each in runs.items()
    }
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show(found, console)
        console.print(f"The C is in {out}/ (start with {out.name}.h), and in {out}_integers/")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/playlist"), help="package directory")
    parser.add_argument("--listeners", type=int, default=LISTENERS)
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    chosen = parser.parse_args()
    try:
        demo(chosen.out, chosen.json, chosen.listeners)
    except mt.MicrotuneError as error:
        sys.exit(f"playlist: {error}")


if __name__ == "__main__":
    main()
