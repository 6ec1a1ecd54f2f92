"""Closed-form heads in integers, under the sanitizers: the bits of their references, on every machine; real arithmetic
to within derived bounds; and covariances that stay covariances, whatever comes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.sanitized_kernels import SanitizedKernels

from microtune.compiler.sources import runtime_directory
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle, unpacked
from microtune.ops.closed_form_fixed import PRIOR
from microtune.ops.scaled import FIXED_ONE, LARGEST, Scaled, fixed_exp, fixed_sigmoid, scaled_of
from microtune.targets.arithmetic import floating_point_in
from microtune.targets.emulator import Emulator
from microtune.toolchain import compile_image, compile_program

HEADS = ("fixed_rls", "fixed_map", "fixed_logistic", "fixed_slda")
EDGES = (-(2**31), -LARGEST, -FIXED_ONE, -1, 0, 1, FIXED_ONE, LARGEST)
Attributes = dict[str, Any]


def attributes(unit: float = 2.0**-45, one: int = 6, zero: int = -100, forgetting: float = 1.0) -> Attributes:
    """unit: what 1 of the covariance stands for."""
    held = scaled_of(unit)
    return {
        "x_zero": zero, "one": one, "unit": held.mantissa, "unit_exponent": held.exponent,
        "forgetting": round(forgetting * 2**30), "grow": round(2**30 / forgetting),
        "most_weight": round(PRIOR * forgetting), "most_bias": round(PRIOR / 4 * forgetting),
        "walk": 2**31 // 200, "places": 20, "memory": 30 << 8,
    }  # fmt: skip


def arrays(op: str, outputs: int, inputs: int, r: np.random.Generator) -> list[np.ndarray]:
    """Weight, bias, state and constants of a head before its first sample."""
    layer = [r.integers(-(2**22), 2**22, (outputs, inputs)), r.integers(-(2**18), 2**18, outputs)]
    if op == "fixed_slda":
        means = r.integers(-255 << 22, (255 << 22) + 1, outputs * inputs)
        root = r.normal(size=(inputs, inputs)) + 2 * np.eye(inputs)
        precision = root @ root.T
        constants = [packed(precision / precision.max() * 2**29), -r.integers(0, 2**18, outputs)]
        state = np.concatenate([means, r.integers(0, 4, outputs) << 8, [0]])
    else:
        variances = np.append(np.full(inputs, PRIOR), PRIOR // 4)
        state = packed(np.diag(variances))
        constants = [variances] if op == "fixed_logistic" else []
        state = np.tile(state, outputs if op == "fixed_logistic" else 1)
    return [np.asarray(each).astype(np.int32) for each in (*layer, state, *constants)]


def sample(op: str, x: np.ndarray, y: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    return [x, target] if op == "fixed_slda" else [x, y, target]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    r, none = np.random.default_rng(0), np.zeros(3, np.int32)
    examples: dict[str, Any] = {
        op: ([*arrays(op, 3, 2, r), *sample(op, np.zeros(2, np.int8), none, none)], attributes()) for op in HEADS
    }
    examples["dense_fixed"] = ([np.zeros(2, np.int8), np.zeros((3, 2), np.int32), none], attributes())
    found = SanitizedKernels(tmp_path_factory.mktemp("fixed"), examples)
    yield found
    found.close()


def test_exponential_and_sigmoid_are_the_runtime_s() -> None:
    """By their promise, 2^-16 steps of real values; that they are the C's own bits, the heads' bits show."""
    x = np.linspace(-14 * FIXED_ONE, 10 * FIXED_ONE, 4001).astype(int)
    real = np.exp(x / FIXED_ONE) * FIXED_ONE
    assert np.all(np.abs([fixed_exp(int(each)) for each in x] - real) <= 0.5 + real * 2.0**-17)
    assert np.all(np.abs([fixed_sigmoid(int(each)) for each in x] - FIXED_ONE / (1 + np.exp(-x / FIXED_ONE))) <= 1)


@settings(max_examples=25, deadline=None)
@given(
    outputs=st.integers(2, 5), inputs=st.integers(1, 70), one=st.integers(0, 12), zero=st.integers(-128, 127),
    places=st.integers(-110, -10), forgetting=st.sampled_from([1.0, 0.98, 0.51]), seed=st.integers(0, 2**32 - 1),
    wild=st.booleans(),
)  # fmt: skip
def test_c_gives_the_bits_of_the_reference(
    kernels: SanitizedKernels, outputs: int, inputs: int, one: int, zero: int, places: int, forgetting: float,
    seed: int, wild: bool,
) -> None:  # fmt: skip
    """Six samples of each head, wild ones with every number at an end of what its type holds."""
    r = np.random.default_rng(seed)
    told = attributes(2.0**places, one, zero, forgetting)
    for op in HEADS:
        before = arrays(op, outputs, inputs, r)
        if wild:
            # no sum is ever the lowest int32
            before[:2] = [r.choice(EDGES[1:], each.shape).astype(np.int32) for each in before[:2]]
        for _ in range(6):
            x = r.choice([-128, 127], inputs) if r.integers(2) else r.integers(-128, 128, inputs)
            layer = [x.astype(np.int8), *before[:2]]
            (y,) = kernels.run("dense_fixed", layer, told)
            np.testing.assert_array_equal(y, OPS["dense_fixed"].reference(layer, told)[0])
            targets = EDGES if wild else (0, FIXED_ONE)
            target = r.choice(targets if op in ("fixed_rls", "fixed_logistic") else (0, FIXED_ONE), outputs)
            given_ = [*before, *sample(op, layer[0], y, target.astype(np.int32))]
            found, expected = kernels.run(op, given_, told)[:3], OPS[op].reference(given_, told)[:3]
            for have, want in zip(found, expected, strict=True):
                np.testing.assert_array_equal(have, want, op)
            before = [*found, *before[3:]]
        if op in ("fixed_rls", "fixed_map"):
            _positive(unpacked(before[2].astype(np.float64)))


def _positive(covariance: np.ndarray) -> None:
    """Positive semidefinite; eigenvalues in float64 are off by no more than this."""
    values = np.linalg.eigvalsh(covariance)
    assert values[0] >= -len(covariance) * 2.0**-50 * values[-1]


@settings(max_examples=12, deadline=None)
@given(
    inputs=st.integers(1, 20), steps=st.integers(1, 60), places=st.integers(-60, -38), seed=st.integers(0, 2**32 - 1)
)
def test_the_covariance_is_the_inverse_of_all_information(
    kernels: SanitizedKernels, inputs: int, steps: int, places: int, seed: int
) -> None:
    """P = (P0^-1 + sum phi phi')^-1 of least squares. A step that is off by less than e P leaves all that follow off
    by less than e P, since the step keeps the order of covariances and shrinks no more than they do."""
    r = np.random.default_rng(seed)
    told = attributes(2.0**places)
    unit, before = float(Scaled(told["unit"], told["unit_exponent"])), arrays("fixed_rls", 1, inputs, r)
    exact, off = unpacked(before[2].astype(np.float64)), 0.0
    for _ in range(steps):
        x = r.integers(-128, 128, inputs).astype(np.int8)
        phi = np.append(x.astype(np.float64) + 100, 64.0)
        gain = exact @ phi
        factor = unit / (1 + unit * (phi @ gain))
        # mt_fixed_covariance_learn: what is added to the diagonal is more than what rounding does; the factor is cut
        # off at 28 places, and the variance is too large by one unit of the gains for each step of the input
        largest = np.abs(gain).max() * 2 * (1 + off)
        rounding = (inputs + 1) * (3 + 16 * factor * largest**2 / 2**30)
        exact = exact - factor * np.outer(gain, gain)
        cut = 2.0**-28 + factor * (255 * inputs + 64) * largest * 2.0**-29
        off = (1 + off) * (1 + 2 * rounding / np.linalg.eigvalsh(exact)[0]) * (1 + cut) - 1
        y = np.zeros(1, np.int32)
        before = list(kernels.run("fixed_rls", [*before, x, y, y], {**told, "most_weight": 0})[:3])
    found = unpacked(before[2].astype(np.float64))
    _positive(found)
    scale = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    assert np.abs(found - exact).max() <= min(off, 1.0) * scale.max()
    if places > -45 and inputs == 1:
        assert off < 0.1  # the bound says something


def _real(inputs: list[np.ndarray], told: Attributes) -> list[np.ndarray]:
    """What a head in floats is given for the same sample: phi = [x, 1], so the bias is one of 2^one."""
    unit = float(Scaled(told["unit"], told["unit_exponent"]))
    each = np.append(np.ones(inputs[0].shape[1]), 2.0 ** told["one"])
    matrix = unpacked(inputs[2].astype(np.float64)) * unit * each[:, None] * each[None, :]
    weight, bias = inputs[0] / 2.0**24, inputs[1] / 2.0**16
    numbers = [x / 65536 for x in inputs[-2:]]
    return [weight, bias, packed(matrix), inputs[-3].astype(np.float64) - told["x_zero"], *numbers]


def _uncertain(op: str, y: np.ndarray, moderation: float, relative: float) -> tuple[float, float]:
    """What a probability is off by when the moderation is, by that share of it; and the curvature."""
    if op == "fixed_rls":
        return 0.0, 1.0
    logit = y * moderation
    # the root has 23 places; the product is rounded; so are exponential and sigmoid, to a step and 2^-17 of itself
    off = float(np.ptp(logit) if op == "fixed_map" else np.abs(logit).max()) * (relative + 2.0**-21) + 2.0**-17
    if op == "fixed_logistic":
        p = 1 / (1 + np.exp(-logit))
        return off / 4 + 2.0**-16, float((p * (1 - p)).max())
    p = np.exp(logit - logit.max())
    p = p / p.sum()
    return 2 * (off + 2.0**-17) + (y.size + 2) * 2.0**-17, max(0.05, float((p * (1 - p)).max()))


@settings(max_examples=30, deadline=None)
@given(
    op=st.sampled_from(HEADS[:3]), inputs=st.integers(1, 30), places=st.integers(-70, -42),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_sample_moves_weights_as_in_real_numbers(
    kernels: SanitizedKernels, op: str, inputs: int, places: int, seed: int
) -> None:
    """From any state, a step is the float head's in float64, but for 16 places of probabilities."""
    r = np.random.default_rng(seed)
    outputs = 3 if op == "fixed_map" else 1
    told = {**attributes(2.0**places), "walk": 0}
    before = arrays(op, outputs, inputs, r)
    root = r.normal(size=(inputs + 1, inputs + 1))
    root /= np.sqrt((root**2).sum(axis=1, keepdims=True))
    before[2] = packed(np.round((root @ root.T + np.eye(inputs + 1)) * PRIOR / 2.1)).astype(np.int32)
    x = r.integers(-128, 128, inputs).astype(np.int8)
    (y,) = kernels.run("dense_fixed", [x, *before[:2]], told)
    target = r.integers(0, 2, outputs).astype(np.int32) * FIXED_ONE
    found = kernels.run(op, [*before, x, y, target], told)
    weight, bias, rows, real_x, real_y, real_target = _real([*before[:3], x, y, target], told)
    most = [np.full(inputs + 1, 1e30)] if op == "fixed_logistic" else []
    reads = [2 / outputs * (real_y - real_target)] if op == "fixed_rls" else [real_y, real_target]
    expected = OPS[op.removeprefix("fixed_")].reference(
        [weight, bias, rows, *most, real_x, *reads], {"forgetting": 1.0, "prior": 0.0, "walk": 0.0}
    )
    phi = np.append(real_x, 1.0)
    gain = unpacked(rows) @ phi
    variance = float(gain @ phi)
    # gains are cut off at 30 places of the largest, and so is the variance, by that for each step of the input
    cut = max(np.abs(gain[:-1]).max(), abs(gain[-1]) / 64) * 2.0**-29
    relative = (255 * inputs + 64) * cut / variance + 2.0**-26
    wrong, curvature = _uncertain(op, real_y, (1 + np.pi / 8 * variance) ** -0.5, relative)
    spread = 1 + curvature * variance
    least = max(1.0, spread - variance * wrong)
    error = float(np.abs(expected[0] - weight).max() / np.abs(gain[:-1]).max() * spread)
    step = wrong / least + error / spread * (variance * wrong / least + relative)
    largest = error / spread + step
    for off, each, short, place in (
        (found[0] / 2.0**24 - expected[0], gain[:-1], cut, 2.0**-24),
        (found[1] / 2.0**16 - expected[1], gain[-1:], 64 * cut, 2.0**-16),
    ):
        allowed = np.abs(each) * (step + largest * 2.0**-27) + largest * short + 2 * place
        assert np.all(np.abs(off) <= allowed), op


def test_slda_is_the_discriminant_of_its_means(kernels: SanitizedKernels) -> None:
    """Means follow their samples, rounded to 22 places once a step; every row is the discriminant of its mean."""
    r = np.random.default_rng(4)
    outputs, inputs, told = 3, 24, attributes()
    before = arrays("fixed_slda", outputs, inputs, r)
    before[3] >>= 6  # so that no weight is beyond 128
    means = before[2][: outputs * inputs].reshape(outputs, inputs) / 2.0**22
    worth = before[2][outputs * inputs : -1] / 256
    for _ in range(50):
        x, label = r.integers(-128, 128, inputs).astype(np.int8), int(r.integers(outputs))
        target = np.array([label * FIXED_ONE, 0, 0], np.int32)
        before[:3] = kernels.run("fixed_slda", [*before, x, target], told)[:3]
        means[label] += (x.astype(float) + 100 - means[label]) / (worth[label] + 1)
        worth[label] = min(worth[label] + 1, 30)
    found = before[2][: outputs * inputs].reshape(outputs, inputs) / 2.0**22
    # each step: rounded by 1/2, its share cut off at 30 places of at most 510
    np.testing.assert_allclose(found, means, rtol=0, atol=51 * (0.5 * 2.0**-22 + 510 * 2.0**-29))
    np.testing.assert_array_equal(before[2][outputs * inputs : -1], worth * 256)
    assert before[2][-1] == FIXED_ONE
    precision = unpacked(before[3].astype(np.float64))
    weight = found @ precision * 2.0 ** (22 - 15 - 20 - 24)
    coarse = np.abs(precision).sum(axis=1).max() * 2.0 ** -(20 + 24) + 2.0**-25  # means to 7 places, cut off
    np.testing.assert_allclose(before[0] / 2.0**24, weight, rtol=0, atol=coarse)
    offsets = before[4] / 65536 - np.sum(weight * found, axis=1) / 2
    reach = np.abs(found).sum(axis=1).max() * coarse + np.abs(weight).sum(axis=1).max() * 2.0**-7
    np.testing.assert_allclose(before[1] / 65536, offsets, rtol=0, atol=reach + 2.0**-16)


C, H = 3, 12  # OUTPUTS and INPUTS of fixed_heads.c
LAYER = 4 * (C * H + C + C * triangle(H + 1) + 1)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("fixed_heads.c")
    folder = tmp_path_factory.mktemp("life")
    include = [runtime_directory()]
    return compile_program([source], include, folder / "heads", sanitize=True, defines=["HEADS_HOSTED"])


def _lived(life: Path, head: int, samples: int, exponent: int) -> np.ndarray:
    run = subprocess.run([life, str(head), str(samples), str(exponent)], capture_output=True, check=False)
    assert run.returncode == 0 and not run.stderr, run.stderr.decode()
    return np.frombuffer(run.stdout, np.int32)


@pytest.mark.parametrize("exponent", [-80, -62, -45])
@pytest.mark.parametrize("head", range(4))
def test_a_hundred_thousand_samples(life: Path, head: int, exponent: int) -> None:
    """Under the sanitizers: nothing overflows, no variance is ever negative, and what is left is a covariance. The
    largest unit makes a prior variance of one step 2^-14, a standard deviation of 8000 steps' worth of certainty."""
    found = _lived(life, head, 100_000, exponent)
    assert found[-1] == 0
    for rows in np.split(found[C * H + C : -1], C)[: (1, 1, C, 0)[head]]:
        _positive(unpacked(rows.astype(np.float64)))


def test_the_same_bits_on_every_core(life: Path, tmp_path: Path) -> None:
    """Cortex-M0, whose products are put together from halves, and M4; each head, sixty samples; and no float there."""
    source, include = [Path(__file__).with_name("fixed_heads.c")], [runtime_directory()]
    images = {
        core: compile_image(source, include, tmp_path / f"{core}.elf", core, keep=["begin", "live"])
        for core in ("cortex-m0", "cortex-m4")
    }
    assert [floating_point_in(image) for image in images.values()] == [(), ()]
    cores = {core: Emulator(image, core) for core, image in images.items()}
    for head in range(4):
        for exponent in (-80, -45):
            expected = _lived(life, head, 60, exponent)
            for core, emulator in cores.items():
                emulator.call("begin", head, 2463534242)
                emulator.call("live", head, 60, exponent % 2**32)
                found = np.frombuffer(emulator.read(emulator.symbol("layer"), LAYER), np.int32)
                np.testing.assert_array_equal(found, expected, f"{core} {head} {exponent}")
