"""Dense nets side by side on emulated cores: AIfES, C written by hand, and the generated package.

One training step and one inference of the same net from the same weights on the same samples; instructions counted,
flash as linked, RAM beyond the parameters with the stack. All must end with the same weights. AIfES is not part of
this repository (AGPL): ``MICROTUNE_AIFES`` names its sources (github.com/Fraunhofer-IMS/AIfES_for_Arduino). Without
them its last figures are kept, and marked so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.nets import RATE, dense_net
from benchmarks.results import FILE, record
from microtune.compiler.inference import compile_inference
from microtune.compiler.layout import lay_out
from microtune.compiler.plan import plan
from microtune.compiler.planned import Plan
from microtune.compiler.sources import write_sources
from microtune.targets.emulator import Emulator
from microtune.targets.size import image_size
from microtune.toolchain import compile_image, compile_objects
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

HERE = Path(__file__).parent
HOSTED = HERE / "hosted"
OURS, ONLY, PLAIN, AIFES = "microtune", "microtune, prediction only", "plain C", "AIfES"
STEPS = 5
GCC = "arm-none-eabi-gcc"
FPU = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
DENSE = ("ailayer_dense_f32_default", "ailayer_dense_wt_f32_default")
"""The forms of AIfES's dense layer; the one that steps faster is what is shown."""

Build = Callable[[Sequence[Path], Sequence[Path], Sequence[str], Sequence[str]], Path]
"""(sources, include, defines, functions to keep) to an image."""


@dataclass(frozen=True)
class Case:
    """A net, the file of its plain C, and how many times fewer instructions than AIfES a step must take."""

    sizes: tuple[int, int, int]
    loss: str
    plain: str
    fewer: float
    away: float  # largest distance of AIfES's change of the weights from ours, as a share of it

    @property
    def name(self) -> str:
        return "-".join(map(str, self.sizes))

    def plan(self) -> Plan:
        return plan(dense_net(self.sizes), Full(), self.loss, SGD(RATE))


# AIfES's softmax takes the exponential of Schraudolph (1999), within 6.2 %: of each probability as much again for
# their sum, and no gradient is further off than its probabilities
CASES = (
    Case((4, 16, 1), "mse", "plain.c", 10, 1e-5),
    Case((64, 128, 10), "cross_entropy", "plain_classes.c", 3, 0.13),
)


@dataclass(frozen=True)
class Side:
    """A contender on a machine: calls of a step and a prediction, and what it needs besides the parameters."""

    machine: Emulator
    step: tuple[str, tuple[int, ...]] | None
    predict: tuple[str, tuple[int, ...]]
    weights: tuple[int, ...] = ()  # addresses of w1, b1, w2, b2
    transposed: bool = False  # weights are (inputs, outputs)
    working: int = 0  # bytes beside the parameters and the stack
    foreign: int = 0  # bytes of parameters linked into flash, which the others are handed


@dataclass(frozen=True)
class Data:
    """Start weights by name, and samples with the target as each wants it."""

    weights: dict[str, np.ndarray]
    x: np.ndarray
    label: np.ndarray  # (samples, 1): the value, or the index of the class
    one_hot: np.ndarray  # (samples, outputs): the value, or 1 at the class


def _data(case: Case) -> Data:
    graph = dense_net(case.sizes)
    weights = {name: graph.tensor(name).data.astype("<f4") for name in ("w1", "b1", "w2", "b2")}
    r = np.random.default_rng(2)
    x = r.normal(size=(STEPS, case.sizes[0])).astype("<f4")
    if case.loss == "mse":
        label = np.sin(x.sum(axis=1, keepdims=True)).astype("<f4")
        return Data(weights, x, label, label)
    classes = r.integers(0, case.sizes[2], STEPS)
    return Data(weights, x, classes[:, None].astype("<f4"), np.eye(case.sizes[2], dtype="<f4")[classes])


