"""The models that a search tries update schemes on: forms of one net, what each costs in any case, their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune.compiler.passes.pack_weights import pack_weights
from microtune.compiler.program import own_inputs, placed, without_final
from microtune.compress.quantization import quantize
from microtune.errors import ModelError, PlanError
from microtune.frontends.load import load
from microtune.ir import Graph
from microtune.training.artefacts import kept_in
from microtune.tuning.budget import Budget
from microtune.tuning.losses import Loss

FILES = (".onnx", ".tflite")


@dataclass(frozen=True)
class Fixed:
    """Bytes that a model takes whatever learns: what runs forward in RAM, and weights in flash, packed where that
    saves."""

    ram: int
    flash: int

    def over(self, budget: Budget) -> tuple[str, float] | None:
        """Why a model is out of the question, and how many times the budget it takes; None where it is not."""
        reasons = [
            (f"needs {need:,} bytes of {what} of {limit:,} before anything learns", need / limit)
            for what, need, limit in (
                ("RAM", self.ram, budget.ram_bytes),
                ("flash for its weights alone", self.flash, budget.flash_bytes),
            )
            if limit is not None and need > limit
        ]
        return None if not reasons else (" and ".join(text for text, _ in reasons), max(times for _, times in reasons))


def named(given: Graph | Mapping[str, Graph]) -> dict[str, Graph]:
    """The models by name; one that is alone has the name "". Raises PlanError for what is none."""
    if isinstance(given, Graph):
        return {"": given}
    if not isinstance(given, Mapping) or not given:
        raise PlanError("models: a graph, or graphs by name as {'float': mt.load('a.onnx'), 'pruned': ...}, are needed")
    for name, graph in given.items():
        if not isinstance(graph, Graph):
            raise PlanError(f"model '{name}' is a {type(graph).__name__}: give mt.load(...) of it")
        if not isinstance(name, str) or not name:
            raise PlanError(f"a model's name is a text that is not empty, not {name!r}")
    shapes = {
        name: (graph.tensor(graph.inputs[0]).shape, graph.tensor(graph.outputs[0]).size)
        for name, graph in given.items()
    }
    first, *rest = shapes
    for name in rest:
        if shapes[name] != shapes[first]:
            raise PlanError(
                f"model '{name}' takes {shapes[name][0]} and gives {shapes[name][1]} values, '{first}' takes "
                f"{shapes[first][0]} and gives {shapes[first][1]}: only forms of one net can be compared"
            )
    return dict(given)


def in_int8(models: Mapping[str, Graph], x: np.ndarray, wanted: bool | None) -> tuple[dict[str, Graph], dict[str, str]]:
    """Of each float model its int8 form by calibration with the inputs ``x``; and of those that have none, why.

    wanted: None derives them where there are several models, none of which is int8 already.
    """
    if wanted is None:
        wanted = not any(graph.is_int8 for graph in models.values()) and "" not in models
    found: dict[str, Graph] = {}
    failed: dict[str, str] = {}
    for name, graph in models.items():
        if wanted and not graph.is_int8:
            new = f"{name} int8".strip()
            try:
                found[new] = quantize(graph, calibration=x)
            except ModelError as error:
                failed[new] = f"cannot be made: {error}"
    return found, failed


def fixed_costs(graph: Graph, loss: Loss) -> Fixed:
    """Of a model, whose final activation a loss may contain."""
    graph = without_final(graph, loss)
    (packed,), _ = pack_weights([graph])
    weights = sum(tensor.bytes for tensor in packed.constants)
    return Fixed(placed(graph, "weighing what runs forward", own_inputs(graph)).arena.bound, weights)


def read_models(paths: Sequence[Path]) -> dict[str, Path]:
    """Model files by name; a folder stands for those in it that ``microtune shrink`` kept, another folder for all.

    Raises PlanError for a folder without any, and for two files of one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        files = sorted(each for each in path.iterdir() if each.suffix in FILES) if path.is_dir() else [path]
        if path.is_dir() and (kept := kept_in(path)):
            files = [each for each in files if each.name in kept]
        if not files:
            raise PlanError(f"{path} holds no model: no file that ends in {' or '.join(FILES)}")
        for file in files:
            if file.stem in found:
                raise PlanError(f"two models are called '{file.stem}': {found[file.stem]} and {file}; rename one")
            found[file.stem] = file
    return found


def load_models(paths: Sequence[Path]) -> Graph | dict[str, Graph]:
    """The graphs of model files; one file alone is one graph."""
    files = read_models(paths)
    graphs = {name: load(file) for name, file in files.items()}
    return next(iter(graphs.values())) if len(paths) == 1 and not paths[0].is_dir() else graphs
