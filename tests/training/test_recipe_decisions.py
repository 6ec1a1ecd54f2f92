"""A3: what ``mt.shrink`` decides where each step has the flash and the accuracy that it is said to have."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.training import steps
from microtune.training.measured import Measured
from microtune.training.table import Row, Shrunk

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

INPUTS, CLASSES = 12, 3
RANDOM = np.random.default_rng(0)
DATA, VALIDATION = ((RANDOM.normal(size=(n, INPUTS)).astype("f4"), RANDOM.integers(0, CLASSES, n)) for n in (300, 200))


def row(found: Shrunk, step: str) -> Row:
    return next(each for each in found.table if each.step == step)


@functools.cache
def linear() -> mt.Graph:
    return mt.load(nn.Linear(INPUTS, CLASSES), example=DATA[0][:1])


def decided(
    monkeypatch: pytest.MonkeyPatch, folder: Path, given: dict[str, tuple[int, float]], **changes: Any
) -> Shrunk:
    """The recipe's decisions alone: each step has the flash and the accuracy that are ``given`` for it."""

    def do(self: steps.Recipe, kind: str, step: str, after: Row | None, *others: Any) -> Row:
        name = f"{step} of {after.step}" if kind in ("ptq", "qat") and after is not None else step
        flash, right = given[name]
        cost = Measured(flash, flash // 2, 100, 1000, right, right)
        found = Row(step, "" if after is None else after.step, folder / f"{name}.onnx", cost, False, "")
        self.rows.append(found)
        return found

    monkeypatch.setattr(steps.Recipe, "do", do)
    settings = {"validation": VALIDATION, "channels": (0.5, 0.75), "limit": 1.0, **changes}
    return mt.shrink(linear(), DATA, **settings, folder=folder)


def test_training_with_quantisation_comes_where_calibration_loses_too_much(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {"float": (1000, 95.0), "prune 50 %": (500, 94.5), "prune 75 %": (300, 93.0), "prune 62.5 %": (400, 94.2)}
    eight = {"ptq of prune 62.5 %": (150, 92.0), "qat of prune 62.5 %": (150, 94.1)}
    further = {"prune 68.75 %": (350, 93.9), "prune 68.75 % again": (350, 93.8)}
    found = decided(monkeypatch, tmp_path, {**given, **eight, **further})
    assert found.best.step == "qat" and found.best.after == "prune 62.5 %"
    left_out = ["prune 75 %", "prune 68.75 %", "prune 68.75 % again", "ptq"]
    assert [each.step for each in found.table if not each.kept] == left_out
    assert row(found, "qat").says == "flash 2.67 times smaller, 0.9 points lost, 2.1 fewer than after ptq"


def test_nets_pruned_less_are_tried_where_int8_loses_too_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"float": (1000, 95.0), "prune 50 %": (500, 94.5), "prune 75 %": (300, 94.2)}
    eight = {"ptq of prune 75 %": (150, 92.0), "qat of prune 75 %": (150, 93.0), "ptq of prune 50 %": (250, 94.0)}
    found = decided(monkeypatch, tmp_path, {**given, **eight})
    assert found.best.step == "ptq" and found.best.after == "prune 50 %" and found.best.cost.flash == 250
    assert row(found, "prune 75 %").says == "no: in int8 it loses too much" and not row(found, "prune 75 %").kept
    assert "ptq of prune 75 %" in str(found)


def test_int8_that_is_no_smaller_and_a_teacher_that_is_no_help_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {"float": (1000, 95.0), "distil": (1000, 95.0), "prune 50 %": (500, 95.5), "prune 75 %": (400, 95.0)}
    eight = {f"{kind} of {net}": (1000, 99.0) for kind in ("ptq", "qat") for net in given}
    found = decided(monkeypatch, tmp_path, {**given, **eight}, teacher=nn.Linear(INPUTS, CLASSES))
    assert found.best.step == "prune 75 %" and found.best.kept and found.times == 2.5
    assert row(found, "distil").says == "no: no better than without the teacher"
    assert row(found, "prune 50 %").after == "float" and row(found, "prune 50 %").says.endswith("0.5 points won")
    assert row(found, "ptq").says == "no: flash is no smaller than after prune 75 %"
    assert "qat" not in [each.step for each in found.table], "training changes no sizes"
    assert len([each for each in found.table if each.step == "ptq"]) == 1, "larger nets become larger ones in int8"
    assert not any("qat was not done" in each for each in found.notes)


def test_what_is_within_the_limit_and_left_out_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"float": (1000, 95.0), "prune 50 %": (500, 95.0), "prune 75 %": (300, 93.0)}
    eight = {"ptq of prune 50 %": (200, 94.2), "qat of prune 50 %": (200, 94.7)}
    monkeypatch.setattr(steps, "LEAST_HALF_STEP", 1.0)
    found = decided(monkeypatch, tmp_path, {**given, **eight}, again=["qat"])
    assert found.best.step == "qat" and not row(found, "ptq").kept
    assert row(found, "ptq").says == "no: qat loses 0.5 points fewer"
    assert row(found, "qat").says == "flash 2.50 times smaller, 0.3 points lost, 0.5 fewer than after ptq"
    # in int8 the least net loses too much, and the one before it, within the limit, is larger than the least
    small = {"prune 75 %": (300, 95.0), "ptq of prune 75 %": (250, 90.0), "ptq of prune 50 %": (350, 95.0)}
    found = decided(monkeypatch, tmp_path, {**given, **small}, steps=["prune", "ptq"])
    assert found.best is row(found, "prune 75 %")
    said = {each.after: each.says for each in found.table if each.step == "ptq"}
    assert said == {
        "prune 75 %": "no: 5.0 points lost, 1 allowed", "prune 50 %": "no: flash is no smaller than after prune 75 %",
    }  # fmt: skip
