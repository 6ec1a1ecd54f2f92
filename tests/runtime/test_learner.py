"""The learner's policy on small hand-written devices: what is refused, counted, undone and kept."""

import ctypes
import subprocess
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from microtune.targets import targets
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import (
    compile_image,
    compile_library,
    compile_objects,
    compile_program,
    compile_wasm,
)

from .little_device import (
    BAD_TARGET,
    BINARY,
    CORRUPT,
    F32,
    FOREIGN,
    HERE,
    INCLUDE,
    INVALID,
    MULTICLASS,
    NO_PREDICTION,
    NOT_FINITE,
    OK,
    OUT_OF_RANGE,
    OUTPUTS,
    REGRESSION,
    SOURCES,
    STORAGE,
    STORAGE_FAILED,
    Device,
    Little,
    Metrics,
    Prediction,
    Ram,
    life,
)

# What is refused


@pytest.mark.parametrize("value, status", [
    (np.nan, NOT_FINITE), (np.inf, NOT_FINITE), (-np.inf, NOT_FINITE),
    (2.001, OUT_OF_RANGE), (-3e38, OUT_OF_RANGE),
])  # fmt: skip
@pytest.mark.parametrize("place", range(3))
def test_refused_input_changes_nothing(library: ctypes.CDLL, value: float, status: int, place: int) -> None:
    device = Device(library)
    device.use([0.1, 0.2, 0.3], 1.0)
    device.predict([0.3, 0.2, 0.1])
    before, x = device.memory(), [0.5, 0.5, 0.5]
    x[place] = value
    assert device.predict(x)[0] == status
    assert device.memory() == before
    assert device.metrics.refused == 1
    loss = F32()
    assert device.call("step", (F32 * 3)(*x), (F32 * 3)(1.0), ctypes.byref(loss)) == status
    assert device.memory() == before
    assert device.observe(1.0) == OK  # the prediction before still waits


@pytest.mark.parametrize("task, values", [
    (REGRESSION, [(np.nan,), (np.inf,)]),
    (BINARY, [(np.nan, 0), (0, 1.001), (-0.001, 1), (1, np.inf)]),
    (MULTICLASS, [(np.nan,), (3,), (-1,), (0.5,), (np.inf,), (1e30,)]),
])  # fmt: skip
def test_refused_target_changes_nothing(library: ctypes.CDLL, task: int, values: list[tuple[float, ...]]) -> None:
    device = Device(library, task)
    device.predict([0.1, 0.2, 0.3])
    before = device.memory()
    for number, target in enumerate(values, 1):
        assert device.observe(*target) == BAD_TARGET
        assert device.memory() == before
        assert device.metrics.refused == number
    assert device.observe(1, 1) == OK


def test_target_outside_its_declared_range_is_refused(library: ctypes.CDLL) -> None:
    device = Device(library)
    low, high = (F32 * 1)(-1.0), (F32 * 1)(2.0)
    device.little.model.target_low = ctypes.addressof(low)
    device.little.model.target_high = ctypes.addressof(high)
    device.predict([0.1, 0.2, 0.3])
    assert (device.observe(-1.01), device.observe(2.01)) == (BAD_TARGET, BAD_TARGET)
    assert device.observe(2.0) == OK


def test_observation_pairs_with_one_prediction_once(library: ctypes.CDLL) -> None:
    device = Device(library)
    before = device.memory()
    assert device.observe(1.0) == NO_PREDICTION
    assert device.memory() == before
    device.predict([0.1, 0.2, 0.3])
    assert device.observe(1.0) == OK
    before = device.memory()
    assert device.observe(1.0) == NO_PREDICTION
    assert device.memory() == before
    assert (device.counted.samples.count, device.metrics.observations) == (1, 1)


def test_null_pointers_are_refused(library: ctypes.CDLL) -> None:
    device = Device(library)
    assert device.call("predict", None, (F32 * 3)(), ctypes.byref(Prediction())) == INVALID
    assert device.call("observe", None) == INVALID
    assert device.call("idle", None) == INVALID


# Predictions


