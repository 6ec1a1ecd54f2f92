"""The camera: an int8 MobileNetV2 that learns new classes on the device, in under 256 KB of RAM.

    python examples/camera/run.py [--data FOLDER] [--models PATH] [--images 2400] [--compare]
        [--precision int8] [--json]

MobileNetV2 of width 0.35 at 128 x 128, the published int8 weights of "On-Device Training Under 256KB Memory" (Lin et
al. 2022), with a new classifier. It learns scikit-learn's handwritten digits, or the images of a folder with a
subfolder for each class, by the generated C: one optimiser step on one picture, as they come. Accuracy is measured by
the same C on pictures that it never learns. After that one life with a camera: predict, observe, idle.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

import data
from network import DIRECTORY, published_network

import microtune as mt
from microtune.ir import Graph
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import select

NETWORK = "mbv2-w0.35"
SOURCE = "https://github.com/mit-han-lab/tiny-training (MIT licence)"
LIMIT = 256 * 1024  # bytes of RAM, everything included
IMAGES = 2400  # two passes over the digits that are learnt
SEED = 11  # of the split and order reported; the settings below were chosen with seed 1
SHOWN = 10
CHECKPOINTS = (0.25, 0.5, 1.0)  # shares of the images
LEARNER = mt.Learner(buffer=1, every=1, epochs=1, folds=0, restart=False, in_place=True)


@dataclass(frozen=True)
class Choice:
    """An update scheme with its precision and learning rate; ``fits``: whether it must stay under the limit."""

    scheme: Scheme
    precision: str = "mixed"
    lr: float = 0.02
    decay: float = 0.002
    fits: bool = True

    def plan(self, graph: Graph) -> mt.Plan:
        return mt.plan(
            graph,
            learn=self.scheme,
            loss="cross_entropy",
            optimizer=mt.SGD(lr=self.lr, decay=self.decay),
            learner=LEARNER,
            precision=self.precision,
            budget=mt.Budget(ram=LIMIT) if self.fits else None,
        )


CHOICES = {
    "Head": Choice(mt.Head(1), lr=0.05),
    "Sparse": Choice(mt.Sparse({"classifier": 1.0, "block10.depthwise": 1.0})),
}
"""What a plain run teaches: the classifier; and with it one depthwise layer in the middle of the net."""

INTEGERS = {
    "Head": Choice(mt.Head(1), precision="int8", lr=0.05),
    "Sparse": Choice(mt.Sparse({"head": 1.0, "block10.depthwise": 1.0}), precision="int8"),
}
"""The same in integers only, where the classifier is int8 too; ``--precision int8``."""
REACH = 4.0  # what the int8 classifier's weights can grow to: at first, with large steps, they go beyond where they end

COMPARED = {
    **CHOICES,
    "Sparse, late biases": Choice(mt.Sparse({"classifier": 1.0}, biases_from="block15.depthwise")),
    "LoRA": Choice(mt.LoRA(rank=8, layers=1), precision="float32", lr=0.05),
    "Bias": Choice(mt.Bias(), fits=False),
    "Full": Choice(mt.Full(), lr=0.001, fits=False),
}


@dataclass(frozen=True)
class Outcome:
    """What one scheme reached. ``accuracy``: {images learnt: share of the test pictures classified right}."""

    accuracy: dict[int, float]
    parameters: int
    memory: mt.Memory
    milliseconds: float
    package: mt.Package


def network(models: Path, classes: int, precision: str = "mixed") -> Graph:
    """The published net with a new classifier, an int8 one for ``"int8"``. Raises ModelError saying where it is
    published."""
    try:
        if precision == "int8":
            return mt.replace_head(published_network(NETWORK, models), classes, reach=REACH)
        return published_network(NETWORK, models, classes=classes)
    except mt.ModelError as error:
        raise mt.ModelError(
            f"{error} The weights are published at {SOURCE}; pass the folder that holds them with --models PATH."
        ) from None


def accuracy(device: mt.Device, pictures: data.Pictures, rows: NDArray[np.int64]) -> float:
    """Share of pictures classified right by the C."""
    right = [
        int(np.argmax(device.predict(data.as_input(pictures.images[row])).value)) == pictures.labels[row]
        for row in rows
    ]
    return float(np.mean(right))


def in_order(rows: NDArray[np.int64], images: int, seed: int) -> NDArray[np.int64]:
    """``images`` row numbers: pass after pass over all rows, each in a new order."""
    random = np.random.default_rng(seed)
    passes = math.ceil(images / len(rows))
    return np.concatenate([random.permutation(rows) for _ in range(passes)])[:images]


def teach(
    plan: mt.Plan,
    pictures: data.Pictures,
    split: data.Split,
    images: int,
    seed: int,
    out: Path,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[Outcome, mt.Device]:
    """Build a plan's device and step through ``images`` pictures."""
    package = mt.build(plan, out)
    device = mt.Device(package)
    marks = {max(1, round(share * images)) for share in CHECKPOINTS}
    found = {0: accuracy(device, pictures, split.test)}
    seconds = 0.0
    for count, row in enumerate(progress(in_order(split.learn, images, seed).tolist()), start=1):
        started = time.perf_counter()
        device.step(data.as_input(pictures.images[row]), int(pictures.labels[row]))
        seconds += time.perf_counter() - started
        if count in marks:
            found[count] = accuracy(device, pictures, split.test)
    trained = sum(tensor.size for tensor in plan.programs.trained)
    return Outcome(found, trained, plan.memory, 1000 * seconds / images, package), device


