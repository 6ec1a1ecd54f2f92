"""D1, D2, E4: the toaster reaches its figures, on 30 households it was never tuned on, by the generated C.

The whole demonstration runs once, as a user runs it; all tests of this file then read the JSON it printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import microtune as mt
from microtune import gallery

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the demonstration runs."""
    return tmp_path_factory.mktemp("toaster")


@pytest.fixture(scope="module")
def found(home: Path) -> Any:
    """What ``microtune demo toaster --json`` prints; anything else on standard output would break the JSON."""
    result = subprocess.run(
        [sys.executable, "-m", "microtune.cli", "demo", "toaster", "--json"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_json_has_the_promised_layout(found: Any) -> None:
    toaster = gallery.load_example("toaster")
    assert found["households"] == 30
    assert set(found["acceptance"]) == {"default", "recipe"}
    for people in found["acceptance"].values():
        assert set(people) == set(toaster.SHOWN)
        for shares in people.values():
            for uses in toaster.CHECKPOINTS:
                assert 0.0 <= shares["worst_tenth"][str(uses)] <= shares[str(uses)] <= 1.0
            assert shares["after_change"] == {str(more): shares[str(40 + more)] for more in toaster.AFTER_CHANGE}
    assert {"cortex-m0", "cortex-m4", "cortex-m33"} == set(found["instructions"])
    assert all(0 < each["predict"] < each["update"] for each in found["instructions"].values())
    assert 0 < found["stack"] < found["ram"] and isinstance(found["flash"], int)


# (what, person, row of the person's figures, uses, share of suggestions accepted, at least)
SHARES = [
    ("consistent at 5", "consistent", None, 5, 0.95),
    ("consistent at 20", "consistent", None, 20, 0.98),
    ("the worst tenth of consistent at 20", "consistent", "worst_tenth", 20, 0.95),
    ("noisy at 20, against what is truly wanted", "noisy", None, 20, 0.85),
    ("abrupt, 5 after the change", "abrupt", "after_change", 5, 0.88),
    ("abrupt, 10 after the change", "abrupt", "after_change", 10, 0.95),
    ("two people at 20", "two_people", None, 20, 0.95),
    ("drifting at 20", "drifting", None, 20, 0.95),
    ("drifting at 100", "drifting", None, 100, 0.90),
    ("untouched contexts, 5 after a local change", "narrow", "after_change", 5, 0.88),
    ("untouched contexts, 10 after a local change", "narrow", "after_change", 10, 0.88),
    ("untouched contexts, 15 after a local change", "narrow", "after_change", 15, 0.88),
]


@pytest.mark.parametrize(("what", "person", "row", "uses", "least"), SHARES, ids=[each[0] for each in SHARES])
def test_suggestions_are_accepted(found: Any, what: str, person: str, row: str | None, uses: int, least: float) -> None:
    shares = found["acceptance"]["default"][person]
    assert (shares[row] if row else shares)[str(uses)] >= least, what


def test_learning_beats_the_base_and_the_recipe(found: Any) -> None:
    """Both learners begin with the same base; ours is better for everybody after 20 uses."""
    for person in found["acceptance"]["default"]:
        ours, recipe = (found["acceptance"][learner][person] for learner in ("default", "recipe"))
        assert ours["0"] == recipe["0"] < ours["20"]
        assert recipe["20"] < ours["20"]


def test_absence_costs_nothing_and_somebody_else_is_known_soon(found: Any) -> None:
    absence, accepted = found["absence"], found["acceptance"]["default"]
    assert absence["same_at_first"] >= 0.90
    assert absence["successor_known_after"] <= 8
    assert accepted["consistent"]["50"] - accepted["prankster"]["50"] <= 0.03


def test_it_fits_a_cortex_m4(found: Any) -> None:
    assert found["flash"] <= 24 * 1024
    assert found["ram"] <= 12 * 1024
    assert found["instructions"]["cortex-m4"]["predict"] <= 3_000
    assert found["instructions"]["cortex-m4"]["update"] <= 300_000


def test_it_leaves_a_package_and_a_picture(found: Any, home: Path) -> None:
    manifest = mt.open_package(home / found["package"]).manifest
    assert {"host", "cortex-m4", "wasm32"} == set(manifest["targets_built"])
    assert manifest["memory"]["ram"] == found["ram"] and manifest["memory"]["flash"] == found["flash"]
    assert manifest["targets_built"]["cortex-m4"]["flash"] == found["flash"]
    assert (home / found["picture"]).read_bytes().startswith(b"\x89PNG")
