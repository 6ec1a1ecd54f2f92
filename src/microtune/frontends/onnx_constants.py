"""ONNX operators on constants: what exporters compute with shapes and weights, apart from the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import check_size

Attributes = Mapping[str, Any]
Rule = Callable[[Sequence[np.ndarray], Attributes], np.ndarray]


def reshaped(shape: tuple[int, ...], target: Sequence[int], allow_zero: bool, where: str) -> tuple[int, ...]:
    """The shape that Reshape gives: 0 copies a dimension (unless allowed as a size), one -1 is inferred."""
    found = [
        shape[i] if size == 0 and not allow_zero and i < len(shape) else int(size) for i, size in enumerate(target)
    ]
    count = int(np.prod(shape, dtype=object))
    if found.count(-1) == 1:
        rest = int(np.prod([size for size in found if size != -1], dtype=object))
        if rest > 0 and count % rest == 0:
            found[found.index(-1)] = count // rest
    if min(found, default=1) < 1 or int(np.prod(found, dtype=object)) != count:
        raise ModelError(f"{where}: cannot reshape {shape} to {tuple(int(size) for size in target)}")
    return tuple(found)


def axes_of(inputs: Sequence[Any], attributes: Attributes, rank: int, where: str) -> tuple[int, ...] | None:
    """The axes of Squeeze and Unsqueeze from the front; an attribute before opset 13, an input since."""
    given = attributes.get("axes", inputs[1] if len(inputs) > 1 else None)
    if given is None:
        return None
    axes = [int(axis) for axis in np.atleast_1d(given)]
    if (
        len(axes) > 8
        or any(not -rank <= axis < rank for axis in axes)
        or len({axis % rank for axis in axes}) != len(axes)
    ):
        raise ModelError(f"{where}: axes {tuple(axes)} do not fit a tensor of {rank} dimensions")
    return tuple(sorted(axis % rank for axis in axes))


def _elementwise(function: Callable[..., np.ndarray]) -> Rule:
    def rule(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
        check_size(np.broadcast_shapes(*(array.shape for array in inputs)), "the result")
        with np.errstate(all="ignore"):
            return np.asarray(function(*inputs))

    return rule


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "iu":
        return np.asarray(np.divide(x, y))
    return np.asarray(np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y)))  # towards zero, as C does


def _cast(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    import onnx

    with np.errstate(all="ignore"):
        return np.asarray(inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])))


def _squeeze(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    return np.squeeze(inputs[0], axis=axes_of(inputs, attributes, inputs[0].ndim, "Squeeze"))


def _unsqueeze(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    given = np.atleast_1d(attributes.get("axes", inputs[1] if len(inputs) > 1 else []))
    return np.expand_dims(inputs[0], axes_of((), {"axes": given}, inputs[0].ndim + given.size, "Unsqueeze") or ())


def slice_ranges(
    given: Sequence[np.ndarray | None], attributes: Attributes, shape: Sequence[int], where: str
) -> list[tuple[int, slice]]:
    """Axes and Python slices of Slice; attributes before opset 10, inputs (behind the data) since."""
    names = ("starts", "ends", "axes", "steps")
    lists: dict[str, Any] = dict(zip(names, given, strict=False)) if given else dict(attributes)
    count = len(lists["starts"])
    axes, steps = lists.get("axes"), lists.get("steps")
    axes, steps = range(count) if axes is None else axes, [1] * count if steps is None else steps
    found = []
    for start, end, axis, step in zip(lists["starts"], lists["ends"], axes, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or step == 0:
            raise ModelError(f"{where}: axis {axis} and step {step} do not fit {tuple(shape)}")
        size = shape[int(axis)]
        first, last = (int(place) + (size if place < 0 else 0) for place in (start, end))
        if step < 0:  # unlike a Python slice, a start before the first element is moved to it
            first, last = max(first, 0), max(last, -1)
        else:
            last = min(last, size)
        # an end before the first element, going backwards, is None in a Python slice
        stop = None if last < 0 and step < 0 else max(last, 0)
        found.append((int(axis) % len(shape), slice(max(first, 0), stop, int(step))))
    return found


def _slice(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    index = [slice(None)] * inputs[0].ndim
    for axis, found in slice_ranges(inputs[1:], attributes, inputs[0].shape, "Slice"):
        index[axis] = found
    return inputs[0][tuple(index)]


def _concat(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    check_size((sum(array.size for array in inputs),), "the result")
    return np.concatenate(list(inputs), axis=attributes["axis"])


def _matmul(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    a, b = inputs
    check_size((*a.shape[:-1], *b.shape[:-2], b.shape[-1]), "the result")
    return np.asarray(np.matmul(a, b))


def _gather(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, indices = inputs
    axis = attributes.get("axis", 0)
    check_size((*np.delete(x.shape, axis), *indices.shape), "the result")
    return np.take(x, indices, axis=axis)


CONSTANT_RULES: Mapping[str, Rule] = {
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _elementwise(_divide),
    "Gather": _gather,
    "Identity": lambda inputs, _: inputs[0],
    "MatMul": _matmul,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Reciprocal": _elementwise(np.reciprocal),
    "Reshape": lambda inputs, given: inputs[0].reshape(
        reshaped(inputs[0].shape, inputs[1].tolist(), bool(given.get("allowzero", 0)), "Reshape")
    ),
    "Shape": lambda inputs, given: np.array(inputs[0].shape[given.get("start", 0) : given.get("end")], np.int64),
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": lambda inputs, given: np.transpose(inputs[0], given.get("perm")),
    "Unsqueeze": _unsqueeze,
}
"""What a node computes whose inputs are all constant. Whatever it raises, the caller names the node."""
