"""The row-by-row bottleneck in C, under the sanitizers, against the separate int8 layers: every bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.sanitized_kernels import SanitizedKernels, node_of

from microtune.compiler.sources import runtime_directory
from microtune.ir import Tensor
from microtune.ops import OPS
from microtune.ops.bottleneck import FUNCTIONS
from microtune.ops.quantized_layers import window_output
from microtune.toolchain import WARNINGS, compile_objects

Case = tuple[list[np.ndarray], dict[str, Any]]
FORMS = list(FUNCTIONS)


def random_case(form: tuple[str, ...], r: np.random.Generator) -> Case:
    """Odd sizes, uneven strides and paddings, windows higher than the image, channels beyond a block."""
    size = (int(r.integers(3, 9)), int(r.integers(3, 9)))
    channels = int(r.integers(1, 6))
    inputs = [r.integers(-128, 128, (*size, channels)).astype(np.int8)]
    layers = []
    for index, name in enumerate(form):
        projects = index > 0 and name == "conv2d_int8"
        taps = (1, 1) if projects else tuple(int(n) for n in r.integers(1, 5, 2))
        padding = tuple((int(r.integers(0, n)), int(r.integers(0, n))) for n in taps)
        # a window must not be larger than the padded image
        padding = tuple(
            pair if length + sum(pair) >= n else (n - 1, n - 1)
            for pair, length, n in zip(padding, size, taps, strict=True)
        )
        stride = (1, 1) if projects else tuple(int(n) for n in r.integers(1, 4, 2))
        geometry = {"stride": stride, "padding": padding}
        if name == "conv2d_int8":
            outputs = int(r.choice([1, 3, 5, 17, 20]))
            weight = r.integers(-127, 128, (outputs, *taps, channels))
        else:
            outputs = channels * int(r.integers(1, 3))
            weight = r.integers(-127, 128, (*taps, outputs))
        low, high = sorted(int(n) for n in r.integers(-128, 128, 2))
        zeros = {"x_zero": int(r.integers(-128, 128)), "y_zero": int(r.integers(-128, 128))}
        limits = {"low": low, "high": high} if r.random() < 0.5 else {"low": -128, "high": 127}
        layers.append((name, {**geometry, **zeros, **limits}))
        inputs += [
            weight.astype(np.int8), r.integers(-9999, 9999, outputs).astype(np.int32),
            r.integers(2**30, 2**31, outputs).astype(np.int32), r.integers(-10, -5, outputs).astype(np.int8),
        ]  # fmt: skip
        size, channels = window_output(size, taps, geometry), outputs
    return inputs, {"layers": tuple(layers)}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, ...], SanitizedKernels]]:
    """One program for each form, since a program knows an operator by one kernel."""
    r = np.random.default_rng(0)
    found = {
        form: SanitizedKernels(tmp_path_factory.mktemp("bottleneck"), {"bottleneck_int8": random_case(form, r)})
        for form in FORMS
    }
    yield found
    for each in found.values():
        each.close()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: FUNCTIONS[form])
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_rows_equal_the_separate_layers(
    form: tuple[str, ...], kernels: dict[tuple[str, ...], SanitizedKernels], seed: int
) -> None:
    inputs, attributes = random_case(form, np.random.default_rng(seed))
    expected = inputs[0]
    for index, (name, given_attributes) in enumerate(attributes["layers"]):
        expected = OPS[name].reference([expected, *inputs[1 + 4 * index : 5 + 4 * index]], given_attributes)[0]
    np.testing.assert_array_equal(kernels[form].run("bottleneck_int8", inputs, attributes)[0], expected)
    np.testing.assert_array_equal(OPS["bottleneck_int8"].reference(inputs, attributes)[0], expected)


def test_what_it_cannot_project_by_is_refused() -> None:
    r = np.random.default_rng(1)
    inputs, attributes = random_case(FORMS[0], r)
    inputs[9] = np.zeros((inputs[9].shape[0], 2, 2, inputs[9].shape[3]), np.int8)
    tensors = [Tensor("t", array.shape, str(array.dtype)) for array in inputs]
    with pytest.raises(ValueError, match="1 x 1"):
        OPS["bottleneck_int8"].shape(tensors, attributes)
    with pytest.raises(ValueError, match="depthwise"):
        OPS["bottleneck_int8"].shape(tensors, {"layers": attributes["layers"][:1]})


def calls() -> str:
    """C that calls each form, with the numbers of a random case."""
    lines = ['#include "mt_kernels_int8_bottleneck.h"']
    r = np.random.default_rng(2)
    for form in FORMS:
        node, tensors = node_of("bottleneck_int8", *random_case(form, r))
        call = OPS["bottleneck_int8"].kernel(node, tensors)
        assert call is not None
        kinds = {"int8": "int8_t", "int32": "int32_t"}
        names = [each for each in call.arguments if isinstance(each, str)]
        arrays = ", ".join(
            f"{'' if name in node.outputs else 'const '}{kinds[tensors[name].dtype]} *{name}" for name in names
        )
        signature = f"void use_{call.function}({arrays})"
        lines += [f"{signature};", f"{signature} {{ {call.function}({', '.join(map(str, call.arguments))}); }}"]
    return "\n".join(lines)


@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m4", "wasm32"])
def test_the_header_is_clean_c(target: str, tmp_path: Path) -> None:
    source = tmp_path / "user.c"
    source.write_text(calls())
    compile_objects([source], [runtime_directory()], target, strict=True)


def test_the_header_is_clean_cpp(tmp_path: Path) -> None:
    source = tmp_path / "user.cpp"
    source.write_text(calls())
    command = [sys.executable, "-m", "ziglang", "c++", "-std=c++17", *WARNINGS, "-Werror", "-c", str(source)]
    command += [f"-I{runtime_directory()}", "-o", str(tmp_path / "user.o")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
