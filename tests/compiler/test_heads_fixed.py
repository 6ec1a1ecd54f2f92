"""Closed-form heads with ``precision="int8"``: what the plan makes of an int8 graph, and devices that live with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler.test_heads import CLASSES, HIDDEN, LEARNER, classifier

import microtune as mt
from microtune.compiler.emit import emit
from microtune.ops.closed_form import triangle
from microtune.ops.evaluate import evaluate


def _live(device: mt.Device, stream: tuple[np.ndarray, np.ndarray], test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a device answers to the test before and after a stream of samples with their classes."""
    before = np.array([device.predict(each).value for each in test])
    for x, label in zip(*stream, strict=True):
        device.predict(x)
        device.observe(int(label))
        device.idle()
    return before, np.array([device.predict(each).value for each in test])


def test_a_device_without_floats_learns_like_one_with_a_float_head(tmp_path: Path) -> None:
    """On the same int8 base, sample by sample, through the judged updates, a save and a reset."""
    graph, draw = classifier()
    factory, stream, (test, wanted) = draw(400), draw(40, shift=0.9), draw(150, shift=0.9)
    stored = mt.quantize(graph, calibration=factory[0])

    def device(head: mt.MAP | mt.SLDA, precision: str) -> mt.Device:
        made = mt.plan(
            stored, loss="cross_entropy", optimizer=head, learner=LEARNER, calibration=factory, precision=precision
        )
        words = triangle(HIDDEN + 1) if isinstance(head, mt.MAP) else CLASSES * (HIDDEN + 1) + 1
        assert made.memory.optimizer == 4 * words
        folder = tmp_path / f"{type(head).__name__}_{precision}"
        return mt.Device(mt.build(made, folder), state=folder / "flash.bin")

    def right(answers: np.ndarray) -> float:
        return float(np.mean(answers.argmax(axis=1) == wanted))

    fixed = device(mt.MAP(), "int8")
    base, learnt = _live(fixed, stream, test)
    floats = _live(device(mt.MAP(), "float32"), stream, test)
    assert np.abs(base - floats[0]).max() < 1e-3 and np.abs(learnt - floats[1]).max() < 0.01
    assert right(learnt) > right(base) + 0.05 and abs(right(learnt) - right(floats[1])) <= 0.01
    fixed.save()
    again = mt.Device(tmp_path / "MAP_int8", state=tmp_path / "MAP_int8" / "flash.bin")
    assert np.array_equal([again.predict(x).value for x in test], learnt)
    fixed.reset()
    assert np.array_equal([fixed.predict(x).value for x in test], base)
    moved = _live(device(mt.SLDA(memory=30), "int8"), stream, test)
    assert np.array_equal(moved[0], base) and right(moved[1]) > right(base) + 0.05


HEADS: dict[str, tuple[Any, str]] = {
    "RLS": (mt.RLS(forgetting=0.99), "mse"),
    "MAP": (mt.MAP(), "cross_entropy"),
    "SLDA": (mt.SLDA(), "cross_entropy"),
    "Logistic": (mt.Logistic(), "binary_cross_entropy"),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_untouched_layer_is_that_of_the_model(name: str) -> None:
    """Outputs in Q16.16, finer than the int8 they were; the same plan gives the same C."""
    graph, draw = classifier()
    x, y = draw(200)
    stored = mt.quantize(graph, calibration=x)
    optimizer, loss = HEADS[name]
    given = (x, y) if loss == "cross_entropy" else x
    plans = [
        mt.plan(stored, loss=loss, optimizer=optimizer, learner=LEARNER, calibration=given, precision="int8")
        for _ in range(2)
    ]
    assert emit(plans[0], "net") == emit(plans[1], "net")
    found = plans[0].graph
    entry = stored.tensor(stored.inputs[0]).quantization
    output = stored.tensor(stored.outputs[0]).quantization
    assert entry is not None and output is not None
    steps = np.clip(np.round(x / entry.scale) + entry.zero_point, -128, 127).astype(np.int8)
    was = evaluate(stored, {stored.inputs[0]: steps})[stored.outputs[0]].astype(float)
    was = (was - output.zero_point) * output.scale
    now = evaluate(found, {found.inputs[0]: steps})[found.outputs[0]] / 65536
    # an output that int8 cut off is no longer
    inside = np.abs(was / output.scale + output.zero_point) < 127
    assert inside.mean() > 0.9 and np.abs(was - now)[inside].max() <= 0.51 * output.scale
    assert [each.dtype for each in (*plans[0].programs.trained, *plans[0].programs.state)] == ["int32"] * 3


def test_what_a_head_in_integers_cannot_do_is_said() -> None:
    graph, draw = classifier()
    x, y = draw(200)
    stored = mt.quantize(graph, calibration=x)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("above 0.5 is needed", {"loss": "mse", "optimizer": mt.RLS(forgetting=0.5)}),
        ("calibration=x", {"loss": "cross_entropy", "optimizer": mt.MAP()}),
        ("learn=Head", {"loss": "cross_entropy", "optimizer": mt.MAP(), "learn": mt.Full(), "calibration": x}),
        ("loss='cross_entropy'", {"loss": "mse", "optimizer": mt.SLDA(), "calibration": (x, np.eye(CLASSES)[y])}),
    ]
    for wanted, given in cases:
        with pytest.raises(mt.PlanError, match=wanted):
            mt.plan(stored, precision="int8", learner=LEARNER, **given)
    with pytest.raises(mt.PlanError, match="leave pull out"):
        mt.plan(stored, precision="int8", learner=mt.Learner(pull=0.1), optimizer=mt.RLS())
