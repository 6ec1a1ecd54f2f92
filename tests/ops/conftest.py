"""Every kernel of the runtime behind one C entry, compiled once per session."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.ops.layer_cases import CASES

from microtune.compiler.sources import runtime_directory
from microtune.ir import Node, Tensor
from microtune.ops import OPS, closed_form
from microtune.ops.update import RULES
from microtune.toolchain import compile_library

Kernel = Callable[..., tuple[np.ndarray, ...]]
# kernels on integers are held to their references bit by bit elsewhere, those of images in test_layer_kernels.py, and
# those of the anomaly detector in test_mahalanobis.py, those of trees in test_trees.py
TREES = ("mt_kernels_trees.h", "mt_kernels_update_trees.h", "mt_kernels_leaves.h")
ELSEWHERE = ("mt_kernels_kalman.h", "mt_kernels_mahalanobis.h", *TREES)
INTEGERS = ("mt_kernels_int8", "mt_kernels_fixed", "mt_kernels_block", "mt_kernels_packed", "mt_cmsis_nn")
FLOAT_OPS = {
    name: op
    for name, op in OPS.items()
    if name not in CASES and not op.header.startswith((*INTEGERS, *ELSEWHERE)) and "conv" not in op.header
}
BY_VALUE = {"rate": "*(const float *)", "correction": "*(const mt_adam_correction *)"}


def node_of(op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any]) -> tuple[Node, dict[str, Tensor]]:
    """A node of this operator over inputs of these shapes, and its tensors."""
    names = [f"in{index}" for index in range(len(inputs))]
    rule = op.removesuffix("_dense")
    if rule in RULES:
        states, scalars, _ = RULES[rule]
        names[1 + states : 1 + states + len(scalars)] = scalars
    tensors = {name: Tensor(name, array.shape) for name, array in zip(names, inputs, strict=True)}
    shapes = OPS[op].shape(list(tensors.values()), attributes)
    outputs = [f"out{index}" for index in range(len(shapes))]
    tensors |= {name: Tensor(name, shape) for name, shape in zip(outputs, shapes, strict=True)}
    updates = {}
    if rule in RULES:
        updates = dict(zip(outputs, names, strict=False))
    if OPS[op] in closed_form.OPS:
        updates = dict(zip(outputs[:3], names, strict=False))
    return Node(op, op, tuple(names), tuple(outputs), attributes, updates), tensors


def _entry(op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any]) -> str:
    """C that calls the kernel of ``op``, with pointers, sizes and constants from three arrays."""
    node, tensors = node_of(op, inputs, attributes)
    call = OPS[op].kernel(node, tensors)
    assert call is not None
    arguments, ints, floats, pointers = [], 0, 0, 0
    for argument in call.arguments:
        if isinstance(argument, str):
            arguments.append(f"{BY_VALUE.get(argument, '')}p[{pointers}]")
            pointers += 1
        elif isinstance(argument, int):
            arguments.append(f"n[{ints}]")
            ints += 1
        else:
            arguments.append(f"f[{floats}]")
            floats += 1
    text = f"{call.function}({', '.join(arguments)});"
    result = "" if call.result is None else f"*(float *)p[{pointers}] = "
    return (
        f"void call_{call.function}(void **p, const uint32_t *n, const float *f);\n"
        f"void call_{call.function}(void **p, const uint32_t *n, const float *f)\n"
        f"{{\n    (void)n, (void)f;\n    {result}{text}\n}}\n"
    )


def _example(op: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Some inputs of an operator: only the number of its arguments matters."""
    one, matrix, none = np.zeros(2), np.zeros((2, 2)), np.zeros(())
    given = {
        "alpha": 0.5,
        "factor": 1.0,
        "delta": 1.0,
        "clip": 0.0,
        "momentum": 0.5,
        "smoothing": 0.5,
        "epsilon": 1.0,
    }
    given |= {"beta1": 0.5, "beta2": 0.5, "forgetting": 1.0, "prior": 1.0}
    given |= {"walk": 0.5, "memory": 8.0}
    rule = op.removesuffix("_dense")
    if rule in RULES:
        states, scalars, _ = RULES[rule]
        dense = op.endswith("_dense")
        return [
            *([matrix if dense else one] * (1 + states)),
            *([none] * len(scalars)),
            *([one] * (1 + dense)),
        ], given
    shapes = {
        "dense": [one, matrix, one], "dense_grad_input": [one, matrix], "dense_grad_weight": [one, one],
        "rls": [matrix, one, np.zeros(6), one, one],
        "map": [matrix, one, np.zeros(6), one, one, one[:1]],
        "logistic": [matrix, one, np.zeros(12), np.ones(3), one, one, one],
        "slda": [matrix, one, np.zeros(7), np.zeros(3), one, one, one[:1]],
    }  # fmt: skip
    if op in shapes:
        return shapes[op], given
    two = op.endswith("_grad") or op in (
        "add",
        "multiply",
        "mse",
        "huber",
        "binary_cross_entropy",
        "cross_entropy",
    )
    return [one] * (1 + two), given


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """``kernel(op, inputs, attributes)``: what the compiled C gives for these inputs, as the op's outputs.

    ``over`` is the position of an input whose memory the first output takes.
    """
    folder: Path = tmp_path_factory.mktemp("kernels")
    source = folder / "entries.c"
    headers = sorted({op.header for op in FLOAT_OPS.values()})
    entries = [_entry(op, *_example(op)) for op in FLOAT_OPS]
    inputs, attributes = _example("dense")
    entries.append(_entry("dense", inputs[:2], attributes))  # without a bias it is another kernel
    source.write_text("".join(f'#include "{header}"\n' for header in headers) + "\n".join(entries))
    library = ctypes.CDLL(str(compile_library([source], [runtime_directory()], folder / "kernels.so")))

    def run(
        op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any], over: int | None = None
    ) -> tuple[np.ndarray, ...]:
        node, tensors = node_of(op, inputs, attributes)
        call = OPS[op].kernel(node, tensors)
        assert call is not None
        memory = {name: np.array(array, np.float32) for name, array in zip(node.inputs, inputs, strict=True)}
        # results start as NaN: an element that the kernel forgets is seen
        for name in node.outputs:
            memory[name] = memory[node.updates[name]] if name in node.updates else np.full(
                tensors[name].shape, np.nan, np.float32
            )  # fmt: skip
        if over is not None:
            memory[node.output] = memory[node.inputs[over]].reshape(tensors[node.output].shape)
        names = [each for each in call.arguments if isinstance(each, str)] + ([call.result] if call.result else [])
        pointers = (ctypes.c_void_p * len(names))(*(memory[name].ctypes.data for name in names))
        sizes = np.array([each for each in call.arguments if isinstance(each, int)], np.uint32)
        constants = np.array([each for each in call.arguments if isinstance(each, float)], np.float32)
        function = library[f"call_{call.function}"]
        function.argtypes = [ctypes.c_void_p] * 3
        function(ctypes.addressof(pointers), sizes.ctypes.data, constants.ctypes.data)
        return tuple(memory[name] for name in node.outputs)

    return run
