"""E7: the thermostat's households are as described, and devices that learn serve them better than the factory's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune import gallery
from microtune.simulation import find_world, live


@pytest.fixture(scope="module")
def world() -> Iterator[ModuleType]:
    yield gallery.load_example("thermostat").sys.modules["world"]


def test_contexts_follow_the_calendar(world: ModuleType) -> None:
    days = np.random.default_rng(0).uniform(0, 728, 20_000)
    contexts = world.contexts_at(np.random.default_rng(1), days)
    np.testing.assert_allclose(world.hour_of(contexts), days % 1 * 24, atol=1e-9)
    np.testing.assert_array_equal(contexts[:, 2] > 0, days // 1 % 7 >= 5)
    winter, summer = np.abs(days % 364 - 182) > 150, np.abs(days % 364 - 182) < 30
    assert contexts[winter, 3].mean() < -0.5 < 0.5 < contexts[summer, 3].mean()
    night = (world.hour_of(contexts) < 6) & (contexts[:, 4] > -0.9)
    assert not night.any() and 0.2 < np.mean(contexts[:, 4] > -0.9) < 0.6
    low, high = np.array([-1, -1, -1, -3, -1]), np.array([1, 1, 1, 3, 1])
    assert ((contexts >= low) & (contexts <= high)).all()  # what the device accepts


def test_most_people_want_what_is_described(world: ModuleType) -> None:
    rng = np.random.default_rng(2)
    hours, motion = np.array([12.0, 12.0, 2.0]), np.array([1.0, -1.0, -1.0])
    angle = 2 * np.pi * hours / 24
    contexts = np.stack([np.sin(angle), np.cos(angle), -np.ones(3), np.zeros(3), motion], axis=1)
    wanted = world.to_degrees(np.array([world.make_temperature(rng)(contexts) for _ in range(2000)]))
    # 2000 households, at most 1.5 degrees apart (standard deviation): the mean is known to 0.034
    np.testing.assert_allclose(wanted.mean(axis=0), [20.5, 19.0, 17.5], atol=5 * 0.034)
    at_home = np.array([world.OCCUPANCY.labels(world.make_occupancy(rng)(contexts)) for _ in range(2000)])
    shares = at_home.mean(axis=0)
    assert shares[0] == pytest.approx(0.25, abs=0.06) and shares[2] > 0.95  # one in four works from home


def test_both_worlds_are_for_everybody(world: ModuleType) -> None:
    for each in (world.WORLD, world.OCCUPANCY):
        for person in ("two_people", "narrow", "guests", "weekday_weekend"):
            uses = next(live(person, each, 3).years(60.0))
            assert len(uses) > 100 and np.isfinite(uses.prefers).all()
    assert set(next(live("noisy", world.OCCUPANCY, 3).years(60.0)).sets) == {0.0, 1.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("thermostat")


@pytest.fixture(scope="module")
def found(home: Path) -> Any:
    result = subprocess.run(
        [sys.executable, str(gallery.example_folder("thermostat") / "run.py"), "--json", "--out", "build/thermostat"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "person", "last_week", "over_base"),
    [
        ("temperature", "consistent", 0.78, 0.45),
        ("temperature", "noisy", 0.70, 0.40),
        ("temperature", "easygoing", 0.74, 0.42),
        ("temperature", "abrupt", 0.76, 0.40),
        ("occupancy", "consistent", 0.96, 0.08),
        ("occupancy", "abrupt", 0.94, 0.09),
        ("occupancy", "prankster", 0.93, 0.06),
    ],
)
def test_learning_pays(found: Any, question: str, person: str, last_week: float, over_base: float) -> None:
    figures = found[question][person]
    assert figures["weeks"][-1]["accepted"] >= last_week
    assert figures["accepted"] - figures["base"] >= over_base - 0.02
    assert figures["harmed"] <= 0.1


@pytest.mark.slow
def test_a_dying_sensor_is_not_believed_and_all_others_are(found: Any) -> None:
    for question in ("temperature", "occupancy"):
        suspect = {person: figures["suspect"] / figures["uses"] for person, figures in found[question].items()}
        assert suspect.pop("dying_sensor") > 0.1
        assert max(suspect.values()) <= 0.001  # docs/sensors.md


@pytest.mark.slow
def test_changes_are_found_where_there_are_some(found: Any) -> None:
    changes = {person: figures["changes"] for person, figures in found["temperature"].items()}
    assert changes["abrupt"] >= 0.8 * found["temperature"]["abrupt"]["devices"] > changes["consistent"]


@pytest.mark.slow
def test_its_package_lives_in_its_world(found: Any, home: Path) -> None:
    assert find_world(mt.open_package(home / "build" / "thermostat")).name == "thermostat"
