"""Must hold: whatever is in a .tflite file, ``load`` returns a sound graph or raises ModelError with a sentence,
within a time and a memory that the size of the file bounds."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.frontends.tflite_cases import Net, every_kind

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.frontends import tflite_reader as reader
from microtune.ir import verify

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models" / "mlperf_tiny"
REAL = sorted(MODELS.glob("*.tflite"))
# the deadline is what makes a hang a failure; the files take a hundredth of it
SETTINGS = settings(max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])


WHOLE = [every_kind("float32").finish(), every_kind("int8").finish()]
FILES = st.sampled_from(WHOLE)


def check(data: bytes, folder: Path) -> None:
    path = folder / "net.tflite"
    path.write_bytes(data)
    try:
        graph = load(path)
    except ModelError as error:
        assert len(str(error).split()) >= 3
        return
    verify(graph)
    assert all(np.isfinite(np.asarray(tensor.data)).all() for tensor in graph.constants)


def test_the_undamaged_files_are_read(tmp_path: Path) -> None:
    for data, last in zip(WHOLE, ("softmax", "softmax_int8"), strict=True):
        (tmp_path / "net.tflite").write_bytes(data)
        graph = load(tmp_path / "net.tflite")
        assert graph.nodes[-1].op == last
        check(data, tmp_path)


@SETTINGS
@given(
    FILES, st.lists(st.tuples(st.integers(0, min(map(len, WHOLE)) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_changed_bytes(tmp_path: Path, whole: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(whole)
    for at, value in changes:
        data[at] = value
    check(bytes(data), tmp_path)


@SETTINGS
@given(
    FILES,
    st.integers(0, min(map(len, WHOLE)) // 4 - 1),
    st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4]),
)
def test_absurd_words(tmp_path: Path, whole: bytes, at: int, value: int) -> None:
    """Offsets, lengths and numbers are four bytes each and aligned."""
    check(whole[: 4 * at] + struct.pack("<I", value) + whole[4 * at + 4 :], tmp_path)


@pytest.mark.parametrize("whole", WHOLE, ids=["float32", "int8"])
def test_a_bit_of_every_third_byte(tmp_path: Path, whole: bytes) -> None:
    """Every third meets each of the four bytes of numbers and offsets."""
    for at in range(0, len(whole), 3):
        check(whole[:at] + bytes([whole[at] ^ 1 << (at * 5 + at // 8) % 8]) + whole[at + 1 :], tmp_path)


@pytest.mark.parametrize("whole", WHOLE, ids=["float32", "int8"])
def test_truncations(tmp_path: Path, whole: bytes) -> None:
    for length in range(0, len(whole), 3):
        check(whole[:length], tmp_path)
    with pytest.raises(ModelError):
        (tmp_path / "half.tflite").write_bytes(whole[: len(whole) // 2])
        load(tmp_path / "half.tflite")


@SETTINGS
@given(st.binary(max_size=300))
@example(b"")
def test_arbitrary_bytes(tmp_path: Path, data: bytes) -> None:
    for content in (data, data[:4] + b"TFL3" + data[4:], b"\x10\x00\x00\x00TFL3" + data):
        check(content, tmp_path)


def _fields(found: Any, seen: set[int]) -> Iterator[tuple[Any, str]]:
    """Every number and list of numbers in a model, as (object, name of the field)."""
    if id(found) in seen:
        return
    seen.add(id(found))
    for name, value in vars(found).items():
        if isinstance(value, bool | int | float | np.ndarray) or (
            isinstance(value, list) and value and isinstance(value[0], int)
        ):
            yield found, name
        elif isinstance(value, list):
            for each in value:
                if hasattr(each, "__dict__"):
                    yield from _fields(each, seen)
        elif hasattr(value, "__dict__"):
            yield from _fields(value, seen)


NUMBERS = st.sampled_from([-(2**31), -129, -2, -1, 0, 1, 2, 3, 127, 128, 65536, 2**31 - 1]) | st.integers(-5, 40)


@SETTINGS
@given(FILES, st.data())
def test_absurd_numbers_in_a_sound_file(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    """Shapes, indices (cycles among them), strides, axes, scales: each field may be anything its type holds."""
    model = schema.ModelT.InitFromPackedBuf(whole, 0)
    fields = list(_fields(model, set()))
    for _ in range(data.draw(st.integers(1, 3))):
        owner, name = data.draw(st.sampled_from(range(len(fields))).map(fields.__getitem__))
        value = getattr(owner, name)
        if isinstance(value, np.ndarray) and value.dtype == np.uint8:
            value = value[: data.draw(st.integers(0, len(value)))]
        elif isinstance(value, np.ndarray):
            value = np.full(data.draw(st.integers(0, 9)), 1).astype(value.dtype) * data.draw(
                st.sampled_from([np.nan, np.inf, 0, -1]) if value.dtype.kind == "f" else NUMBERS
            )  # fmt: skip
        elif isinstance(value, list):
            value = data.draw(st.lists(NUMBERS, max_size=9))
        elif isinstance(value, float):
            value = data.draw(st.sampled_from([float("nan"), float("inf"), 0.0, -1.0, 1e38]))
        else:
            value = data.draw(NUMBERS)
        setattr(owner, name, value)
    builder = flatbuffers.Builder(1024)
    try:
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    except Exception:  # the writer refuses what the field's type cannot hold
        return
    check(bytes(builder.Output()), tmp_path)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 1e38, float("nan")])
@pytest.mark.parametrize("whole", WHOLE, ids=["float", "int8"])
def test_a_softmax_that_overflows_is_refused(tmp_path: Path, whole: bytes, beta: float) -> None:
    model = schema.ModelT.InitFromPackedBuf(whole, 0)
    options = [each.builtinOptions for each in model.subgraphs[0].operators]
    for each in options:
        if isinstance(each, schema.SoftmaxOptionsT):
            each.beta = beta
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    (tmp_path / "net.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(ModelError, match="beta"):
        load(tmp_path / "net.tflite")


def _peak(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def large_activation() -> Net:
    net = Net((1, 1 << 26), "float32", np.random.default_rng(0))
    net.emit("RELU", [], net.shape)
    return net.emit("ADD", [net.constant(np.ones(1, np.float32))], net.shape, "AddOptions")


def shared_buffers() -> Net:
    """A thousand constants that all lie in one buffer of a megabyte, each dequantised."""
    net = Net((1, 4), "float32", np.random.default_rng(0))
    first = net.constant(np.ones((1 << 20,), np.int8), scale=0.5)
    buffer = net.builder.graph.tensors[first].buffer
    for index in range(1000):
        copy = net.builder.tensor(f"c{index}", (1 << 20,), "int8", 0.5, buffer=buffer)
        real = net.builder.tensor(f"r{index}", (1 << 20,))
        net.builder.operator("DEQUANTIZE", [copy], [real], "DequantizeOptions", 2)
    return net.emit("RELU", [], net.shape)


@pytest.mark.parametrize("make", [large_activation, shared_buffers])
def test_a_small_file_cannot_take_much_memory(tmp_path: Path, make: Callable[[], Net]) -> None:
    """A graph may have constants of 256 MB, and no more than that."""
    data = make().finish()
    assert _peak(lambda: check(data, tmp_path)) < 600 << 20
    with pytest.raises(ModelError, match=r"would be spread over|elements of constants are computed"):
        load(tmp_path / "net.tflite")


def test_lengths_beyond_the_file_allocate_nothing(tmp_path: Path) -> None:
    """Every aligned word of a small file as a length of four billion."""
    whole = WHOLE[1]
    for at in range(0, len(whole) - 4, 40):
        data = whole[:at] + b"\xf0\xff\xff\xff" + whole[at + 4 :]
        assert _peak(lambda data=data: check(data, tmp_path)) < 20 << 20  # type: ignore[misc]


def test_too_many_operators_are_refused() -> None:
    net = Net((1, 4), "float32", np.random.default_rng(0))
    for _ in range(reader.MOST_OPERATORS + 1):
        net.emit("RELU", [], net.shape)
    with pytest.raises(ModelError, match=r"the operators are 2001; at most 2000 are read"):
        reader.File(net.finish())


def test_long_names_are_refused() -> None:
    net = Net((1, 4), "float32", np.random.default_rng(0)).emit("RELU", [], (1, 4))
    net.builder.graph.tensors[0].name = "x" * 5000
    file = reader.File(net.finish())
    with pytest.raises(ModelError, match="tensor 0 has a name of 5000 bytes; at most 4096"):
        file.tensor(0)


@pytest.mark.skipif(not REAL, reason=f"{MODELS} is missing")
@settings(SETTINGS, max_examples=60)
@given(st.data())
def test_real_files(tmp_path: Path, data: st.DataObject) -> None:
    """Changed words, changed bits, cut ends; most of a real file is weights, so that the damage is put elsewhere."""
    path = data.draw(st.sampled_from(REAL))
    content = bytearray(path.read_bytes())
    structure = [at for at in range(0, len(content) - 4, 4) if len(content) - at < 30_000 or at < 2_000]
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.sampled_from(structure))
        content[at : at + 4] = data.draw(
            st.binary(min_size=4, max_size=4)
            | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x01\0\0\0", b"\xff\xff\xff\x7f"])
        )
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    check(bytes(content), tmp_path)
