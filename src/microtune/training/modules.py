"""PyTorch modules as they are handled here: copied, never changed; put back as they were; their shapes found out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from microtune.errors import TrainingError
from microtune.frontends.torch import in_mode
from microtune.ir import Graph
from microtune.samples import Samples
from microtune.training.samples import array_of, checked
from microtune.training.settings import pair_of
from microtune.tuning.losses import Loss, loss_of

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers whose channels or weights can go."""


def own_copy(model: Any) -> nn.Module:
    """A copy of a module; of a graph, a model's file or a fitted estimator, the module that computes the same."""
    if isinstance(model, nn.Module):
        try:
            return copy.deepcopy(model)
        except Exception as error:
            raise TrainingError(
                f"{type(model).__name__} cannot be copied: {error}. Masks of torch.nn.utils.prune are made permanent "
                "by its remove, other tensors that are computed belong into forward"
            ) from error
    from microtune.frontends.load import load
    from microtune.training.bridge import to_torch

    module: nn.Module = to_torch(model if isinstance(model, Graph) else load(model))
    return module


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's random numbers from a seed; afterwards they go on as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters are."""
    return next((each.device for each in module.parameters()), torch.device("cpu"))


def answer(module: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs (n, outputs) of inputs (n, *input shape), whatever shape the module gives a sample's outputs."""
    try:
        outputs = module(inputs)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"{type(module).__name__} fails on an input of shape {tuple(inputs.shape)}: {reason}"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(inputs):
        what = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TrainingError(f"{type(module).__name__} returns {what}; one tensor (samples, outputs) is needed")
    return outputs.reshape(len(outputs), -1)


def predictions(module: nn.Module, x: np.ndarray, batch: int = 256) -> np.ndarray:
    """(n, outputs) float32: the outputs of inputs (n, *input shape) in inference mode; the module stays as it was."""
    device = device_of(module)
    with torch.no_grad(), in_mode(module, False):
        parts = [
            answer(module, torch.from_numpy(np.ascontiguousarray(x[start : start + batch])).to(device)).cpu()
            for start in range(0, len(x), batch)
        ]
    return torch.cat(parts).numpy()


def samples_for(
    module: nn.Module, data: Any, loss: str | Loss = "cross_entropy", *, what: str = "data", unlabelled: bool = False
) -> Samples:
    """A pair (x, y) as samples that fit the module, which is run on two of them to see that it takes them.

    what: how the pair is called in errors. unlabelled: y may be None, and is zeros then.

    Raises TrainingError for data that do not fit.
    """
    if isinstance(data, Samples):
        data = data.x, data.y
    x, y = pair_of(data, what)
    found = array_of(x, "x")
    if found.ndim < 2 or not found.size:
        raise TrainingError(f"x has the shape {found.shape}; (samples, ...) with one row for each input is needed")
    try:
        outputs, indices = predictions(module, found[:2].astype(np.float32)), False
    except TrainingError as refused:
        try:
            outputs, indices = predictions(module, found[:2].astype(np.int64)), True  # a table takes only whole numbers
        except TrainingError:
            raise refused from None
    if y is None and unlabelled:
        y = np.zeros((len(found), 1 if loss_of(loss).task == "MT_MULTICLASS" else outputs.shape[1]))
    return checked(found, y, None, outputs.shape[1], loss, indices=indices)