def _put(machine: Emulator, values: np.ndarray) -> int:
    content = np.ascontiguousarray(values, "<f4").tobytes()
    address = machine.allocate(len(content))
    machine.write(address, content)
    return address


def _ours(case: Case, data: Data, core: str, build: Build, folder: Path) -> Side:
    chosen = case.plan()
    layout = lay_out(chosen)
    sources = write_sources(chosen, "net", folder / "ours")
    image = build(sources, [folder / "ours"], (), ("net_init", "net_step", "net_predict"))
    machine = Emulator(image, core)
    device = machine.allocate(4 + layout.bytes)
    if machine.call("net_init", device, 0) != 0:
        raise RuntimeError("the device did not start")
    x, target, loss = _put(machine, data.x[0]), _put(machine, data.label[0]), machine.allocate(4)
    output, said = machine.allocate(4 * case.sizes[2]), machine.allocate(64)
    start = device + 4 + layout.field("parameters").offset
    at = {each.tensor.name: start + each.offset for each in layout.parameters}
    return Side(
        machine,
        ("net_step", (device, x, target, loss)),
        ("net_predict", (device, x, output, said)),
        tuple(at[name] for name in data.weights),
        working=sum(each.bytes for each in layout.fields if each.name in ("arena", "pending_cut", "optimizer")),
        foreign=sum(each.nbytes for each in data.weights.values()),
    )


def _prediction_only(case: Case, data: Data, core: str, build: Build, folder: Path) -> Side:
    network = compile_inference(dense_net(case.sizes), folder / "only", [])
    image = build(sorted(network.directory.glob("*.c")), [network.directory], (), ("only_run",))
    machine = Emulator(image, core)
    arena = int(network.description["arena"])
    places = (_put(machine, data.x[0]), machine.allocate(4 * case.sizes[2]), machine.allocate(arena))
    return Side(machine, None, ("only_run", places), working=arena, foreign=int(network.description["weights"]))


def _plain(case: Case, data: Data, core: str, build: Build, folder: Path) -> Side:
    machine = Emulator(build([HERE / case.plain], [HERE, HOSTED], (), ("plain_step", "plain_predict")), core)
    net = _put(machine, np.concatenate([each.ravel() for each in data.weights.values()]))
    starts = np.cumsum([0, *(each.nbytes for each in data.weights.values())])
    x, target, output = _put(machine, data.x[0]), _put(machine, data.label[0]), machine.allocate(4 * case.sizes[2])
    weights = tuple(net + int(start) for start in starts[:-1])
    return Side(machine, ("plain_step", (net, x, target)), ("plain_predict", (net, x, output)), weights)


def _theirs(form: str, src: Path, case: Case, data: Data, core: str, build: Build, folder: Path) -> Side:
    sizes = (f"{name}={size}" for name, size in zip(("INPUTS", "HIDDEN", "OUTPUTS"), case.sizes, strict=True))
    defines = [*sizes, f"DENSE={form}", *(["CLASSES"] if case.loss == "cross_entropy" else [])]
    verbs = ("side_bytes", "side_begin", "side_training_bytes", "side_schedule", "side_step", "side_predict")
    library = [path for part in ("base", "default") for path in sorted((src / "basic" / part).rglob("*.c"))]
    machine = Emulator(build([HERE / "aifes.c", *library], [src, HOSTED], defines, verbs), core)
    transposed = form == DENSE[0]
    weights = tuple(_put(machine, each.T if transposed else each) for each in data.weights.values())
    size = machine.call("side_bytes")
    net = machine.allocate(size)
    if machine.call("side_begin", net, *weights) != 0:
        raise RuntimeError("AIfES did not accept the net")
    training = machine.call("side_training_bytes", net)
    if machine.call("side_schedule", net, machine.allocate(training)) != 0:
        raise RuntimeError("AIfES did not accept the memory it asked for")
    x, target, output = _put(machine, data.x[0]), _put(machine, data.one_hot[0]), machine.allocate(4 * case.sizes[2])
    step, predict = ("side_step", (net, x, target)), ("side_predict", (net, x, output))
    return Side(machine, step, predict, weights, transposed, size + training)


