"""E10: the device knows its person's own baseline; it alarms when they depart from it, and rarely otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune import gallery
from microtune.simulation import find_world


@pytest.fixture(scope="module")
def heart() -> ModuleType:
    return gallery.load_example("heart")


@pytest.fixture(scope="module")
def package(heart: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    return mt.build(heart.plan(), tmp_path_factory.mktemp("heart") / "heart")


def test_people_differ_more_than_their_mornings(heart: ModuleType) -> None:
    rng = np.random.default_rng(0)
    everyday = heart.contexts_at(rng, np.arange(300.0))
    baselines = np.array([heart.make_baseline(rng)(everyday) for _ in range(500)])
    between = baselines.mean(axis=1).std() * 0.5  # in ln milliseconds
    assert between == pytest.approx(0.45, rel=5 * (1 / 1000) ** 0.5)
    assert between > 3 * 0.12 and pytest.approx(0.12) == heart.MORNING * 0.5
    assert np.mean(everyday[:, 3] > 0) == pytest.approx(9 / 49, abs=5 * (0.15 / 300) ** 0.5)


def test_a_spread_is_recovered_from_a_confidence(heart: ModuleType) -> None:
    for spread in (0.1, 0.3, 1.0, 3.0):
        confidence = 2.0 / (1.0 + np.exp(-1.702 * heart.WORLD.tolerance / spread)) - 1.0
        prediction = mt.Prediction(np.zeros(1, np.float32), float(confidence), False)
        assert heart.spread_of(prediction) == pytest.approx(spread, rel=1e-3)


def test_what_the_device_expects_narrows_to_a_morning(heart: ModuleType, package: mt.Package) -> None:
    device, rng = mt.Device(package), np.random.default_rng(5)
    baseline = heart.make_baseline(rng)
    contexts = heart.contexts_at(rng, np.arange(100.0))
    first = heart.spread_of(device.predict(contexts[0]))
    for context, usual in zip(contexts, baseline(contexts), strict=True):
        device.predict(context)
        device.observe([usual + heart.MORNING * rng.normal()])
        device.idle()
    last = heart.spread_of(device.predict(contexts[0]))
    assert first > 2.5 * last and 0.6 * heart.MORNING < last < 1.8 * heart.MORNING


def test_the_watch_needs_three_mornings_and_gives_up_after_fourteen(heart: ModuleType) -> None:
    watch = heart.Watch()
    assert not any(watch.morning(-9.0)[0] for _ in range(heart.LEARNING))  # getting to know somebody
    watch = heart.Watch()
    for _ in range(20):
        assert watch.morning(0.0) == (False, True)
    assert watch.morning(-50.0) == (False, True)  # one bad reading
    assert watch.morning(0.0) == (False, True)
    alarms = [watch.morning(-4.0) for _ in range(20)]
    begun = next(i for i, (alarm, _) in enumerate(alarms) if alarm)
    assert begun <= 1 and all(alarm for alarm, _ in alarms[begun:])
    assert [learnt for _, learnt in alarms[begun:]] == [i >= heart.LONGEST for i in range(20 - begun)]


@pytest.mark.slow
def test_its_own_baseline_finds_illness_that_everybodys_does_not(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(gallery.example_folder("heart") / "run.py"), "--json", "--out", "build/heart"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: Any = json.loads(result.stdout)
    own, base = found["own"], found["base"]
    assert own["detected"] >= 0.9 and own["detected_within_3"] >= 0.85
    assert own["false_alarms_per_year"] <= 4.0 and own["false_alarms_per_year"] < base["false_alarms_per_year"]
    assert base["detected"] <= 0.5 and own["error"] <= 0.5 < 2.0 < base["error"]
    assert find_world(mt.open_package(tmp_path / "build" / "heart")).name == "heart"
