"""The Bayesian head in C against docs/bayes.md done anew in float64 (bayes_oracle.py): by matrix inversion, and by
really leaving samples out; its samples, its slices, its bits."""

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtune.targets.emulator import Emulator
from microtune.targets.machine import Machine
from microtune.targets.wasm import WasmMachine
from microtune.toolchain import compile_image, compile_program, compile_wasm

from .bayes_oracle import UNIT, Array, contexts, head, of_buffer, phi, posterior, prior
from .bayes_probe import JUDGED, RUNTIME, SOURCES, TOASTER, Settings


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    hidden=st.integers(1, 16),
    inputs=st.integers(1, 5),
    bumps=st.integers(0, 2),
    uses=st.integers(1, 90),
    noise=st.floats(0.0, 1.0),
    change=st.sampled_from((0.0, 2.0)),
)
def test_refit_is_the_posterior_of_the_buffer(
    bayes_host: Machine, seed: int, hidden: int, inputs: int, bumps: int, uses: int, noise: float, change: float
) -> None:
    """Guards mean, variance, priors, leave-one-out losses, noise, robust weights and the judgement."""
    rng = np.random.default_rng(seed)
    device = head(bayes_host, seed, hidden=hidden, inputs=inputs, bumps=bumps)
    taste, visited = rng.normal(0.0, 0.3, inputs), contexts(rng, uses, inputs)
    for use, x in enumerate(visited):
        y = 0.7 + taste @ x + change * (use >= uses // 2) + noise * rng.normal()
        device.observe(x, float(np.float32(y)))
        if use < uses - 1:
            device.refit()
    known = device.snapshot()
    judgement = device.refit()
    fitted = device.snapshot()

    s, r = known.settings, known.state["noise"]
    features, residuals, weights, _ = of_buffer(device, known)
    exact = posterior(features, residuals, weights, known.precision)
    assert np.linalg.norm(exact.scale * (fitted.mean - exact.mean)) <= exact.slack + 1e-6
    assert exact.relative < 0.1, "the bound must say something"
    wanted = 2.0 / (prior(s) + fitted.mean**2)
    wanted[inputs] = 1.0 / s["bias_variance"]
    np.testing.assert_allclose(fitted.precision, wanted, rtol=8 * UNIT)

    # leave one out, really
    judged = range(max(0, len(residuals) - JUDGED), len(residuals))
    errors, variances, slacks = [], [], []
    for i in judged:
        q = features[i] @ exact.covariance @ features[i]
        leverage = min(weights[i] * q, 0.95)
        if leverage < 0.95:
            others = np.arange(len(residuals)) != i
            without = posterior(features[others], residuals[others], weights[others], known.precision)
            errors.append(residuals[i] - features[i] @ without.mean)
            variances.append(features[i] @ without.covariance @ features[i] + r)
        else:
            errors.append((residuals[i] - features[i] @ exact.mean) / (1.0 - leverage))
            variances.append(q / (1.0 - leverage) + r)
        along = exact.slack * float(np.linalg.norm(features[i] / exact.scale)) + 16 * UNIT * (
            abs(known.targets[i]) + float(np.abs(features[i] * exact.mean).sum())
        )
        # relative error of 1 - h, then of the error and the variance
        amplified = leverage / (1.0 - leverage) * exact.relative + 8 * UNIT
        slacks.append((along / (1.0 - leverage) + abs(errors[-1]) * amplified, exact.relative + amplified))
    error, variance = np.array(errors), np.array(variances)
    slack, relative = np.array(slacks).T
    change_weights, squared = np.maximum(known.change_weights[judged], 0.0), error**2
    bound = s["outlier_squared"] * variance
    off = 2.0 * np.abs(error) * slack + slack**2 + bound * relative + 1e-6 * squared + 1e-9

    losses = change_weights * np.minimum(squared, bound)
    base_losses = change_weights * np.minimum(residuals[judged] ** 2, bound)
    total = change_weights.sum()
    assert judgement.samples == len(judged)
    if total > 0:
        tolerance = float((change_weights * off).sum() / total) + 1e-6
        assert judgement.personal == pytest.approx(losses.sum() / total, rel=1e-5, abs=tolerance)
        assert judgement.base == pytest.approx(base_losses.sum() / total, rel=1e-5, abs=tolerance)
        difference = losses.sum() - base_losses.sum() - math.sqrt(((losses - base_losses) ** 2).sum())
        if abs(difference) > 3.0 * total * tolerance + 1e-5 * base_losses.sum():
            assert fitted.state["standing"] == (difference <= 0.0)
    counted = change_weights > 0.5
    if counted.any():
        n = counted.sum()
        median = np.median((squared * r / variance)[counted])
        expected = (s["noise_uses"] * s["noise"] + n * 2.19 * median) / (s["noise_uses"] + n)
        # the median moves no more than the sample that moves most
        loose = 2.19 * float((off + squared * relative)[counted].max()) * 2.0
        assert fitted.state["noise"] == pytest.approx(max(expected, s["noise_floor"]), rel=1e-5, abs=loose)
    clear = np.abs(squared - bound) > 2.0 * off
    robust = np.where(squared > bound, bound / np.maximum(squared, 1e-30), 1.0)
    allowed = 2.0 * off / np.maximum(squared, 1e-9) + relative + 1e-5
    assert np.all((np.abs(fitted.robust_weights[judged] - robust) <= allowed) | ~clear)


def test_prediction_is_mean_and_variance_of_the_posterior(bayes_host: Machine) -> None:
    rng = np.random.default_rng(3)
    for seed in range(10):
        device = head(bayes_host, seed)
        for x in contexts(rng, 40):
            device.observe(x, float(np.float32(x[0] + 0.1 * rng.normal())))
            known = device.snapshot()
            device.refit()
        features, residuals, weights, _ = of_buffer(device, known)
        exact = posterior(features, residuals, weights, known.precision)
        now = device.snapshot()
        assert now.state["standing"] == 1
        for x in contexts(rng, 20):
            row, base = phi(device, known, x, 0.0)
            value, variance = device.predict(x)
            q = row @ exact.covariance @ row
            slack = exact.slack * float(np.linalg.norm(row / exact.scale)) + 1e-6
            assert value == pytest.approx(base + row @ exact.mean, abs=slack)
            assert variance - now.state["noise"] == pytest.approx(q, rel=exact.relative + 1e-5, abs=1e-7)
            assert slack < 0.3 and exact.relative < 0.1


def test_room_is_made_where_it_is_missed_least(bayes_host: Machine) -> None:
    """A full buffer drops the oldest of a crowd, and otherwise the oldest: what is rare stays known."""
    device = head(bayes_host, buffer=8)
    spots = [[1.0] * 5] + [[-1.0] * 5] * 7
    for x in spots + [[-1.0] * 5] * 20:
        device.observe(np.array(x), 0.1)
        device.refit()
    after = device.snapshot()
    assert after.state["count"] == 8 and np.all(after.contexts[0] == 1.0)
    assert list(after.ages) == [27.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    for x in np.eye(5) * 4.0:
        device.observe(x, 0.1)
        device.refit()
    assert not np.any(np.all(device.snapshot().contexts == 1.0, axis=1))


# Slices, time.


def test_a_refit_in_slices_is_the_refit_to_the_bit(bayes_host: Machine) -> None:
    """Predictions in between are those of before, and change nothing; what is dropped half-way leaves no trace."""
    for hidden, uses in ((16, 1), (16, 80), (3, 30)):
        whole, sliced = head(bayes_host, 4, hidden=hidden), head(bayes_host, 4, hidden=hidden)
        rng = np.random.default_rng(uses)
        for x in contexts(rng, uses):
            y = float(np.float32(0.8 + x[0] * 0.2 + 0.1 * rng.normal()))
            whole.observe(x, y)
            sliced.observe(x, y)
            before, saved, slices = sliced.predict(x), sliced.saved(), 1
            sliced.slice()
            sliced.restart()
            assert sliced.saved() == saved
            while (found := sliced.slice()) is None:
                assert sliced.predict(x) == before and sliced.saved() == saved
                slices += 1
            judgement = whole.refit()
            assert bytes(found) == bytes(judgement)
            assert sliced.saved() == whole.saved()
        assert slices >= (20 if uses > 64 and hidden == 16 else 3)


def test_samples_can_be_dropped_by_number_and_by_time(bayes_host: Machine) -> None:
    device = head(bayes_host)
    rng = np.random.default_rng(2)
    visited = contexts(rng, 80)
    for day, x in enumerate(visited):
        device.settle(time=1000 + 100 * day)
        device.observe(x, 0.5)
        device.refit()
    assert list(device.snapshot().times) == [1000 + 100 * day for day in range(16, 80)]
    assert [device.since(time) for time in (8901, 8900, 8800, 0)] == [0, 1, 2, 64]
    device.drop_newest(2)
    assert device.snapshot().times[-1] == 1000 + 100 * 77
    assert device.since(1000 + 100 * 70, now=1000 + 100 * 80) == 8
    assert device.since(0, now=100) == 0  # a clock that starts again from zero, and no use since
    device.drop_newest(8)
    assert list(device.snapshot().times) == [1000 + 100 * day for day in range(16, 70)]
    # a clock that starts again from zero: what lies before it is not of the last hour
    for time in (0, 50, 50, 120):
        device.settle(time=time)
        device.observe(visited[0], 0.5)
    assert device.since(0) == 4 and device.since(50) == 3
    # all bits of a stamp survive being moved about
    device.settle(time=0xFFA00001)
    device.observe(visited[0], 0.5)
    for x in visited[:40]:
        device.settle(time=0xFFC12345)
        device.observe(x, 0.5)
    assert 0xFFA00001 in device.snapshot().times and device.since(0xFFC12345) == 40
    device.drop_newest(1000)
    assert device.snapshot().state["count"] == 0


# Robustness.

EXTREMES = st.sampled_from((-1000.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1000.0)) | st.floats(-1000.0, 1000.0, width=32)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(uses=st.lists(st.tuples(st.lists(EXTREMES, min_size=5, max_size=5), EXTREMES), min_size=1, max_size=70))
def test_nothing_finite_makes_it_infinite(bayes_host: Machine, uses: list[tuple[list[float], float]]) -> None:
    device = head(bayes_host)
    for x, y in uses:
        device.observe(x, y)
        judgement = device.refit()
        value, variance = device.predict(x)
        assert math.isfinite(value) and math.isfinite(variance) and variance > 0.0
        assert math.isfinite(judgement.personal) and math.isfinite(judgement.base)
    probe = device.memory()
    for name in ("samples", "centres", "precision", "mean", "covariance"):
        assert np.isfinite(np.array(getattr(probe, name)[:])).all(), name  # no stamps were given: zero
    assert math.isfinite(probe.state.noise) and np.isfinite(probe.state.surprises[:] + probe.state.evidence[:]).all()


def lives() -> Iterator[tuple[Array, Array]]:
    rng = np.random.default_rng(5)
    visited = contexts(rng, 70)
    wanted = 0.6 + 0.2 * visited[:, 0] + 1.2 * (np.arange(70) >= 40) + 0.05 * rng.normal(size=70)
    yield visited, wanted.astype(np.float32).astype(float)


def test_same_bits_on_every_machine(bayes_host: Machine, tmp_path: Path) -> None:
    machines: dict[str, Machine] = {"wasm32": WasmMachine(compile_wasm(SOURCES, [RUNTIME], tmp_path / "bayes.wasm"))}
    for core in ("cortex-m0", "cortex-m4", "cortex-m33"):
        machines[core] = Emulator(compile_image(SOURCES, [RUNTIME], tmp_path / f"{core}.elf", core, strict=True), core)
    for visited, wanted in lives():
        reference = head(bayes_host)
        others = {name: head(machine) for name, machine in machines.items()}
        for use, (x, y) in enumerate(zip(visited, wanted, strict=True)):
            for device in (reference, *others.values()):
                device.observe(x, float(y))
                device.refit()
            if use in (0, 39, 45, 69):
                for name, device in others.items():
                    assert device.saved() == reference.saved(), f"{name} differs after use {use}"


def test_cost_on_a_cortex_m4(tmp_path: Path) -> None:
    """A full buffer, random weights: no fewer hidden neurons awake than in the toaster's networks."""
    machine = Emulator(compile_image(SOURCES, [RUNTIME], tmp_path / "bayes.elf", "cortex-m4"), "cortex-m4")
    device = head(machine)
    rng = np.random.default_rng(5)
    for x in contexts(rng, 70):
        device.observe(x, float(np.float32(0.6 + 0.2 * x[0] + 0.05 * rng.normal())))
        device.refit()
    known = device.snapshot()
    assert known.state["count"] == 64 and np.all(known.change_weights > 0.0), "every sample counts"
    predict = machine.measure("probe_predict", device.address, device.room, device.room + 64)
    refit = machine.measure("probe_refit", device.address, device.room)
    slices: list[int] = []
    while not slices or device.memory().cursor[0] or device.memory().cursor[1]:
        slices.append(machine.measure("probe_slice", device.address, device.room).instructions)
    assert max(slices) < 20_000 and sum(slices) < 1.01 * refit.instructions + 100 * len(slices)
    assert predict.instructions < 3_000
    assert refit.instructions < 280_000
    assert max(predict.stack, refit.stack) < 700


def test_clean_under_the_sanitizers(tmp_path: Path) -> None:
    """Addresses and undefined behaviour, through jumps, outliers and inputs beyond all scale."""
    main = Path(__file__).parent / "bayes_main.c"
    program = compile_program([main, *SOURCES[:-1]], [RUNTIME], tmp_path / "main", sanitize=True)
    values = Settings(**{name: int(v) if i < 4 else v for i, (name, v) in enumerate(TOASTER.items())})
    result = subprocess.run([program], input=bytes(values), capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == b"64\n"
