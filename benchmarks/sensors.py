"""Sensors believed or not, and who is there, by the C (``mt_sensors.h``, ``mt_recognition.h``); docs/sensors.md shows
the figures.

    python -m benchmarks.sensors
"""

from __future__ import annotations

import importlib
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import microtune as mt
from benchmarks.results import record
from microtune import gallery
from microtune.compiler.sources import runtime_directory
from microtune.simulation import CHANGE_AT, PEOPLE, World, live
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.size import image_size
from microtune.toolchain import compile_image, compile_library
from microtune.tuning.sensors import SensorModel, sensor_models

RUNTIME = runtime_directory()
CHECKS, RECOGNITION = RUNTIME / "mt_sensors.c", RUNTIME / "mt_recognition.c"
WORLDS = ("toaster", "thermostat", "heart")
FACTORY = (0, 300, 100)
"""Windows that the constants of the wearer are learnt from; 0: all there are."""
STANDS_STILL = CHANGE_AT + 100
LIVES, INPUTS, JUMPS, BEFORE, AFTER = 60, 1000, (5, 6, 8), 100, 200
PRESSES, HOUSEHOLDS = 10, 20
APART = ("7, 18", "7, 12", "23.5, 6", "7, 12.5, 19")
CLOSE = ("7, 9.5", "7, 9", "7, 8")
"""Hours at which people come, give or take half an hour."""
SUSPECTED, HOURS_APART = 1e-3, 98.0
"""Of healthy people's uses fewer are flagged; per cent of uses recognised at hours APART at least."""

# mt_sensor_model
MODEL = np.dtype(
    [(name, "<f4") for name in ("low", "high", "step", "mean_low", "mean_high", "common")]
    + [("same", "<u2"), ("window", "<u2")]
)
SENSOR_BYTES, FLAGS_AT = 12, 11  # of mt_sensor

Array = NDArray[np.float64]


def _world(name: str) -> ModuleType:
    """``world.py`` of an example."""
    gallery.load_example(name)
    return importlib.import_module("world")


def _population(name: str) -> tuple[World, Array]:
    """An example's world, and contexts of the households its base comes from."""
    module = _world(name)
    world: World = module.WORLD
    return world, module.population(world, 0)[0] if name == "thermostat" else module.population(0)[0]


def _models(samples: Array, names: Sequence[str] = ()) -> tuple[SensorModel, ...]:
    return sensor_models(samples, [mt.Input(each) for each in names or map(str, range(samples.shape[1]))])


def _place(machine: Machine, values: NDArray[Any]) -> int:
    address = machine.allocate(values.nbytes)
    machine.write(address, values.tobytes())
    return address


def _rows(models: Sequence[SensorModel]) -> NDArray[Any]:
    return np.array([tuple(each.constants.values()) for each in models], MODEL)


def flags(machine: Machine, models: Sequence[SensorModel], uses: ArrayLike) -> NDArray[np.uint8]:
    """Uses (n, inputs) of a new device -> the flags of each input after each of them."""
    x = np.asarray(uses, "<f4")
    count = x.shape[1]
    rows, given, state = _place(machine, _rows(models)), _place(machine, x), machine.allocate(SENSOR_BYTES * count)
    found = np.empty(x.shape, np.uint8)
    for use in range(len(x)):
        machine.call("mt_sensors_check", rows, state, count, given + 4 * count * use)
        found[use] = np.frombuffer(machine.read(state, SENSOR_BYTES * count), np.uint8)[FLAGS_AT::SENSOR_BYTES]
    return found


def healthy(machine: Machine) -> dict[str, Any]:
    """{world: uses, and at how many of them any input of a healthy person was flagged}; two years each."""
    found: dict[str, Any] = {}
    for name in WORLDS:
        world, samples = _population(name)
        models = _models(samples, world.inputs)
        people = [each for each in PEOPLE if each != "dying_sensor"]
        seen = [
            flags(machine, models, np.concatenate([year.context for year in live(person, world, number).years(730.0)]))
            for number, person in enumerate(people)
        ]
        found[name] = _tally(seen)
    return found


def wearers(machine: Machine) -> dict[str, Any]:
    """The same of everybody in WISDM, by how many windows of other people the constants come from."""
    data = gallery.load_example("wearer").data
    windows = data.load()
    seen: dict[int, list[NDArray[np.uint8]]] = {count: [] for count in FACTORY}
    for fold in data.folds(windows, 0):
        x = data.scale_of(windows, fold.train).apply(windows.features)
        for count in FACTORY:
            models = _models(x[fold.train[: count or None]])
            seen[count] += [flags(machine, models, x[windows.person == person]) for person in fold.held_out]
    return {str(count): _tally(each) | {"inputs": each[0].shape[1]} for count, each in seen.items()}


