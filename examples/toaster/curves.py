"""The picture of the toaster: how many suggestions are accepted after so many uses, person by person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"default": "#0b6e4f", "recipe": "#b0b0b0"}
LABELS = {"default": "this learner", "recipe": "folklore recipe"}


def draw(curves: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]], path: Path) -> Path:
    """One panel a person; the line is the mean, the band the middle 80 % of households. Writes a PNG."""
    people = list(next(iter(curves.values())))
    columns = 3
    rows = -(-len(people) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(11, 2.7 * rows), sharex=True, sharey=True, constrained_layout=True
    )
    for axis, person in zip(axes.flat, people, strict=False):
        for learner, lives in curves.items():
            uses = sorted(lives[person])
            shares = 100 * np.stack([lives[person][each] for each in uses])
            low, high = np.percentile(shares, [10, 90], axis=1)
            axis.fill_between(uses, low, high, color=COLOURS[learner], alpha=0.2, linewidth=0)
            axis.plot(uses, shares.mean(axis=1), color=COLOURS[learner], marker=".", label=LABELS[learner])
        axis.set_title(person.replace("_", " "), fontsize=10)
        axis.set_ylim(0, 101)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(people) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("uses")
    for axis in axes[:, 0]:
        axis.set_ylabel("accepted, %")
    axes.flat[0].legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
