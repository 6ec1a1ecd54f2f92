"""Students taught by a teacher beside the same students trained alone, on spoken digits; for docs/shrinking.md.

    python -m benchmarks.distillation [--seed 21] [--runs 8]

Six people's digits (examples/speaker): some takes of each digit by each person to learn from, 20 others to judge by,
drawn afresh in each run. Both students of a pair begin with the same weights, see the same samples in the same order
for as many epochs at the same rate; the teacher has learnt from the same samples. Students, temperature and weight were
chosen with seeds below 20.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import microtune as mt
from benchmarks.results import record
from microtune import gallery
from microtune.samples import Samples
from microtune.training.fit import evaluate, fit

SECTION = "distillation"
SEED, RUNS = 21, 8
JUDGED = 20
"""Takes of each digit by each person."""
TEMPERATURE, WEIGHT = 2.0, 0.5
HELD, BETTER = "dense, 5 takes", 0.5
"""The student that must gain so many points from its teacher, in the mean over all runs."""


def convolutions(wide: int, dropout: float = 0.0) -> nn.Module:
    """Two convolutions over time, of ``wide`` and twice as many channels, and one dense layer."""
    return nn.Sequential(
        nn.Conv1d(10, wide, 5, stride=2), nn.BatchNorm1d(wide), nn.ReLU(), nn.Dropout(dropout),
        nn.Conv1d(wide, 2 * wide, 5, stride=2), nn.BatchNorm1d(2 * wide), nn.ReLU(), nn.Dropout(dropout),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2 * wide, 10),
    )  # fmt: skip


def dense(wide: int) -> nn.Module:
    """One hidden layer over all 49 frames of 10 coefficients at once."""
    return nn.Sequential(nn.Flatten(), nn.Linear(490, wide), nn.ReLU(), nn.Linear(wide, 10))


@dataclass(frozen=True)
class Student:
    """How a student is made and trained, and from how many takes of each digit by each person."""

    make: Callable[[int], nn.Module]
    wide: int
    takes: int
    epochs: int
    lr: float

    def made(self, seed: int) -> nn.Module:
        """The same weights for the same seed."""
        torch.manual_seed(seed)
        return self.make(self.wide)


STUDENTS = {
    HELD: Student(dense, 32, 5, 60, 0.003),
    "dense, 15 takes": Student(dense, 32, 15, 40, 0.003),
    "convolutions, 5 takes": Student(convolutions, 8, 5, 60, 0.005),
    "convolutions, 15 takes, 20 epochs": Student(convolutions, 8, 15, 20, 0.005),
}


def _samples(seed: int, count: int, x: np.ndarray, digit: np.ndarray, take: np.ndarray) -> tuple[Samples, Samples]:
    """So many takes of each to learn from, and others to judge by, in standard deviations of what is learnt."""
    order = np.random.default_rng(seed).permutation(np.unique(take))
    learnt, judged = (np.flatnonzero(np.isin(take, each)) for each in (order[:count], order[-JUDGED:]))
    mean, deviation = (how(x[learnt], (0, 2), keepdims=True) for how in (np.mean, np.std))
    scaled = ((x - mean) / deviation).astype(np.float32)
    return Samples(scaled[learnt], digit[learnt]), Samples(scaled[judged], digit[judged])


def measure(seed: int = SEED, runs: int = RUNS) -> dict[str, Any]:
    """Per cent right of each student: its teacher, alone, taught, and the gain, its mean and the least of all runs."""
    data = gallery.load_example("speaker").data
    takes = data.load()
    x = data.inputs(takes, np.arange(len(takes.digit)))[..., 0].transpose(0, 2, 1)  # (n, 10 coefficients, 49 frames)
    right: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STUDENTS}
    with torch.random.fork_rng():
        for run in range(seed, seed + runs):
            teachers: dict[int, nn.Module] = {}
            for name, student in STUDENTS.items():
                learnt, judged = _samples(run, student.takes, x, takes.digit, takes.take)
                if student.takes not in teachers:
                    torch.manual_seed(1000 + run)
                    teachers[student.takes] = convolutions(64, dropout=0.2)
                    fit(teachers[student.takes], learnt, epochs=30, lr=0.002, seed=run)
                teacher = teachers[student.takes]
                alone = student.made(run)
                fit(alone, learnt, epochs=student.epochs, lr=student.lr, seed=run)
                taught = mt.distill(
                    student.made(run), teacher, (learnt.x, learnt.y), temperature=TEMPERATURE, weight=WEIGHT,
                    epochs=student.epochs, lr=student.lr, seed=run,
                )  # fmt: skip
                teacher_right, *pair = (100 * evaluate(each, judged) for each in (teacher, alone, taught))
                right[name].append((teacher_right, *pair))
    students = {}
    for name, rows in right.items():
        teacher_right, alone_right, taught_right = np.mean(rows, axis=0)
        gains = [taught - alone for _, alone, taught in rows]
        students[name] = {
            "parameters": sum(each.numel() for each in STUDENTS[name].made(0).parameters()),
            "teacher": round(float(teacher_right), 1),
            "alone": round(float(alone_right), 1),
            "taught": round(float(taught_right), 1),
            "gain": round(float(np.mean(gains)), 1),
            "least gain": round(min(gains), 1),
        }
    size = sum(each.numel() for each in convolutions(64).parameters())
    return {"runs": runs, "teacher's parameters": size, "students": students}


def run_distillation(seed: int = SEED, runs: int = RUNS) -> bool:
    """False when a limit is missed."""
    found = measure(seed, runs)
    print(f"\nspoken digits, per cent right, mean of {runs} runs")
    for name, row in found["students"].items():
        print(f"  {name:36}alone {row['alone']:.1f}, taught {row['taught']:.1f}, teacher {row['teacher']:.1f}", end="")
        print(f"; gain {row['gain']:+.1f} (at least {BETTER:+.1f})" if name == HELD else f"; gain {row['gain']:+.1f}")
    record(SECTION, found)
    return bool(found["students"][HELD]["gain"] >= BETTER)


TABLE = """\
A teacher's worth, on spoken digits: per cent right, mean of {runs} runs. The students of a row differ in nothing but
the teacher, of {size:,} parameters, which has learnt from the same takes of each digit by six people.

| student | parameters | alone | taught | gain | least of {runs} runs | teacher |
|---|---|---|---|---|---|---|
{rows}
"""


def distillation_table(results: Mapping[str, Any]) -> str:
    """For docs/shrinking.md."""
    found = results[SECTION]
    rows = []
    for name in STUDENTS:
        row = found["students"][name]
        rows.append(
            f"| {name} | {row['parameters']:,} | {row['alone']:.1f} | {row['taught']:.1f} | **{row['gain']:+.1f}** "
            f"| {row['least gain']:+.1f} | {row['teacher']:.1f} |"
        )
    return TABLE.format(rows="\n".join(rows), runs=found["runs"], size=found["teacher's parameters"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(given.seed, given.runs), indent=2))