def live(device: mt.Device, pictures: data.Pictures, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Pictures come, the camera says what it sees, somebody tells what it was, it learns when there is time."""
    found = []
    for row in rows:
        seen = device.predict(data.as_input(pictures.images[row]))
        device.observe(int(pictures.labels[row]))
        update = device.idle()
        found.append(
            {
                "seen": pictures.classes[int(np.argmax(seen.value))],
                "was": pictures.classes[int(pictures.labels[row])],
                "sure": round(seen.confidence, 3),
                "learnt": update is not None and update.accepted,
            }
        )
    return found


def run(
    pictures: data.Pictures,
    graph: Graph,
    choices: dict[str, Choice],
    images: int,
    out: Path,
    seed: int = SEED,
    console: Console | None = None,
) -> dict[str, Any]:
    """Teach the same pictures in the same order under each scheme. Returns the figures that ``--json`` prints."""
    split = data.split(pictures.labels, seed)
    every = {tensor: graph.tensor(tensor).size for tensor in select(graph, mt.Full(), "mixed").trained}
    full = sum(every.values())
    figures: dict[str, Any] = {
        "network": NETWORK,
        "classes": list(pictures.classes),
        "limit": LIMIT,
        "full_parameters": full,
        "images": images,
        "pictures": {"learn": len(split.learn), "test": len(split.test)},
        "schemes": {},
    }
    for name, choice in choices.items():
        if console:
            console.print(f"{name}: {choice.scheme}, {choice.precision}: compiling ...", highlight=False)
        plan = choice.plan(graph)
        folder = out / name.lower().replace(", ", "_").replace(" ", "_") / "camera"

        def shown(rows: Iterable[int], name: str = name) -> Iterable[int]:
            return track(list(rows), description=name, console=console, transient=True) if console else rows

        outcome, device = teach(plan, pictures, split, images, seed, folder, shown)
        if choice.fits:
            assert outcome.memory.ram < LIMIT, f"{name}: {outcome.memory.ram} bytes of RAM"
        figures["schemes"][name] = describe(outcome, choice, full)
        if name == "Sparse":
            figures["life"] = live(device, pictures, split.test[:SHOWN].tolist())
    return figures


def describe(outcome: Outcome, choice: Choice, full: int) -> dict[str, Any]:
    """A scheme's figures, sizes in bytes."""
    memory = outcome.memory
    return {
        "scheme": str(choice.scheme),
        "precision": choice.precision,
        "accuracy": {str(count): round(100 * share, 2) for count, share in outcome.accuracy.items()},
        "parameters": outcome.parameters,
        "times_fewer": round(full / outcome.parameters, 1),
        "ram": memory.ram,
        "arena": memory.arena,
        "arena_bound": memory.bound,
        "stack": memory.stack,
        "flash": memory.flash,
        "step_milliseconds": round(outcome.milliseconds, 2),
        "package": str(outcome.package.directory),
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """The tables people read."""
    learnt, tested = figures["pictures"]["learn"], figures["pictures"]["test"]
    table = Table(
        title=f"Accuracy in % on {tested} pictures never learnt, after so many images (of {learnt} different ones)",
        title_justify="left",
    )
    table.add_column("scheme")
    counts = list(next(iter(figures["schemes"].values()))["accuracy"])
    for heading in (*counts, "trained parameters", "fewer than all", "RAM, bytes", "a step on this host, ms"):
        table.add_column(heading, justify="right")
    for name, each in figures["schemes"].items():
        table.add_row(
            name,
            *(f"{each['accuracy'][count]:.1f}" for count in counts),
            f"{each['parameters']:,}",
            f"{each['times_fewer']:.0f} times",
            f"{each['ram']:,}" + ("" if each["ram"] < LIMIT else " (too much)"),
            f"{each['step_milliseconds']:.1f}",
        )
    console.print(table)
    sparse = figures["schemes"]["Sparse"]
    console.print(
        f"RAM is everything: the device struct with its arena of {sparse['arena']:,} bytes (the picture's place "
        f"included) and {sparse['stack']:,} bytes of stack under Sparse. The limit is {LIMIT:,}."
    )
    life = Table(title="The next ten pictures: predict, observe, idle", title_justify="left")
    for heading in ("seen", "was", "sure", "learnt"):
        life.add_column(heading, justify="right")
    for each in figures["life"]:
        life.add_row(each["seen"], each["was"], f"{each['sure']:.0%}", "yes" if each["learnt"] else "no")
    console.print(life)
    console.print(f"The C is in {sparse['package']}/ (start with camera.h)", highlight=False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one subfolder of images for each class; default: digits")
    parser.add_argument("--models", type=Path, default=DIRECTORY, help=f"folder that holds {NETWORK}.json and .npz")
    parser.add_argument("--out", type=Path, default=Path("build/camera"), help="where the packages go")
    parser.add_argument("--images", type=int, default=IMAGES, help="pictures to learn, one step each")
    parser.add_argument("--seed", type=int, default=SEED, help="of the split and the order")
    parser.add_argument("--compare", action="store_true", help="also the other schemes; takes longer")
    parser.add_argument("--precision", choices=["mixed", "int8"], default="mixed", help="int8: integers only")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    chosen = parser.parse_args()
    if chosen.images < 1:
        parser.error("--images must be at least 1")
    console = Console(stderr=chosen.json)
    try:
        pictures = data.digits() if chosen.data is None else data.folder(chosen.data)
        graph = network(chosen.models, len(pictures.classes), chosen.precision)
        choices = INTEGERS if chosen.precision == "int8" else COMPARED if chosen.compare else CHOICES
        spoken = None if chosen.json else console
        figures = run(pictures, graph, choices, chosen.images, chosen.out, chosen.seed, spoken)
    except (data.DataError, mt.MicrotuneError) as error:
        sys.exit(f"camera: {error}")
    if chosen.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures, console)


if __name__ == "__main__":
    main()
