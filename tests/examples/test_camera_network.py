"""The published int8 nets as graphs: every layer against PyTorch's float convolution of the published arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.camera.network import DIRECTORY, NETWORKS, published_network

from microtune.errors import ModelError
from microtune.ops import OPS
from microtune.ops.evaluate import evaluate

pytestmark = pytest.mark.skipif(not DIRECTORY.is_dir(), reason=f"the published networks are not in {DIRECTORY}")


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_computes_what_the_published_numbers_say(name: str) -> None:
    """From the same int8 input, an int8 layer is within one step of the exact real convolution, rounded.

    The two roundings of the integer arithmetic are off by at most one step of the output.
    """
    published = json.loads((DIRECTORY / f"{name}.json").read_text())
    arrays = np.load(DIRECTORY / f"{name}.npz")
    graph = published_network(name)
    layers = {"stem": published["first_conv"]}
    for index, block in enumerate(published["blocks"]):
        for part, short in (("pointwise1", "expand"), ("depthwise", "depthwise"), ("pointwise2", "project")):
            if block[part]:
                layers[f"block{index}.{short}"] = block[part]
    r = np.random.default_rng(1)
    values = {tensor.name: tensor.data for tensor in graph.constants}
    values["image"] = np.clip(r.normal(0, 60, (128, 128, 3)), -128, 127).astype(np.int8)
    seen = 0
    for node in graph.nodes:
        results = OPS[node.op].reference([values[each] for each in node.inputs], node.attributes)
        values.update(zip(node.outputs, results, strict=True))
        if node.name not in layers:
            continue
        given = layers[node.name]
        parameters = given["params"]
        x = (values[node.inputs[0]].astype(np.float64) - parameters["x_zero"]) * parameters["x_scale"]
        scales = arrays[parameters["w_scales"]["array"]].astype(np.float64)
        weight = arrays[parameters["weight"]["array"]] * scales[:, None, None, None]
        bias = arrays[parameters["bias"]["array"]] * scales * parameters["x_scale"]
        exact = torch.nn.functional.conv2d(
            torch.from_numpy(x.transpose(2, 0, 1)[None]), torch.from_numpy(weight), torch.from_numpy(bias),
            given["stride"], given["kernel_size"][0] // 2, groups=given["groups"],
        )[0].numpy().transpose(1, 2, 0)  # fmt: skip
        steps = np.clip(exact / parameters["y_scale"] + parameters["y_zero"], -128, 127)
        assert values[node.output].shape == (given["out_shape"], given["out_shape"], given["out_channel"])
        assert np.abs(values[node.output] - steps).max() <= 1.01, node.name
        seen += 1
    assert seen == len(layers)


def test_residuals_are_sums_of_real_values() -> None:
    graph = published_network("mcunet-5fps")
    adds = [node for node in graph.nodes if node.op == "add_int8"]
    assert len(adds) == 7
    r = np.random.default_rng(2)
    for node in adds:
        a, b, y = (graph.tensor(name) for name in (*node.inputs, node.output))
        stored = [r.integers(-128, 128, tensor.shape).astype(np.int8) for tensor in (a, b)]
        (have,) = OPS["add_int8"].reference(stored, node.attributes)
        real = sum(
            (x.astype(np.float64) - int(t.quantization.zero_point)) * float(t.quantization.scale)
            for x, t in zip(stored, (a, b), strict=True)
        )
        want = np.clip(real / float(y.quantization.scale) + int(y.quantization.zero_point), -128, 127)
        assert np.abs(have - want).max() <= 1.01


def test_a_new_classifier_and_the_published_one() -> None:
    image = np.zeros((128, 128, 3), np.int8)
    ten = published_network("mcunet-5fps", classes=10)
    assert ten.tensor(ten.outputs[0]).shape == (10,)
    again = published_network("mcunet-5fps", classes=10)
    weight = ten.tensor("classifier.weight").data
    assert weight is not None and np.array_equal(weight, again.tensor("classifier.weight").data)
    (logits,) = evaluate(published_network("mcunet-5fps"), {"image": image}).values()
    assert logits.shape == (1000,) and logits.dtype == np.float32


def test_an_unknown_network_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="mcunet-5fps"):
        published_network("mcunet", tmp_path)
