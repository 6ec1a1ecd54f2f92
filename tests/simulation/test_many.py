"""D1: thousands of devices: the summary is what its parts say, the same for a seed whatever the processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import microtune as mt
from microtune.simulation import PEOPLE, Driver, World, find_person, find_world, generic_world, live, simulate
from microtune.simulation.many import MOST_DEVICES, Study, run_device
from microtune.simulation.picture import picture

Packages = Mapping[str, tuple[mt.Package, World]]


@pytest.mark.parametrize("person", ["noisy", "narrow", "easygoing", "holidays"])
def test_a_seed_gives_one_summary_whatever_the_processes(packages: Packages, person: str) -> None:
    package, world = packages["bayes"]
    options: dict[str, Any] = {"days": 400.0, "uses_per_day": 1.0, "devices": 11}
    found = [simulate(package, world, person, seed=4, processes=count, **options) for count in (1, 2, 3)]
    assert found[0] == found[1] == found[2]
    assert simulate(package, world, person, seed=5, processes=2, **options) != found[0]


def test_the_summary_adds_up(packages: Packages) -> None:
    """By hand, from the devices of the study one by one."""
    package, world = packages["value"]
    found = simulate(package, world, "noisy", days=60.0, devices=20, seed=1)
    assert len(found.weeks) == 9 and sum(week.uses for week in found.weeks) == found.uses
    shares, bases, totals, weekly = [], [], np.zeros(3, int), np.zeros((9, 2), int)
    for number in range(20):
        life = live("noisy", world, MOST_DEVICES + number)
        device = mt.Device(package)
        (uses,) = life.years(60.0, 3.0)
        good, base = [], Driver(package).watch(uses.context).accepted(world, uses.prefers)
        for i in range(len(uses)):
            good.append(bool(world.accepts(device.predict(uses.context[i]).value[0], uses.prefers[i])))
            device.observe([uses.sets[i]])
            device.idle()
            weekly[int(uses.day[i] // 7)] += (1, good[-1])
        shares.append(np.mean(good))
        bases.append(base.mean())
        metrics = device.metrics()
        totals += (len(uses), sum(good), metrics.accepted + metrics.rolled_back)
    assert found.uses == totals[0] and found.accepted == pytest.approx(totals[1] / totals[0], abs=1e-6)
    assert found.worst_tenth == pytest.approx(np.mean(sorted(shares)[:2]), abs=1e-6)
    assert found.harmed == pytest.approx(np.mean(np.array(shares) < np.array(bases) - 0.01), abs=1e-6)
    assert found.updates_accepted + found.updates_rolled_back == totals[2]
    assert found.saves == pytest.approx(totals[2] / (20 * 60 / 365), abs=1e-3)
    assert [week.accepted for week in found.weeks] == [pytest.approx(b / a, abs=1e-6) for a, b in weekly]
    assert all(week.base is not None and week.worst_tenth is not None for week in found.weeks)


def test_weeks_with_nobody_at_home_have_no_share(packages: Packages) -> None:
    package, world = packages["bayes"]
    found = simulate(package, world, "absence", days=250.0, devices=4)
    empty = [week for week in found.weeks if week.uses == 0]
    assert empty and all(week.accepted is None for week in empty)
    drawing = ElementTree.fromstring(picture(found))
    curve = next(each for each in drawing.iter() if each.get("class") == "accepted")
    assert len(list(curve)) == 2  # before and after


def test_a_device_that_nobody_uses_is_neither_worst_nor_harmed(packages: Packages) -> None:
    for package, world in packages.values():
        found = simulate(package, world, "guests", days=0.5, uses_per_day=1e-6, devices=3)
        assert (found.uses, found.accepted, found.worst_tenth, found.harmed) == (0, 0.0, 0.0, 0.0)
        assert found.weeks[0].accepted is None and "svg" in picture(found)


def test_every_person_lives_with_every_kind(packages: Packages) -> None:
    for package, world in packages.values():
        for person in PEOPLE:
            outcome = run_device(Study(package, world, PEOPLE[person], 40.0, 2.0, 1), 0)
            assert outcome.uses.sum() >= 40 and (outcome.accepted <= outcome.uses).all()
            assert outcome.refused == 0


def test_a_generic_world_is_made_of_any_package(packages: Packages) -> None:
    for kind, (package, _) in packages.items():
        world = generic_world(package)
        found = simulate(package, world, "consistent", days=60.0, devices=6)
        assert found.refused == 0, kind  # every context is in range
        assert found.base < 0.999, kind  # its households differ from the base
    package, _ = packages["bayes"]
    found = simulate(package, generic_world(package), "consistent", days=60.0, devices=6)
    assert found.weeks[-1].accepted > 0.9 > found.base  # type: ignore[operator]


def test_worlds_and_people_are_found(packages: Packages, tmp_path: Path) -> None:
    package, _ = packages["value"]
    assert find_world(package).name == "generic"
    lamp = Path(__file__).parent / "lamp.py"
    assert find_world(package, f"{lamp}:CALENDAR").name == "calendar"
    with pytest.raises(mt.MicrotuneError, match=r"world 'toaster' has 5 inputs \(bread, .*\); 'value' takes 3"):
        find_world(package, "toaster")
    with pytest.raises(mt.MicrotuneError, match=r"no world 'moon'\. There are: .*toaster.*, generic, and your own as"):
        find_world(package, "moon")
    with pytest.raises(mt.MicrotuneError, match=r"lamp\.py:LIMITS is no microtune.simulation.World but a tuple"):
        find_world(package, f"{lamp}:LIMITS")
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    for where, message in (
        (f"{tmp_path}/none.py:WORLD", "no such file"),
        (f"{tmp_path}/broken.py:WORLD", "cannot be read: ModuleNotFoundError"),
        (f"{lamp}:MISSING", "defines no 'MISSING'"),
        (f"{lamp}", "write it as FILE.py:NAME"),
    ):
        with pytest.raises(mt.MicrotuneError, match=message):
            find_world(package, where)
    (tmp_path / "mine.py").write_text(
        "from microtune.simulation import PEOPLE, Person\n"
        "GRUMPY = Person('grumpy', 'careless', PEOPLE['noisy'].habit, noise=2.0)\n"
    )
    assert find_person(f"{tmp_path}/mine.py:GRUMPY").noise == 2.0
    with pytest.raises(mt.MicrotuneError, match=r"no person 'nobody' .* There are: consistent, .*FILE\.py:NAME"):
        find_person("nobody")


@pytest.mark.parametrize("bad", [{"devices": 0}, {"days": 0.0}, {"days": 1e9}, {"uses_per_day": -1.0}, {"seed": -1}])
def test_impossible_studies_are_refused(packages: Packages, bad: dict[str, Any]) -> None:
    package, world = packages["value"]
    with pytest.raises(mt.MicrotuneError, match=next(iter(bad)).split("_")[0]):
        simulate(package, world, **bad)
    assert replace(Study(package, world, PEOPLE["noisy"]), days=7.5).weeks == 2


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "microtune.cli", "simulate", *(str(each) for each in arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_prints_tables_and_figures(packages: Packages, tmp_path: Path) -> None:
    package, _ = packages["value"]
    options = ("--person", "drifting", "--days", 30, "--devices", 3, "--seed", 2)
    result = command(package.directory, *options, "--json", "--picture", tmp_path / "life.svg")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["person"] == "drifting" and len(found["weeks"]) == 5 and found["device_years_per_minute"] > 0
    expected = simulate(package, generic_world(package), "drifting", days=30.0, devices=3, seed=2)
    assert (found["accepted"], found["uses"]) == (expected.accepted, expected.uses)
    assert ElementTree.parse(tmp_path / "life.svg").getroot().tag.endswith("svg")
    result = command(package.directory, *options)
    assert "accepted over all" in result.stdout and "The world is generic" in result.stdout
    result = command(package.directory, "--days", 3, "--years", 3)
    assert result.returncode == 1 and "--days and --years both say how long" in result.stderr
    assert "Traceback" not in result.stderr
