"""Losses by name, and the task each one means."""

from __future__ import annotations

from dataclasses import dataclass

from microtune.errors import PlanError


@dataclass(frozen=True)
class Loss:
    """``operator`` computes it; ``task`` is the C enumerator; ``activation`` turns outputs into probabilities.

    The cross-entropies work on logits: a final sigmoid or softmax of the model is part of them.
    """

    operator: str
    task: str
    activation: str | None = None
    delta: float | None = None


LOSSES = {
    "mse": Loss("mse", "MT_REGRESSION"),
    "huber": Loss("huber", "MT_REGRESSION", delta=1.0),
    "binary_cross_entropy": Loss("binary_cross_entropy", "MT_BINARY", activation="sigmoid"),
    "cross_entropy": Loss("cross_entropy", "MT_MULTICLASS", activation="softmax"),
}


def Huber(delta: float = 1.0) -> Loss:
    """The Huber loss with its own ``delta``, in output units (``"huber"`` has 1)."""
    if not delta > 0:
        raise PlanError(f"Huber(delta={delta}): delta must be above 0")
    return Loss("huber", "MT_REGRESSION", delta=float(delta))


def loss_of(choice: str | Loss) -> Loss:
    """A loss from its name. Raises PlanError listing the names there are."""
    if isinstance(choice, Loss):
        return choice
    if choice not in LOSSES:
        raise PlanError(f"unknown loss {choice!r}. Known: {', '.join(LOSSES)}")
    return LOSSES[choice]
