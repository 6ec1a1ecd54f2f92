"""What a student is taught: a teacher's softened answers, and what its hidden layers hold."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtune.errors import TrainingError
from microtune.samples import Samples
from microtune.training.fit import loss_function
from microtune.training.modules import answer, device_of, own_copy, predictions
from microtune.tuning.losses import Loss, loss_of

Teacher = nn.Module | Callable[[np.ndarray], Any]
CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention, nn.Embedding)
"""Layers whose outputs have their channels on the last axis; others on the first one after the samples."""


def teacher_of(given: Any) -> Teacher:
    """A frozen copy of a module, or of what becomes one; a callable as it is."""
    if not isinstance(given, nn.Module) and callable(given):
        return given  # type: ignore[no-any-return]
    if hasattr(given, "predict") and not isinstance(given, nn.Module):
        raise TrainingError(
            f"teacher: {type(given).__name__} is not called itself; pass what gives its logits or log probabilities, "
            "such as teacher=net.predict_log_proba, or a function of yours"
        )
    return own_copy(given).eval().requires_grad_(False)


def softened(student: Tensor, teacher: Tensor, loss: str | Loss, temperature: float) -> Tensor:
    """How far a student's outputs (n, outputs) are from a teacher's; 0 when they mean the same."""
    chosen = loss_of(loss)
    if chosen.task == "MT_MULTICLASS":
        ours, theirs = (functional.log_softmax(each / temperature, 1) for each in (student, teacher))
        return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2
    if chosen.task == "MT_BINARY":
        chance = torch.sigmoid(teacher / temperature)
        cross = functional.binary_cross_entropy_with_logits(student / temperature, chance)
        own = functional.binary_cross_entropy_with_logits(teacher / temperature, chance)
        return (cross - own) * temperature**2
    return loss_function(chosen)(student, teacher)


class Teaching:
    """The objective of a distillation. Within ``with``, the hidden layers it compares are listened to."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        samples: Samples,
        loss: str | Loss,
        temperature: float,
        weight: float,
        hidden: dict[str, str],
        hidden_weight: float,
    ) -> None:
        """Raises TrainingError for a teacher, or layers of it, that do not fit the student."""
        self._loss, self._temperature, self._weight, self._hidden_weight = loss, temperature, weight, hidden_weight
        self._student, self._teacher, self._hidden = student, teacher, hidden
        self._measure, device = loss_function(loss), device_of(student)
        self._targets = torch.from_numpy(samples.y).to(device)
        outputs = predictions(student, samples.x[:1]).shape[1]
        self._answers = torch.from_numpy(answers_of(teacher, samples.x, outputs)).to(device)
        self._seen: dict[tuple[str, str], Tensor] = {}
        self._hooks: list[Any] = []
        self._regressors: dict[str, nn.Module] = {}
        if hidden:
            self._match(samples)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of the regressors between hidden layers."""
        return [each for regressor in self._regressors.values() for each in regressor.parameters()]

    def objective(self, inputs: Tensor, outputs: Tensor, rows: Tensor) -> Tensor:
        """What is made small for some of the samples."""
        total = self._weight * softened(outputs, self._answers[rows], self._loss, self._temperature)
        if self._weight < 1:
            total = total + (1 - self._weight) * self._measure(outputs, self._targets[rows])
        if self._hidden:
            with torch.no_grad():
                answer(self._teacher, inputs)  # type: ignore[arg-type]
            for ours, theirs in self._hidden.items():
                total = total + self._hidden_weight * self._difference(ours, theirs)
        return total

    def _difference(self, ours: str, theirs: str) -> Tensor:
        student, teacher = _same_size(self._seen["student", ours], self._seen["teacher", theirs])
        guess: Tensor = self._regressors[ours](student)
        return (guess - teacher).square().mean() / teacher.square().mean().clamp_min(1e-12)

    def _match(self, samples: Samples) -> None:
        """A regressor for each pair of hidden layers, from what they hold for two samples."""
        if not isinstance(self._teacher, nn.Module):
            raise TrainingError("hidden: the teacher is a function, whose layers cannot be seen; it must be a module")
        with self:
            predictions(self._student, samples.x[:2])
            predictions(self._teacher, samples.x[:2])
            for ours, theirs in self._hidden.items():
                student, teacher = (self._seen.get(each) for each in (("student", ours), ("teacher", theirs)))
                if student is None or teacher is None:
                    raise TrainingError(f"hidden: {ours if student is None else theirs!r} is not run by its net")
                if student.ndim != teacher.ndim:
                    raise TrainingError(
                        f"hidden: {ours!r} gives a sample {student.ndim - 1} dimensions and {theirs!r} "
                        f"{teacher.ndim - 1}; layers of the same kind can be compared"
                    )
                if student.shape[1:-1] != teacher.shape[1:-1] and student.ndim not in (3, 4):
                    raise TrainingError(
                        f"hidden: {ours!r} gives maps of {tuple(student.shape[1:-1])} and {theirs!r} of "
                        f"{tuple(teacher.shape[1:-1])}; only those of one or two dimensions are brought to one size"
                    )
                widths = student.shape[-1], teacher.shape[-1]
                regressor = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths)
                self._regressors[ours] = regressor.to(student)

    def __enter__(self) -> Teaching:
        if self._hidden:
            self._listen("student", self._student, self._hidden.keys())
            self._listen("teacher", self._teacher, self._hidden.values())  # type: ignore[arg-type]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._seen.clear()

    def _listen(self, whose: str, module: nn.Module, names: Any) -> None:
        layers = {name: each for name, each in module.named_modules() if name}
        for name in dict.fromkeys(names):
            if name not in layers:
                raise TrainingError(f"hidden: the {whose} has no layer {name!r}. Known: {', '.join(layers)}")

            def note(layer: nn.Module, given: Any, held: Any, key: tuple[str, str] = (whose, name)) -> None:
                held = held[0] if isinstance(held, tuple) else held
                self._seen[key] = held if isinstance(layer, CHANNELS_LAST) else held.movedim(1, -1)

            self._hooks.append(layers[name].register_forward_hook(note))


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (n, ..., channels), averaged to the smaller of both sizes where these differ."""
    sizes = student.shape[1:-1], teacher.shape[1:-1]
    if sizes[0] == sizes[1]:
        return student, teacher
    smaller = [min(pair) for pair in zip(*sizes, strict=True)]
    pool: Any = functional.adaptive_avg_pool1d if len(smaller) == 1 else functional.adaptive_avg_pool2d
    size = smaller[0] if len(smaller) == 1 else smaller
    ours, theirs = (pool(each.movedim(-1, 1), size).movedim(1, -1) for each in (student, teacher))
    return ours, theirs


def answers_of(teacher: Teacher, x: np.ndarray, outputs: int) -> np.ndarray:
    """(n, outputs) float32: what the teacher says to all samples. Raises TrainingError where that is anything else."""
    if isinstance(teacher, nn.Module):
        found = predictions(teacher, x)
    else:
        try:
            given = teacher(x)
            found = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given, np.float32)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TrainingError(f"the teacher fails on inputs of shape {x.shape}: {reason}") from error
        found = found.reshape(len(found), -1) if found.ndim else found
    if found.shape != (len(x), outputs):
        raise TrainingError(f"the teacher answers {len(x)} samples by {found.shape}; ({len(x)}, {outputs}) is needed")
    if not np.isfinite(found).all():
        raise TrainingError(
            "the teacher's answers are not all finite; clip logarithms of zero, as by np.maximum(..., -20)"
        )
    return found
