"""Gradients of int8 networks against PyTorch's autograd on their dequantised weights (issue 3: must hold).

Both sides compute in float64 from the same forward values. What remains are the float32 slopes of lookup tables (one
rounding each) and some 1e-15 of every sum: with n lookups on a path, n u + 1e-12 of the gradient's magnitude, which
the twin adds up from absolute values.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.compiler.passes.autodiff import differentiate
from microtune.compiler.passes.schedule import reorder
from microtune.ir import Graph, verify
from microtune.ops import quantized_elementwise, quantized_layers, quantized_pooling

from .int8_networks import Network, run

F = torch.nn.functional
U = 2.0**-24
seeds = given(seed=st.integers(0, 2**32 - 1))


def check(network: Network, y: str) -> Graph:
    """Every trained tensor's gradient equals PyTorch's."""
    graph, loss = network.finish(y)
    target = network.generator.normal(size=graph.tensor("target").shape)
    backward, gradients = differentiate(graph, loss, network.trained)
    verify(backward, "differentiation")
    assert all(backward.tensor(name).dtype == "float32" for name in gradients.values())
    found = run(backward, list(gradients.values()), {"x": network.values["x"], "target": target})
    expected = network.torch_gradients(target)
    magnitude = network.torch_gradients(target, magnitude=True)
    lookups = sum(node.op == "lookup_int8" for node in graph.nodes)
    for name, gradient in gradients.items():
        have, want = found[gradient], expected[name]
        assert have.shape == want.shape == graph.tensor(name).shape
        allowed = (lookups * U + 1e-12) * magnitude[name]
        excess = np.abs(have - want) - allowed
        assert np.all(excess <= 0), f"{name}: off by up to {excess.max():g} too much"
    return backward


def network_of(seed: int, shape: tuple[int, ...] = (6, 5, 3)) -> Network:
    return Network(np.random.default_rng(seed), shape)


def flat(network: Network, x: str) -> str:
    size = int(np.prod(network.shape(x)))
    return network.moved("reshape", (x,), {"shape": (size,)}, lambda v, _: v[x].flatten())


@settings(max_examples=15, deadline=None)
@seeds
def test_of_a_convolution(seed: int) -> None:
    network = network_of(seed)
    check(network, network.conv(network.conv("x", 5), 4))


@settings(max_examples=15, deadline=None)
@seeds
def test_of_a_depthwise_convolution(seed: int) -> None:
    network = network_of(seed)
    check(network, network.depthwise(network.depthwise("x", 1 + seed % 3)))


@settings(max_examples=15, deadline=None)
@seeds
def test_of_dense_layers(seed: int) -> None:
    network = network_of(seed, (9,))
    check(network, network.dense(network.dense("x", 7), 5))


@pytest.mark.parametrize("dense", [False, True])
@settings(max_examples=15, deadline=None)
@seeds
def test_of_layers_with_learnt_channels(dense: bool, seed: int) -> None:
    network = network_of(seed, (9,) if dense else (6, 5, 3))
    layer = network.dense if dense else network.conv
    check(network, layer(layer("x", 6, part=True), 4, part=True))


@pytest.mark.parametrize("pool", ["average_pool", "max_pool", "global_average"])
@settings(max_examples=15, deadline=None)
@seeds
def test_of_pools(pool: str, seed: int) -> None:
    network = network_of(seed)
    check(network, getattr(network, pool)(network.conv("x", 4)))


@pytest.mark.parametrize("op", ["add_int8", "multiply_int8"])
@pytest.mark.parametrize("same", [False, True], ids=["of two tensors", "of a tensor with itself"])
@settings(max_examples=10, deadline=None)
@seeds
def test_of_two_inputs(op: str, same: bool, seed: int) -> None:
    network = network_of(seed, (7,))
    a = network.dense("x", 6)
    check(network, network.two(op, a, a if same else network.dense("x", 6)))


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh, F.hardswish, F.hardsigmoid], ids=lambda f: f.__name__)
@settings(max_examples=10, deadline=None)
@seeds
def test_of_lookups(function: object, seed: int) -> None:
    network = network_of(seed, (8,))
    check(network, network.lookup(network.dense("x", 9), function))  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@seeds
def test_of_softmax(seed: int) -> None:
    network = network_of(seed, (8,))
    check(network, network.softmax(network.dense("x", 6)))


@settings(max_examples=15, deadline=None)
@seeds
def test_of_moves(seed: int) -> None:
    """concat, pad, slice, transpose and reshape of int8 tensors: the float rules serve them."""
    network = network_of(seed)
    a = network.conv("x", 4)
    b = network.lookup(a, lambda v: 1.0 * v, network.q(a))  # requantised: the same scale, other memory
    both = network.moved("concat", (a, b, a), {"axis": 2}, lambda v, _: torch.cat([v[a], v[b], v[a]], 2))
    zero = int(network.q(both).zero_point)
    wide = network.moved(
        "pad", (both,), {"padding": ((1, 0), (0, 2), (1, 1)), "value": zero},
        lambda v, _: F.pad(v[both], (1, 1, 0, 2, 1, 0)),
    )  # fmt: skip
    turned = network.moved("transpose", (wide,), {"permutation": (2, 0, 1)}, lambda v, _: v[wide].permute(2, 0, 1))
    part = network.moved("slice", (turned,), {"axis": 0, "start": 2, "stop": 9}, lambda v, _: v[turned][2:9])
    check(network, network.dense(flat(network, part), 3))


def test_of_a_residual_block_both_branches_are_summed() -> None:
    """What the published engine drops: a tensor read by a skip connection gets the gradients of both its uses."""
    network = network_of(1, (4, 4, 3))
    a = network.conv("x", 4)
    shape = network.shape(a)
    inner = network.lookup(a, torch.tanh)
    y = network.two("add_int8", a, inner)
    assert network.shape(y) == shape
    backward = check(network, y)
    sums = [node for node in backward.nodes if node.op == "add"]
    assert len(sums) == 1 and all(backward.tensor(name).dtype == "float32" for name in sums[0].inputs)


def test_masks_free_the_outputs_they_are_made_of() -> None:
    """Where only biases learn, no activation is kept for the backward pass: masks are made on the way forward."""
    network = network_of(2, (8, 8, 3))
    y = "x"
    for _ in range(4):
        y = network.conv(y, 4)
    graph, loss = network.finish(y)
    biases = [name for name in network.trained if name.startswith("b")]
    backward, _ = differentiate(graph, loss, biases)
    nodes = list(reorder(backward).nodes)
    at_loss = next(index for index, node in enumerate(nodes) if node.name == "loss")
    assert sum(node.op == "saturation_mask" for node in nodes) == 4
    # but for the last, which lives until the loss
    kept = {name for node in nodes[at_loss:] for name in node.inputs} - {network.output}
    assert not kept.intersection(node.output for node in graph.nodes if node.op == "conv2d_int8")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_of_random_networks(seed: int, data: st.DataObject) -> None:
    """Any layers in any order, tensors used any number of times, residual additions, gates."""
    network = network_of(seed, tuple(data.draw(st.integers(*limits)) for limits in ((2, 7), (2, 7), (1, 5))))
    images = ["x"]
    for _ in range(data.draw(st.integers(1, 6), label="layers")):
        x = data.draw(st.sampled_from(images[-3:]))
        kind = data.draw(st.sampled_from(["conv", "depthwise", "average", "max", "two", "two", "lookup", "concat"]))
        if kind == "conv":
            y = network.conv(x, data.draw(st.integers(1, 6)), part=data.draw(st.booleans()))
        elif kind == "depthwise":
            y = network.depthwise(x, data.draw(st.integers(1, 2)))
        elif kind == "average":
            y = network.average_pool(x)
        elif kind == "max":
            y = network.max_pool(x)
        elif kind == "two":
            others = [name for name in images if network.shape(name) == network.shape(x)]
            op = data.draw(st.sampled_from(["add_int8", "multiply_int8"]))
            y = network.two(op, x, data.draw(st.sampled_from(others)))
        elif kind == "lookup":
            y = network.lookup(x, data.draw(st.sampled_from([F.hardswish, torch.sigmoid, torch.tanh])))
        else:
            other = network.lookup(x, lambda v: 1.0 * v, network.q(x))
            y = network.moved("concat", (x, other), {"axis": 2}, lambda v, _, x=x, o=other: torch.cat([v[x], v[o]], 2))
        images.append(y)
    last = images[-1]
    head = network.global_average(last) if data.draw(st.booleans()) else flat(network, last)
    check(network, network.dense(head, data.draw(st.integers(1, 4)), part=data.draw(st.booleans())))


def test_every_int8_operator_has_a_gradient() -> None:
    families = (quantized_layers, quantized_elementwise, quantized_pooling)
    assert not [op.name for family in families for op in family.OPS if op.gradient is None]
