"""C9: energy and time per prediction, update and slice: what is read from people, the catalogue's figures, and one run
on an emulated core.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

import microtune as mt
from microtune.targets import Target, targets
from microtune.targets.measure import CoreDevice, cost, random_uses
from microtune.targets.power import Power, parse_clock, parse_energy, with_unit

CORES = [target for target in targets() if target.emulated]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    """3 inputs, 4 hidden units, 1 output; two folds of two epochs over eight samples."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    base = MLPRegressor(hidden_layer_sizes=[4], max_iter=5, random_state=0).fit(x, x[:, 0])
    learner = mt.Learner(buffer=8, every=4, epochs=2, folds=2)
    plan = mt.plan(mt.load(base), mt.Head(1), optimizer=mt.SGD(lr=0.01), learner=learner)
    return mt.build(plan, tmp_path_factory.mktemp("power") / "lamp", targets=["host"])


@pytest.mark.parametrize(
    ("text", "joules"),
    [("150pJ", 150e-12), ("0.2 nJ", 0.2e-9), (" 90000fj ", 90e-12), ("1uJ", 1e-6), ("1µJ", 1e-6), (2e-10, 2e-10)],
)
def test_energy_is_read_as_people_write_it(text: str | float, joules: float) -> None:
    assert math.isclose(parse_energy(text), joules, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("text", "hertz"), [("64MHz", 64e6), ("32.768 kHz", 32768), ("1ghz", 1e9), ("7Hz", 7), (48e6, 48e6)]
)
def test_a_clock_is_read_as_people_write_it(text: str | float, hertz: float) -> None:
    assert math.isclose(parse_clock(text), hertz, rel_tol=1e-12)


@pytest.mark.parametrize(
    "bad", ["150", "pJ", "-1pJ", "0pJ", "1e3pJ", "150MHz", "much", "", 0.0, -1.0, math.nan, math.inf]
)
def test_what_is_no_energy_is_refused_with_an_example(bad: str | float, package: mt.Package) -> None:
    with pytest.raises(mt.PlanError, match=r"150pJ|above 0"):
        cost(package, "cortex-m4", energy=bad)


@pytest.mark.parametrize("bad", ["64", "64pJ", "0MHz", "fast", 0, -1, math.inf])
def test_what_is_no_clock_is_refused_with_an_example(bad: str | float, package: mt.Package) -> None:
    with pytest.raises(mt.PlanError, match=r"64MHz|above 0"):
        cost(package, "cortex-m4", clock=bad)


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_each_emulated_core_has_a_sane_figure_with_a_source(core: Target) -> None:
    power = core.power
    assert power is not None and power.chip and power.source
    assert 10e-12 < power.joules < 2e-9  # from sub-threshold chips to the fastest
    assert 1e6 < power.hertz < 1e9 and 1 <= power.cycles <= 2 and 1.8 <= power.volts <= 3.6


def test_only_cores_whose_instructions_are_counted_have_one() -> None:
    assert all(each.power is None for each in targets() if each not in CORES)


def test_energy_of_an_instruction_by_hand() -> None:
    """1 mA at 3 V is 3 mW; over 10 million cycles a second 300 pJ a cycle, at two cycles 600 pJ."""
    assert math.isclose(Power("chip", 1.0, 3.0, 10.0, 2.0, "").joules, 600e-12)


def test_units_for_people() -> None:
    pairs = {4.7e-10: "470 pJ", 5.46e-5: "54.6 µJ", 0.0551: "55.1 mJ", 2: "2 J", 1.5e3: "1.5 kJ", 64e6: "64 MJ"}
    assert [with_unit(value, "J") for value in pairs] == list(pairs.values())


def test_an_update_its_slices_and_their_cost(package: mt.Package) -> None:
    """The one emulated run: by instructions, by the catalogue's figures, by given ones."""
    uses = random_uses(package, 12)
    device = CoreDevice(package, "cortex-m4")
    for x, y in uses[:-1]:
        device.use(x, y)
    counts, before = device.measure(*uses[-1])
    assert before, "the twelfth use is the fourth since the last update"
    after = device.state()
    slices = device.slices(before)
    assert device.state() == after, "slices change nothing but the moments"
    # a fold trains on 4 of 8 samples twice and judges 4; then twice on all: one slice each
    assert len(slices) >= 2 * (2 * 4 + 4) + 2 * 8
    idle, calls = sum(slices), len(slices)
    # once more each call comes in and looks for work: some 100 instructions
    assert counts["update"] - 1000 < idle < counts["update"] + 200 * calls
    assert max(slices) < counts["update"] / 4

    found = cost(package, "cortex-m4", uses)
    power = next(core.power for core in CORES if core.name == "cortex-m4")
    assert power is not None
    assert (found.predict.instructions, found.update.instructions) == (counts["predict"], counts["update"])
    assert (found.slice.instructions, found.slices) == (max(slices), calls)
    for work in (found.predict, found.update, found.slice):
        assert math.isclose(work.joules, work.instructions * power.joules)
        assert math.isclose(work.seconds, work.instructions * power.cycles / power.hertz)
    given = cost(package, "cortex-m4", uses, energy="100pJ", clock="1MHz")
    assert given.update.instructions == found.update.instructions and (given.energy, given.clock) == (100e-12, 1e6)
    assert math.isclose(given.update.joules, found.update.instructions * 100e-12)
    assert math.isclose(given.update.seconds, found.update.instructions * power.cycles / 1e6)


def test_uses_in_which_nothing_is_learnt_have_no_update(package: mt.Package) -> None:
    with pytest.raises(mt.EmulationError, match="nothing was learnt in the last of 3 uses; give more"):
        cost(package, "cortex-m4", random_uses(package, 3))


def test_what_is_no_emulated_core_is_refused(package: mt.Package) -> None:
    with pytest.raises(mt.MicrotuneError, match="no Cortex-M"):
        cost(package, "host")
