"""D3: a wearer of real data learns its person; and what keeps that figure honest, the cut of the data."""

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

EXAMPLE = gallery.example_folder("wearer")


@pytest.fixture(scope="module")
def wearer() -> ModuleType:
    return gallery.load_example("wearer")


@pytest.fixture(scope="module")
def data(wearer: ModuleType) -> ModuleType:
    found: ModuleType = wearer.data
    return found


@pytest.fixture
def windows(data: ModuleType) -> Any:
    """Eleven people with 60 to 80 windows each, mixed; the first feature numbers the window, the second has gaps."""
    rng = np.random.default_rng(1)
    person = rng.permutation(np.repeat(np.arange(1, 12), np.arange(60, 82, 2)))
    features = rng.normal(3.0, 2.0, (len(person), 43)).astype(np.float32)
    features[:, 0] = np.arange(len(person))
    features[::7, 1] = np.nan
    return data.Windows(features, rng.integers(0, 6, len(person)), person, tuple("abcdef"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 6, 11])
def test_folds_never_overlap(data: ModuleType, windows: Any, seed: int, count: int) -> None:
    folds = data.folds(windows, seed, count)
    held_out = [person for fold in folds for person in fold.held_out]
    assert sorted(held_out) == sorted(set(windows.person.tolist()))  # everybody, once
    for fold in folds:
        rows = np.concatenate([fold.train, fold.others])
        assert len(set(rows.tolist())) == len(rows)
        assert not np.isin(windows.person[rows], fold.held_out).any()
        assert len(rows) == np.sum(~np.isin(windows.person, fold.held_out))
        assert len(fold.others) == len(rows) // 10


def test_what_is_learnt_is_never_tested(data: ModuleType, windows: Any) -> None:
    for person in np.unique(windows.person):
        for order in range(3):
            stream = data.stream(windows, int(person), 5, order)
            own = np.flatnonzero(windows.person == person)
            assert not set(stream.learn.tolist()) & set(stream.test.tolist())
            assert set(stream.learn.tolist()) | set(stream.test.tolist()) <= set(own.tolist())
            assert len(stream.learn) == min(data.STREAM, len(own) // 2)
            assert len(stream.test) == len(own) - len(own) // 2


def test_the_same_seed_cuts_the_same(data: ModuleType, windows: Any) -> None:
    def cut(seed: int, order: int) -> list[list[int]]:
        stream = data.stream(windows, 3, seed, order)
        folds = data.folds(windows, seed)
        return [stream.learn.tolist(), stream.test.tolist(), *(fold.train.tolist() for fold in folds)]

    assert cut(7, 0) == cut(7, 0)
    assert all(one != other for one, other in zip(cut(7, 0), cut(8, 0), strict=True))
    assert cut(7, 0)[0] != cut(7, 1)[0]


def test_scale_knows_the_training_people_only(data: ModuleType, windows: Any) -> None:
    fold = data.folds(windows, 0)[0]
    scale = data.scale_of(windows, fold.train)
    windows.features[np.isin(windows.person, fold.held_out)] += 1e6
    windows.features[fold.others] += 1e6
    again = data.scale_of(windows, fold.train)
    np.testing.assert_array_equal(scale.mean, again.mean)
    np.testing.assert_array_equal(scale.deviation, again.deviation)
    scaled = scale.apply(windows.features)
    assert np.isfinite(scaled).all() and np.abs(scaled).max() == data.CLIP  # no gaps, no runaways
    np.testing.assert_allclose(scaled[fold.train].mean(axis=0), 0.0, atol=0.01)


def test_a_person_with_too_few_windows_is_named(data: ModuleType, windows: Any) -> None:
    with pytest.raises(ValueError, match="person 99 has 0 windows; a stream needs at least 60"):
        data.stream(windows, 99, 0, 0)


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "run.py"), *(str(each) for each in arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_missing_data_say_where_to_get_them(data: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"wisdm\.npz: no such file\. Get the data from https://"):
        data.load(tmp_path)
    result = run(tmp_path, "--data", tmp_path, "--json")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("wearer: ") and "Traceback" not in result.stderr


def test_stored_windows_are_read(data: ModuleType, windows: Any, tmp_path: Path) -> None:
    fields = {"X": windows.features, "user": windows.person, "y": windows.activity, "classes": windows.classes}
    np.savez(tmp_path / "wisdm.npz", **fields)
    read = data.load(tmp_path)
    np.testing.assert_array_equal(read.features, windows.features)
    np.testing.assert_array_equal(read.person, windows.person)
    np.testing.assert_array_equal(read.activity, windows.activity)
    assert read.classes == windows.classes


def test_summary_counts_people_not_runs(wearer: ModuleType) -> None:
    """Two people, two orders each, by hand: one gains 10 points, one loses 2 on average."""

    def outcome(person: int, last: float) -> Any:
        return wearer.Outcome(person, (0.5, 0.5, 0.5, last, last), (0.8, 0.8, 0.8, 0.8, 0.7))

    found = wearer.summary([outcome(1, 0.5), outcome(1, 0.7), outcome(2, 0.44), outcome(2, 0.52)])
    assert found["people"] == 2
    assert found["gain"] == {"0": 0.0, "5": 0.0, "10": 0.0, "20": 4.0, "50": 4.0}
    assert found["harmed"]["20"] == 50.0 and found["harmed_runs"]["20"] == 25.0
    assert found["worst_tenth"]["20"] == 48.0 and found["others_lose"]["50"] == 10.0


@pytest.mark.slow
def test_real_people_gain(data: ModuleType, tmp_path: Path) -> None:
    """36 people of the WISDM data, each new to the base network: the figures promised."""
    if not (data.DEFAULT_PATH / "wisdm.npz").is_file():
        pytest.skip(f"the WISDM data are not in {data.DEFAULT_PATH}; they do not ship with microtune")
    result = run(tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)  # nothing else on standard output
    assert found["people"] == 36
    assert found["gain"]["20"] >= 5.0 and found["gain"]["50"] >= 6.0
    assert found["harmed"]["20"] <= 15.0
    assert {"accuracy", "worst_tenth", "others", "others_lose"} <= set(found)
    assert all(set(found[row]) == {"0", "5", "10", "20", "50"} for row in ("accuracy", "worst_tenth", "others_lose"))
