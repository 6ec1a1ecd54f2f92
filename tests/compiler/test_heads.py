"""Closed-form classification heads: what the factory's samples come to, and devices that live with them (SPEC B5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microtune as mt
from microtune.compiler.emit import emit
from microtune.compiler.factory import Samples, discriminants, inverse, prior_covariance
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.closed_form import triangle
from microtune.ops.evaluate import evaluate

CLASSES, INPUTS, HIDDEN = 4, 6, 12
LEARNER = mt.Learner(every=5, sensors=False)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_inverse_by_elimination(size: int, seed: int) -> None:
    root = np.random.default_rng(seed).normal(size=(size, 2 * size))
    matrix = root @ root.T + 0.01 * np.eye(size)
    found = inverse(matrix)
    assert np.array_equal(found, found.T)
    np.testing.assert_allclose(found @ matrix, np.eye(size), atol=1e-12 * np.linalg.cond(matrix))


def test_statistics_of_the_factory() -> None:
    """Against numpy at once: Gram matrix and LDA, a class without samples, and labels that nobody gave."""
    r = np.random.default_rng(1)
    features, label = r.normal(size=(300, 5)), r.integers(0, 3, 300)
    features[:, 4] = 0.25  # a unit that is always the same
    outputs = np.column_stack([np.eye(4)[label][:, :3] + 0.1 * r.normal(size=(300, 3)), np.full(300, -9.0)])
    known = Samples(features, outputs, label)
    phi = np.column_stack([features, np.ones(300)])
    gram = phi.T @ phi / 300
    wanted = np.linalg.inv(8 / 4 * (gram + 0.01 * np.trace(gram) / 6 * np.eye(6)))
    np.testing.assert_allclose(prior_covariance(known, 8, 0.01), wanted, rtol=1e-5, atol=1e-6)
    found = discriminants(known, 2.0, 0.2)
    means = np.array([features[label == each].mean(axis=0) for each in range(3)] + [features.mean(axis=0)])
    np.testing.assert_allclose(found.means, means, rtol=1e-6)
    np.testing.assert_array_equal(found.worth, [2, 2, 2, 0])
    within = np.cov((features - means[label]).T, bias=True)
    shrunk = 0.8 * within + 0.2 * np.trace(within) / 5 * np.eye(5)
    factor = found.precision[0, 0] / np.linalg.inv(shrunk)[0, 0]
    np.testing.assert_allclose(found.precision, factor * np.linalg.inv(shrunk), rtol=1e-4, atol=1e-5)
    assert 0.05 <= factor <= 2
    np.testing.assert_allclose(found.log_prior, np.log((np.bincount(label, minlength=4) + 1) / 304), rtol=1e-6)
    guessed = discriminants(Samples(features, outputs, None), 2.0, 0.2)
    same = discriminants(Samples(features, outputs, outputs.argmax(axis=1)), 2.0, 0.2)
    np.testing.assert_array_equal(guessed.means, same.means)


def classifier(seed: int = 0) -> tuple[Graph, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """A net trained (by least squares on random features) to tell Gaussians apart, and the source of its samples."""
    r = np.random.default_rng(seed)
    centres = 1.5 * r.normal(size=(CLASSES, INPUTS))

    def draw(count: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        label = r.integers(0, CLASSES, count)
        return np.float32(centres[label] + shift + r.normal(size=(count, INPUTS))), label

    x, y = draw(600)
    first = r.normal(size=(HIDDEN, INPUTS)) / 2
    hidden = np.column_stack([np.maximum(x @ first.T, 0), np.ones(600)])
    second = np.linalg.lstsq(hidden, 4 * np.eye(CLASSES)[y] - 1, rcond=None)[0].T
    builder = Builder("net")
    tensor = builder.input("x", (INPUTS,))
    tensor = builder.emit("dense", [tensor, builder.constant("w0", first, "test")], "h", "test", "first")
    tensor = builder.emit("relu", [tensor], "a", "test", "relu")
    last = [builder.constant("w1", second[:, :-1], "test"), builder.constant("b1", second[:, -1], "test")]
    return builder.finish(builder.emit("dense", [tensor, *last], "y", "test", "last"), "test"), draw


@pytest.mark.parametrize("head", [mt.MAP(), mt.SLDA(memory=30)], ids=["MAP", "SLDA"])
def test_a_device_learns_and_keeps_a_classifier(head: mt.MAP | mt.SLDA, tmp_path: Path) -> None:
    graph, draw = classifier()
    made = mt.plan(graph, loss="cross_entropy", optimizer=head, learner=LEARNER, calibration=draw(400))
    state = triangle(HIDDEN + 1) if isinstance(head, mt.MAP) else CLASSES * (HIDDEN + 1) + 1
    assert made.memory.optimizer == 4 * state
    assert emit(made, "net") == emit(made, "net")
    assert f"    {2 if isinstance(head, mt.SLDA) else 1}, /* sequential */" in str(emit(made, "net")["net.c"])
    package = mt.build(made, tmp_path / "net")
    device = mt.Device(package, state=tmp_path / "flash.bin")
    x, y = draw(300, shift=0.9)
    # an untouched device is the base
    logits = evaluate(graph, {"x": x[:20]})["y"]
    base = np.exp(logits - logits.max(axis=1, keepdims=True))
    base /= base.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([device.predict(each).value for each in x[:20]], base, atol=1e-5)

    def right() -> float:
        return float(
            np.mean([int(np.argmax(device.predict(each).value)) == label for each, label in zip(x, y, strict=True)])
        )

    before, taken = right(), 0
    for sample, label in zip(*draw(60, shift=0.9), strict=True):
        device.predict(sample)
        device.observe(int(label))
        update = device.idle()
        taken += update is not None and update.accepted
    assert taken >= 2 and right() > before + 0.05
    device.save()
    answers = [device.predict(each).value for each in x[:20]]
    again = mt.Device(package, state=tmp_path / "flash.bin")
    assert np.array_equal([again.predict(each).value for each in x[:20]], answers)
    device.reset()
    np.testing.assert_allclose([device.predict(each).value for each in x[:20]], base, atol=1e-5)


def test_slda_without_labels_builds_on_the_answers_of_the_base() -> None:
    graph, draw = classifier()
    x, _ = draw(200)
    answers = evaluate(graph, {"x": x})["y"].argmax(axis=1)
    guessed, told = (
        emit(mt.plan(graph, loss="cross_entropy", optimizer=mt.SLDA(), learner=LEARNER, calibration=each), "net")
        for each in (x, (x, answers))
    )
    assert guessed == told


def test_logistic_answers_questions_apart(tmp_path: Path) -> None:
    """Two questions of one net: a person answers the first the other way round, and the second stays as it was."""
    graph, draw = classifier()
    two = mt.replace_head(graph, 2, seed=1)
    made = mt.plan(two, loss="binary_cross_entropy", optimizer=mt.Logistic(), learner=LEARNER)
    assert made.memory.optimizer == 2 * 4 * triangle(HIDDEN + 1)
    device = mt.Device(mt.build(made, tmp_path / "net"))
    x, _ = draw(200)
    before = np.array([device.predict(each).value for each in x])
    for sample in draw(60)[0]:
        first, second = device.predict(sample).value
        wanted = evaluate(two, {"x": sample})[two.outputs[0]]
        device.observe([float(wanted[0] < 0), float(wanted[1] > 0)])
        device.idle()
        assert 0 <= first <= 1 and 0 <= second <= 1
    after = np.array([device.predict(each).value for each in x])
    turned, kept = np.mean((before > 0.5) != (after > 0.5), axis=0)
    assert turned > 0.7 and kept < 0.3
