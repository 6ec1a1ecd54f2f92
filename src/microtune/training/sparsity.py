"""Unstructured pruning: the smallest weights become zero and stay so. Masks by ``torch.nn.utils.prune``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as masks

from microtune.errors import TrainingError
from microtune.training.modules import LAYERS
from microtune.training.pruning import Share, shares_of


def weighted_layers(module: nn.Module) -> dict[str, Any]:
    """Dense and convolutional layers by name, each once; attention reads its last one past it."""
    read_past = {each.out_proj for each in module.modules() if isinstance(each, nn.MultiheadAttention)}
    return {name: part for name, part in module.named_modules() if isinstance(part, LAYERS) and part not in read_past}


class Zeros:
    """The masks of a module's layers, which grow step by step and are made permanent at the end."""

    def __init__(self, module: nn.Module, shares: Share) -> None:
        self._layers = weighted_layers(module)
        if not self._layers:
            raise TrainingError(f"{type(module).__name__} has no dense or convolutional layer whose weights could go")
        for name, layer in self._layers.items():
            if parametrize.is_parametrized(layer):
                raise TrainingError(
                    f"the weight of layer {name!r} is computed by a parametrisation; make it permanent with "
                    "torch.nn.utils.parametrize.remove_parametrizations"
                )
        known = dict.fromkeys(self._layers, "")
        self._shares = shares_of("weights", shares, known) if isinstance(shares, Mapping) else float(shares)

    def cut(self, part: float) -> str:
        """Mask so much of the shares, and say what is left."""
        if isinstance(self._shares, dict):
            for name, share in self._shares.items():
                layer = self._layers[name]
                self._mask([layer], part * share, {layer: layer.weight.detach().abs()})
        else:
            layers = list(self._layers.values())
            self._mask(layers, part * self._shares, {each: _scores(each.weight.detach()) for each in layers})
        left, total = _left(self._layers.values())
        return f"{left:,} of {total:,} weights may differ from zero"

    def _mask(self, layers: list[Any], share: float, scores: dict[Any, Tensor]) -> None:
        """Of the weights of these layers together, mask those with the least scores up to a share."""
        left, total = _left(layers)
        masks.global_unstructured(
            [(each, "weight") for each in layers], masks.L1Unstructured,
            {(each, "weight"): score for each, score in scores.items()},
            amount=max(left - (total - round(share * total)), 0),
        )  # fmt: skip

    def finish(self) -> None:
        """Zeros in place of masks."""
        for layer in self._layers.values():
            if masks.is_pruned(layer):
                masks.remove(layer, "weight")  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    layer.weight.add_(0.0)  # what was masked and negative is -0.0 until here


def _left(layers: Iterable[Any]) -> tuple[int, int]:
    """How many weights are not masked, and how many there are."""
    found = [(each.weight_mask if masks.is_pruned(each) else torch.ones_like(each.weight)) for each in layers]
    return sum(int(each.count_nonzero()) for each in found), sum(each.numel() for each in found)


def _scores(weight: Tensor) -> Tensor:
    """What a weight is worth beside those of other layers: its square, as a share of all in its layer that are not
    smaller (Lee et al. 2021, "Layer-Adaptive Sparsity for the Magnitude-based Pruning")."""
    squares = weight.double().square().flatten()
    order = squares.argsort(descending=True, stable=True)
    scores = torch.empty_like(squares)
    scores[order] = squares[order] / squares[order].cumsum(0).clamp_min(1e-300)
    return scores.view_as(weight)


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
