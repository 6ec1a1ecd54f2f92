"""Which channels of a module go together, and which can go at all.

What is tied to what is found by torch-pruning (Fang et al. 2023, "DepGraph"). Each set of tied channels is then tried:
a copy with random weights must answer the same without a channel as with all weights that read it at zero.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from microtune.errors import TrainingError
from microtune.training.modules import answer, device_of, in_mode, seeded

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
EXACT = 1e-4
"""Two answers are the same when they differ by less than this share of the largest."""


@dataclass(frozen=True)
class Tied:
    """Channels that go together: the layers that give them (the first is the root) and how many there were."""

    layers: tuple[str, ...]
    channels: int


def tied_channels(module: nn.Module, x: np.ndarray, seed: int = 0) -> tuple[tuple[Tied, ...], dict[str, str]]:
    """Which channels of a module can be cut, and of the layers that have none, why. x: a few inputs.

    Raises TrainingError when torch-pruning cannot follow the module.
    """
    free: list[Tied] = []
    bound: dict[str, str] = {}
    with seeded(seed):
        inputs = torch.from_numpy(np.ascontiguousarray(x)).to(device_of(module))
        if inputs.is_floating_point():
            inputs = torch.randn_like(inputs)
        todo = _sets(module, x)
        probe: nn.Module | None = None
        for tied in todo:
            probe = _scrambled(module) if probe is None else probe
            if reason := _try(probe, tied, inputs):
                bound.update(dict.fromkeys(tied.layers, f"{tied.layers[0]} {reason}"))
                probe = None
            else:
                free.append(tied)
    return tuple(free), bound


def _sets(module: nn.Module, x: np.ndarray) -> tuple[Tied, ...]:
    """All sets of tied channels, each with the layers that give them."""
    probe = copy.deepcopy(module)
    names = {part: name for name, part in probe.named_modules()}
    found: list[Tied] = []
    with following(probe, x) as graph:
        for group in graph.get_all_groups(root_module_types=list(LAYERS)):
            giving = [
                each.target.module for each, _ in group
                if graph.is_out_channel_pruning_fn(each.handler) and isinstance(each.target.module, LAYERS)
            ]  # fmt: skip
            layers = tuple(dict.fromkeys(names[each] for each in giving))
            found.append(Tied(layers, len(group[0][1])))
    return tuple(found)


def _try(probe: nn.Module, tied: Tied, inputs: Tensor) -> str:
    """Take one channel from a probe. Why that does not work; "" when it does, and the probe is narrower then."""
    layers = dict(probe.named_modules())
    width = width_of(layers, tied)
    if width < 2:
        return "has one channel"
    with in_mode(probe, False), following(probe, inputs.cpu().numpy()) as graph:
        group = graph.get_pruning_group(*root_of(layers[tied.layers[0]]), [width // 2])
        for each, places in group:
            part = each.target.module
            grouped = isinstance(part, nn.Conv1d | nn.Conv2d) and part.groups > 1
            if grouped and part.groups != part.out_channels:
                return "is tied to a grouped convolution"
            if isinstance(part, LAYERS) and not grouped and graph.is_in_channel_pruning_fn(each.handler):
                with torch.no_grad():
                    part.weight[:, places] = 0.0
        with torch.no_grad():
            before = answer(probe, inputs)
            try:
                group.prune()
                after = answer(probe, inputs)
            except Exception:
                return "is tied to what cannot be cut, such as the net's inputs or a recurrent layer"
    if after.shape != before.shape:
        return "gives the net's outputs"
    if not float((after - before).abs().max()) <= EXACT * float(before.abs().max()):
        return "is read by what mixes all channels, such as a layer norm"
    return ""


def _scrambled(module: nn.Module) -> nn.Module:
    """A copy with random weights and statistics, so that what it answers depends on all of them."""
    probe = copy.deepcopy(module)
    with torch.no_grad():
        each: Tensor
        for each in probe.parameters():
            fan_in = max(each[0].numel(), 1) if each.ndim > 1 else 4
            each.copy_(torch.randn_like(each) / math.sqrt(fan_in))
        for name, each in probe.named_buffers():
            if name.endswith("running_mean"):
                each.copy_(torch.randn_like(each) / 2)
            elif name.endswith("running_var"):
                each.copy_(torch.rand_like(each) + 0.5)
    return probe


@contextmanager
def following(module: nn.Module, x: np.ndarray) -> Iterator[Any]:
    """torch-pruning's graph of a module, which it draws from the gradients of its answer to x (n, *input shape)."""
    for each in module.parameters():
        each.requires_grad_(each.is_floating_point())
    inputs = torch.from_numpy(np.ascontiguousarray(x)).to(device_of(module))
    with warnings.catch_warnings(), torch.enable_grad(), in_mode(module, False):
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=(inputs,), verbose=False)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TrainingError(f"torch-pruning cannot follow {type(module).__name__}: {reason}") from error
        yield graph


def root_of(layer: nn.Module) -> tuple[nn.Module, Any]:
    """A layer and what cuts its output channels."""
    if isinstance(layer, nn.Linear):
        return layer, torch_pruning.prune_linear_out_channels
    return layer, torch_pruning.prune_conv_out_channels


def width_of(layers: dict[str, nn.Module], tied: Tied) -> int:
    layer: Any = layers[tied.layers[0]]
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
