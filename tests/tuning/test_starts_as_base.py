"""A network with adapters starts as the base, and computing in floats what was int8 changes little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from examples.speaker.audio import CLIPS_PATH, features, keyword_clips
from hypothesis import given, settings
from hypothesis import strategies as st

import microtune as mt
from microtune.compress.dequantization import float_tail
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate
from microtune.tuning.layers import layers_of
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import float_output, select

from .networks import random_int8_net, random_net, random_sample

KEYWORD_NET = Path(__file__).parents[3] / "shared" / "data" / "models" / "mlperf_tiny" / "kws_ref_model.tflite"
ADDING: dict[str, Scheme] = {
    "NormAffine": mt.NormAffine(),
    "Adapter": mt.Adapter(3),
    "LoRA": mt.LoRA(1),
    "Sparse": mt.Sparse({-1: 0.5}),
}


def last_half(graph: Graph) -> Scheme:
    return mt.Sparse({len(layers_of(graph)) - 1: 0.5})


def output(graph: Graph, x: np.ndarray) -> np.ndarray:
    return evaluate(graph, {graph.inputs[0]: x})[graph.outputs[0]]


@pytest.mark.parametrize("name", ADDING)
@pytest.mark.parametrize("stored", [False, True], ids=["float", "int8"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_start_is_the_base_bit_for_bit(stored: bool, name: str, seed: int) -> None:
    r = np.random.default_rng(seed)
    graph = float_output(random_int8_net(r)) if stored else random_net(r)
    scheme = last_half(graph) if name == "Sparse" else ADDING[name]
    selection = select(graph, scheme)
    touched = {node.name for node in layers_of(graph)[-1:]} if name == "Sparse" else None
    if touched is None:
        convolutions_only = name == "NormAffine"
        touched = {
            node.name
            for node in layers_of(graph)
            if (node.op.startswith(("conv", "depthwise")) if convolutions_only else not node.op.startswith("depth"))
        }
        if name == "Adapter":
            touched.discard(layers_of(graph)[-1].name)
    base = float_tail(graph, touched, ()) if stored else graph
    x, _ = random_sample(r, graph)
    assert np.array_equal(output(selection.graph, x), output(base, x))


@pytest.mark.parametrize("scheme", [mt.Head(1), mt.LoRA(2), mt.NormAffine(), mt.Bias(), mt.Full()], ids=str)
def test_the_keyword_net_hears_as_well_in_floats(scheme: Scheme) -> None:
    """What lies behind the cut computes in floats: the same words but one of a hundred, on real clips."""
    net = mt.load(KEYWORD_NET)
    base = float_output(net)
    audio, labels, _ = keyword_clips(CLIPS_PATH)
    tensor = net.tensor(net.inputs[0])
    q = tensor.quantization
    assert q is not None and len(labels) == 100
    changed = select(base, scheme).graph
    right = np.zeros(2, int)
    for clip, label in zip(audio, labels, strict=True):
        stored = np.clip(np.round(features(clip) / q.scale) + q.zero_point, -128, 127)
        x = stored.astype(np.int8).reshape(tensor.shape)
        right += [int(output(graph, x).argmax() == label) for graph in (base, changed)]
    assert abs(right[0] - right[1]) <= 1 and right[0] >= 90
