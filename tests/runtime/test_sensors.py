"""mt_sensors.c: broken sensors are found within the uses that docs/sensors.md states, healthy people almost never."""

import math
from pathlib import Path

import numpy as np
import pytest
from examples.heart import world as heart
from examples.thermostat import world as thermostat
from examples.toaster import world as toaster
from examples.wearer import data as wearer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from microtune.errors import PlanError
from microtune.simulation import PEOPLE, live
from microtune.simulation.habits import CHANGE_AT
from microtune.targets.emulator import Emulator
from microtune.toolchain import compile_image
from microtune.tuning.learner import Input
from microtune.tuning.sensors import WINDOW, SensorModel, Sensors, sensor_models

from .sensors_probe import DRIFT, HERE, MODEL, RANGE, RUNTIME, SANE, SENSOR, SOURCES, STUCK, Device, Probe, Table, table

POPULATIONS = {
    "toaster": (toaster.WORLD, toaster.population(0)[0]),
    "thermostat": (thermostat.WORLD, thermostat.population(thermostat.WORLD, 0)[0]),
    "heart": (heart.WORLD, heart.population(0)[0]),
}
DYING_DRIFTS = 100
"""Uses that the dying sensor of people.py drifts before it stands still."""
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def named(count: int) -> list[Input]:
    return [Input(f"input {i}") for i in range(count)]


def models_of(samples: object, **chosen: object) -> tuple[SensorModel, ...]:
    columns = np.asarray(samples, float)
    columns = columns[:, None] if columns.ndim == 1 else columns
    return sensor_models(columns, named(columns.shape[1]), Sensors(**chosen) if chosen else None)  # type: ignore[arg-type]


def everyday(model: str = "normal", size: int = 1000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=size) if model == "normal" else np.where(rng.random(size) < 0.6, -1.0, rng.random(size))


# One kind of fault after the other


def test_a_constant_input_is_stuck_after_exactly_the_uses_stated(sensors: Probe) -> None:
    (model,) = models_of(everyday())
    assert 2 < model.same <= 10
    rng = np.random.default_rng(1)
    for kept in (0.3, 0.0, -0.0, -2.5):
        device = Device(sensors, table([model]))
        flags = device.check([*rng.normal(size=20), *[kept] * 40, *rng.normal(size=30)])[:, 0]
        found = np.flatnonzero(flags == STUCK)
        # flagged from the use numbered `same` of the same value, until SANE others came in a row
        assert found.tolist() == list(range(20 + model.same - 1, 60 + SANE - 1)), kept
        assert flags.max() == STUCK


def test_the_common_value_may_be_kept_for_ever_and_no_other(sensors: Probe) -> None:
    (model,) = models_of(everyday("mostly still"))
    assert (model.common, model.off) == (-1.0, {})
    assert not Device(sensors, table([model])).check([-1.0] * 500).any()
    flags = Device(sensors, table([model])).check([0.37] * 500)[:, 0]
    assert np.flatnonzero(flags)[0] == model.same - 1


def test_a_wild_value_is_flagged_at_once_and_forgiven_after_sane_uses(sensors: Probe) -> None:
    (model,) = models_of(everyday())
    usual = np.random.default_rng(2).normal(size=60)
    for wild in (model.high * 1.01, model.low * 1.01, 3.4e38, -3.4e38):
        x = usual.copy()
        x[20] = wild
        flags = Device(sensors, table([model])).check(x)[:, 0]
        assert np.flatnonzero(flags).tolist() == list(range(20, 20 + SANE)), wild
        assert set(flags.tolist()) == {0, RANGE}


@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (-1, -1 / 3, 1 / 3, 1), tuple(range(7)), (0.1, 0.2, 0.4)])
def test_an_input_of_few_values_takes_no_others(sensors: Probe, values: tuple[float, ...]) -> None:
    (model,) = models_of(np.resize(values, 500))
    assert model.step > 0 and set(model.off) == {"stuck", "drift"}
    device = Device(sensors, table([model]))
    assert not device.check(np.resize(values, 100)).any()
    for value in values:
        assert not device.check([value] * 50).any(), "a person may always use one"
        for wrong in (value + 0.02 * model.step, value - 0.02 * model.step, value + model.step / 2):
            assert device.check([wrong] + [value] * SANE)[:, 0].tolist() == [RANGE] * SANE + [0]


