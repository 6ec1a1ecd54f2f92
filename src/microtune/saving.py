"""``mt.save``: a graph as an .onnx file that ``mt.load`` and onnxruntime read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from microtune.compress.qdq import to_onnx
from microtune.errors import ModelError
from microtune.ir import Graph
from microtune.ops.trees import trees_of
from microtune.training import require
from microtune.training.artefacts import replace_file

if TYPE_CHECKING:
    import onnx


def save(graph: Graph, path: str | os.PathLike[str]) -> Path:
    """Write a graph as an .onnx file: an int8 graph in QDQ form, a float one by PyTorch's exporter.

    ``mt.load`` reads it back as a graph that takes and gives real numbers and predicts the same: an int8 one to the
    last bit. The file appears whole or not at all.

    Raises ModelError for what is no graph, for a path that does not end in .onnx or cannot be written, and for a node
    that has no form in the file, TrainingError for a float graph where PyTorch is missing.
    """
    if not isinstance(graph, Graph):
        raise ModelError(f"save writes graphs, and this is {type(graph).__name__}: mt.load makes a graph of a model")
    try:
        goal = Path(path)
    except TypeError:
        raise ModelError(f"{path!r} is no path; an .onnx file is needed") from None
    if goal.suffix.lower() != ".onnx":
        raise ModelError(f"{goal}: graphs are saved as .onnx files")
    if trees_of(graph):
        raise ModelError(f"'{graph.name}' has trees, which save does not write: keep the estimator, mt.load reads it")
    model = to_onnx(graph) if graph.is_int8 else _exported(graph)
    try:
        replace_file(goal, model.SerializeToString(deterministic=True))
    except (OSError, ValueError) as error:  # a path that holds a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{str(goal)!r} cannot be written: {reason}") from error
    return goal


def _exported(graph: Graph) -> onnx.ModelProto:
    """A float graph as PyTorch writes it."""
    require("writing a float graph as .onnx")
    from microtune.frontends.torch import onnx_of
    from microtune.training.bridge import to_torch

    module = to_torch(graph, logits=False)
    indices = any(node.op == "embedding" for node in graph.consumers(graph.inputs[0]))
    shape = (1, *graph.tensor(graph.inputs[0]).shape)
    model: onnx.ModelProto = onnx_of(module, np.zeros(shape, np.int64 if indices else np.float32))
    return model