def test_predictions_are_the_base_models_and_probabilities(library: ctypes.CDLL) -> None:
    x = np.array([0.3, -0.4, 1.5])
    base = np.array([0.5, -0.25, 0.125, 0.25, 0.5, -0.5, -0.5, 0.25, 0.5, 0, 0, 0])
    for task, outputs in OUTPUTS.items():
        y = base[: 3 * outputs].reshape(outputs, 3) @ x + base[3 * outputs : 4 * outputs]
        status, value, prediction = Device(library, task).predict(list(x))
        assert status == OK
        if task == REGRESSION:
            assert value == pytest.approx(y, abs=1e-6)
            # before any use the standard deviation is taken for the tolerance: P(|z| <= 1) = 0.6827
            assert prediction.confidence == pytest.approx(0.6827, abs=0.01)
        elif task == BINARY:
            p = 1 / (1 + np.exp(-y))
            assert value == pytest.approx(p, abs=1e-6)
            assert prediction.confidence == pytest.approx(np.maximum(p, 1 - p).min(), abs=1e-6)
        else:
            p = np.exp(y) / np.exp(y).sum()
            assert value == pytest.approx(p, abs=1e-6)
            assert prediction.confidence == pytest.approx(p.max(), abs=1e-6)
            assert prediction.best == p.argmax()


def test_confidence_of_a_value_follows_its_errors(library: ctypes.CDLL) -> None:
    """Normal errors of known spread: confidence is the share of them within the tolerance."""
    for spread in (0.1, 0.25, 0.5):
        device, shares = Device(library, every=10_000), []
        generator = np.random.default_rng(5)
        for _ in range(2000):
            _, value, prediction = device.predict([0.1, 0.2, 0.3])
            shares.append(prediction.confidence)
            assert device.observe(value[0] + spread * generator.standard_normal()) == OK
        truth = 2 * NormalDist().cdf(0.25 / spread) - 1
        # 0.01 is the approximation of the normal distribution; a mean square over 34 errors varies by 24 %
        assert np.mean(shares[100:]) == pytest.approx(truth, abs=0.03)


def test_below_the_threshold_the_safe_default_is_given(library: ctypes.CDLL) -> None:
    device = Device(library, threshold=0.99)
    base = device.predict([1.0, 1.0, 1.0])[1]
    device.person().parameters[3] = 7.0  # somewhere else than the base
    _, value, prediction = device.predict([1.0, 1.0, 1.0])
    assert prediction.fallback == 1
    assert value == base
    device.little.fallback[0] = -5.0
    device.little.settings.fallback = ctypes.addressof(device.little) + Little.fallback.offset
    assert device.predict([1.0, 1.0, 1.0])[1] == [-5.0]
    assert device.metrics.fallbacks == 3
    # accepted: the person left the default as it was; but the model's own answer was wrong
    assert device.observe(-5.0) == OK
    assert (device.metrics.overrides, device.counted.hits & 1) == (0, 0)


def test_parameters_gone_bad_give_the_base_with_no_confidence(library: ctypes.CDLL) -> None:
    device = Device(library, threshold=0.1)
    base = device.predict([1.0, 1.0, 1.0])[1]
    device.person().parameters[0] = np.nan
    _, value, prediction = device.predict([1.0, 1.0, 1.0])
    assert (value, prediction.confidence, prediction.fallback) == (base, 0.0, 1)


def test_a_base_that_overflows_is_not_shown_and_spoils_no_counter(library: ctypes.CDLL) -> None:
    device, huge = Device(library, threshold=1.0), (F32 * 12)(*[3e38, -3e38] * 6)
    own = device.predict([2.0, 2.0, 2.0])[1]
    device.little.model.base = ctypes.addressof(huge)
    status, value, prediction = device.predict([2.0, 2.0, 2.0])
    assert (status, value, prediction.fallback) == (OK, own, 1)
    device.person().parameters[0] = np.nan  # and now the model has no answer either
    assert device.observe(1.0) == OK
    assert np.isfinite([device.metrics.mean_error, device.counted.error]).all()


# Forget, reset, report


def test_forget_undoes_the_last_update_and_its_samples(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=20)
    people = life(11, 10) + life(12, 8, offset=-2.0)
    for x, y in people[:10]:
        device.use(x, y)
    after_ten = device.parameters
    samples = list(device.person().samples)[:50]
    for x, y in people[10:]:
        device.use(x, y)
    assert device.metrics.accepted == 3
    assert (device.counted.undo, device.counted.samples.count) == (8, 18)
    assert device.parameters != after_ten
    assert device.call("forget") == OK
    assert device.parameters == after_ten
    kept = device.counted.samples
    assert (device.counted.undo, kept.count, kept.next, device.counted.fresh) == (0, 10, 10, 0)
    assert list(device.person().samples)[:50] == samples
    assert device.metrics.forgets == 1
    assert device.call("forget") == OK
    assert device.parameters == after_ten