# shifts in standard deviations of a normal input, 1000 samples: uses within which every one of 100 was found
SHIFTS = {5: 50, 6: 25, 8: 10}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_is_found_within_the_uses_stated(sensors: Probe, shift: int) -> None:
    models = models_of(np.stack([everyday(seed=seed) for seed in range(100)], axis=1))
    x = np.random.default_rng(3).normal(size=(200, 100))
    x[100:] += shift * np.resize((1.0, -1.0), 100)
    flags = Device(sensors, table(models)).check(x)
    assert not flags[:100].any()
    assert flags[100 : 100 + SHIFTS[shift]].any(axis=0).all()


def test_a_slow_drift_is_found_by_its_mean_before_any_value_is_out_of_range(sensors: Probe) -> None:
    (model,) = models_of(np.random.default_rng(4).uniform(-1, 1, 1000))
    drifting = np.random.default_rng(5).uniform(-0.2, 0.2, 400) + 0.005 * np.arange(400)
    device = Device(sensors, table([model]))
    flags = device.check(drifting)[:, 0]
    first = int(np.flatnonzero(flags)[0])
    assert flags[first] == DRIFT
    # the mean lags by the window; its limit is an eighth of the range outside of the samples
    assert abs(drifting[first] - (1.25 + 0.005 * WINDOW)) < 0.25
    back = device.check(np.random.default_rng(6).uniform(-1, 1, 60))[:, 0]
    assert back[0] and not back[2 * WINDOW :].any(), "repaired"


# The figures of the issue: people of every example


@pytest.mark.parametrize("name", POPULATIONS)
def test_healthy_people_are_not_suspected(sensors: Probe, name: str) -> None:
    """Fewer than 1 use in 1000, all people of the simulator, two years each."""
    world, samples = POPULATIONS[name]
    models = table(sensor_models(samples, [Input(each) for each in world.inputs]))
    uses = alarms = 0
    for number, person in enumerate(each for each in PEOPLE.values() if each.name != "dying_sensor"):
        device = Device(sensors, models)
        for year in live(person, world, number).years(730, 3.0):
            alarms += int(device.check(year.context).any(axis=1).sum())
            uses += len(year)
    assert uses > 20_000
    assert alarms < 1e-3 * uses


def test_people_wearing_a_phone_are_not_suspected(sensors: Probe) -> None:
    """43 inputs, windows in the order they were taken, of people the constants were not learnt from."""
    if not (wearer.DEFAULT_PATH / "wisdm.npz").is_file():
        pytest.skip(f"the WISDM data are not in {wearer.DEFAULT_PATH}; they do not ship with microtune")
    windows = wearer.load()
    uses = alarms = 0
    for fold in wearer.folds(windows, 0):
        x = wearer.scale_of(windows, fold.train).apply(windows.features)
        for samples, most in ((fold.train, 0), (fold.train[:300], 1e-3)):
            models = table(models_of(x[samples]))
            for person in fold.held_out:
                flags = Device(sensors, models).check(x[windows.person == person])
                alarms += int(flags.any(axis=1).sum())
                uses += len(flags)
            assert alarms <= most * uses
    assert uses == 2 * 5418


@pytest.mark.parametrize("name", POPULATIONS)
def test_every_dying_sensor_is_found(sensors: Probe, name: str) -> None:
    """One of few values within 5 uses of its decay, any other within 8 of standing still; then it stays flagged."""
    world, samples = POPULATIONS[name]
    rows = sensor_models(samples, [Input(each) for each in world.inputs])
    died = set()
    for seed in range(60):
        uses = live(PEOPLE["dying_sensor"], world, seed).uses(200)
        told, truth = np.array([use.context for use in uses]), np.array([use.surroundings for use in uses])
        (which,) = np.flatnonzero((told != truth).any(axis=0))
        flags = Device(sensors, table(rows)).check(told)
        first = int(np.flatnonzero(flags[:, which])[0])
        dead = CHANGE_AT + DYING_DRIFTS
        if rows[which].step > 0:
            wrong = np.flatnonzero(told[:, which] != truth[:, which])
            assert CHANGE_AT <= first <= wrong[0] + 1 and first < CHANGE_AT + 5
        else:
            assert CHANGE_AT <= first < dead + rows[which].same <= dead + 8
        if not near_a_value(rows[which], told[-1, which]):
            assert flags[dead + 10 :, which].all(), "no longer learnt"
        assert not np.delete(flags, which, axis=1).any(), "the others are sane"
        died.add(which)
    assert len(died) == len(world.inputs)


