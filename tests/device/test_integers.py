"""Whole packages of integers only: lives under the sanitizers, all machines, power cuts, learning, time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor
from tests.compiler.living import live
from tests.tuning.networks import random_int8_net

import microtune as mt
from microtune.compiler.layout import lay_out
from microtune.compiler.sources import write_sources
from microtune.errors import DeviceError, PlanError
from microtune.frontends.builder import Builder
from microtune.inspection import read_image
from microtune.inspection.image import METRICS, METRICS_AT
from microtune.interface import ORIGINS, interface_of
from microtune.ir import Graph, verify
from microtune.targets.arithmetic import floating_point_in
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_library, compile_wasm
from microtune.tuning.losses import Loss

PORT = Path(mt.__file__).parent / "targets"
CORES = ("cortex-m0", "cortex-m4", "cortex-m33", "riscv32")  # a year on cortex-m3 and -m7: test_same_bits.py
COMPILERS = tuple(each for each in ("gcc -O3", "clang -O0") if shutil.which(each.partition(" ")[0]))


def dense_net(seed: int, inputs: int, outputs: int, size: float = 1.0) -> Graph:
    """Two branches by look-ups and a gate, added up, as int8; weights of this size."""
    r = np.random.default_rng(seed)
    builder = Builder("net")
    x = builder.input("x", (inputs,))

    def layer(name: str, source: Any, count: int, op: str = "") -> Any:
        weight = builder.constant(f"{name}.w", size * r.normal(size=(count, source.size)) / source.size**0.5, "test")
        bias = builder.constant(f"{name}.b", 0.3 * r.normal(size=count), "test")
        made = builder.emit("dense", [source, weight, bias], name, "test")
        return builder.emit(op, [made], f"{name}.{op}", "test") if op else made

    one, two, gate = (layer(op, x, 6, op) for op in ("tanh", "relu", "sigmoid"))
    gated = builder.emit("multiply", [two, gate], "gated", "test")
    together = builder.emit("add", [one, gated], "together", "test")
    net = verify(builder.finish(layer("last", together, outputs), "test"))
    return mt.quantize(net, r.normal(size=(60, inputs)).astype(np.float32))


def random_plan(seed: int) -> mt.Plan:
    """Any net, scheme, loss, optimiser and way of learning that go together in integers."""
    r = np.random.default_rng(seed)
    images = seed % 3 == 2
    graph = random_int8_net(r) if images else dense_net(seed, int(r.integers(2, 6)), 3, float(r.choice([0.3, 1, 4])))
    outputs = graph.tensor(graph.outputs[0]).size
    regression, half = seed % 4 in (0, 3), [0.5, 0.25, 0.25, 0.0][:outputs]
    losses: list[str | Loss] = ["mse", "cross_entropy", "binary_cross_entropy", mt.Huber(0.5)]
    optimizer = mt.SGD(float(r.choice([0.01, 0.3, 8.0])), momentum=float(r.choice([0.0, 0.5, 0.99])),
                       decay=float(r.choice([0.0, 0.01])))  # fmt: skip
    schemes = [mt.Full(), mt.Head(1), mt.Head(2), mt.Bias(), mt.Sparse({0: 1.0, 1: 0.5}, biases_from=1)]
    ways: list[dict[str, Any]] = [
        {"folds": 5}, {"folds": 2, "restart": False}, {"folds": 0}, {"folds": 0, "restart": False, "in_place": True},
    ]  # fmt: skip
    learner = mt.Learner(
        buffer=8, every=4, epochs=int(r.integers(1, 3)), replay=int(r.choice([0, 5])), log=int(r.choice([0, 3])),
        profiles=int(r.integers(1, 3)), slice=int(r.choice([0, 7])), recency=float(r.choice([0.0, 3.0])),
        pull=float(r.choice([0.0, 0.01, 1.0])), disuse=float(r.choice([0.0, 30.0])),
        caution=float(r.choice([0.0, 0.5])), threshold=float(r.choice([0.0, 0.6])),
        tolerance=float(r.choice([0.0625, 5.0, 32767.0])),
        fallback=None if r.integers(2) else [32767.0, -32767.0, 0.0, 0.25][:outputs] if regression else half,
        **ways[int(r.integers(len(ways)))],
    )  # fmt: skip
    return mt.plan(graph, schemes[seed % len(schemes)], losses[seed % 4], optimizer, learner, precision="int8")


HEADS: dict[str, tuple[str, Any]] = {
    "rls": ("mse", mt.RLS(0.9)), "map": ("cross_entropy", mt.MAP()), "slda": ("cross_entropy", mt.SLDA(memory=10)),
    "logistic": ("binary_cross_entropy", mt.Logistic()),
}  # fmt: skip


def head_plan(kind: str, **given: Any) -> mt.Plan:
    loss, head = HEADS[kind]
    graph, r = dense_net(1, 4, 3), np.random.default_rng(0)
    x = r.normal(size=(60, 4)).astype(np.float32)
    y = {"rls": r.normal(size=(60, 3)), "logistic": r.integers(0, 2, (60, 3))}.get(kind, r.integers(0, 3, 60))
    learner = mt.Learner(**{"buffer": 8, "every": 4, "folds": 2, "profiles": 2, "log": 3, "disuse": 30, **given})
    return mt.plan(graph, loss=loss, optimizer=head, learner=learner, calibration=(x, y), precision="int8")


@pytest.mark.slow
def test_whole_lives_are_clean_under_the_sanitizers(tmp_path: Path) -> None:
    """Any bytes as inputs, both ends, targets at the ends of all numbers, steps far too large, rotten storage."""
    plans = {f"net{seed}": random_plan(seed) for seed in range(9)}
    plans |= {f"{kind}{folds}": head_plan(kind, folds=folds) for kind, folds in zip(HEADS, (0, 2, 0, 2), strict=True)}
    updates = live(plans, tmp_path, lives=8)
    assert all(updates.values()), updates


# One build on all machines


def image_plan(momentum: float = 0.9) -> mt.Plan:
    """A net of convolutions, one of them depthwise, that learns as a whole with a momentum and a pull."""
    graph = random_int8_net(np.random.default_rng(4))
    learner = mt.Learner(buffer=6, every=3, epochs=2, folds=0, replay=4, pull=0.01, recency=4.0, log=2)
    optimizer = mt.SGD(0.1, momentum=momentum, decay=0.01)
    return mt.plan(graph, mt.Full(), "cross_entropy", optimizer, learner, precision="int8")


def everywhere_plans() -> dict[str, mt.Plan]:
    sgd = mt.Learner(buffer=8, every=4, epochs=1, folds=2, profiles=2, tolerance=0.25)
    found = {
        "image": image_plan(),
        "plain": mt.plan(dense_net(2, 4, 3), mt.Full(), mt.Huber(0.5), mt.SGD(0.1), sgd, precision="int8"),
        "yes": mt.plan(dense_net(3, 4, 3), mt.Head(1), "binary_cross_entropy", mt.SGD(0.1), sgd, precision="int8"),
    }
    return found | {kind: head_plan(kind) for kind in HEADS}


def compiled(compiler: str, sources: list[Path], include: list[Path], output: Path) -> Path:
    """A library by a compiler of this machine, in one go."""
    flags = ["-std=c99", "-shared", "-fPIC", "-ffp-contract=off", *(f"-I{each}" for each in include)]
    subprocess.run([*compiler.split(), *flags, "-o", output, *sources], check=True)
    return output


def lived(plan: mt.Plan, name: str, machine: Machine, uses: int) -> bytes:
    """The saved state, the storage and all answers after so many uses; one in four inputs lies at the ends."""
    layout, fixed = lay_out(plan), interface_of(True)
    device = machine.allocate(machine.pointer_size + layout.bytes + 8)
    size = int(np.prod(plan.graph.tensor(plan.graph.inputs[0]).shape))
    outputs = plan.programs.head.graph.tensor(plan.programs.head.graph.outputs[-1]).size
    port, storage, x, y, output, result = (machine.allocate(each) for each in (64, 16384, size + 4, 64, 64, 64))
    machine.call("mt_memory_port_create", port, storage, 16384, 256)
    r = np.random.default_rng(5)
    answers = []

    def call(verb: str, *arguments: int) -> None:
        assert machine.call(f"{name}_{verb}", device, *arguments) == 0, verb

    call("init", port)
    for use in range(uses):
        values = r.integers(-128, 128, size)
        values = r.choice([-128, 127], size) if use % 4 == 3 else values
        wish = {
            "MT_REGRESSION": np.where(use % 7 == 6, 32767.0, 1.0) * np.tanh(values[:3] / 64.0),
            "MT_BINARY": (values[:3] > 0).astype(float),
            "MT_MULTICLASS": np.array([float(np.sum(values[:2] > 0))]),
        }[plan.loss.task]
        machine.write(x, values.astype(np.int8).tobytes())
        machine.write(y, fixed.written(wish.astype(np.float32)).tobytes())
        call("predict", x, output, result)
        answers.append(machine.read(output, 4 * outputs) + machine.read(result, 4))
        call("observe", y)
        call("idle", result)
        answers.append(machine.read(result, 16))
        if use % 10 == 9:
            call("step", x, y, result)
            if plan.learner.profiles > 1:
                call("select_profile", use // 10 % 2)
        if use == uses // 2:
            call("forget_last", 2)
            call("save")
            call("init", port)
    call("save")
    state = machine.read(device + machine.pointer_size, layout.saved)
    return state + machine.read(storage, 16384) + b"".join(answers)


@pytest.mark.slow
def test_the_same_bits_on_all_machines_by_all_compilers_without_floats(tmp_path: Path) -> None:
    """Convolutions, momentum, pulls, all losses and all heads in one image, which has no floating point on any core."""
    plans, written = everywhere_plans(), set[Path]()
    for name, plan in plans.items():
        written.update(write_sources(plan, name, tmp_path))
    together = tmp_path / "together.c"  # compiled at once, they cost a third
    together.write_text("".join(f'#include "{name}.c"\n' for name in plans))
    runtime = sorted(each for each in written if each.suffix == ".c" and each.stem not in plans)
    sources, include = [*runtime, together, PORT / "memory_port.c"], [tmp_path, PORT]
    verbs = ("init", "predict", "observe", "idle", "step", "select_profile", "forget_last", "save")
    keep = [f"{name}_{verb}" for name in plans for verb in verbs if (name, verb) != ("image", "select_profile")]
    keep.append("mt_memory_port_create")
    host = HostMachine(compile_library(sources, include, tmp_path / "host.so"))
    want = {name: lived(plan, name, host, 60) for name, plan in plans.items()}
    fresh = {name: lived(plan, name, host, 1) for name, plan in plans.items()}
    for name, plan in plans.items():
        learnt, layout = lay_out(plan).field("parameters"), lay_out(plan)
        assert want[name][learnt.offset : layout.saved] != fresh[name][learnt.offset : layout.saved]
    machines: dict[str, Machine] = {
        "wasm32": WasmMachine(compile_wasm(sources, include, tmp_path / "all.wasm", exports=keep))
    }
    for index, compiler in enumerate(COMPILERS):
        machines[compiler] = HostMachine(compiled(compiler, sources, include, tmp_path / f"by{index}.so"))
    for core in CORES:
        image = compile_image(sources, include, tmp_path / f"{core}.elf", core, keep=keep)
        assert floating_point_in(image) == (), core
        machines[core] = Emulator(image, core)
    for where, machine in machines.items():
        for name, plan in plans.items():
            assert lived(plan, name, machine, 60) == want[name], f"{name} on {where} differs from the host's"


# Storage


class Clock:
    """Seconds that a test sets."""

    now = 1e6

    def __call__(self) -> float:
        return self.now


class Failing:
    """A file whose power fails at one of its writes, in the middle of it."""

    def __init__(self, file: Any, writes: int) -> None:
        self.file, self.left = file, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.left -= 1
        if self.left < 0:
            self.file.write(data[: len(data) // 2])
            raise OSError("no power")
        return int(self.file.write(data))


def person(x: np.ndarray) -> np.ndarray:
    """What somebody wants, (n, 2) or (2,)."""
    return np.stack([0.8 * np.tanh(2 * x[..., 0]) + 0.3, -0.5 * x[..., 1]], axis=-1)


def base_net() -> Graph:
    """(4) -> (2): knows half of what the person wants, in int8."""
    x = np.random.default_rng(0).uniform(-1, 1, (400, 4)).astype(np.float32)
    base = MLPRegressor(hidden_layer_sizes=[12], max_iter=400, random_state=0, tol=1e-5).fit(x, 0.5 * person(x) - 0.2)
    return mt.quantize(mt.load(base), calibration=x)


WAYS: dict[str, Any] = {"buffer": 30, "every": 5, "epochs": 8, "folds": 2, "restart": False, "tolerance": 0.25}


def learning(optimizer: Any = None, precision: str = "int8", learn: Any = None, **ways: Any) -> mt.Plan:
    learner = mt.Learner(**WAYS | ways)
    learn = learn or mt.Full()
    return mt.plan(base_net(), learn, "mse", optimizer or mt.SGD(0.05, momentum=0.5), learner, precision=precision)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., mt.Package]:
    """One package for each choice of ``learning``."""
    made: dict[str, mt.Package] = {}

    def package(**given: Any) -> mt.Package:
        if repr(given) not in made:
            made[repr(given)] = mt.build(learning(**given), tmp_path_factory.mktemp("integers") / "net")
        return made[repr(given)]

    return package


def use(device: mt.Device, uses: int, seed: int = 1) -> None:
    for x in np.random.default_rng(seed).uniform(-1, 1, (uses, 4)):
        device.predict(x)
        device.observe(person(x))
        device.idle()


def error_of(device: mt.Device) -> float:
    x = np.random.default_rng(2).uniform(-1, 1, (150, 4))
    found = np.array([device.predict(each).value for each in x])
    return float(np.sqrt(np.mean((found - person(x)) ** 2)))


def test_power_fails_at_every_write_of_a_save(build: Callable[..., mt.Package], tmp_path: Path) -> None:
    """What is found again is what was saved before or what was to be saved, whole."""
    file = tmp_path / "device.state"
    device = mt.Device(build(log=2), file)
    use(device, 20)
    device.save()

    def kept(state: bytes) -> bytes:
        """But the count of saves, which a save that fails behind its last word counts on the storage alone."""
        at = METRICS_AT[1] + 4 * METRICS[1].index("saves")
        return state[:at] + state[at + 4 :]

    for writes in range(100):
        saved = device.state()
        for x in np.random.default_rng(writes).uniform(-1, 1, (4, 4)):
            device.predict(x)
            device.observe(person(x))
        assert device._storage is not None
        # a file that fails stands in for one that does not
        whole, device._storage._file = device._storage._file, Failing(device._storage._file, writes)  # type: ignore
        try:
            device.save()
        except DeviceError as error:
            assert error.status == "MT_STORAGE_FAILED"
        finished = device._storage._file.left >= 0
        wanted = device.state()
        whole.flush()
        device = mt.Device(build(log=2), file)
        assert kept(device.state()) in (kept(saved), kept(wanted))
        if finished:
            assert writes >= 3 and device.state() == wanted
            return
    raise AssertionError("a save that never ends")


def test_what_was_learnt_goes_to_another_build_of_integers_and_to_no_other(
    build: Callable[..., mt.Package], tmp_path: Path
) -> None:
    """Other settings, another learning rate too, keep the parameters; floats and another scale are not misread."""
    file = tmp_path / "device.state"
    device = mt.Device(build(log=2), file)
    use(device, 40)
    device.save()
    learnt, image = device.parameters(), file.read_bytes()

    def started(package: mt.Package, content: bytes) -> mt.Device:
        copy = tmp_path / "copy.state"
        copy.write_bytes(content)
        return mt.Device(package, copy)

    for given in ({"optimizer": mt.SGD(0.02)}, {"pull": 0.3, "folds": 0}):
        found = started(build(**given), image).parameters()
        assert all(np.array_equal(found[name], learnt[name]) for name in learnt)
    for precision in ("float32", "mixed"):
        other = build(optimizer=mt.SGD(0.05), precision=precision)
        base, found = mt.Device(other), started(other, image)
        assert found.status().origin == ORIGINS["MT_STATE_FOREIGN"]
        for name, value in found.parameters().items():
            assert np.array_equal(value, base.parameters()[name])
        with_floats = tmp_path / f"{precision}.state"
        device = mt.Device(other, with_floats)
        use(device, 20)
        device.save()
        again, fresh = started(build(log=2), with_floats.read_bytes()), mt.Device(build(log=2))
        assert again.status().origin == ORIGINS["MT_STATE_FOREIGN"]
        assert all(np.array_equal(value, fresh.parameters()[name]) for name, value in again.parameters().items())


def test_inspect_tells_of_fixed_point_what_the_device_does(build: Callable[..., mt.Package], tmp_path: Path) -> None:
    file = tmp_path / "device.state"
    device = mt.Device(build(log=2), file)
    use(device, 33)
    device.save()
    found, metrics, status = read_image(file), device.metrics(), device.status()
    assert found.state is not None and found.state.metrics is not None and found.log is not None
    told = {each.name: getattr(metrics, each.name) for each in fields(metrics)}
    assert found.state.metrics == pytest.approx({**told, "saves": metrics.saves}, rel=1e-6)
    (somebody,) = found.state.people
    assert somebody.uses == 33 and somebody.recent == 32
    assert somebody.confidence == pytest.approx(status.sure, abs=1e-6)
    newest = found.log.records[-1]
    assert newest.uses <= 33 and newest.error is not None
    assert newest.error == pytest.approx(metrics.mean_error, rel=0.1)
    assert newest.confidence == pytest.approx(status.sure, abs=0.05)


# Learning


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_person_is_learnt_as_well_as_with_floats(build: Callable[..., mt.Package], momentum: float) -> None:
    """Half of the base's error goes at least, and at most a quarter more is left than float32 leaves."""
    left = {}
    for precision in ("float32", "int8"):
        device = mt.Device(build(optimizer=mt.SGD(0.05, momentum=momentum), precision=precision))
        before = error_of(device)
        use(device, 120)
        left[precision] = error_of(device)
        assert left[precision] < before / 2
    assert left["int8"] <= 1.25 * left["float32"] + 0.01


