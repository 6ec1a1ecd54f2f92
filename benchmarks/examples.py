"""The figures of the reference devices: what each of them reaches, and what it costs."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import microtune as mt
from benchmarks.results import record
from microtune import gallery
from microtune.simulation import Summary, simulate

Limit = tuple[str, Callable[[dict[str, Any]], float], str, float]

# figure, where it stands in the example's JSON, at least or at most, limit: the promises of SPEC E1 and E4
TOASTER: tuple[Limit, ...] = (
    ("consistent after 5 uses", lambda d: d["acceptance"]["default"]["consistent"]["5"], ">=", 0.95),
    ("consistent after 20 uses", lambda d: d["acceptance"]["default"]["consistent"]["20"], ">=", 0.98),
    ("worst tenth of them", lambda d: d["acceptance"]["default"]["consistent"]["worst_tenth"]["20"], ">=", 0.95),
    ("abrupt change, 5 uses later", lambda d: d["acceptance"]["default"]["abrupt"]["after_change"]["5"], ">=", 0.88),
    ("abrupt change, 10 uses later", lambda d: d["acceptance"]["default"]["abrupt"]["after_change"]["10"], ">=", 0.95),
    ("two people after 20", lambda d: d["acceptance"]["default"]["two_people"]["20"], ">=", 0.95),
    ("drifting after 20", lambda d: d["acceptance"]["default"]["drifting"]["20"], ">=", 0.95),
    ("drifting after 100", lambda d: d["acceptance"]["default"]["drifting"]["100"], ">=", 0.90),
    ("untouched by a local change", lambda d: d["acceptance"]["default"]["narrow"]["after_change"]["15"], ">=", 0.88),
    ("noisy after 20", lambda d: d["acceptance"]["default"]["noisy"]["20"], ">=", 0.85),
    ("90 days away, the first use back", lambda d: d["absence"]["same_at_first"], ">=", 0.90),
    ("somebody else then: uses to 90 %", lambda d: d["absence"]["successor_known_after"] or 99, "<=", 8),
    ("prankster: points lost after 50", lambda d: _lost(d, "prankster", "50"), "<=", 3),
    ("simulated device-years a minute", lambda d: d["device_years_a_minute"], ">=", 5_000),
    ("flash on Cortex-M4F, bytes", lambda d: d["flash"], "<=", 24 * 1024),
    ("RAM with stack, bytes", lambda d: d["ram"], "<=", 12 * 1024),
    ("prediction on Cortex-M4F", lambda d: d["instructions"]["cortex-m4"]["predict"], "<=", 3_000),
    ("update on Cortex-M4F", lambda d: d["instructions"]["cortex-m4"]["update"], "<=", 300_000),
)
WEARER: tuple[Limit, ...] = (
    ("gain after 20 samples, points", lambda d: d["gain"]["20"], ">=", 5),
    ("gain after 50 samples, points", lambda d: d["gain"]["50"], ">=", 6.5),
    ("people harmed at 20, %", lambda d: d["harmed"]["20"], "<=", 10),
)
HEAD, FEW = "Head(1)", "half of the last layer, biases"
"""Schemes of ``examples/speaker/run.py``: the one to compare with, and the one of a hundred times fewer parameters."""
COMPARED = 4
"""Orders of the samples over which these two are compared: a single one is 0.8 points off their mean difference."""
SPEAKER: tuple[Limit, ...] = (
    ("accuracy after 20 samples, %", lambda d: d["accuracy"]["20"], ">=", 80),
    ("accuracy after 50 samples, %", lambda d: d["accuracy"]["50"], ">=", 85),
    ("the other people then, %", lambda d: d["others"]["50"], ">=", 85),
    ("trained parameters, times fewer", lambda d: d["fewer"], ">=", 100),
    ("points below Head(1)", lambda d: d["schemes"][HEAD]["own"] - d["schemes"][FEW]["own"], "<=", 1),
    ("digit after digit: the person, %", lambda d: _kept(d)["own"]["100"], ">=", 86),
    ("the other people then, %", lambda d: _kept(d)["others"]["100"], ">=", 88),
)
CAMERA: tuple[Limit, ...] = (
    ("trained parameters, times fewer", lambda d: d["schemes"]["Sparse"]["times_fewer"], ">=", 100),
    ("points below Head", lambda d: _reached(d, "Head") - _reached(d, "Sparse"), "<=", 1),
    ("RAM with stack, bytes", lambda d: max(each["ram"] for each in d["schemes"].values()), "<=", 262_143),
)

HEART: tuple[Limit, ...] = (
    ("illnesses noticed within 3 mornings", lambda d: d["own"]["detected_within_3"], ">=", 0.85),
    ("mornings of false alarm a year", lambda d: d["own"]["false_alarms_per_year"], "<=", 4),
)
THERMOSTAT: tuple[Limit, ...] = (
    ("temperature, week 8", lambda d: d["temperature"]["consistent"]["week 8"], ">=", 0.75),
    ("occupancy, week 8", lambda d: d["occupancy"]["consistent"]["week 8"], ">=", 0.95),
    ("devices harmed, at most", lambda d: max(each["harmed"] for q in d.values() for each in q.values()), "<=", 0.1),
)


def _lost(toaster: dict[str, Any], person: str, uses: str) -> float:
    """Points that somebody accepts less than the consistent person."""
    shares = toaster["acceptance"]["default"]
    return 100.0 * float(shares["consistent"][uses] - shares[person][uses])


def _device_years_a_minute(package: mt.Package, devices: int = 400) -> float:
    """Of consistent people with three uses a day, on all of this machine: best of three, as other work delays."""
    world = gallery.load_example("toaster").WORLD
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        simulate(package, world, "consistent", days=365.0, devices=devices)
        seconds.append(time.perf_counter() - begin)
    return 60.0 * devices / min(seconds)


def _kept(speaker: dict[str, Any]) -> dict[str, Any]:
    """What was remembered of a stream sorted by digit, with all means."""
    return dict(list(speaker["sorted"].values())[-1])


def _reached(camera: dict[str, Any], scheme: str) -> float:
    """Accuracy in per cent after the last image."""
    return float(camera["schemes"][scheme]["accuracy"][str(camera["images"])])


def _hold(title: str, figures: dict[str, Any], limits: tuple[Limit, ...]) -> bool:
    print(f"\n{title}")
    held = True
    for name, find, side, limit in limits:
        value = find(figures)
        good = value >= limit if side == ">=" else value <= limit
        held = held and good
        print(f"  {name:34} {value:>12,.6g}   {side} {limit:,.6g}{'' if good else '   MISSED'}")
    return held


def _toaster(scratch: Path) -> bool:
    with contextlib.redirect_stdout(io.StringIO()):
        found = gallery.load_example("toaster").demo(scratch / "toaster", as_json=True)
    found["device_years_a_minute"] = round(_device_years_a_minute(mt.open_package(scratch / "toaster")))
    found = {key: value for key, value in found.items() if key not in ("package", "picture")}
    record("toaster", found)
    return _hold("the toaster: share of suggestions accepted, and cost", found, TOASTER)


def _wearer(scratch: Path) -> bool:
    example = gallery.load_example("wearer")
    path = example.data.DEFAULT_PATH
    if not path.is_dir():
        print(f"\nthe wearer: not run, no data in {path}")
        return True
    found = example.summary(example.run(path, scratch / "wearer"))
    record("wearer", found)
    return _hold("the wearer: 36 people new to the base network", found, WEARER)


def _speaker(scratch: Path) -> bool:
    example = gallery.load_example("speaker")
    path = example.data.DEFAULT_PATH
    try:
        takes = example.data.load(path)
    except FileNotFoundError:
        print(f"\nthe speaker: not run, no data in {path}")
        return True
    heard = example.hear(takes, path, scratch / "speaker")
    found = example.summary(example.run(heard, takes, scratch / "speaker"))
    compared = example.compare(heard, takes, scratch / "speaker", names=(HEAD, FEW), orders=COMPARED)
    found["schemes"] = compared
    found["sorted"] = example.remember(heard, takes, scratch / "speaker")
    package = mt.open_package(scratch / "speaker" / takes.people[0] / "float32" / "speaker")
    found["core"] = example.on_core(package, heard, takes, example.data.stream(takes, 0, example.SEED, 0))
    found["fewer"] = round(example.parameters_in_all(heard, takes) / compared[FEW]["parameters"], 1)
    record("speaker", found)
    return _hold(f"the speaker: {found['people']} people new to the base network", found, SPEAKER)


def _camera(scratch: Path) -> bool:
    example = gallery.load_example("camera")
    if not example.DIRECTORY.is_dir():
        print(f"\nthe camera: not run, no network in {example.DIRECTORY}")
        return True
    pictures = example.data.digits()
    graph = example.network(example.DIRECTORY, len(pictures.classes))
    found = example.run(pictures, graph, example.CHOICES, example.IMAGES, scratch / "camera")
    full = mt.plan(graph, mt.Full(), "cross_entropy", mt.SGD(0.01), example.LEARNER, precision="mixed")
    found["full"] = {"ram": full.memory.ram, "arena": full.memory.arena}
    del found["life"]
    for each in found["schemes"].values():
        del each["package"]
    record("camera", found)
    return _hold(f"the camera: {found['images']} pictures of digits, one step each", found, CAMERA)


def _heart(scratch: Path) -> bool:
    found = {name: asdict(figures) for name, figures in gallery.load_example("heart").run(scratch / "heart").items()}
    record("heart", found)
    return _hold("the heart: 60 simulated people, half a year each", found, HEART)


def _thermostat(scratch: Path) -> bool:
    summaries = gallery.load_example("thermostat").run(scratch / "thermostat")
    found = {question: {name: _weeks(each) for name, each in people.items()} for question, people in summaries.items()}
    record("thermostat", found)
    return _hold("the thermostat: 40 simulated households, eight weeks each", found, THERMOSTAT)


def _weeks(summary: Summary) -> dict[str, float]:
    """Shares of suggestions accepted, and of devices harmed."""
    first, last = (summary.weeks[index].accepted or 0.0 for index in (0, 7))
    return {"base": summary.base, "week 1": first, "week 8": last, "harmed": summary.harmed}


def run_examples() -> bool:
    """All of them whole, as their own commands run them; False when a figure is missed."""
    with tempfile.TemporaryDirectory() as scratch:
        return all([each(Path(scratch)) for each in (_toaster, _wearer, _speaker, _camera, _heart, _thermostat)])
