"""Samples that do not fit are refused in a sentence; the split keeps every class on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.errors import PlanError
from microtune.samples import Samples, read_pair, split_samples
from microtune.search.data import check_samples
from microtune.tuning.losses import loss_of

from .networks import CLASSES, two_layers, write_onnx

X = np.zeros((12, 6), np.float32)
Y = np.arange(12) % CLASSES


@pytest.mark.parametrize(
    ("data", "loss", "says"),
    [
        (X, "cross_entropy", "pair (x, y)"),
        ((X[:, :5], Y), "cross_entropy", "(12, 5)"),
        ((X, Y[:-1]), "cross_entropy", "12 samples and y 11"),
        ((X[:4], Y[:4]), "cross_entropy", "at least 8"),
        ((X * np.nan, Y), "cross_entropy", "finite"),
        ((X.astype(str), Y), "cross_entropy", "numbers"),
        ((X, Y + 1), "cross_entropy", "classes 1 to 4; the model has 0 to 3"),
        ((X, Y - 1), "cross_entropy", "classes -1 to 2"),
        ((X, Y + 0.5), "cross_entropy", "class index"),
        ((X, np.eye(CLASSES)[Y]), "cross_entropy", "class index"),
        ((X, np.r_[np.zeros(11, int), 2]), "cross_entropy", "one sample of class 2"),
        ((X, np.zeros((12, 3))), "mse", "3 values per sample; the model has 4 outputs"),
        ((X, np.full((12, 4), 0.5)), "binary_cross_entropy", "0 and 1"),
    ],
)
def test_samples_that_do_not_fit(data: Any, loss: str, says: str, tmp_path: Path) -> None:
    graph = mt.load(write_onnx(two_layers(), tmp_path / "net.onnx"))
    with pytest.raises(PlanError) as error:
        check_samples(graph, loss_of(loss), data)
    assert says in str(error.value)


def test_every_class_is_learnt_and_judged() -> None:
    y = np.r_[np.zeros(2, int), np.ones(3, int), np.full(40, 2)]
    learnt, judged = split_samples(Samples(np.arange(45.0), y), 0.3, 0)
    assert set(learnt.y) == set(judged.y) == {0, 1, 2}
    assert sorted([*learnt.x, *judged.x]) == list(range(45)) and len(judged) == 1 + 1 + 12


def test_files_that_are_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=X, y=Y)
    x, y = read_pair(path)
    assert (x == X).all() and (y == Y).all()
    whole = path.read_bytes()
    np.savez(path, inputs=X, y=Y)
    with pytest.raises(PlanError, match="holds no x, but inputs, y"):
        read_pair(path)
    np.savez(path, x=np.array([{}], object), y=Y)
    with pytest.raises(PlanError, match="cannot be read"):
        read_pair(path)
    for content in (b"", b"no samples", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(PlanError, match=r"not an \.npz file"):
            read_pair(path)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(PlanError, match=r"not an \.npz file"):
        read_pair(tmp_path / "x.npy")
