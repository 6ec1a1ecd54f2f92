"""Run a graph with the numpy references of its operators: the meaning of a graph, slow and plain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from microtune.errors import ModelError
from microtune.ir.graph import Graph
from microtune.ops import OPS


def _one_sample(graph: Graph, given: Mapping[str, np.ndarray], dtype: DTypeLike | None) -> list[np.ndarray]:
    def cast(array: np.ndarray) -> np.ndarray:
        return array.astype(dtype) if dtype is not None and array.dtype.kind == "f" else array

    values = {tensor.name: cast(tensor.data) for tensor in graph.tensors.values() if tensor.data is not None}
    values |= {name: cast(array) for name, array in given.items()}
    for node in graph.nodes:
        results = OPS[node.op].reference([values[name] for name in node.inputs], node.attributes)
        values |= {name: cast(np.asarray(result)) for name, result in zip(node.outputs, results, strict=True)}
    return [values[name] for name in graph.outputs]


def evaluate(graph: Graph, inputs: Mapping[str, ArrayLike], dtype: DTypeLike | None = None) -> dict[str, np.ndarray]:
    """The outputs of a graph by name, for one sample or for a batch.

    Each input has the shape of its tensor, or that with a batch dimension in front (the same for all inputs):
    then so have the outputs. ``dtype`` computes in another floating-point precision than the graph's own,
    such as float64 for comparisons. Raises ModelError for a missing input or a wrong shape.
    """
    arrays: dict[str, np.ndarray] = {}
    batches: set[int | None] = set()
    for name in graph.inputs:
        tensor = graph.tensor(name)
        if name not in inputs:
            raise ModelError(f"input '{name}' is missing; given: {', '.join(inputs) or 'none'}")
        array = np.asarray(inputs[name])
        arrays[name] = array.astype(tensor.dtype if dtype is None or array.dtype.kind != "f" else array.dtype)
        if array.shape != tensor.shape and array.shape[1:] != tensor.shape:
            raise ModelError(f"input '{name}' has the shape {array.shape}; {tensor.shape} or (samples, ...) is needed")
        batches.add(None if array.shape == tensor.shape else len(array))
    if len(batches) > 1:
        raise ModelError(f"the inputs have different numbers of samples: {batches}")
    batch = batches.pop() if batches else None
    if batch is None:
        return dict(zip(graph.outputs, _one_sample(graph, arrays, dtype), strict=True))
    rows = [_one_sample(graph, {name: array[i] for name, array in arrays.items()}, dtype) for i in range(batch)]
    empty = [np.empty((0, *graph.tensor(name).shape), dtype or graph.tensor(name).dtype) for name in graph.outputs]
    stacked = [np.stack(column) for column in zip(*rows, strict=True)] or empty
    return dict(zip(graph.outputs, stacked, strict=True))
