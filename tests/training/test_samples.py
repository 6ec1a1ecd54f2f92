"""Wrong data are refused in a sentence, before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.training.samples import checked

X, Y = np.arange(40, dtype=np.float32).reshape(10, 4), np.arange(10) % 3


def test_samples_have_the_types_that_training_needs() -> None:
    found = checked(X.tolist(), Y.astype(np.uint8), (4,), 3)
    assert found.x.dtype == np.float32 and found.y.dtype == np.int64 and len(found) == 10
    np.testing.assert_array_equal(found.take(np.array([2, 1])).x, X[[2, 1]])
    values = checked(X, Y, (4,), 1, "mse")
    assert values.y.dtype == np.float32 and values.y.shape == (10, 1)
    assert checked(Y.reshape(-1, 1), Y, (1,), 3, indices=True).x.dtype == np.int64


@pytest.mark.parametrize(
    ("x", "y", "loss", "said"),
    [
        (X, Y + 1, "cross_entropy", "y holds classes 1 to 3; the module has 0 to 2"),
        (X, Y - 1, "cross_entropy", "y holds classes -1 to 1"),
        (X, Y + 0.5, "cross_entropy", "whole numbers, not 0.5"),
        (X, np.eye(3)[Y], "cross_entropy", r"one class index per sample, not values of shape \(3,\)"),
        (X, Y[:9], "cross_entropy", "x holds 10 samples and y 9"),
        (X[:7], Y[:7], "cross_entropy", "x holds 7 samples; at least 8 are needed"),
        (X[:, :3], Y, "cross_entropy", r"x has the shape \(10, 3\); \(samples, 4\) is needed"),
        (np.where(X == 3, np.nan, X), Y, "cross_entropy", "x holds 1 values that are not finite"),
        (X, np.full((10, 3), np.inf), "mse", "y holds 30 values that are not finite"),
        (X.astype(np.float64) * 1e40, Y, "cross_entropy", "x holds numbers that are too large for float32"),
        (X, X[:, :2], "mse", "y holds 2 values per sample; the module has 3 outputs"),
        (X, np.full((10, 3), 2), "binary_cross_entropy", "y must hold 0 and 1"),
        (X, list("abcdefghij"), "cross_entropy", "y holds text, such as .a.; numbers are needed"),
        ([[1, 2], [3]], Y, "cross_entropy", "x cannot be made an array of numbers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(x: Any, y: Any, loss: str, said: str) -> None:
    with pytest.raises(mt.TrainingError, match=said):
        checked(x, y, (4,), 3, loss)
