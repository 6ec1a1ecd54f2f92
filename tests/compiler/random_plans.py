"""Random graphs with branches, fan-out and gates, and plans that learn parts of them."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import strategies as st

from microtune.compiler.plan import plan
from microtune.compiler.planned import Plan
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, verify
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Bias, Full, Head, LoRA

ONE_INPUT = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "softmax", "scale")
ATTRIBUTES = {"leaky_relu": {"alpha": 0.125}, "scale": {"factor": 0.75}}


def random_graph(r: np.random.Generator) -> Graph:
    """Up to a dozen operators; every tensor may be used again, and every one reaches the output."""
    builder = Builder("net")
    tensors = [builder.input("x", (int(r.integers(1, 7)),))]

    def dense(source: Tensor, outputs: int) -> Tensor:
        inputs = source.shape[0]
        weight = builder.constant("w", r.normal(size=(outputs, inputs)) / inputs**0.5, "test")
        bias = [builder.constant("b", 0.3 * r.normal(size=outputs), "test")] if r.uniform() < 0.8 else []
        return builder.emit("dense", [source, weight, *bias], "h", "test")

    tensors.append(dense(tensors[0], int(r.integers(1, 9))))
    unused = {tensors[-1].name: tensors[-1]}
    for _ in range(int(r.integers(1, 10))):
        source = tensors[int(r.integers(len(tensors)))]
        twins = [each for each in tensors if each.shape == source.shape]
        kind = r.choice(["one", "two", "dense"])
        if kind == "dense":
            made = dense(source, int(r.integers(1, 9)))
        elif kind == "two":
            other = twins[int(r.integers(len(twins)))]
            made = builder.emit(str(r.choice(["add", "multiply"])), [source, other], "h", "test")
            unused.pop(other.name, None)
        else:
            op = str(r.choice(ONE_INPUT))
            made = builder.emit(op, [source], "h", "test", **ATTRIBUTES.get(op, {}))
        unused.pop(source.name, None)
        unused[made.name] = made
        tensors.append(made)
    size = int(r.integers(1, 5))
    loose = [dense(tensor, size) for tensor in unused.values()]
    output = loose[0]
    for tensor in loose[1:]:
        output = builder.emit("add", [output, tensor], "sum", "test")
    return verify(builder.finish(output, "test"))


def fresh_plan(seed: int) -> Plan:
    """A plan over a random graph: any scheme that fits it, any optimiser, any loss."""
    r = np.random.default_rng(seed)
    graph = random_graph(r)
    layers = sum(node.op == "dense" for node in graph.nodes)
    schemes = [Full(), Head(1), Head(int(r.integers(1, layers + 1))), LoRA(1)]
    if any(len(node.inputs) == 3 for node in graph.nodes if node.op == "dense"):
        schemes.append(Bias())
    limits = {"clip": float(r.choice([0.0, 0.5])), "decay": float(r.choice([0.0, 0.1]))}
    optimizers = [SGD(0.05, **limits), SGD(0.05, momentum=0.5, **limits), Adam(**limits), RMSProp(**limits)]
    losses = ["mse", "huber", "binary_cross_entropy"]
    return plan(
        graph,
        schemes[int(r.integers(len(schemes)))],
        losses[int(r.integers(len(losses)))],
        optimizers[int(r.integers(len(optimizers)))],
    )


@cache
def random_plan(seed: int) -> Plan:
    """``fresh_plan``, made once for all tests of a file."""
    return fresh_plan(seed)


seeds = st.integers(0, 2**32 - 1)
# so few that the tests of a file share them: to order the nodes of a large plan takes up to a second
plan_seeds = st.integers(0, 79)