def near_a_value(row: SensorModel, value: float) -> bool:
    """A sensor that got stuck at a value it often has, to within 1 part in 128 of a step, is like one always there."""
    return row.step > 0 and (value - row.low) / row.step % 1.0 <= 1 / 64 + 1e-6


# Any sequence


@st.composite
def rows(draw: st.DrawFn, inputs: int) -> Table:
    """Constants such as sensor_models can give."""
    found = []
    for _ in range(inputs):
        low, width = draw(st.floats(-100, 100, width=32)), draw(st.sampled_from([0.5, 3.0, 1000.0]))
        steps, same, window = (draw(st.sampled_from(few)) for few in ([0.0, 0.25], [0, 2, 5, 255], [0, 1, 16, 255]))
        found.append((low, low + width, steps * width, low + 0.2 * width, low + 0.8 * width, low, same, window))
    return np.array(found, MODEL)


@PROPERTY
@given(data=st.data(), inputs=st.integers(1, 3), uses=st.integers(1, 60))
def test_any_inputs_in_any_state_stay_finite_and_recover(
    sensors: Probe, data: st.DataObject, inputs: int, uses: int
) -> None:
    models = data.draw(rows(inputs))
    device = Device(sensors, models)
    raw = data.draw(st.binary(min_size=SENSOR.itemsize * inputs, max_size=SENSOR.itemsize * inputs))
    device.state = np.frombuffer(raw, SENSOR).copy()
    flags = device.check(data.draw(arrays(np.float32, (uses, inputs), elements=FINITE)))
    assert flags.max() <= (RANGE | STUCK | DRIFT)
    watched = models["window"] > 0
    assert np.isfinite(device.state["mean"][watched]).all() and np.isfinite(device.state["last"]).all()
    # then sane uses: two values in turn, on the grid where there is one
    low, width = models["low"].astype(float), (models["high"] - models["low"]).astype(float)
    sane = np.where(np.arange(800)[:, None] % 2, low + (0.25 + 1 / 512) * width, low + (0.75 + 1 / 512) * width)
    assert not device.check(sane)[-1].any()


@PROPERTY
@given(
    x=st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.25, 0.5, 0.7, 2.0, 5.0]), min_size=1, max_size=120),
    same=st.sampled_from([0, 2, 4]), window=st.sampled_from([0, 1, 8]), step=st.sampled_from([0.0, 0.25]),
)  # fmt: skip
def test_flags_follow_from_all_uses_so_far(sensors: Probe, x: list[float], same: int, window: int, step: float) -> None:
    """Each use is judged anew from the whole history in float64: runs counted backwards, the mean as weights."""
    low, high, mean_low, mean_high = -2.0 if step == 0 else -2.0 - step / 128, 4.0, -0.5, 1.0
    models = np.array([(low, high, step, mean_low, mean_high, 2.0, same, window)], MODEL)
    flags = Device(sensors, models).check(x)[:, 0]
    failed = []
    for use, value in enumerate(x):
        fault = 0
        grid = step > 0 and abs(value / step - round(value / step)) > 1e-6
        if not low <= value <= high or grid:
            fault |= RANGE
        run = next((n for n in range(use + 1) if x[use - n] != value), use + 1)
        if same and run >= same and value != 2.0:
            fault |= STUCK
        if window and use + 1 >= window:
            mean = weighted_mean(np.clip(x[: use + 1], low, high), window)
            if min(abs(mean - mean_low), abs(mean - mean_high)) < 1e-4:
                return  # rounding may decide
            if not mean_low < mean < mean_high:
                fault |= DRIFT
        failed.append(fault)
        quiet = next((n for n in range(use + 1) if failed[use - n]), None)
        if quiet is None or quiet >= SANE:
            assert flags[use] == 0
        else:
            # all that was found since the last SANE uses without a fault
            since = use
            while since > 0 and any(failed[max(0, since - SANE) : since]):
                since -= 1
            assert flags[use] == np.bitwise_or.reduce(failed[since : use + 1])


