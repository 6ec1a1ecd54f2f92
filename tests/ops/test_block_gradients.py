"""Gradients as blocks against exact ones: each operator within its rounding, whole networks against PyTorch, updates in
the mean.

``test_block_kernels`` holds the C to the references, bit by bit; here the references are held to real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.compiler.passes.autodiff import differentiate
from microtune.ir import Graph, Node, Tensor, verify
from microtune.ops import OPS, quantized_elementwise, quantized_layers, quantized_pooling
from microtune.ops.block_rules import RULES
from microtune.ops.blocks import HEAD, ZERO, block_of, factors_of, mantissas, real, write
from microtune.ops.evaluate import evaluate
from microtune.ops.fixed_point import quantize_multipliers

from .block_cases import block, case, int8
from .int8_networks import Network
from .sanitized_kernels import SanitizedKernels

ONE = 65536
seeds = given(seed=st.integers(0, 2**32 - 1))


def unit(each: np.ndarray) -> float:
    """What the last place of a block is worth."""
    return 0.0 if each[0] == ZERO else math.ldexp(1.0, int(each[0]))


@settings(max_examples=60, deadline=None)
@seeds
def test_a_block_keeps_what_is_written_within_its_last_place(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(-(2**30), 2**30, 20) >> random.integers(0, 30)
    found = write(values, -7)
    below = np.ldexp(values.astype(float), -7) - real(found)
    assert np.all((below >= 0) & (below < unit(found) * (1 - 2.0**-31)) | (below == 0))
    # eleven digits of the largest at the least, so that its last place is at most 2^-10 of it
    assert unit(found) <= np.max(np.abs(np.ldexp(values.astype(float), -7))) * 2.0**-10


@settings(max_examples=60, deadline=None)
@seeds
def test_constants_are_within_half_a_last_place(seed: int) -> None:
    random = np.random.default_rng(seed)
    reals = 10.0 ** random.uniform(-8, 8) * random.normal(size=9)
    assert np.all(np.abs(real(block_of(reals)) - reals) <= unit(block_of(reals)) / 2)
    positive = np.abs(reals)
    kept = np.minimum(positive, 512 * positive.min())
    # six digits of the least, which may be 512 times less than the largest
    assert np.all(np.abs(real(factors_of(positive)) - kept) <= kept * 2.0**-6)


@pytest.mark.parametrize("op", ["dense_int8_block_grad", "conv2d_int8_block_grad", "depthwise_conv2d_int8_block_grad"])
@settings(max_examples=40, deadline=None)
@seeds
def test_of_a_layer(op: str, seed: int) -> None:
    """The product with the scale is rounded to nearest, the sum rounded down: half a unit times the sum of the weights
    it meets, and a last place."""
    (dy, weight, scale), attributes = case(op, seed)
    (found,) = OPS[op].reference([dy, weight, scale], attributes)
    if dy[0] == ZERO:
        assert found[0] == ZERO
        return
    outputs = scale.size - HEAD
    g = real(dy).reshape(-1, outputs) * real(scale)
    half = np.full(g.shape, math.ldexp(0.5, int(dy[0]) + int(scale[0]) + attributes["fold"]))
    plain = {
        "dense": "dense_weight8_grad_input",
        "conv2d": "conv2d_weight8_grad_input",
        "depthwise_conv2d": "depthwise_conv2d_weight8_grad_input",
    }[op.removesuffix("_int8_block_grad")]
    ones = np.ones(outputs)
    if op.startswith("dense"):
        shape: tuple[int, ...] = (outputs,)
    else:
        (kh, kw), x = weight.shape[1:3] if op.startswith("conv") else weight.shape[:2], attributes["input_shape"]
        pads = [sum(each) for each in attributes["padding"]]
        steps = attributes["stride"]
        shape = (*((x[i] + pads[i] - k) // steps[i] + 1 for i, k in enumerate((kh, kw))), outputs)

    def exact(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return OPS[plain].reference([values.reshape(shape), matrix, ones], attributes)[0].ravel()

    size = np.abs(weight.astype(float))
    allowed = exact(half, size) + unit(found) + 1e-12 * exact(np.abs(g), size)
    assert np.all(np.abs(real(found) - exact(g, weight.astype(float))) <= allowed)


@settings(max_examples=60, deadline=None)
@seeds
def test_element_by_element(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b, x = block(random, 12), block(random, 12), int8(random, 12)
    (total,) = OPS["block_add"].reference([a, b], {})
    # the smaller of two addends loses what lies 14 places below the larger's last
    lost = math.ldexp(1.0, max(int(a[0]), int(b[0])) - 14)
    assert np.all(np.abs(real(total) - real(a) - real(b)) <= unit(total) + lost)
    slopes = block_of(random.normal(size=256))
    (through,) = OPS["block_lookup_grad"].reference([a, x, slopes], {})
    assert np.all(np.abs(real(through) - real(a) * real(slopes)[x.astype(int) + 128]) <= unit(through))
    exponent, _, factor = (int(each) for each in block_of([0.013]))
    given = {"factor": factor, "exponent": exponent, "zero_point": -5}
    (times,) = OPS["block_multiply_grad"].reference([a, x], given)
    other = x.astype(float) + 5
    half = math.ldexp(0.5, int(a[0]) + exponent + 8) * np.abs(other)
    assert np.all(np.abs(real(times) - real(a) * other * math.ldexp(factor, exponent)) <= unit(times) + half)


@settings(max_examples=60, deadline=None)
@seeds
def test_of_a_product_of_two_sums(seed: int) -> None:
    """The other factor counts with its 15 highest bits, rounded down, and the product loses a last place."""
    (dy, other), given = case("block_multiply_fixed_grad", seed)
    (found,) = OPS["block_multiply_fixed_grad"].reference([dy, other], given)
    down = max(int(np.max(other.astype(np.int64) ^ (other.astype(np.int64) >> 63))).bit_length() - 15, 0)
    lost = np.abs(real(dy)) * math.ldexp(1.0, down) / ONE
    assert np.all(np.abs(real(found) - real(dy) * (other / ONE)) <= unit(found) + lost)


@settings(max_examples=60, deadline=None)
@seeds
def test_moves_of_gains_and_of_weights_behind_them(seed: int) -> None:
    """Each by the product of the other, as it was: off by a 256th of a grid step, and by a factor that is rounded down
    to 2^-24 of a grid step for each unit of a product of two bytes, or to 13 digits of it. The longest is 64 steps."""
    inputs, given = case("sgd_block_gained", seed)
    weight, _, gain, _, _, dy, x, factor, gain_factor = inputs
    inputs[1], inputs[3] = np.zeros_like(inputs[1]), np.zeros_like(inputs[3])
    found = OPS["sgd_block_gained"].reference(inputs, given)
    away = x[given["start"] : given["start"] + gain.size].astype(float) - given["x_zero"]
    for at, old, product, by in ((0, weight[0], gain * away, factor), (2, gain, weight[0] * away, gain_factor)):
        moves = real(dy)[0] * real(by)[0] * product / 256
        moved = old - (found[at].ravel() + found[at + 1].ravel() / 256)
        inside = (np.abs(old - moves) < 127) & (np.abs(moves) < 63)
        lost = np.abs(product) * 2.0**-24 + np.abs(moves) * 2.0**-13
        assert np.all(np.abs(moved - moves)[inside] <= (1 / 256 + lost)[inside])


def fixed_graph(network: Network, y: str) -> tuple[Graph, Node]:
    """The network with its output and its loss in 16 binary places."""
    graph, _ = network.finish(y)
    q = network.q(y)
    multiplier, shift = quantize_multipliers(float(q.scale) * ONE)
    given = {"multiplier": int(multiplier), "shift": int(shift), "zero_point": int(q.zero_point)}
    loss = Node("mse_fixed", "loss", ("real", "target"), ("loss", "dy"))
    shape = network.shape(y)
    tensors = [Tensor("real", shape, "int32"), Tensor("target", shape, "int32"), Tensor("loss", (), "int32")]
    tensors.append(Tensor("dy", (HEAD + math.prod(shape),), "int16"))
    nodes = [*graph.nodes[:-2], Node("fixed_from_int8", "out", (y,), ("real",), given), loss]
    return verify(replace(graph, nodes=tuple(nodes), tensors={**graph.tensors, **{t.name: t for t in tensors}})), loss


def check(network: Network, y: str) -> Graph:
    """The gradient of the input is PyTorch's, as nearly as blocks on the way hold it.

    A block errs by a last place at the most, 2^-10 of its largest element. Measured by the gradient that absolute
    values add up to: 2^-10 of its largest element for each node on the way, and four of the error's steps of 2^-16.
    """
    graph, loss = fixed_graph(network, y)
    shape = graph.tensor("target").shape
    target = np.round(network.generator.normal(size=shape) * ONE).astype(np.int32)
    backward, gradients = differentiate(graph, loss, ["x"])
    verify(backward, "differentiation")
    assert backward.tensor(gradients["x"]).dtype == "int16"
    asked = replace(backward, outputs=(gradients["x"],))
    found = evaluate(asked, {"x": network.values["x"], "target": target})[gradients["x"]]
    network.trained = [name for name in network.trained if name == "x"]
    expected = network.torch_gradients(target / ONE)["x"].ravel()
    magnitude = network.torch_gradients(target / ONE, magnitude=True)["x"].max()
    error = 4 / ONE / max(np.abs(np.float64(target) / ONE).max(), 0.01)
    steps = len(backward.nodes) - len(graph.nodes)
    assert np.all(np.abs(real(found) - expected) <= (steps * 2.0**-10 + error) * magnitude)
    return backward


def network_of(seed: int, shape: tuple[int, ...] = (6, 5, 3)) -> Network:
    return Network(np.random.default_rng(seed), shape)


@settings(max_examples=25, deadline=None)
@seeds
def test_of_networks(seed: int) -> None:
    network = network_of(seed)
    a = network.conv("x", 5)
    b = network.depthwise(a)
    pool = ("average_pool", "max_pool")[seed % 2]
    c = getattr(network, pool)(b)
    d = network.lookup(c, torch.tanh)
    e = network.two("add_int8" if seed % 3 else "multiply_int8", c, d)
    f = network.moved("concat", (e, d), {"axis": 2}, lambda v, _: torch.cat([v[e], v[d]], 2))
    g = network.moved("transpose", (f,), {"permutation": (2, 0, 1)}, lambda v, _: v[f].permute(2, 0, 1))
    h = network.moved("slice", (g,), {"axis": 0, "start": 2, "stop": 9}, lambda v, _: v[g][2:9])
    i = network.moved(
        "pad", (h,), {"padding": ((0, 0), (1, 0), (0, 2)), "value": int(network.q(h).zero_point)},
        lambda v, _: torch.nn.functional.pad(v[h], (0, 2, 1, 0)),
    )  # fmt: skip
    if seed % 5 == 0:
        k = network.global_average(i)
    else:
        size = math.prod(network.shape(i))
        k = network.moved("reshape", (i,), {"shape": (size,)}, lambda v, _: v[i].flatten())
    check(network, network.dense(network.dense(k, 6), 3))


def test_every_int8_operator_has_a_gradient_in_integers_or_is_refused() -> None:
    families = (quantized_layers, quantized_elementwise, quantized_pooling)
    missing = {op.name for family in families for op in family.OPS} - set(RULES)
    # the doors to float32, and what computes in it
    assert missing == {"quantize", "dequantize", "softmax_int8"}


# Updates

EXAMPLES = {f"{rule}_block_{layer}": case(f"{rule}_block_{layer}", 0) for rule in ("sgd", "momentum")
            for layer in ("dense", "dense_bias", "conv2d", "depthwise_conv2d", "bias")}  # fmt: skip


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    found = SanitizedKernels(tmp_path_factory.mktemp("updates"), EXAMPLES)
    yield found
    found.close()


def dense_step(exponent: int, noise: int) -> tuple[list[np.ndarray], dict[str, int]]:
    """A weight of 3 outputs and 40 inputs, with its bias; gradients are powers of two times 2^exponent."""
    random = np.random.default_rng(5)
    dy = write(random.integers(-30000, 30000, 3), exponent)
    factors, b_factors = factors_of([0.1, 0.37, 0.9]), factors_of([11.0, 3.0, 25.0])
    weight, rest = random.integers(-60, 60, (3, 40)).astype(np.int8), np.zeros((3, 40), np.int8)
    bias = np.array([100, -7, 5], np.int32)
    inputs = [weight, rest, bias, np.array(noise, np.int32), dy, int8(random, 40), factors, b_factors]
    return inputs, {"salt": 7, "x_zero": -3, "start": 0, "taken": 40}


@pytest.mark.parametrize("exponent", [-26, -20, -14])
def test_moves_keep_their_mean(exponent: int, kernels: SanitizedKernels) -> None:
    """One step is off by a 256th of a grid step at the most; over 512 values of noise, as many as the golden-ratio
    sequence and a hash make of them, the mean is off by a tenth of that."""
    inputs, given = dense_step(exponent, 0)
    weight, _, bias, _, dy, x, factors, b_factors = inputs
    moves = np.outer(real(dy) * real(factors), x.astype(float) + 3) / 256
    # a factor is rounded to 2^-24 of a grid step, times an input of up to 255
    coarse = 255 * 2.0**-25
    b_moves = real(dy) * real(b_factors)
    sums, b_sums = np.zeros(weight.shape), np.zeros(3)
    for noise in range(512):
        new, rest, new_bias = kernels.run("sgd_block_dense_bias", dense_step(exponent, noise)[0], given)
        moved = weight - (new + rest / 256)
        assert np.all(np.abs(moved - moves) <= 1 / 256 + coarse)
        assert np.all(np.abs(bias - new_bias - b_moves) <= 1)
        sums += moved
        b_sums += bias - new_bias
    assert np.all(np.abs(sums / 512 - moves) <= 0.1 / 256 + coarse)
    assert np.all(np.abs(b_sums / 512 - b_moves) <= 0.1)


def test_small_moves_add_up(kernels: SanitizedKernels) -> None:
    """A thousandth of a grid step, two thousand times: int8 alone would never move."""
    inputs, given = dense_step(-30, 0)
    dy, x, factors = inputs[4:7]
    moves = np.outer(real(dy) * real(factors), x.astype(float) + 3) / 256
    assert np.abs(moves).max() < 0.002
    memory = inputs[:3]
    for noise in range(2000):
        memory = list(kernels.run("sgd_block_dense_bias", [*memory, np.array(noise, np.int32), *inputs[4:]], given))
    # a tenth of a 256th in the mean of each step would be 0.8 of a grid step here
    assert np.all(np.abs(inputs[0] - (memory[0] + memory[1] / 256) - 2000 * moves) <= 0.8)


def test_momentum_gathers_and_fades(kernels: SanitizedKernels) -> None:
    """v = m v + move: a constant gradient comes to move / (1 - m) in each step; without one all velocities go to 0."""
    inputs, given = dense_step(-20, 0)
    weight, rest, bias, _, dy, x, factors, b_factors = inputs
    given["momentum"] = round(0.9 * 2**15)
    moves = np.outer(real(dy) * real(factors), x.astype(float) + 3)
    memory = [weight, rest, np.zeros(weight.shape, np.int16), bias, np.zeros(3, np.int32)]
    for noise in range(150):
        memory = list(kernels.run(
            "momentum_block_dense_bias", [*memory, np.array(noise, np.int32), dy, x, factors, b_factors], given
        ))  # fmt: skip
    # each step rounds the move and the velocity kept, down by less than 1 each: a sum of 2 / (1 - m)
    assert np.all(np.abs(memory[2] - moves / (1 - given["momentum"] / 2**15)) <= 20 + 1e-3 * np.abs(moves) * 10)
    for noise in range(400):
        zero = write(np.zeros(3), 0)
        memory = list(kernels.run(
            "momentum_block_dense_bias", [*memory, np.array(noise, np.int32), zero, x, factors, b_factors], given
        ))  # fmt: skip
    assert np.abs(memory[2]).max() <= 1 and np.abs(memory[4]).max() <= 1


def test_weights_end_at_their_limits(kernels: SanitizedKernels) -> None:
    """The longest move is 64 grid steps for an input 255 from its zero point: 10 for one of 40."""
    inputs, given = dense_step(10, 0)
    for noise in range(20):
        inputs[:3] = kernels.run("sgd_block_dense_bias", [*inputs[:3], np.array(noise, np.int32), *inputs[4:]], given)
    away = np.outer(mantissas(inputs[4]), inputs[5].astype(int) + 3)
    far = np.abs(inputs[5].astype(int) + 3) >= 40
    np.testing.assert_array_equal(inputs[0][:, far], np.where(away < 0, 127, -128)[:, far])
    assert np.all(np.abs(inputs[2]) == 2**30 - 1)


@pytest.mark.parametrize("layer", ["conv2d", "depthwise_conv2d"])
@settings(max_examples=30, deadline=None)
@seeds
def test_moves_of_convolutions(layer: str, seed: int) -> None:
    """Off by a 256th of a grid step, and by what the gradient loses before it is summed."""
    op = f"sgd_block_{layer}"
    (weight, rest, noise, dy, x, factors), given = case(op, seed)
    rest = np.zeros_like(rest)
    outputs = weight.shape[0] if layer == "conv2d" else weight.shape[2]
    g = real(dy).reshape(-1, outputs)
    positions = len(g)
    kernel = weight.shape[1:3] if layer == "conv2d" else weight.shape[:2]
    size = tuple((x.shape[i] + sum(given["padding"][i]) - kernel[i]) // given["stride"][i] + 1 for i in range(2))
    plain = {"kernel": kernel, "x_scale": 1.0} | {n: given[n] for n in ("stride", "padding", "x_zero")}
    if layer == "conv2d":
        plain |= {"start": given["start"], "channels": given["taken"]}
    exact = OPS[f"{layer}_int8_grad_weight"]
    per_channel = real(factors).reshape((-1, 1, 1, 1) if layer == "conv2d" else (1, 1, -1))
    moves = exact.reference([g.reshape(*size, outputs), x], plain)[0] * per_channel / 256
    new, left = OPS[op].reference([weight, rest, noise, dy, x, factors], given)
    moved = weight - (new + left / 256)
    down = max(0, math.ceil(math.log2(positions)) - 7)
    lost = positions * 255 * math.ldexp(0.5, int(dy[0]) + down) * (down > 0) * per_channel / 256
    # the product of sum and factor is rounded down at its 15th place, then to 2^-24 of a grid step
    coarse = 1 / 256 + 2.0**-23 + math.ldexp(1.0, int(dy[0]) + int(factors[0]) + down + 15) / 256
    within = (np.abs(weight - moves) < 127) & (np.abs(moves) < 60)
    assert np.all(np.abs(moved - moves)[within] <= (coarse + np.broadcast_to(lost, moves.shape))[within])
