"""The machine listener: a fan's own hum, learnt anew where it is mounted, and an alarm when it departs from it.

    microtune demo machine [--out build/machine] [--json]
    python examples/machine/run.py [--data PATH] [--out build/machine] [--json]

A detector leaves the factory knowing one fan in one mounting. The fan is mounted again: everything sounds wrong to it.
Told of 20 windows of a second that all is well, it takes them for normal, and finds a coin taped to a blade ever
after. Told the same with the coin on, it refuses: it knows what coins do, from other speeds. Everything is
computed by the generated C but the features (``data.py``).
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

sys.path.insert(0, str(Path(__file__).resolve().parent))

import data

import microtune as mt
from microtune.targets.measure import instructions

Rows = NDArray[np.float32]
Progress = Callable[..., Iterable[Any]]

TAUGHT = 20  # windows in which the device learns a mounting
STARTS = 20  # places in a recording where these may begin: each a life of its own
KEPT = 200  # windows of the factory's mounting that it knows; the others test it there
KNOWN = 280  # windows of each other recording in the factory's calibration: as many as the shortest has
FEW = (1, 2, 3, 4)  # windows with the coin on among 20, too few for the guard to be sure
MINUTE = 60  # windows
CODE = 4  # units of the autoencoder
LEARNER = mt.Learner(buffer=TAUGHT, every=TAUGHT, sensors=False)
CORE = "cortex-m4"


@dataclass(frozen=True)
class Case:
    """A speed at which the fan is mounted again, and the speeds whose recordings, with and without the coin, the
    factory has instead: of the coin at this speed nothing is known."""

    speed: str
    elsewhere: tuple[str, ...]
    known: str


CASES = {
    "low": Case("low", ("medium", "high"), "medium with coin"),  # what is reported
    "medium": Case("medium", ("low", "high"), "low with coin"),  # what settings were chosen by
    "high": Case("high", ("low", "medium"), "medium with coin"),  # where the fan itself changes as much
}
DETECTORS = ("features", "autoencoder")


def autoencoder(well: Rows) -> MLPRegressor:
    """A net that rebuilds the features of a fan that is well, 15 - 4 - 15."""
    net = MLPRegressor(
        hidden_layer_sizes=(CODE,), activation="tanh", alpha=1e-3, learning_rate_init=0.01, max_iter=600, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return net.fit(well, well)


def plan(rows: dict[str, Rows], case: Case, detector: str, guarded: bool = True) -> mt.Plan:
    """The factory's device: Mahalanobis over the features, or over what an autoencoder does not rebuild of them."""
    well = rows["deploy"][:KEPT]
    parts, labels = [well], [np.zeros(KEPT)]
    for name in (*case.elsewhere, case.known) if guarded else ():
        some = rows[name][:KNOWN]
        parts.append(some)
        labels.append(np.full(len(some), 1.0 if name == case.known else 2.0))
    residual = detector == "autoencoder"
    return mt.plan(
        mt.load(autoencoder(well), name="machine") if residual else mt.identity(len(data.FEATURES), "machine"),
        loss="binary_cross_entropy",
        optimizer=mt.Mahalanobis(residual=residual),
        learner=LEARNER,
        inputs=[mt.Input(name) for name in data.FEATURES],
        calibration=(np.concatenate(parts), np.concatenate(labels)),
    )


def alarms(device: mt.Device, rows: Rows) -> float:
    """Share of windows (n, 15) that the C calls a fault."""
    return float(np.mean([device.predict(x).value[0] > 0.5 for x in rows]))


def teach(device: mt.Device, rows: Rows) -> mt.Update | None:
    """Say of each window that all is well, and let it learn; what became of the last update."""
    update = None
    for x in rows:
        device.predict(x)
        device.observe(0)
        update = device.idle() or update
    return update


def starts(rows: Rows) -> list[int]:
    return [int(each) for each in np.linspace(0, len(rows) - TAUGHT, STARTS)]


def gone_by_itself(well: Rows, coin: Rows) -> float:
    """Share of the way to how loud the fan is with the coin on (the spread of x) that it goes without, from the first
    minute of its recording to the last."""
    at = data.FEATURES.index("log spread of x")
    first, last = well[:MINUTE, at].mean(), well[-MINUTE:, at].mean()
    return float((last - first) / (coin[:, at].mean() - first))


def shuffled_in(well: Rows, coin: Rows, way: int) -> Rows:
    """Half of each: one after the other, the other way round, or in turns."""
    half = TAUGHT // 2
    if way == 2:
        return np.stack([well[:half], coin[:half]], axis=1).reshape(TAUGHT, -1)
    return np.concatenate([well[:half], coin[:half]] if way == 0 else [coin[:half], well[:half]])