def test_with_nothing_to_learn_nothing_moves(build: Callable[..., mt.Package]) -> None:
    """10,000 steps without an error leave all as it was; as many with errors of both signs in turn, nearly."""
    device = mt.Device(build(optimizer=mt.SGD(0.05, momentum=0.5)))
    inputs = np.random.default_rng(3).uniform(-1, 1, (20, 4))
    answers = np.array([device.predict(x).value for x in inputs])
    start = device.parameters()
    for step in range(10_000):
        assert device.step(inputs[step % 20], answers[step % 20]) == 0
    assert all(np.array_equal(value, start[name]) for name, value in device.parameters().items())
    for step in range(10_000):
        device.step(inputs[step % 20], answers[step % 20] + (0.1 if (step + step // 20) % 2 else -0.1))
    moved = np.array([device.predict(x).value for x in inputs]) - answers
    assert np.abs(moved).max() < 0.1 and abs(moved.mean()) < 0.02


def test_a_pull_ends_at_the_base(build: Callable[..., mt.Package]) -> None:
    """With steps too small to learn by, whatever was loaded goes back to the base, to the last weight, and stays."""
    package = build(optimizer=mt.SGD(1e-6), pull=0.05, folds=0)
    device = mt.Device(package)
    base = device.parameters()
    r = np.random.default_rng(4)
    far = {k: np.clip(v + r.integers(-60, 61, v.shape), -128, 127).astype(v.dtype) for k, v in base.items()}
    device.load_parameters(far)
    assert error_of(device) > 0
    use(device, 60)
    assert all(np.array_equal(value, base[name]) for name, value in device.parameters().items())


def test_disuse_takes_all_back_once_most_would_be_gone(build: Callable[..., mt.Package]) -> None:
    clock = Clock()
    device = mt.Device(build(disuse=30), clock=clock)
    base = device.parameters()
    use(device, 40)
    for days, gone in ((20, False), (31, True), (40_000, True)):
        learnt = device.parameters()
        assert any(not np.array_equal(value, base[name]) for name, value in learnt.items())
        clock.now += 86400 * days
        device.predict(np.zeros(4))
        kept = base if gone else learnt
        assert all(np.array_equal(value, kept[name]) for name, value in device.parameters().items())
        device.observe(person(np.zeros(4)))
        device.idle()
        use(device, 20)


def test_what_fixed_point_cannot_hold_is_refused_by_the_plan() -> None:
    for given, what in (
        ({"tolerance": 40_000}, "tolerance"), ({"recency": 40_000}, "recency"), ({"fallback": [0, 1e5]}, "fallback"),
        ({"optimizer": mt.SGD(1e5)}, "lr"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=rf"{what}.*32767.*precision='float32'"):
            learning(**given)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    grams = MLPRegressor(hidden_layer_sizes=[3], max_iter=300, random_state=0, solver="lbfgs").fit(x, 1e5 * x[:, 0])
    with pytest.raises(PlanError, match=r"outputs .* beyond 32767.*scale them down"):
        mt.plan(mt.quantize(mt.load(grams), calibration=x), mt.Full(), "mse", mt.SGD(), precision="int8")
    with pytest.raises(PlanError, match="delta"):
        mt.plan(base_net(), mt.Full(), mt.Huber(1e5), mt.SGD(), precision="int8")
