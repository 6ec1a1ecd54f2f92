"""The steps of ``mt.shrink``: each makes one file of the file before it, is measured, and must earn its place.

A step begins with nothing but the file of the step before it (the first with the module as it was given), so that a
run taken up again goes the way it would have gone. Decisions are taken on validation samples; test samples are only
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from microtune.compress.quantization import quantize
from microtune.errors import MicrotuneError, TrainingError
from microtune.frontends.load import load
from microtune.ir import Graph
from microtune.progress import Progress
from microtune.samples import Samples
from microtune.training import artefacts
from microtune.training.measured import Measured, measure
from microtune.training.table import Row, points
from microtune.tuning.losses import Loss
from microtune.version import VERSION

STEPS = ("distil", "prune", "ptq", "qat")
FLOAT = "float"
CHANNELS = (0.25, 0.5, 0.75, 0.875)
"""Shares of the channels that are pruned one after the other, as long as the limit holds."""
LEAST_HALF_STEP = 0.05
"""Between two shares of the channels less than twice this apart none is tried."""
BETWEEN = 4
"""Between the two cuts of a pruning a net is taught for one in so many of the epochs after them."""
GENTLY = 0.2
"""The learning rate of training with quantisation, as a part of that of the float net."""
TEACHER = 0.75
"""How much a net listens to the teacher."""
TEACHER_SAMPLES = 64
"""Samples whose answers tell one teacher from another."""


@dataclass(frozen=True)
class Training:
    """How each step that learns does it."""

    epochs: int = 8
    lr: float = 1e-3
    batch: int = 32
    seed: int = 0


@dataclass
class Recipe:
    """What all steps share, and the rows so far."""

    model: Any
    folder: Path
    loss: Loss
    limit: float
    core: str
    steps: tuple[str, ...]
    again: tuple[str, ...]
    training: Training
    teacher: Any
    learnt: Samples
    validation: Samples
    test: Samples | None
    say: Progress[Row]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        return self.learnt.x, self.learnt.y

    @property
    def teacher_says(self) -> np.ndarray | None:
        """What tells one teacher from another: its answers to some samples."""
        if self.teacher is None:
            return None
        from microtune.training.modules import predictions
        from microtune.training.teaching import answers_of, teacher_of

        x = self.learnt.x[:TEACHER_SAMPLES]
        return answers_of(teacher_of(self.teacher), x, predictions(self.model, x).shape[1])

    @property
    def gently(self) -> dict[str, Any]:
        """How a net that is trained already gets used to its roundings."""
        return {**asdict(self.training), "lr": self.training.lr * GENTLY}

    @property
    def floor(self) -> float:
        """The least per cent right on validation samples that a step may leave."""
        return self.rows[0].cost.validation - self.limit - 1e-9

    def do(self, kind: str, step: str, after: Row | None, make: Callable[[], Any], *settings: Any) -> Row:
        """One step: its file is made where there is none of the same input and settings, and it is measured."""
        name = step.replace(" %", "").replace(" ", "-")
        if after is not None and kind in ("ptq", "qat"):
            name = f"{after.file.stem}-{name}"
        path = self.folder / f"{name}.onnx"
        began = None if after is None else load(after.file)
        key = artefacts.key_of(VERSION, kind, began, *self.pair, *settings)
        judged = [each for each in (self.validation, self.test) if each is not None]
        cost_key = artefacts.key_of(key, self.core, str(self.loss), *(part for s in judged for part in (s.x, s.y)))
        stored = None if kind in self.again else artefacts.read(path)
        try:
            if stored is None or stored[1].get("key") != key:
                self.say(f"{step}: begins", None)
                stored = make(), {"step": step, "key": key}
                artefacts.write(path, *stored)
            model, record = stored
            if record.get("cost_key") != cost_key:
                self.say(f"{step}: is measured", None)
                cost = measure(load(model), self.core, self.loss, self.validation, self.test)
                record = {**record, "cost": asdict(cost), "cost_key": cost_key}
                artefacts.write(path, model, record)
        except MicrotuneError as error:
            hint = f". What came before it is whole in {self.folder} and not done again; to leave it out, skip {kind}"
            raise TrainingError(f"{step}: {error}{hint if kind in STEPS else ''}") from error
        row = Row(step, "" if after is None else after.step, path, Measured(**record["cost"]), False, "")
        self.rows.append(row)
        return row

    def judged(self, row: Row, kept: bool, says: str) -> Row:
        """The row with what was decided about it, which takes its place in the table."""
        found = replace(row, kept=kept, says=says)
        self.rows[self.rows.index(row)] = found
        said = f"; {says}" if says else ""
        self.say(f"{found.step}: {found.cost.flash:,} bytes, {found.cost.validation:.1f} % right{said}", found)
        return found

    def within(self, row: Row, source: Row, more: str = "") -> Row:
        """Judge a step that is there to make flash smaller; ``more`` is said where it stays."""
        lost = self.rows[0].cost.validation - row.cost.validation
        if row.cost.flash >= source.cost.flash:
            return self.judged(row, False, f"no: flash is no smaller than after {source.step}")
        if row.cost.validation < self.floor:
            return self.judged(row, False, f"no: {lost:.1f} points lost, {self.limit:g} allowed")
        times = source.cost.flash / row.cost.flash
        return self.judged(row, True, f"flash {times:.2f} times smaller, {points(lost)}{more}")

    def exported(self, module: Any) -> Any:
        from microtune.frontends.torch import onnx_of

        return onnx_of(module, self.learnt.x[:1])

    def module_of(self, row: Row) -> Any:
        """What a step that learns begins with: the module as it was given, else the net of the file."""
        from microtune.training.bridge import to_torch

        return self.model if row.step == FLOAT else to_torch(load(row.file))

    def told(self, step: str) -> Callable[[str, Any], None]:
        return lambda text, _: self.say(f"{step}: {text}", None)

    def taught(self, step: str, student: Any, epochs: int) -> Any:
        """A net that has learnt from the samples and from the teacher, which is the float net where none is given."""
        from microtune.training.distillation import distill

        listened = self.model if self.teacher is None else self.teacher
        settings = {**asdict(self.training), "epochs": epochs}
        return distill(
            student, listened, self.pair, weight=TEACHER, loss=self.loss, progress=self.told(step), **settings
        )

    def distilled(self, base: Row) -> Row:
        """The float net taught by the teacher, where that makes it better."""
        row = self.do(
            "distil", "distil", base,
            lambda: self.exported(self.taught("distil", self.module_of(base), self.training.epochs)),
            self.teacher_says, asdict(self.training), str(self.loss),
        )  # fmt: skip
        won = row.cost.validation - base.cost.validation
        if won > 0:
            return self.judged(row, True, f"{won:.1f} points won")
        self.judged(row, False, "no: no better than without the teacher")
        return base

    def pruned(self, source: Row, channels: Sequence[float]) -> list[Row]:
        """Float nets within the limit, each smaller than the one before it, beginning with ``source``."""
        good, done, left = [source], 0.0, list(channels)
        too_far, again = 0.0, False
        while left:
            share = left.pop(0)
            part = 1 - (1 - share) / (1 - done)  # of what the nets before it have left
            found = self.narrower(f"prune {100 * share:g} %{' again' if again else ''}", good[-1], part)
            if found.kept:
                good.append(found)
                done = share
            else:  # nothing beyond it is tried, but what lies halfway
                too_far, left = share, []
            if left or again:
                continue
            if too_far - done >= 2 * LEAST_HALF_STEP:
                left = [(done + too_far) / 2]
            elif channels and done not in (0.0, *channels):  # from here it is a smaller cut than it was
                left, again = [too_far], True
        return good

    def narrower(self, step: str, source: Row, part: float) -> Row:
        """A net without a part of its channels: cut twice, and taught after each cut, most after the second."""
        from microtune.training.pruning import prune

        def made() -> Any:
            net, epochs = self.module_of(source), self.training.epochs
            first = part / 2
            for share, passes in ((first, -(-epochs // BETWEEN)), (1 - (1 - part) / (1 - first), epochs)):
                net = prune(
                    net, self.pair, channels=share, steps=1, epochs=0, loss=self.loss, seed=self.training.seed,
                    progress=self.told(step),
                )  # fmt: skip
                net = self.taught(step, net, passes)
            return self.exported(net)

        settings = part, self.teacher_says, asdict(self.training), str(self.loss)
        return self.within(self.do("prune", step, source, made, *settings), source)

    def smallest_int8(self, good: Sequence[Row]) -> Row | None:
        """The int8 net of the last of the float nets, each smaller than the one before it, that has one within the
        limit; None where none is smaller than the last float net."""
        least = good[-1]
        for place in reversed(range(len(good))):
            found = self.quantised(good[place])
            if found is not None and found.cost.flash < least.cost.flash:
                for each in good[place + 1 :]:
                    self.judged(each, False, "no: in int8 it loses too much")
                return found
            if found is not None:
                self.judged(found, False, f"no: flash is no smaller than after {least.step}")
            made = [each for each in self.rows if each.after == good[place].step and each.step in ("ptq", "qat")]
            if all(each.cost.flash >= least.cost.flash for each in made):
                return None  # and from larger nets come larger ones
        return None

    def quantised(self, source: Row) -> Row | None:
        """The int8 net of a float one that is within the limit, trained with quantisation only if it must be."""
        plain = None
        if "ptq" in self.steps:
            plain = self.within(self.do("ptq", "ptq", source, lambda: _stored(self.calibrated(source))), source)
        if "qat" not in self.steps:
            return plain if plain is not None and plain.kept else None
        if plain is not None and plain.kept and "qat" not in self.again:
            lost = self.rows[0].cost.validation - plain.cost.validation
            self.notes.append(f"qat was not done: after ptq {points(lost)}, {self.limit:g} allowed")
            return plain
        if plain is not None and plain.cost.flash >= source.cost.flash and "qat" not in self.again:
            return None  # training changes what the weights are, not how many bytes they take
        settings = self.gently, str(self.loss)
        trained = self.do("qat", "qat", source, lambda: _stored(self.trained_int8(source)), *settings)
        if plain is not None and plain.kept and trained.cost.validation <= plain.cost.validation:
            self.judged(trained, False, "no: no better than ptq")
            return plain
        won = 0.0 if plain is None else trained.cost.validation - plain.cost.validation
        more = "" if plain is None else f", {won:.1f} fewer than after ptq"
        trained = self.within(trained, source, more)
        if plain is None or not plain.kept:
            return trained if trained.kept else None
        if not trained.kept:
            return plain
        self.judged(plain, False, f"no: qat loses {won:.1f} points fewer")
        return trained

    def calibrated(self, source: Row) -> Graph:
        return quantize(load(source.file), calibration=self.learnt.x)

    def trained_int8(self, source: Row) -> Graph:
        from microtune.training.quantization_aware import quantize_aware

        return quantize_aware(load(source.file), self.pair, loss=self.loss, progress=self.told("qat"), **self.gently)


def _stored(graph: Graph) -> Any:
    """An int8 graph as an onnx.ModelProto in QDQ form."""
    from microtune.compress.qdq import to_onnx

    return to_onnx(graph)