def weighted_mean(x: np.ndarray, window: int) -> float:
    """Each new value has the weight 1 / min(uses, window), and the older ones share the rest."""
    shares = 1.0 / np.minimum(np.arange(1, len(x) + 1), window)
    weights = shares * np.append(np.cumprod((1.0 - shares)[::-1])[::-1][1:], 1.0)
    assert math.isclose(weights.sum(), 1.0)
    return float(weights @ x)


# Constants


def test_what_cannot_be_tested_says_why() -> None:
    rng = np.random.default_rng(0)
    columns = {
        "always 3 in the samples": (np.full(1000, 3.0), {"range", "stuck", "drift"}),
        "takes 2 values": (rng.integers(0, 2, 1000), {"stuck", "drift"}),
        "not even the commonest value": (np.arange(5500) % 12 * 0.9 + np.arange(5500) % 5 // 4, {"stuck"}),
        "kept for 200 samples": (np.concatenate([np.full(200, 0.5), *[[0.1]] * 300, rng.normal(size=5000)]), {"stuck"}),
        "more than 1e+30 apart": (rng.normal(size=1000) * 1e35, {"range", "stuck", "drift"}),
    }
    found = models_of(np.stack([np.resize(column, 5500) for column, _ in columns.values()], axis=1))
    for row, (why, (_, off)) in zip(found, columns.items(), strict=True):
        assert set(row.off) == off, why
        assert all(why in reason for reason in row.off.values()), row.off
        assert all(math.isfinite(value) for value in row.constants.values())
        assert all(f"no test '{test}': " in row.comment for test in off)
    plain = models_of(everyday(), stuck=False, drift=False)[0]
    assert (plain.same, plain.window, set(plain.off)) == (0, 0, {"stuck", "drift"})
    assert set(models_of(everyday(), ignore=("input 0",))[0].off) == {"range", "stuck", "drift"}


def test_few_samples_make_wide_ranges_and_slow_inputs_patience() -> None:
    few, many = (
        models_of(np.resize((-1.0, -0.3, 0.1, 1.0), size) + 1e-3 * everyday(size=size))[0] for size in (100, 1000)
    )
    assert (round(few.high, 1), round(many.high, 1)) == (4.2, 2.0)
    assert (round(few.mean_high, 2), round(many.mean_high, 2)) == (1.79, 1.25)
    slow = np.repeat(everyday(size=500), 7)
    assert models_of(slow)[0].same == 15, "twice the longest run, and one"


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.zeros((99, 2)), "99 samples; to know what is usual for the sensors at least 100 are needed"),
        (np.zeros((200, 3)), r"shape \(200, 3\).*must be \(samples, 2\)"),
        (np.zeros(200), "shape"),
        (np.full((200, 2), [0.0, np.nan]), "sample 0 has nan for the input 'motion'"),
    ],
)
def test_calibration_that_will_not_do(samples: np.ndarray, problem: str) -> None:
    with pytest.raises(PlanError, match=problem):
        sensor_models(samples, [Input("hour"), Input("motion")])
    with pytest.raises(PlanError, match=r"no input 'wind'\. There are: hour, motion"):
        sensor_models(np.zeros((200, 2)), [Input("hour"), Input("motion")], Sensors(ignore=("wind",)))


# The same on a microcontroller


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4"])
def test_same_bits_and_little_work_on_a_microcontroller(sensors: Probe, core: str, tmp_path: Path) -> None:
    world, samples = POPULATIONS["toaster"]
    models = table(sensor_models(samples, [Input(each) for each in world.inputs]))
    x = np.array([use.context for use in live(PEOPLE["dying_sensor"], world, 3).uses(160)], np.float32)
    device = Device(sensors, models)
    flags = device.check(x)
    assert flags.any()
    source = [*SOURCES, HERE / "sensors_probe.c"]
    machine = Emulator(compile_image(source, [RUNTIME], tmp_path / "probe.elf", core, strict=True), core)
    places = [machine.allocate(size) for size in (models.nbytes, 60, x.nbytes, flags.size, len(x))]
    machine.write(places[0], models.tobytes())
    machine.write(places[2], x.tobytes())
    machine.call("probe_stream", places[0], places[1], 5, len(x), *places[2:])
    assert machine.read(places[1], 60) == device.state.tobytes()
    assert machine.read(places[3], flags.size) == flags.tobytes()
    cost = machine.measure("mt_sensors_check", places[0], places[1], 5, places[2])
    if core == "cortex-m4":
        assert cost.instructions < 5 * 100 and cost.stack < 80