def measure(rows: dict[str, Rows], case: Case, package: mt.Package, unguarded: mt.Package) -> dict[str, float]:
    """Shares in per cent, over lives that begin at different places of the recordings."""
    well, coin = rows[case.speed], rows[f"{case.speed} with coin"]
    new = mt.Device(package)
    found: dict[str, list[float]] = {
        "at_the_factory": [alarms(new, rows["deploy"][KEPT:])],
        "before": [alarms(new, well)],
        "gone_by_itself": [gone_by_itself(well, coin)],
    }

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for start in starts(well):
        device = mt.Device(package)
        update = teach(device, well[start : start + TAUGHT])
        add("taken", float(update is not None and update.accepted))
        add("false_alarms", alarms(device, np.concatenate([well[:start], well[start + TAUGHT :]])))
        add("found", alarms(device, coin))
    for start in starts(coin):
        at = min(start, len(well) - TAUGHT)
        device = mt.Device(package)
        before = device.parameters()
        update = teach(device, coin[start : start + TAUGHT])
        same = all(np.array_equal(before[name], each) for name, each in device.parameters().items())
        add("coin_refused", float(update is not None and update.refused and same))
        add("coin_suspect", device.metrics().suspect / TAUGHT)
        add("found_after", alarms(device, coin))
        for way in range(3):
            device = mt.Device(package)
            update = teach(device, shuffled_in(well[at:], coin[start:], way))
            add("half_refused", float(update is not None and update.refused))
            add("half_found_after", alarms(device, coin[::STARTS]))
        for few in FEW:
            device = mt.Device(package)
            mixed = well[at : at + TAUGHT].copy()
            mixed[np.random.default_rng(start).choice(TAUGHT, few, replace=False)] = coin[start : start + few]
            update = teach(device, mixed)
            add(f"{few}_refused", float(update is not None and update.refused))
            if update is not None and update.accepted:
                add("few_found_after", alarms(device, coin[::5]))
    for start in starts(coin)[:: STARTS // 4]:
        device = mt.Device(unguarded)
        teach(device, coin[start : start + TAUGHT])
        add("unguarded_found_after", alarms(device, coin))
    summary = {name: 100 * float(np.mean(values)) for name, values in found.items()}
    summary["worst_false_alarms"] = 100 * max(found["false_alarms"])
    summary["least_found"] = 100 * min(found["found"])
    summary["least_found_after_few"] = 100 * min(found["few_found_after"])
    return {name: round(value, 2) for name, value in summary.items()}


def run(path: Path, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """{case: {detector: figures in per cent}}, and what the device takes, by detector."""
    recordings = data.load(path)
    scale = data.scale_of(recordings["deploy"][:KEPT])
    rows = {name: scale.apply(each) for name, each in recordings.items()}
    work = [(name, detector) for name in CASES for detector in DETECTORS]
    found: dict[str, Any] = {"cases": {name: {} for name in CASES}, "device": {}}
    for name, detector in progress(work, description="mounting the fan again") if progress else work:
        case = CASES[name]
        first = name == next(iter(CASES))
        folder = out if first and detector == "features" else out.parent / f"{out.name}_{name}_{detector}"
        planned = plan(rows, case, detector)
        package = mt.build(planned, folder)
        unguarded = mt.build(plan(rows, case, detector, guarded=False), folder.parent / f"{folder.name}_unguarded")
        found["cases"][name][detector] = measure(rows, case, package, unguarded)
        if first:
            uses = [(x, np.zeros(1)) for x in rows[case.speed][:TAUGHT]]
            counted = instructions(package, CORE, uses, last=1)
            found["device"][detector] = {"ram": planned.memory.ram, "flash": planned.memory.flash, **counted}
    return found


LINES = {
    "at_the_factory": "false alarms as mounted in the factory",
    "before": "false alarms mounted again, before it learns",
    "taken": "20 windows that are well: learnt",
    "false_alarms": "false alarms after 20 windows",
    "worst_false_alarms": "the worst of 20 places to begin",
    "found": "coin found after 20 windows",
    "least_found": "the worst of 20 places to begin",
    "coin_refused": "20 windows with the coin on, said to be well: refused",
    "found_after": "coin found after that",
    "half_refused": "10 of 20 with the coin on: refused",
    "half_found_after": "coin found after that",
    "4_refused": "4 of 20 with the coin on: refused",
    "3_refused": "3 of 20",
    "2_refused": "2 of 20",
    "1_refused": "1 of 20",
    "few_found_after": "coin found after 1 to 4 of 20, where they were not refused",
    "least_found_after_few": "the worst of these lives",
    "unguarded_found_after": "coin found after 20 windows with it on, without a guard",
    "gone_by_itself": "of the way to the coin's loudness, gone in ten minutes without it",
}
"""What is shown of a case, in per cent: here, and on the pages by ``benchmarks/machine.py``."""


def demo(out: Path = Path("build/machine"), as_json: bool = False, path: Path = data.DEFAULT_PATH) -> dict[str, Any]:
    """The whole way, from recordings to a device that knows its machine. Returns the figures."""
    try:
        found = run(path, out, None if as_json else track)
    except FileNotFoundError as error:
        raise mt.MicrotuneError(str(error)) from None
    if as_json:
        print(json.dumps(found, indent=2))
        return found
    console = Console()
    for name, detectors in found["cases"].items():
        table = Table(title=f"a fan mounted again, at {name} speed, %", title_justify="left")
        for column in ("", *DETECTORS):
            table.add_column(column, justify="right" if column else "left")
        for key, label in LINES.items():
            table.add_row(label, *(f"{detectors[each][key]:.1f}" for each in DETECTORS))
        console.print(table)
    console.print(
        "features: of the features themselves; autoencoder: of what an autoencoder does not rebuild of them.\n"
        "At high speed the fan alone wanders as far as the coin would take it: nothing is promised (docs/anomaly.md).\n"
    )
    for detector, takes in found["device"].items():
        console.print(
            f"{detector} on {CORE}: {takes['ram']:,} bytes of RAM, {takes['flash']:,} of flash; a prediction "
            f"{takes['predict']:,} instructions, learning 20 windows {takes['update']:,}"
        )
    console.print(f"The C is in {out}/ (start with {out.name}.h)")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data.DEFAULT_PATH, help="folder that holds fan.npz")
    parser.add_argument("--out", type=Path, default=Path("build/machine"), help="package directory")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    chosen = parser.parse_args()
    try:
        demo(chosen.out, chosen.json, chosen.data)
    except mt.MicrotuneError as error:
        sys.exit(f"machine: {error}")


if __name__ == "__main__":
    main()
