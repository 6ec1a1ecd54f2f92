"""The promise: the four MLPerf Tiny networks, float and int8, in generated C, agree with LiteRT.

Float: largest error 1e-4 of the largest output. int8: at most one step apart, and 99.9 % of the outputs equal.
The published "float32" keyword net stores its convolutions as int8 weights with a scale, which LiteRT runs by rounding
the activations to int8 as well, anew for each input. We take the weights as the real numbers they stand for; the exact
oracle is then LiteRT on the same file with them written out as float32. Its own rounding moves some outputs by 0.1.

Inputs: keywords, the published front end on real clips of the net's ten words. The others have no recordings here:
images are smooth random fields (each octave of detail half as strong, as in photographs) over all of the byte range;
the anomaly net gets what its log-mel input looks like, spectra that fall with frequency and drift from frame to frame.
"""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from examples.speaker.audio import CLIPS_PATH, features, keyword_clips
from tests.frontends.tflite_cases import execute_compiled
from tests.ops.tflite_models import run

from microtune.frontends import load
from microtune.ir import Graph

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models" / "mlperf_tiny"
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason=f"{MODELS} is missing")
FLOAT = ("kws_ref_model_float32", "pretrainedResnet", "vww_96_float", "ad01_fp32")
INT8 = ("kws_ref_model", "pretrainedResnet_quant", "vww_96_int8", "ad01_int8")


def spoken_words() -> np.ndarray:
    """(n, 49, 10, 1) features of real clips."""
    if not CLIPS_PATH.is_file():
        pytest.skip(f"{CLIPS_PATH} is missing")
    audio, _, _ = keyword_clips()
    return np.stack([features(clip) for clip in audio])[..., None]


def images(side: int, count: int, highest: float) -> np.ndarray:
    """(count, side, side, 3) smooth random fields from 0 to ``highest``."""
    random = np.random.default_rng(0)
    field = np.zeros((count, side, side, 3))
    for octave in range(2, 6):
        grid = random.normal(size=(count, 2**octave, 2**octave, 3)) * 0.5**octave
        spots = np.linspace(0, 2**octave - 1, side)
        low = np.floor(spots).astype(int)
        high, part = np.minimum(low + 1, 2**octave - 1), spots - low
        rows = grid[:, low] * (1 - part)[:, None, None] + grid[:, high] * part[:, None, None]
        field += rows[:, :, low] * (1 - part)[:, None] + rows[:, :, high] * part[:, None]
    least, most = field.min((1, 2, 3), keepdims=True), field.max((1, 2, 3), keepdims=True)
    return np.asarray((field - least) / (most - least) * highest, np.float32)


def machine_sounds(count: int) -> np.ndarray:
    """(count, 640): five frames of 128 bands in decibels."""
    random = np.random.default_rng(1)
    slope = np.linspace(-10, -50, 128)
    frames = slope + np.cumsum(random.normal(size=(count, 5, 128)), axis=1) + 3 * random.normal(size=(count, 1, 128))
    return frames.reshape(count, 640).astype(np.float32)


def inputs_of(name: str) -> np.ndarray:
    if name.startswith("kws"):
        return spoken_words()
    if name.startswith("ad01"):
        return machine_sounds(40)
    return images(32, 100, 255.0) if "Resnet" in name else images(96, 24, 1.0)


def stored(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Real inputs in the type of the graph's input."""
    q = graph.tensor(graph.inputs[0]).quantization
    if q is None:
        return x
    return np.clip(np.round(x / q.scale) + q.zero_point, -128, 127).astype(np.int8)


def with_float_weights(model: bytes) -> bytes:
    """The file with the int8 weights of its float layers written as float32."""
    found = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = found.subgraphs
    for tensor in graph.tensors:
        if tensor.type == schema.TensorType.INT8:
            assert len(tensor.quantization.scale) == 1
            stored = np.asarray(found.buffers[tensor.buffer].data, np.uint8).view(np.int8)
            real = stored.astype(np.float32) * np.float32(tensor.quantization.scale[0])
            found.buffers[tensor.buffer].data = np.frombuffer(real.tobytes(), np.uint8)
            tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(found.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def both(name: str) -> tuple[Graph, np.ndarray, np.ndarray]:
    """The graph, its outputs and those of LiteRT."""
    model = MODELS / f"{name}.tflite"
    graph = load(model)
    x = stored(graph, inputs_of(name))
    oracle = with_float_weights(model.read_bytes()) if name in FLOAT else model.read_bytes()
    return graph, execute_compiled(graph, x), np.concatenate([run(oracle, [sample[None]])[0] for sample in x])


@needs_models
@pytest.mark.parametrize("name", FLOAT)
def test_float(name: str) -> None:
    _, found, expected = both(name)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@needs_models
def test_the_float_keyword_net_hears_what_litert_hears() -> None:
    """On the file as published: what its rounding of the activations changes is not which word it is."""
    model, x = MODELS / "kws_ref_model_float32.tflite", spoken_words()
    expected = np.concatenate([run(model.read_bytes(), [sample[None]])[0] for sample in x])
    found = execute_compiled(load(model), x)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95


@needs_models
@pytest.mark.parametrize("name", INT8)
def test_int8(name: str) -> None:
    graph, found, expected = both(name)
    assert (found.dtype, found.shape) == (np.int8, expected.shape)
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.999
    assert not any(node.op in ("quantize", "dequantize") for node in graph.nodes)


@needs_models
def test_names_are_those_of_the_author() -> None:
    graph = load(MODELS / "kws_ref_model.tflite")
    weights = [node.inputs[1] for node in graph.nodes if node.op.startswith(("conv2d", "depthwise", "dense"))]
    layers = [f"{kind}{end}" for end in ("", "_1", "_2", "_3") for kind in ("conv2d", "depthwise_conv2d")]
    assert weights == [f"functional_1.{layer}.weight" for layer in (*layers, "conv2d_4", "dense")]