def _tally(seen: Sequence[NDArray[np.uint8]]) -> dict[str, int]:
    return {
        "people": len(seen),
        "uses": sum(map(len, seen)),
        "flagged": sum(int(each.any(axis=1).sum()) for each in seen),
    }


def dying(machine: Machine) -> dict[str, Any]:
    """The dying sensor of the simulator, by whether it takes few values: lives, those in which it was found, and at
    the latest at which use of drifting (few values) or of standing still (any other)."""
    found = {kind: {"lives": 0, "found": 0, "latest": 0} for kind in ("few", "other")}
    for name in WORLDS:
        world, samples = _population(name)
        models = _models(samples, world.inputs)
        for seed in range(LIVES):
            uses = live("dying_sensor", world, seed).uses(STANDS_STILL + 60)
            told, truth = (np.array([getattr(use, what) for use in uses]) for what in ("context", "surroundings"))
            (which,) = np.flatnonzero((told != truth).any(axis=0))
            few = models[which].step > 0
            row = found["few" if few else "other"]
            row["lives"] += 1
            flagged = np.flatnonzero(flags(machine, models, told)[:, which])
            if len(flagged) and flagged[0] >= CHANGE_AT:
                row["found"] += 1
                row["latest"] = max(row["latest"], int(flagged[0]) + 1 - (CHANGE_AT if few else STANDS_STILL))
    return found


def jumps(machine: Machine) -> dict[str, Any]:
    """Uses until a jump of k standard deviations of a normal input is found: median, 99 % and all INPUTS inputs
    (None: not in AFTER uses), by k and the number of factory samples."""
    rows: dict[str, Any] = {}
    for count in (1000, 5000):
        rng = np.random.default_rng(count)
        models = _models(rng.normal(size=(count, INPUTS)))
        for k in JUMPS:
            x = rng.normal(size=(BEFORE + AFTER, INPUTS))
            x[BEFORE:] += k * np.resize((1.0, -1.0), INPUTS)
            seen = flags(machine, models, x) != 0
            if seen[:BEFORE].any():
                raise RuntimeError("an input was flagged before it jumped, so the uses until it is found say nothing")
            late = seen[BEFORE:]
            needed = np.where(late.any(axis=0), 1.0 + late.argmax(axis=0), math.inf)
            rows.setdefault(str(k), {})[str(count)] = [
                None if math.isinf(each) else math.ceil(each)
                for each in (np.median(needed), np.quantile(needed, 0.99, method="higher"), needed.max())
            ]
    return rows


class Profiles:
    """What a device knows of its people."""

    def __init__(self, machine: Machine, count: int, inputs: int) -> None:
        self.machine, self.count, self.inputs = machine, count, inputs
        self.floats = 2 * inputs + 1  # MT_RECOGNITION_FLOATS
        self.memory = machine.allocate(4 * self.floats * count)

    def learn(self, profile: int, contexts: Array) -> None:
        """Contexts (n, inputs) under a profile chosen by hand."""
        given = _place(self.machine, np.asarray(contexts, "<f4"))
        for use in range(len(contexts)):
            at = self.memory + 4 * self.floats * profile
            self.machine.call("mt_recognition_learn", at, self.inputs, given + 4 * self.inputs * use)

    def choose(self, contexts: Array) -> NDArray[np.int64]:
        """Who is chosen (n,) at contexts (n, inputs) in a row, beginning with the first profile."""
        given, chosen = _place(self.machine, np.asarray(contexts, "<f4")), [0]
        for use in range(len(contexts)):
            at = given + 4 * self.inputs * use
            chosen.append(
                self.machine.call("mt_recognition_choose", self.memory, self.count, self.inputs, at, chosen[-1])
            )
        return np.array(chosen[1:])


