"""Convolutions, pools, layout and per-channel operators: compiled C against the float64 references (SPEC A5, B1).

The C runs under the address and undefined-behaviour sanitizers, every array in memory of exactly its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.layer_cases import CASES, CONVOLUTIONS, LAYERS, Draw, layer
from tests.ops.sanitized_kernels import SanitizedKernels

from microtune.ops import OPS
from microtune.ops.update import RULES

IN_PLACE = [(op, index) for op in CASES for index in OPS[op].in_place]
FUSED = [(rule, conv) for rule in RULES for conv in CONVOLUTIONS]
# constants are multiples of powers of two: the numbers in C are the same
CONSTANTS = {"momentum": 0.875, "smoothing": 0.984375, "epsilon": 2.0**-20, "beta1": 0.90625, "beta2": 0.9990234375}


def single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _examples() -> dict[str, tuple[list[np.ndarray], dict[str, Any]]]:
    """One call of every kernel of every operator."""
    one, two, image = np.zeros(1, np.float32), np.zeros((2, 2), np.float32), np.zeros((4, 4, 2), np.float32)
    bytes8 = np.zeros((4, 4, 2), np.int8)
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
    whole, taps = {**window, "input_shape": (4, 4, 2)}, {**window, "kernel": (3, 3)}
    vector, twice = np.zeros(2, np.float32), {**window, "stride": (2, 2), "padding": ((1, 0), (1, 0))}
    found: dict[str, tuple[list[np.ndarray], dict[str, Any]]] = {}
    for name in CONVOLUTIONS:
        shape, wide = ((3, 3, 2), (3, 3, 8)) if "depthwise" in name else ((2, 3, 3, 2), (8, 3, 3, 2))
        for op, dtype in ((name, np.float32), (f"{name}_weight8", np.int8)):
            weight, scale = np.zeros(shape, dtype), [vector] if dtype == np.int8 else []
            wider, scales = np.zeros(wide, dtype), [np.zeros(8, np.float32)] if dtype == np.int8 else []
            found[op] = ([image, weight, *scale, vector], window)
            found[f"{op}_grad_input"] = ([image, weight, *scale], whole)
            smaller = np.zeros((2, 2, 8), np.float32)
            found[f"{op}_grad_input of another size"] = ([smaller, wider, *scales], {**whole, **twice})
            less = {**whole, "padding": ((0, 0), (0, 0))}
            found[f"{op}_grad_input beside"] = ([np.zeros((2, 2, 2), np.float32), weight, *scale], less)
        weight = np.zeros(shape, np.float32)
        found[f"{name} without bias"] = ([image, weight], window)
        found[f"{name}_grad_weight"] = ([image, image], taps)
        for rule, (states, scalars, _) in RULES.items():
            values = [np.zeros(2 if scalar == "correction" else (), np.float32) for scalar in scalars]
            given = {**CONSTANTS, "clip": 0.0, **window}
            found[f"{rule}_{name}"] = ([weight] * (1 + states) + values + [image, image], given)
            found[rule] = ([vector] * (1 + states) + values + [vector], given)
    for average in ("average_pool2d", "average_pool2d_grad"):
        found[average] = ([image], {**taps, "include_padding": True, "input_shape": (4, 4, 2)})
    scaled = [np.zeros((2, 2), np.int8), vector]
    return found | {
        "max_pool2d": ([image], taps),
        "max_pool2d_grad": ([image, image, image], taps),
        "global_average": ([image], {}),
        "global_average_grad": ([vector], {"input_shape": (4, 4, 2)}),
        "transpose": ([two], {"permutation": (1, 0)}),
        "pad": ([image], {"padding": ((1, 1),) * 3, "value": 0.0}),
        "pad int8": ([bytes8], {"padding": ((1, 1),) * 3, "value": 0}),
        **{f"concat {count}": ([image] * count, {"axis": 2}) for count in (2, 3, 4)},
        "slice": ([image], {"axis": 2, "start": 0, "stop": 1}),
        "reshape": ([image], {"shape": (32,)}),
        **{op: ([one] * (1 + op.endswith("_grad")), {"low": 0.0, "high": 1.0, "alpha": 0.5, "beta": 0.5})
           for op in CASES if op.startswith(("clamp", "hard_"))},
        "channel_sum": ([image], {}),
        "channel_dot": ([image, image], {}),
        "channel_scale": ([image, vector], {}),
        "channel_affine": ([image, vector, vector], {}),
        "embedding": ([one, two], {}),
        "embedding_grad": ([np.zeros((1, 2), np.float32), one], {"rows": 2}),
        "dense_weight8": ([vector, *scaled, vector], {}),
        "dense_weight8_grad_input": ([vector, *scaled], {}),
    }  # fmt: skip


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    found = SanitizedKernels(tmp_path_factory.mktemp("layers"), _examples())
    yield found
    found.close()


@pytest.mark.parametrize("op", CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_kernel_computes_its_reference(op: str, kernels: SanitizedKernels, data: st.DataObject) -> None:
    draw_case, bound = CASES[op]
    inputs, attributes = draw_case(op, Draw(data))
    wanted = OPS[op].reference(inputs, attributes)[0]
    found = kernels.run(op, [single(each) for each in inputs], attributes)[0]
    assert found.shape == wanted.shape
    if found.dtype == np.int8:
        np.testing.assert_array_equal(found, wanted)
        return
    # numbers below the smallest normal one have an absolute error instead
    excess = np.abs(found.astype(np.float64) - wanted) - np.maximum(bound(op, inputs, attributes), 2.0**-140)
    assert np.all(excess <= 0), f"{op} is off by up to {excess.max():g} too much"


@pytest.mark.parametrize(("op", "over"), IN_PLACE)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_result_in_the_memory_of_an_input_is_the_same(
    op: str, over: int, kernels: SanitizedKernels, data: st.DataObject
) -> None:
    """The memory plan relies on it for every input an operator names in ``in_place``."""
    draw = Draw(data)
    same = op in LAYERS and draw.choice(True, True, False)
    inputs, attributes = layer(op, draw, same=True) if same else CASES[op][0](op, draw)
    arrays = [single(each) for each in inputs]
    beside = kernels.run(op, arrays, attributes)[0]
    if beside.nbytes == arrays[over].nbytes:  # else the plan does not put it there
        np.testing.assert_array_equal(kernels.run(op, arrays, attributes, over)[0], beside)


@pytest.mark.parametrize(("rule", "conv"), FUSED)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_fused_update_is_the_gradient_and_then_a_step(
    rule: str, conv: str, kernels: SanitizedKernels, data: st.DataObject
) -> None:
    """Bit for bit: the gradient's sums run in the same order whether it is stored or not."""
    draw = Draw(data)
    (dy, x), given_ = layer(f"{conv}_grad_weight", draw)
    dy, x = single(dy), single(x)
    gradient = kernels.run(f"{conv}_grad_weight", [dy, x], given_)[0]
    states, scalars, _ = RULES[rule]
    memory = [single(draw.values(*gradient.shape))]
    memory += [single(draw.positive(*gradient.shape)) for _ in range(states)]
    numbers = {"rate": np.array(2.0**-6, np.float32), "correction": np.array([0.25, 0.5], np.float32)}
    values = [numbers[name] for name in scalars]
    attributes = {**given_, **CONSTANTS, "clip": draw.choice(0.0, 0.25)}
    flat = [each.ravel() for each in memory]
    wanted = kernels.run(rule, [*flat, *values, gradient.ravel()], attributes)
    found = kernels.run(f"{rule}_{conv}", [*memory, *values, dy, x], attributes)
    for have, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(have.ravel(), want)