def _measure(side: Side, data: Data, one_hot: bool) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Instructions (mean of the steps), bytes; and the weights after the steps."""
    machine = side.machine
    predicted = machine.measure(side.predict[0], *side.predict[1])
    row = {"predict": predicted.instructions, "flash": image_size(machine.image).flash - side.foreign}
    if side.step is None:
        return row | {"ram": side.working + predicted.stack}, {}
    verb, arguments = side.step
    found = []
    for x, target in zip(data.x, data.one_hot if one_hot else data.label, strict=True):
        machine.write(arguments[1], x.tobytes())
        machine.write(arguments[2], target.tobytes())
        found.append(machine.measure(verb, *arguments))
    row |= {
        "step": round(sum(each.instructions for each in found) / STEPS),
        "ram": side.working + max(each.stack for each in found),
    }
    learnt = {}
    for (name, start), address in zip(data.weights.items(), side.weights, strict=True):
        shape = start.T.shape if side.transposed else start.shape
        values = np.frombuffer(machine.read(address, start.nbytes), "<f4").reshape(shape)
        learnt[name] = values.T if side.transposed else values
    return row, learnt


def change(learnt: dict[str, np.ndarray], data: Data) -> np.ndarray:
    """What the steps did to all the weights."""
    return np.concatenate([(learnt[name].astype(float) - start).ravel() for name, start in data.weights.items()])


def _agree(name: str, learnt: dict[str, np.ndarray], ours: np.ndarray, data: Data, away: float) -> None:
    distance = float(np.linalg.norm(change(learnt, data) - ours) / np.linalg.norm(ours))
    if not distance <= away:
        raise RuntimeError(f"{name} learns something else: its change of the weights is {distance:.2g} away from ours")


def compare(case: Case, core: str, build: Build, aifes: Path | None = None) -> dict[str, dict[str, int]]:
    """Rows of the contenders; RuntimeError when they do not learn the same.

    Sums run in different orders: after the few steps no weight moves by 1e-5 of the whole change for it, which is some
    hundred roundings of numbers about 1.
    """
    data, rows = _data(case), {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows[OURS], learnt = _measure(_ours(case, data, core, build, folder), data, one_hot=False)
        ours = change(learnt, data)
        rows[ONLY], _ = _measure(_prediction_only(case, data, core, build, folder), data, one_hot=False)
        rows[PLAIN], learnt = _measure(_plain(case, data, core, build, folder), data, one_hot=False)
        _agree(PLAIN, learnt, ours, data, 1e-5)
        if aifes is not None:
            for form in DENSE:
                row, learnt = _measure(_theirs(form, aifes, case, data, core, build, folder), data, one_hot=True)
                _agree(f"{AIFES} with {form}", learnt, ours, data, case.away)
                rows[AIFES] = min(rows.get(AIFES, row), row, key=lambda each: each["step"])
    return rows


def with_zig(core: str, folder: Path) -> Build:
    """The compiler that builds packages, with its flags."""

    def build(sources: Sequence[Path], include: Sequence[Path], defines: Sequence[str], keep: Sequence[str]) -> Path:
        return compile_image(sources, include, folder / f"{keep[0]}.elf", core, keep=keep, defines=defines)

    return build


def with_gcc(folder: Path) -> Build:
    """arm-none-eabi-gcc with the same flags, for the Cortex-M4F."""

    def build(sources: Sequence[Path], include: Sequence[Path], defines: Sequence[str], keep: Sequence[str]) -> Path:
        objects = compile_objects(sources, include, "cortex-m4", defines=defines, cc=" ".join((GCC, *FPU)))
        image = folder / f"{keep[0]}.elf"
        roots = [f"-Wl,-u,{verb}" for verb in keep]
        flags = ("-nostartfiles", "--specs=nosys.specs", f"-Wl,-e,{keep[0]}", "-Wl,--gc-sections", "-Wl,-N")
        places = ("-Wl,-Ttext=0x08000000", "-Wl,-Tdata=0x20000000")
        subprocess.run([GCC, *FPU, *map(str, objects), *flags, *places, *roots, "-lm", "-o", str(image)], check=True)
        return image

    return build


def sources() -> Path | None:
    """Where AIfES's ``src`` is; None, with a word about it, where there is none."""
    given = os.environ.get("MICROTUNE_AIFES")
    if not given:
        print("  AIfES is left out: MICROTUNE_AIFES does not say where its sources are; its last figures are kept")
        return None
    for folder in (Path(given) / "src", Path(given)):
        if (folder / "aifes_basic.h").is_file():
            return folder
    raise SystemExit(f"MICROTUNE_AIFES={given}: there is no src/aifes_basic.h in it; name a copy of AIfES_for_Arduino")