def test_forget_drops_the_samples_of_updates_rolled_back_in_between(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=20)
    for x, y in life(13, 5):
        device.use(x, y)
    assert (device.counted.undo, device.counted.since) == (5, 0)
    good = device.parameters
    device.little.settings.epochs = 0
    device.little.model.parameters, kept = 4, device.parameters
    device.little.settings.restart = 0
    device.person().parameters[3] = -9.0
    for x, y in life(14, 5):
        device.use(x, y)
    assert device.metrics.rolled_back == 1
    assert (device.counted.undo, device.counted.since) == (10, 5)
    device.little.settings.epochs, device.little.settings.restart = 20, 1
    for x, y in life(15, 5):
        device.use(x, y)
    assert device.metrics.accepted == 2
    assert (device.counted.undo, device.counted.since) == (10, 0)
    assert good == kept


def test_forget_works_when_the_buffer_has_gone_round(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=5, every=4, folds=0)
    for x, y in life(16, 34):
        device.use(x, y)
    assert (device.counted.samples.count, device.counted.samples.next, device.counted.undo) == (20, 14, 6)
    assert device.call("forget") == OK
    assert (device.counted.samples.count, device.counted.samples.next) == (14, 8)
    for x, y in life(17, 30):
        device.use(x, y)
    assert (device.counted.samples.count, device.counted.samples.next) == (20, 18)


def test_reset_is_the_factory_but_for_the_metrics(library: ctypes.CDLL) -> None:
    device, fresh = Device(library), Device(library)
    for x, y in life(18, 33):
        device.use(x, y)
    assert device.call("reset") == OK
    metrics = Metrics.from_buffer_copy(device.metrics)
    assert (metrics.resets, metrics.observations) == (1, 33)
    ctypes.memmove(ctypes.addressof(device.metrics), bytes(fresh.metrics), ctypes.sizeof(Metrics))
    assert device.saved == fresh.saved
    assert device.report().uses == 0
    assert device.observe(1.0) == NO_PREDICTION


def test_report_counts_uses_and_what_was_right(library: ctypes.CDLL) -> None:
    device = Device(library, every=3)
    for use in range(40):
        _, value, _ = device.predict([0.1, 0.2, 0.3])
        assert device.observe(value[0] + (1.0 if use < 16 else 0.0)) == OK
        report = device.report()
        assert (report.uses, report.samples, report.waiting) == (use + 1, min(use + 1, 20), min(use + 1, 20))
        assert report.learnt == sum(past >= 16 for past in range(max(0, use - 31), use + 1)) / 32
    assert 0 < report.sure <= 1


# Storage


def restarted(device: Device) -> tuple[int, Device]:
    again = Device(device.library, device.task)
    again.little.settings = device.little.settings
    ctypes.memmove(again.little.storage, device.little.storage, STORAGE)
    return again.call("init"), again


@pytest.mark.parametrize("task", OUTPUTS)
def test_state_survives_a_restart(library: ctypes.CDLL, task: int) -> None:
    device = Device(library, task)
    for x, _ in life(19, 23):
        device.use(x, 1.0, 0.0)
    assert device.call("save") == OK
    status, again = restarted(device)
    assert status == OK
    assert again.saved == device.saved
    assert again.little.ram.pending[0] == 0
    for x, _ in life(20, 23):
        device.use(x, 0.0, 0.0)
        again.use(x, 0.0, 0.0)
    assert again.saved == device.saved


def test_saved_after_update_forget_and_reset(library: ctypes.CDLL) -> None:
    device = Device(library)
    for x, y in life(21, 10):
        device.use(x, y)
    assert device.metrics.saves == 2
    for call in ("forget", "reset"):
        assert device.call(call) == OK
        assert bytes(restarted(device)[1].little.ram.saved) == device.saved
    slots = library.mt_store_slots(ctypes.byref(device.little.port), len(device.saved))
    assert slots > 2 and device.metrics.saves == 2 + 2 * slots  # what is forgotten waits in no older state


