"""Unstructured pruning: the smallest weights become zero and stay so. Masks by ``torch.nn.utils.prune``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune as masks

from microtune.errors import TrainingError
from microtune.training.pruning import Share, shares_of

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def weighted_layers(module: nn.Module) -> dict[str, Any]:
    """Dense and convolutional layers by name, each once."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LAYERS)}


class Zeros:
    """The masks of a module's layers, which grow step by step and are made permanent at the end."""

    def __init__(self, module: nn.Module, shares: Share) -> None:
        self._layers = weighted_layers(module)
        if not self._layers:
            raise TrainingError(f"{type(module).__name__} has no dense or convolutional layer whose weights could go")
        self._shares = shares_of("weights", shares, dict.fromkeys(self._layers, ""))

    def cut(self, part: float) -> str:
        """Mask so much of the share of each layer, and say what is left."""
        left = total = 0
        for name, layer in self._layers.items():
            size = layer.weight.numel()
            there = int(layer.weight_mask.count_nonzero()) if masks.is_pruned(layer) else size
            wanted = size - round(part * self._shares.get(name, 0.0) * size)
            if wanted < there:
                masks.l1_unstructured(layer, "weight", amount=there - wanted)  # type: ignore[no-untyped-call]
            total += size
            left += min(there, wanted)
        return f"{left:,} of {total:,} weights may differ from zero"

    def finish(self) -> None:
        """Zeros in place of masks."""
        for layer in self._layers.values():
            if masks.is_pruned(layer):
                masks.remove(layer, "weight")  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    layer.weight.add_(0.0)  # what was masked and negative is -0.0 until here


@contextmanager
def zeros_kept(module: nn.Module) -> Iterator[None]:
    """Weights of dense and convolutional layers that are zero now stay zero in whatever training happens within."""
    hooks = []
    for layer in weighted_layers(module).values():
        weight = layer.weight
        if isinstance(weight, nn.Parameter) and weight.requires_grad and bool((weight == 0).any()):
            there = (weight != 0).detach().to(weight.dtype)
            hooks.append(weight.register_hook(there.mul))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
