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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from microtune.errors import TrainingError
from microtune.frontends.torch import in_mode
from microtune.training.modules import LAYERS, answer, device_of, seeded

EXACT = 1e-4
"""Two answers are the same when they differ by less than this share of the largest."""


@dataclass(frozen=True)
class Tied:
    """Channels that go together: the layers that give them (the first is the root) and how many there were.

    innermost: dense layers that read them after a flatten with the channels on the last axis, as in TFLite's models.
    """

    layers: tuple[str, ...]
    channels: int
    innermost: tuple[str, ...] = ()


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
        probe: nn.Module | None = None
        for each in _sets(module, x):
            # torch-pruning takes every flatten for one of channels on the first axis; the trial tells
            for tied in [each] if not each.innermost else [replace(each, innermost=()), each]:
                probe = _scrambled(module) if probe is None else probe
                reason = _try(probe, tied, inputs)
                if not reason:
                    free.append(tied)
                    break
                probe = None
            else:
                named = next(name for name, _ in module.named_modules() if name in each.layers)
                bound.update(dict.fromkeys(each.layers, f"{named} {reason}"))
    return tuple(free), bound


def _sets(module: nn.Module, x: np.ndarray) -> tuple[Tied, ...]:
    """All sets of tied channels, each with the layers that give them, and all that read them after a flatten."""
    probe = copy.deepcopy(module)
    names = {part: name for name, part in probe.named_modules()}
    layers = {name: part for part, name in names.items()}
    found: list[Tied] = []
    known: set[str] = set()
    with following(probe, x) as graph:
        for root in [each for each in graph.module2node if isinstance(each, LAYERS)]:
            if (name := names[root]) in known:
                continue
            alone = Tied((name,), width_of(layers, Tied((name,), 0)))
            try:
                group = group_of(graph, layers, alone, list(range(alone.channels)))
            except Exception:
                found.append(alone)  # torch-pruning is lost here, and says so again when it is tried
                continue
            giving = [each.target.module for each, _ in group if graph.is_out_channel_pruning_fn(each.handler)]
            tied = tuple(dict.fromkeys(names[each] for each in giving if isinstance(each, LAYERS)))
            known.update(tied)
            flattened = tuple(names[each.target.module] for each, _ in group if _is_flattened(each, graph, group))
            found.append(Tied(tied, alone.channels, flattened))
    return tuple(found)


def _try(probe: nn.Module, tied: Tied, inputs: Tensor) -> str:
    """Take one channel from a probe. Why that does not work; "" when it does, and the probe is narrower then."""
    layers = dict(probe.named_modules())
    width = width_of(layers, tied)
    if width < 2:
        return "has one channel"
    shared = _sharing(probe)
    with in_mode(probe, False), following(probe, inputs.cpu().numpy()) as graph:
        try:
            group = group_of(graph, layers, tied, [width // 2])
            for each, places in group:
                part = each.target.module
                if part in shared:
                    return "is tied to a layer that shares its weights with another"
                grouped = isinstance(part, nn.Conv1d | nn.Conv2d) and part.groups > 1
                if grouped and part.groups != part.out_channels:
                    return "is tied to a grouped convolution"
                if isinstance(part, LAYERS) and not grouped and graph.is_in_channel_pruning_fn(each.handler):
                    with torch.no_grad():
                        part.weight[:, places] = 0.0
            with torch.no_grad():
                before = answer(probe, inputs)
                group.prune()
                after = answer(probe, inputs)
        except Exception:
            # torch-pruning guesses at what it does not know, in many ways; what then fails cannot be cut
            return "is tied to what cannot be cut, such as the net's inputs or a recurrent layer"
    if after.shape != before.shape:
        return "gives the net's outputs"
    if width_of(layers, tied) != width - 1:
        return "is split into parts whose channels go together"
    if not float((after - before).abs().max()) <= EXACT * float(before.abs().max()):
        return "is read by what mixes all channels, such as a layer norm"
    return ""


def _sharing(module: nn.Module) -> set[nn.Module]:
    """Parts of which a parameter is another part's too; each would be cut for itself."""
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for part in module.modules():
        for each in part.parameters(recurse=False):
            owners.setdefault(each, []).append(part)
    return {part for parts in owners.values() if len(parts) > 1 for part in parts}


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


def group_of(graph: Any, layers: dict[str, nn.Module], tied: Tied, channels: list[int]) -> Any:
    """torch-pruning's group for some of the tied channels: every layer that is touched, and where."""
    root = layers[tied.layers[0]]
    cut = (
        torch_pruning.prune_linear_out_channels
        if isinstance(root, nn.Linear)
        else torch_pruning.prune_conv_out_channels
    )
    group = graph.get_pruning_group(root, cut, channels)
    for number, (each, places) in enumerate(group):
        if any(each.target.module is layers[name] for name in tied.innermost) and _is_flattened(each, graph, group):
            spots = len(places) // len(channels)
            width = each.target.module.in_features // spots
            among = [channel for channel in channels for _ in range(spots)]
            group[number] = type(group[number])(
                each, [spot * width + channel for channel in channels for spot in range(spots)]
            )
            group[number].root_idxs = among
    return group


def _is_flattened(dependency: Any, graph: Any, group: Any) -> bool:
    """Whether a dense layer reads several places of each channel of the group."""
    reads = isinstance(dependency.target.module, nn.Linear) and graph.is_in_channel_pruning_fn(dependency.handler)
    return reads and any(each is dependency and len(places) > len(group[0][1]) for each, places in group)


def width_of(layers: dict[str, nn.Module], tied: Tied) -> int:
    layer: Any = layers[tied.layers[0]]
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
