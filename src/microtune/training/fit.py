"""Training a module and judging it: the one loop that pruning, distillation and quantisation-aware training share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtune.errors import TrainingError
from microtune.frontends.torch import in_mode
from microtune.progress import Progress
from microtune.samples import Samples
from microtune.training.modules import answer, device_of, predictions, seeded
from microtune.training.settings import number, seed_fits, whole
from microtune.tuning.losses import Loss, loss_of

TOO_MUCH = "lr={:g} is too high, or x or y hold very large numbers; take a lower lr, or standardise them"


@dataclass(frozen=True)
class Epoch:
    """One pass over the samples: ``number`` of ``count``, counted from 1, and its mean loss."""

    number: int
    count: int
    loss: float


Extra = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A further term of the loss from (module, inputs, outputs)."""
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What is made small, from (inputs, outputs, rows): rows (batch,) are the samples' places."""


def loss_function(loss: str | Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The house's loss as a function of outputs (n, outputs) and targets, averaged over both."""
    chosen = loss_of(loss)
    if chosen.delta is not None:
        return lambda outputs, targets: functional.huber_loss(outputs, targets, delta=chosen.delta or 1.0)
    known: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": functional.mse_loss,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "cross_entropy": functional.cross_entropy,
    }
    return known[chosen.operator]


def fit(
    module: nn.Module,
    samples: Samples,
    *,
    loss: str | Loss = "cross_entropy",
    epochs: int = 10,
    lr: float = 1e-3,
    batch: int = 32,
    seed: int = 0,
    extra: Extra | None = None,
    progress: Progress[Epoch] | None = None,
) -> tuple[Epoch, ...]:
    """Train a module where it is, and tell how its loss went.

    Adam, its rate falling to nothing along a half cosine (Loshchilov and Hutter 2017) over all epochs; what has
    ``requires_grad`` off stays. The same seed gives the same weights, and PyTorch's own random numbers go on as if
    nothing had been drawn. extra: a further term of the loss. progress: called after each epoch.

    Raises TrainingError when the module fails or the loss is not finite; the module is then as it was before.
    """
    measure = loss_function(loss)
    targets = torch.from_numpy(samples.y).to(device_of(module))

    def objective(inputs: Tensor, outputs: Tensor, rows: Tensor) -> Tensor:
        found = measure(outputs, targets[rows])
        return found if extra is None else found + extra(module, inputs, outputs)

    return descend(module, samples.x, objective, epochs=epochs, lr=lr, batch=batch, seed=seed, progress=progress)


def descend(
    module: nn.Module,
    x: np.ndarray,
    objective: Objective,
    *,
    epochs: int,
    lr: float,
    batch: int,
    seed: int,
    progress: Progress[Epoch] | None = None,
    also: Iterable[nn.Parameter] = (),
) -> tuple[Epoch, ...]:
    """``fit`` with any objective. also: parameters outside the module that are trained with it."""
    check_settings(epochs, lr, batch, seed)
    parameters = [each for each in (*module.parameters(), *also) if each.requires_grad]
    if not parameters or epochs == 0:
        return ()
    say = progress or (lambda text, epoch: None)
    device = device_of(module)
    inputs = torch.from_numpy(np.ascontiguousarray(x)).to(device)
    batches = -(-len(x) // batch)
    order = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    before = copy.deepcopy(module.state_dict())
    history: list[Epoch] = []
    done = False
    try:
        with seeded(seed), in_mode(module, True), torch.enable_grad():
            for number in range(1, epochs + 1):
                total = 0.0
                # parts of nearly the same size: a batch of one sample left over has no batch statistics
                for part in np.array_split(order.permutation(len(x)), batches):
                    rows = torch.from_numpy(part).to(device)
                    optimizer.zero_grad(set_to_none=True)
                    found = objective(inputs[rows], answer(module, inputs[rows]), rows)
                    if not math.isfinite(value := float(found.detach())):
                        raise TrainingError(
                            f"the loss became {value} in epoch {number} of {epochs}: {TOO_MUCH.format(lr)}"
                        )
                    _go_back(module, found)
                    optimizer.step()
                    falling.step()
                    total += value * len(part)
                history.append(Epoch(number, epochs, total / len(x)))
                say(f"epoch {number} of {epochs}: loss {history[-1].loss:.4f}", history[-1])
        _check_finite(module, before, lr)
        done = True
    finally:
        optimizer.zero_grad(set_to_none=True)
        if not done:
            module.load_state_dict(before)
    return tuple(history)


def _go_back(module: nn.Module, loss: Tensor) -> None:
    """The gradients of a loss. Raises TrainingError where PyTorch has none."""
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{type(module).__name__} has no gradients: {reason}") from error


def _check_finite(module: nn.Module, before: dict[str, Tensor], lr: float) -> None:
    """Raises TrainingError for parameters and statistics that were finite before, and are not now."""
    for name, each in module.state_dict().items():
        if name in before and bool(before[name].isfinite().all()) and not bool(each.isfinite().all()):
            raise TrainingError(f"{name} is no longer finite: {TOO_MUCH.format(lr)}")


def check_settings(epochs: int, lr: float, batch: int, seed: int = 0) -> None:
    """Raises TrainingError for settings that no training can have."""
    whole("epochs", epochs, 0)
    number("lr", lr, lambda rate: 0 < rate <= 1000, "above 0 and at most 1000; 0.001 serves most nets")
    whole("batch", batch, 1)
    seed_fits(seed)


def evaluate(module: nn.Module, samples: Samples, loss: str | Loss = "cross_entropy") -> float:
    """The share of right answers, 0 to 1, for classes and yes/no; the mean loss for values. In inference mode."""
    chosen, outputs = loss_of(loss), predictions(module, samples.x)
    if chosen.task == "MT_MULTICLASS":
        return float(np.mean(outputs.argmax(1) == samples.y))
    if chosen.task == "MT_BINARY":
        return float(np.mean((outputs > 0) == (samples.y > 0.5)))
    return float(loss_function(loss)(torch.from_numpy(outputs), torch.from_numpy(samples.y)))
