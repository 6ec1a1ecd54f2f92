"""Each int8 kernel in C against its numpy reference in int64: every bit, also over its input, also sanitized."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.int8_kernels import INT8_OPS, compile_kernels, draw_inputs, examples, node_of, run_kernel, sanitized

from microtune.compiler.sources import runtime_directory
from microtune.compiler.writing import literal
from microtune.ir import Tensor
from microtune.ops import OPS
from microtune.toolchain import WARNINGS, compile_objects, sanitizer_runtime

EXAMPLES = 25 if sanitized() else 100
PROPERTIES = "test_kernel_equals or test_result_in_the_memory"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_kernels(tmp_path_factory.mktemp("int8"), sanitized())


@pytest.mark.parametrize("op", INT8_OPS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_kernel_equals_its_reference(op: str, library: ctypes.CDLL, data: st.DataObject) -> None:
    inputs, attributes = draw_inputs(op, data.draw)
    expected = OPS[op].reference(inputs, attributes)[0]
    node, tensors = node_of(op, inputs, attributes)
    assert expected.shape == tensors[node.output].shape
    assert str(expected.dtype) == tensors[node.output].dtype
    np.testing.assert_array_equal(run_kernel(library, op, inputs, attributes), expected)


@pytest.mark.parametrize(("op", "over"), [(name, index) for name, op in INT8_OPS.items() for index in op.in_place])
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_result_in_the_memory_of_an_input_is_the_same(
    op: str, over: int, library: ctypes.CDLL, data: st.DataObject
) -> None:
    """The memory plan does so whenever the input has as many bytes as the output."""
    inputs, attributes = draw_inputs(op, data.draw)
    expected = OPS[op].reference(inputs, attributes)[0]
    if expected.nbytes == inputs[over].nbytes:
        np.testing.assert_array_equal(run_kernel(library, op, inputs, attributes, over), expected)


def test_a_depthwise_convolution_in_place_keeps_little(library: ctypes.CDLL) -> None:
    """3 x 3 over (64, 64, 48): two rows of 16 channels, 2 KB beside 192 KB."""
    x, weight = Tensor("x", (64, 64, 48), "int8"), Tensor("w", (3, 3, 48), "int8")
    constants = [Tensor(name, (48,), dtype) for name, dtype in (("b", "int32"), ("m", "int32"), ("s", "int8"))]
    given: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
    shapes = OPS["depthwise_conv2d_int8"].shape([x, weight, *constants], given)
    assert shapes == ((64, 64, 48), (2, 64, 16))


@pytest.mark.skipif(sanitized(), reason="is what starts the sanitized tests")
def test_under_the_sanitizers(tmp_path: Path) -> None:
    """The two property tests above once more, in a Python that can load sanitized C."""
    environment = {
        **os.environ,
        "MICROTUNE_SANITIZED": "1",
        "LD_PRELOAD": sanitizer_runtime(),
        # Python itself frees nothing at its end; and what it allocates must come from the guarded malloc
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    # capstone would load itself with a flag that the address sanitizer refuses
    start = "import os, sys, pytest; del os.RTLD_DEEPBIND; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, "-q", "-p", "no:cacheprovider", "-k", PROPERTIES, __file__]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def _statements() -> str:
    """One call of every kernel, with constants as generated code passes them."""
    found = (OPS[op].kernel(*node_of(op, *example)) for op in INT8_OPS for example in examples(op))
    # a gain of each input is a product: operators may share a kernel
    calls = {call.function: call for call in found if call is not None}
    lines = []
    for call in calls.values():
        count = 0
        arguments = []
        for argument in call.arguments:
            if isinstance(argument, str):
                arguments.append(f"p{count}")
                count += 1
            else:
                arguments.append(literal(argument) if isinstance(argument, float) else str(argument))
        types = _pointer_types(call.function, count)
        parameters = ", ".join(f"{kind}*p{index}" for index, kind in enumerate(types))
        lines.append(f"void user_{call.function}({parameters});\n")
        lines.append(f"void user_{call.function}({parameters}) {{ {call.function}({', '.join(arguments)}); }}\n")
    return "".join(lines)


def _pointer_types(function: str, count: int) -> list[str]:
    """The types of a kernel's pointers, from its declaration."""
    text = "".join((runtime_directory() / header).read_text() for header in HEADERS)
    found = re.search(rf"(?:inline|MT_INLINE) void {function}\(([^)]*)\)", text)
    assert found is not None
    pointers = [each for each in found[1].split(",") if "*" in each]
    assert len(pointers) == count
    return [each.split("*")[0].strip() + " " for each in pointers]


HEADERS = sorted({op.header for op in INT8_OPS.values()})


@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m4", "wasm32"])
def test_headers_are_clean_c(target: str, tmp_path: Path) -> None:
    source = tmp_path / "user.c"
    source.write_text("".join(f'#include "{header}"\n' for header in HEADERS) + _statements())
    compile_objects([source], [runtime_directory()], target, strict=True)


def test_headers_are_clean_cpp(tmp_path: Path) -> None:
    source = tmp_path / "user.cpp"
    source.write_text("".join(f'#include "{header}"\n' for header in HEADERS) + _statements())
    command = [sys.executable, "-m", "ziglang", "c++", "-std=c++17", *WARNINGS, "-Werror", "-c", str(source)]
    command += [f"-I{runtime_directory()}", "-o", str(tmp_path / "user.o")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
