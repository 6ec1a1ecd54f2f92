"""``prune``: fewer channels, or fewer weights that are not zero; little by little, trained again after each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from microtune.errors import TrainingError
from microtune.progress import Progress
from microtune.training import require
from microtune.training.settings import whole
from microtune.tuning.losses import Loss

if TYPE_CHECKING:
    from torch import nn

    from microtune.training.fit import Epoch

SCHEDULES = ("cubic", "linear", "one-shot")
Share = float | Mapping[str, float]
"""What is taken away, 0 to below 1: the same of every layer, or of each layer named."""


def shares_at(final: float, steps: int, schedule: str) -> tuple[float, ...]:
    """What share has been taken away after each step; the last is ``final``.

    Cubic (Zhu and Gupta 2017, "To prune, or not to prune"): most at first, while there is much that does not matter.
    """
    if schedule == "one-shot":
        return (final,)
    power = {"cubic": 3, "linear": 1}[schedule]
    return tuple(final * (1 - (1 - step / steps) ** power) for step in range(1, steps + 1))


def prune(
    model: Any,
    data: Any,
    *,
    channels: Share | None = None,
    weights: Share | None = None,
    steps: int = 4,
    schedule: str = "cubic",
    epochs: int = 2,
    last_epochs: int | None = None,
    multiple: int = 1,
    loss: str | Loss = "cross_entropy",
    lr: float = 1e-3,
    batch: int = 32,
    seed: int = 0,
    progress: Progress[Epoch] | None = None,
) -> nn.Module:
    """A smaller copy of a trained module; the given one is left as it is.

    data: (x, y) to train on, inputs (samples, *input shape) and class indices or values, for ``loss``. Exactly one of

    - channels: the share of each layer's output channels that goes: tensors get smaller, and whatever is tied to
      them with them (batch norm, depthwise convolutions, both sides of a residual sum, the dense layer behind a
      flatten). Inputs and outputs of the net stay, and so does what cannot be cut exactly. Those channels go whose
      loss a linear estimate says matters least (Molchanov et al. 2019). multiple: channels kept are rounded up to it.
    - weights: the share of all weights of dense and convolutional layers that becomes zero, the smallest first, each
      seen beside those of its layer (Lee et al. 2021), so that narrow layers keep more. Biases and norms are left
      alone. Shapes stay.

    Instead of one share for all, ``{name: share}`` gives each layer its own, names as in ``module.named_modules()``;
    layers not named stay.

    steps, schedule: how it is reached, "cubic", "linear" or "one-shot". epochs: of training after each step;
    last_epochs after the last one, by default as many. model: a module, or a graph or file that ``to_torch`` takes.

    Raises TrainingError for data or shares that do not fit, and when training fails.
    """
    if (channels is None) == (weights is None):
        raise TrainingError("give either channels= or weights=, a share such as 0.5; for both, prune twice")
    if schedule not in SCHEDULES:
        raise TrainingError(f"schedule={schedule!r}: one of {', '.join(SCHEDULES)}")
    for name, value in (("steps", steps), ("multiple", multiple)):
        whole(name, value, 1)
    _check_shares("weights" if channels is None else "channels", weights if channels is None else channels)
    require("pruning", "torch", "torch_pruning") if channels is not None else require("pruning")
    from microtune.training.channels import Channels
    from microtune.training.fit import check_settings, fit
    from microtune.training.modules import own_copy, samples_for
    from microtune.training.sparsity import Zeros

    check_settings(epochs, lr, batch, seed)
    if last_epochs is not None:
        whole("last_epochs", last_epochs, 0)
    module = own_copy(model)
    samples = samples_for(module, data, loss)
    cutting: Channels | Zeros
    if channels is not None:
        cutting = Channels(module, samples, channels, loss, multiple, seed)
    else:
        cutting = Zeros(module, weights or 0.0)
    say = progress or (lambda text, epoch: None)
    done = shares_at(1.0, steps, schedule)
    for number, part in enumerate(done, start=1):
        say(f"step {number} of {len(done)}: {cutting.cut(part)}", None)
        last = number == len(done) and last_epochs is not None
        fit(
            module, samples, loss=loss, epochs=last_epochs if last and last_epochs is not None else epochs,
            lr=lr, batch=batch, seed=seed + number, progress=progress,
        )  # fmt: skip
    if isinstance(cutting, Zeros):
        cutting.finish()
    return module


def _check_shares(what: str, given: Share | None) -> None:
    """Raises TrainingError for a share that is none."""
    named = given.items() if isinstance(given, Mapping) else [("", given)]
    for name, share in named:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            where = f"{what}[{name!r}]" if name else what
            raise TrainingError(f"{where}={share!r}: the share that is taken away, from 0 to below 1, such as 0.5")


def shares_of(what: str, given: Share, known: Mapping[str, str]) -> dict[str, float]:
    """The share of each layer. known: layers by name, and why one cannot be pruned ("" where it can)."""
    if not isinstance(given, Mapping):
        return {name: given for name, reason in known.items() if not reason}
    for name in given:
        if name not in known:
            raise TrainingError(f"{what}: there is no layer {name!r} with weights. Known: {', '.join(known)}")
        if known[name] and given[name]:
            raise TrainingError(f"{what}: layer {name!r} cannot be pruned: {known[name]}")
    return {name: float(share) for name, share in given.items()}