def test_failing_storage_is_said_and_the_device_goes_on(library: ctypes.CDLL) -> None:
    device, healthy = Device(library), Device(library)
    device.little.broken = 1
    for x, y in life(22, 5):
        healthy.use(x, y)
        device.predict(x)
        device.observe(y)
    device.idle(expected=STORAGE_FAILED)
    assert (device.metrics.saves, device.metrics.accepted) == (0, 1)
    assert device.parameters == healthy.parameters
    assert device.call("forget") == STORAGE_FAILED
    device.little.broken = 0
    assert device.call("save") == OK


def test_damaged_and_foreign_states_give_the_base_and_say_so(library: ctypes.CDLL) -> None:
    device = Device(library)
    base = device.parameters
    for x, y in life(23, 10):
        device.use(x, y)
    damaged = Device(library)
    ctypes.memmove(damaged.little.storage, bytes(byte ^ 1 for byte in device.little.storage), STORAGE)
    assert damaged.call("init") == CORRUPT
    foreign = Device(library)
    ctypes.memmove(foreign.little.storage, device.little.storage, STORAGE)
    foreign.little.model.identity += 1
    assert foreign.call("init") == FOREIGN
    for found in (damaged, foreign):
        assert found.parameters == base
        assert (found.counted.samples.count, found.metrics.recoveries) == (0, 1)
        for x, y in life(24, 5):
            found.use(x, y)
        assert restarted(damaged)[0] == OK


# The same everywhere


def test_long_lives_under_sanitizers_give_the_same_bits_as_without(tmp_path: Path) -> None:
    """Random lives under every setting with nonsense, restarts and failing storage (lives.c)."""
    sources = [HERE / "lives.c", HERE / "little_device.c", *SOURCES]
    outcomes = []
    for sanitize in (False, True):
        program = compile_program(sources, INCLUDE, tmp_path / f"lives{sanitize}", sanitize=sanitize)
        result = subprocess.run([program], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        outcomes.append(result.stdout)
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0].strip()) == 8


CORES = [target for target in targets() if target.emulated]


@pytest.mark.parametrize("task", OUTPUTS)
def test_same_memory_on_every_machine(tmp_path: Path, task: int) -> None:
    """Predictions, updates, forget and saves: all RAM of the device and what it stored, byte for byte."""
    sources = [HERE / "little_device.c", *SOURCES]
    machines: dict[str, Machine] = {
        "host": HostMachine(compile_library(sources, INCLUDE, tmp_path / "l.so")),
        "wasm32": WasmMachine(compile_wasm(sources, INCLUDE, tmp_path / "l.wasm")),
    }
    for core in CORES:
        image = compile_image(sources, INCLUDE, tmp_path / f"{core.name}.elf", core)
        machines[core.name] = Emulator(image, core)
    outcomes = {}
    for name, machine in machines.items():
        little = machine.allocate(machine.call("little_size"))
        x, y, output, result = (machine.allocate(32) for _ in range(4))
        machine.call("little_create", little, task, 1)
        assert machine.call("little_init", little) == OK
        for number, (context, value) in enumerate(life(25, 24)):
            machine.write(x, np.array(context, "<f4").tobytes())
            target = [value] if task == REGRESSION else [float(value > 1), float(value > 0.5)]
            machine.write(y, np.array(target, "<f4").tobytes())
            assert machine.call("little_predict", little, x, output, result) == OK
            assert machine.call("little_observe", little, y) == OK
            assert machine.call("little_idle", little, result) == OK
            if number == 7:
                assert machine.call("little_learning_mode", little, 3) == OK
            if number == 13:
                assert machine.call("little_forget", little) == OK
            if number == 15:
                assert machine.call("little_select_profile", little, 1) == OK
            if number == 22:
                assert machine.call("little_forget_last", little, 2) == OK
        outcomes[name] = machine.read(little, ctypes.sizeof(Ram)), machine.read(result, 20)
    assert {name: outcome == outcomes["host"] for name, outcome in outcomes.items()} == dict.fromkeys(machines, True)


@pytest.mark.parametrize("name", [target.name for target in targets()])
def test_compiles_without_a_warning(name: str) -> None:
    assert len(compile_objects(SOURCES, INCLUDE, name, strict=True)) == len(SOURCES)
