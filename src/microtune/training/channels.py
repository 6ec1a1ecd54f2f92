"""Structured pruning: whole channels go, and every tensor tied to them shrinks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from microtune.errors import TrainingError
from microtune.frontends.torch import in_mode
from microtune.samples import Samples
from microtune.training.fit import loss_function
from microtune.training.modules import LAYERS, answer, device_of
from microtune.training.pruning import Share, shares_of
from microtune.training.tied import Tied, following, group_of, tied_channels, width_of
from microtune.tuning.losses import Loss

JUDGED_BY = 512
"""Samples that say which channels matter, at most."""


class Channels:
    """The channels of a module, fewer with each ``cut``."""

    def __init__(
        self, module: nn.Module, samples: Samples, shares: Share, loss: str | Loss, multiple: int, seed: int
    ) -> None:
        """Finds what can be cut. Raises TrainingError where that is nothing, or shares name what cannot."""
        self._module, self._samples, self._loss, self._multiple = module, samples, loss, multiple
        picked = np.random.default_rng(seed).permutation(len(samples))[:JUDGED_BY]
        self._judged_by = samples.take(np.sort(picked))
        free, bound = tied_channels(module, samples.x[:2], seed)
        if not free:
            reasons = "; ".join(dict.fromkeys(bound.values())) or "it has no dense or convolutional layer"
            raise TrainingError(f"no channels of {type(module).__name__} can be cut: {reasons}")
        known = {**{name: "" for each in free for name in each.layers}, **bound}
        in_order = {name: known[name] for name, _ in module.named_modules() if name in known}
        by_name = shares_of("channels", shares, in_order)
        self._wanted = [(each, _one_share(each, by_name)) for each in free]
        self._before = count(module)

    def cut(self, part: float) -> str:
        """Cut so much of the share of each layer, and say what is left."""
        module = self._module
        learns = {name: each.requires_grad for name, each in module.named_parameters()}
        layers = dict(module.named_modules())
        with in_mode(module, False), following(module, self._samples.x[:2]) as graph:
            worth = _worth(module, self._judged_by, loss_function(self._loss))
            for tied, share in self._wanted:
                width = width_of(layers, tied)
                if (surplus := width - kept(tied.channels, part * share, self._multiple)) <= 0:
                    continue
                cost = _cost(group_of(graph, layers, tied, list(range(width))), graph, worth, width)
                least = torch.argsort(cost, stable=True)[:surplus].tolist()
                group = group_of(graph, layers, tied, least)
                for layer, places, _ in _reading(group, graph, worth):
                    stays = torch.ones(worth[layer].shape[1], dtype=torch.bool)
                    stays[places] = False
                    worth[layer] = worth[layer][:, stays]
                group.prune()
        for name, each in module.named_parameters():
            each.requires_grad_(learns[name])
            each.grad = None
        return f"{count(module):,} of {self._before:,} parameters are left"


def count(module: nn.Module) -> int:
    """How many numbers the parameters of a module hold."""
    return sum(each.numel() for each in module.parameters())


def kept(channels: int, share: float, multiple: int) -> int:
    """How many of so many channels are left when a share goes: at least one, rounded up to a multiple if there are."""
    left = max(round(channels * (1 - share)), 1)
    return min(math.ceil(left / multiple) * multiple, channels)


def _worth(module: nn.Module, samples: Samples, measure: Callable[[Tensor, Tensor], Tensor]) -> dict[nn.Module, Tensor]:
    """By how much a sample's loss would rise, to first order, if a layer read one of its inputs as zero.

    For each dense or convolutional layer (samples, input channels): the input times its gradient, summed over places
    (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning").
    """
    found: dict[nn.Module, list[Tensor]] = {}

    def watch(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        (read,) = given

        def note(gradient: Tensor) -> None:
            change = (read.detach() * gradient).movedim(-1 if isinstance(layer, nn.Linear) else 1, -1)
            found.setdefault(layer, []).append(-change.reshape(len(change), -1, change.shape[-1]).sum(1))

        if read.requires_grad:
            read.register_hook(note)  # type: ignore[no-untyped-call]

    layers = [each for each in module.modules() if isinstance(each, LAYERS) and getattr(each, "groups", 1) == 1]
    hooks = [each.register_forward_pre_hook(watch) for each in layers]
    worth: dict[nn.Module, list[Tensor]] = {}
    device = device_of(module)
    try:
        for start in range(0, len(samples), 64):
            x, y = (torch.from_numpy(each[start : start + 64]).to(device) for each in (samples.x, samples.y))
            found.clear()
            (measure(answer(module, x), y) * len(x)).backward()  # type: ignore[no-untyped-call]
            for layer, parts in found.items():
                worth.setdefault(layer, []).append(torch.stack(parts).sum(0))  # a layer may be used more than once
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: torch.cat(parts).cpu() for layer, parts in worth.items()}


def _reading(
    group: Any, graph: Any, worth: dict[nn.Module, Tensor]
) -> Iterator[tuple[nn.Module, list[int], list[int]]]:
    """The layers that read a set of channels: where in their inputs, and which of the set they are."""
    for number, (each, places) in enumerate(group):
        if each.target.module in worth and graph.is_in_channel_pruning_fn(each.handler):
            yield each.target.module, places, group[number].root_idxs


def _cost(group: Any, graph: Any, worth: dict[nn.Module, Tensor], width: int) -> Tensor:
    """What each channel of a set (width,) costs: the mean square of what a sample would lose without it."""
    first = next(iter(worth.values()))
    total = first.new_zeros(len(first), width)
    for layer, places, channels in _reading(group, graph, worth):
        total.index_add_(1, torch.tensor(channels), worth[layer][:, places])
    return total.square().mean(0)


def _one_share(tied: Tied, by_name: dict[str, float]) -> float:
    """The share of channels that go together. Raises TrainingError where their layers are given different ones."""
    given = {name: by_name[name] for name in tied.layers if name in by_name}
    if len(set(given.values())) > 1:
        said = ", ".join(f"{name}={share:g}" for name, share in given.items())
        raise TrainingError(f"channels: {said}: these layers' channels go together, give them one share")
    return next(iter(given.values()), 0.0)