def recognised(machine: Machine) -> dict[str, Any]:
    """Per cent of uses, after PRESSES by each: of people at APART and CLOSE hours in the toaster's world, and of two
    people who share a day and an evening."""

    def at(world: World, rng: np.random.Generator, hour: float, count: int) -> Array:
        contexts = world.sample_contexts(rng, count)
        angle = (hour + 0.5 * rng.normal(size=count)) * 2.0 * np.pi / 24.0
        contexts[:, 2], contexts[:, 3] = np.sin(angle), np.cos(angle)
        return contexts

    def mean(household: Callable[[np.random.Generator], float]) -> float:
        return round(100.0 * float(np.mean([household(np.random.default_rng(n)) for n in range(HOUSEHOLDS)])), 1)

    toaster: World = _world("toaster").WORLD

    def hourly(hours: tuple[float, ...]) -> float:
        def household(rng: np.random.Generator) -> float:
            known = Profiles(machine, len(hours), len(toaster.inputs))
            for who, hour in enumerate(hours):
                known.learn(who, at(toaster, rng, hour, PRESSES))
            return float(
                np.mean([np.mean(known.choose(at(toaster, rng, hour, 200)) == who) for who, hour in enumerate(hours)])
            )

        return mean(household)

    def shared(world: World) -> float:
        def household(rng: np.random.Generator) -> float:
            contexts = world.sample_contexts(rng, 400)
            second = world.evening(contexts)
            known = Profiles(machine, 2, len(world.inputs))
            for who in (0, 1):
                known.learn(who, contexts[second == who][:PRESSES])
            return float(np.mean(known.choose(contexts[200:]) == second[200:]))

        return mean(household)

    found = {hours: hourly(tuple(map(float, hours.split(", ")))) for hours in (*APART, *CLOSE)}
    return {"hours": found} | {name: shared(_population(name)[0]) for name in ("toaster", "thermostat")}


def cost(folder: Path) -> dict[str, Any]:
    """Instructions by core, the most of any use: of a check, for each input, and of a choice between two profiles by
    five inputs; bytes of code on Cortex-M4F."""
    world, samples = _population("toaster")
    models = _models(samples, world.inputs)
    x = np.array([use.context for use in live("dying_sensor", world, 3).uses(160)], "<f4")
    count, found = x.shape[1], {}
    for core in ("cortex-m0", "cortex-m4"):
        machine = Emulator(
            compile_image([CHECKS, RECOGNITION], [RUNTIME], folder / f"{core}.elf", core, strict=True), core
        )
        rows, given, state = _place(machine, _rows(models)), _place(machine, x), machine.allocate(SENSOR_BYTES * count)
        places = [given + 4 * count * use for use in range(len(x))]
        checks = [machine.measure("mt_sensors_check", rows, state, count, at).instructions for at in places]
        known = Profiles(machine, 2, count)
        for who in (0, 1):
            known.learn(who, x[world.evening(x) == who][:PRESSES])
        choices = [
            machine.measure("mt_recognition_choose", known.memory, 2, count, at, 0).instructions for at in places[:40]
        ]
        found[core] = {"check": math.ceil(max(checks) / count), "choice": max(choices)}
    code = {
        name: image_size(compile_image([source], [RUNTIME], folder / f"{name}.elf", "cortex-m4", strict=True)).code
        for name, source in (("sensors", CHECKS), ("recognition", RECOGNITION))
    }
    return {"instructions": found, "code": code}


def measured() -> dict[str, Any]:
    """All figures of docs/sensors.md. Raises FileNotFoundError without WISDM."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = compile_library([CHECKS, RECOGNITION], [RUNTIME], folder / "sensors.so", strict=True)
        machine = HostMachine(library)
        return {
            "healthy": healthy(machine),
            "wearers": wearers(machine),
            "dying": dying(machine),
            "jumps": jumps(machine),
            "recognised": recognised(machine),
            "cost": cost(folder),
        }


def run_sensors() -> bool:
    """All of it; False when healthy people are suspected, a dying sensor is missed, or people are not recognised."""
    try:
        figures = measured()
    except FileNotFoundError as missing:
        print(f"\nsensors: not run: {missing}")
        return True
    record("sensors", figures)
    suspected = max(row["flagged"] / row["uses"] for part in ("healthy", "wearers") for row in figures[part].values())
    missed = sum(row["lives"] - row["found"] for row in figures["dying"].values())
    right = min(figures["recognised"]["hours"][each] for each in APART)
    print("\nsensors, and who is there")
    print(f"  healthy people's uses flagged     {suspected:8.5f}   <  {SUSPECTED}")
    print(f"  dying sensors missed              {missed:8}   =  0")
    print(f"  recognised at hours of their own, % {right:6}   >= {HOURS_APART}")
    return bool(suspected < SUSPECTED and missed == 0 and right >= HOURS_APART)


if __name__ == "__main__":
    print(json.dumps(measured(), indent=2))
