"""Packed weights in C, under the sanitizers, against the dense kernels' C: every bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.sanitized_kernels import SanitizedKernels, node_of

from microtune.compiler.sources import runtime_directory
from microtune.ops import OPS
from microtune.ops.packed import FORMS, pack, packed_name, unpack
from microtune.ops.window import window_output
from microtune.toolchain import compile_objects

Case = tuple[list[np.ndarray], dict[str, Any]]
BASES = ("dense", "conv2d", "dense_int8", "conv2d_int8")


def random_case(op: str, r: np.random.Generator, most: int = 127) -> Case:
    """A layer with a share of zeros: odd lengths, lines without a value and full ones, windows at the border."""
    kept = float(r.choice([0.0, 0.03, 0.1, 0.3, 0.6, 1.0]))
    outputs = int(r.integers(1, 8))
    geometry: dict[str, Any] = {}
    if op.startswith("dense"):
        size: tuple[int, ...] = (int(r.integers(1, 70)),)
        shape, made = (outputs, *size), (outputs,)
    else:
        size = (int(r.integers(1, 7)), int(r.integers(1, 7)), int(r.integers(1, 20)))
        taps = tuple(int(n) for n in r.integers(1, 5, 2))
        padding = tuple((int(r.integers(0, n)), int(r.integers(0, n))) for n in taps)
        padding = tuple(
            pair if length + sum(pair) >= n else (n - 1, n - 1)
            for pair, length, n in zip(padding, size, taps, strict=False)
        )
        geometry = {"stride": tuple(int(n) for n in r.integers(1, 4, 2)), "padding": padding}
        shape, made = (outputs, *taps, size[2]), (*window_output(size[:2], taps, geometry), outputs)
    mask = r.random(shape) < kept
    if r.random() < 0.3:
        mask[int(r.integers(0, outputs))] = r.random() < 0.5
    if "int8" not in op:
        x, weight, bias = (r.normal(size=each).astype(np.float32) for each in (size, shape, outputs))
        return [x * (r.random(size) < 0.8), weight * mask, bias], geometry
    low, high = sorted(int(n) for n in r.integers(-128, 128, 2))
    limits = {"low": low, "high": high} if r.random() < 0.5 else {"low": -128, "high": 127}
    zeros = {"x_zero": int(r.integers(-128, 128)), "y_zero": int(r.integers(-128, 128))}
    bits = max(1, int(np.prod(shape[1:]))).bit_length()
    inputs = [
        r.integers(-128, 128, size).astype(np.int8),
        (r.integers(-most - 1, most + 1, shape) * mask).astype(np.int8),
        r.integers(-9999, 9999, outputs).astype(np.int32), r.integers(2**30, 2**31, outputs).astype(np.int32),
        (r.integers(-4, 3, outputs) - bits).astype(np.int8),
    ]  # fmt: skip
    assert len(made) == len(size)
    return inputs, {**geometry, **zeros, **limits}


def packed_case(case: Case, form: str) -> Case | None:
    """The same layer with its weight in a form."""
    (x, weight, *rest), attributes = case
    found = pack(weight, form)
    if found is None:
        return None
    values = [] if form == "halves" else [found.values]
    return [x, found.codes, *values, *rest], {**attributes, "weight": weight.shape}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    r = np.random.default_rng(0)
    examples: dict[str, Case] = {}
    for op in BASES:
        examples[op] = case = random_case(op, r, 7)
        for form in FORMS:
            packed = packed_case(case, form)
            if packed is not None:
                examples[packed_name(op, form)] = packed
    found = SanitizedKernels(tmp_path_factory.mktemp("packed"), examples)
    yield found
    found.close()


@pytest.mark.parametrize("op", BASES)
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_bits_as_the_dense_kernel(op: str, kernels: SanitizedKernels, seed: int) -> None:
    r = np.random.default_rng(seed)
    case = random_case(op, r, int(r.choice([7, 127])))
    expected = kernels.run(op, *case)[0]
    for form in FORMS:
        packed = packed_case(case, form)
        if packed is None:
            assert form == "halves" and ("int8" not in op or np.abs(case[0][1]).max() > 7)
            continue
        found = kernels.run(packed_name(op, form), *packed)[0]
        assert found.tobytes() == expected.tobytes(), form
        means = OPS[packed_name(op, form)].reference(*packed)[0]
        np.testing.assert_array_equal(means, OPS[op].reference(*case)[0])


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_unpacked_is_what_was_packed(seed: int) -> None:
    r = np.random.default_rng(seed)
    op = str(r.choice(BASES))
    weight = random_case(op, r, 7)[0][1]
    for form in FORMS:
        packed = pack(weight, form)
        if packed is not None:
            np.testing.assert_array_equal(unpack(packed, form, weight.shape), weight)


def test_bytes_are_what_the_format_says() -> None:
    weight = np.zeros((2, 40), np.int8)
    weight[0, [0, 16, 39]] = 1, -100, 127
    runs, bitmap = pack(weight, "runs"), pack(weight, "bitmap")
    assert runs is not None and bitmap is not None
    # gaps 0; 15 and no value, 0; 15, 7. The second line: 15, 15, 10
    assert [int(byte) & 255 for byte in runs.codes] == [0xF0, 0xF0, 0xF7, 0xAF]
    assert runs.bytes == 4 + 4
    assert bitmap.bytes == 12 + 4 and pack(weight, "halves") is None
    even = np.array([[7, -8, 1]], np.int8)
    halves = pack(even, "halves")
    assert halves is not None and [int(byte) & 255 for byte in halves.codes] == [0x87, 0x01]


def calls() -> str:
    """C that calls each kernel once."""
    r = np.random.default_rng(3)
    lines = ['#include "mt_kernels_packed_int8.h"']
    kinds = {"int8": "int8_t", "int32": "int32_t", "float32": "float"}
    for op in BASES[1::2]:
        case = random_case(op, r, 7)
        for form in FORMS:
            packed = packed_case(case, form)
            if packed is None:
                continue
            node, tensors = node_of(packed_name(op, form), *packed)
            call = OPS[node.op].kernel(node, tensors)
            assert call is not None
            names = dict.fromkeys(each for each in call.arguments if isinstance(each, str))
            taken = ", ".join(
                f"{'' if name in node.outputs else 'const '}{kinds[tensors[name].dtype]} *{name}" for name in names
            )
            signature = f"void use_{call.function}({taken})"
            lines += [f"{signature};", f"{signature} {{ {call.function}({', '.join(map(str, call.arguments))}); }}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m4", "wasm32"])
def test_the_headers_are_clean_c(target: str, tmp_path: Path) -> None:
    source = tmp_path / "calls.c"
    source.write_text(calls())
    compile_objects([source], [runtime_directory()], target, strict=True)
