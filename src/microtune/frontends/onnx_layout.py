"""Where the elements of an ONNX value lie in memory: ONNX puts channels first, the graph puts them last.

Nothing is moved until a node needs it: a transposition in the source model, or a flattening of an image that is
kept channels last, only changes what is known about the order, and a weight behind it is sorted at import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Arrangement:
    """The elements, listed as the source model lists them, form a ``grid``; memory has its axes in ``order``.

    Always in the simplest form: no axes of size 1, and axes that stay neighbours count as one. So two values
    lie the same way exactly if their arrangements are equal, and with at most one axis nothing has moved.
    """

    grid: Shape
    order: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether memory lists the elements as the source model does."""
        return len(self.grid) <= 1

    def axes(self, shape: Shape) -> tuple[int, ...] | None:
        """The axes of ``shape`` in the order of memory, without those of size 1; None if they are torn apart."""
        kept = iter([axis for axis, size in enumerate(shape) if size != 1])
        groups: list[list[int]] = []
        for size in self.grid:
            group: list[int] = []
            while math.prod(shape[axis] for axis in group) < size:
                group.append(next(kept))
            if math.prod(shape[axis] for axis in group) != size:
                return None
            groups.append(group)
        return tuple(axis for index in self.order for axis in groups[index])

    def sort(self, array: np.ndarray) -> np.ndarray:
        """``array`` (..., elements as the source model lists them) with its last axis in the order of memory."""
        lead = array.shape[:-1]
        turned = [len(lead) + index for index in self.order]
        moved = array.reshape((*lead, *self.grid)).transpose((*range(len(lead)), *turned))
        return moved.reshape((*lead, math.prod(self.grid)))


def arrange(shape: Shape, order: Sequence[int]) -> Arrangement:
    """The arrangement of a value of ``shape`` whose axes lie in memory in ``order`` (those of size 1 anywhere)."""
    kept = [axis for axis in order if shape[axis] != 1]
    rank = {axis: index for index, axis in enumerate(sorted(kept))}
    runs: list[list[int]] = []
    for axis in kept:
        if runs and rank[axis] == rank[runs[-1][-1]] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    sorted_runs = sorted(runs)
    grid = tuple(math.prod(shape[axis] for axis in run) for run in sorted_runs)
    return Arrangement(grid, tuple(sorted_runs.index(run) for run in runs))


def plain(shape: Shape) -> Arrangement:
    """Elements as the source model lists them."""
    return arrange(shape, range(len(shape)))


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of the axes of a sample (C, ...): the channels go behind."""
    return (*range(1, rank), 0)