def version(src: Path) -> str:
    properties = src.parent / "library.properties"
    found = re.search(r"^version=(.+)$", properties.read_text(), re.MULTILINE) if properties.is_file() else None
    return found[1].strip() if found else "of no known version"


def _gcc_version() -> str | None:
    if shutil.which(GCC) is None:
        print(f"  {GCC} is not installed: its last figures are kept")
        return None
    said = subprocess.run([GCC, "-dumpfullversion"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def merged(known: dict[str, Any], measured: dict[str, Any], aifes: str | None, gcc: str | None) -> dict[str, Any]:
    """The section of results.json: what could not be measured now stays, and ``kept`` names it."""
    tables = {**known.get("tables", {}), **measured}
    for place, table in tables.items():
        for case, rows in table.items():
            before = known.get("tables", {}).get(place, {}).get(case, {})
            if AIFES in before and AIFES not in rows:
                rows[AIFES] = before[AIFES]
    kept = [name for name, found in ((AIFES, aifes), ("gcc", gcc)) if found is None]
    return {
        "tables": tables,
        "kept": kept,
        "aifes": aifes or known.get("aifes"),
        "gcc": gcc or known.get("gcc"),
        "zig": metadata.version("ziglang"),
    }


def held(found: dict[str, Any]) -> bool:
    """Whether a step takes as many times fewer instructions than AIfES as promised, where that was ever measured."""
    rows = {case: found["tables"]["cortex-m4"][case.name] for case in CASES}
    return all(row[AIFES]["step"] >= case.fewer * row[OURS]["step"] for case, row in rows.items() if AIFES in row)


def run_aifes() -> bool:
    """False when a limit is missed."""
    print("\ndense nets side by side: a training step, a prediction (instructions), flash, RAM (bytes)")
    src = sources()
    gcc = _gcc_version()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        builds: dict[str, tuple[str, Build]] = {
            core: (core, with_zig(core, folder)) for core in ("cortex-m4", "cortex-m0")
        }
        if gcc:
            builds["cortex-m4, gcc"] = "cortex-m4", with_gcc(folder)
        measured = {
            place: {case.name: compare(case, core, build, src) for case in CASES}
            for place, (core, build) in builds.items()
        }
    known = json.loads(FILE.read_text()).get("dense", {}) if FILE.exists() else {}
    found = merged(known, measured, version(src) if src else None, gcc)
    for place, table in found["tables"].items():
        for case, rows in table.items():
            print(f"  {case} on {place}")
            for name, row in rows.items():
                columns = "".join(f"{row.get(key, '-'):>12}" for key in ("step", "predict", "flash", "ram"))
                print(f"    {name:28}{columns}")
    record("dense", found)
    return held(found)


if __name__ == "__main__":
    raise SystemExit(0 if run_aifes() else 1)
