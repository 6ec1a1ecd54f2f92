"""The networks that are measured."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from microtune.compiler.plan import plan
from microtune.compiler.planned import Plan
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify
from microtune.tuning.heads import RLS
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Bias, Full, Head, LoRA

RATE = 0.05


def dense_net(sizes: Sequence[int], activation: str = "relu") -> Graph:
    """Dense layers of these sizes with an activation between them, weights drawn from a fixed seed."""
    r = np.random.default_rng(0)
    builder = Builder("net")
    tensor = builder.input("x", (sizes[0],))
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
        weight = builder.constant(f"w{index}", r.normal(size=(outputs, inputs)) / inputs**0.5, "benchmark")
        bias = builder.constant(f"b{index}", 0.1 * r.normal(size=outputs), "benchmark")
        tensor = builder.emit("dense", [tensor, weight, bias], f"h{index}", "benchmark")
        if index < len(sizes) - 1:
            tensor = builder.emit(activation, [tensor], f"a{index}", "benchmark")
    return verify(builder.finish(tensor, "benchmark"))


def small() -> Plan:
    """The 4-16-1 ReLU net on squared error with plain SGD: the step of the published figures."""
    return plan(dense_net([4, 16, 1]), Full(), "mse", SGD(RATE))


def cases() -> dict[str, Plan]:
    """Networks and ways to learn, for instructions per multiply-add."""
    toaster, wearer = dense_net([8, 16, 1]), dense_net([43, 32, 6])
    return {
        "4-16-1 Full SGD": small(),
        "8-16-1 Full momentum": plan(toaster, Full(), "mse", SGD(RATE, momentum=0.9)),
        "8-16-1 Full Adam": plan(toaster, Full(), "mse", Adam()),
        "8-16-1 Head(1) SGD": plan(toaster, Head(1), "mse", SGD(RATE)),
        "8-16-1 Head(1) RLS": plan(toaster, Head(1), "mse", RLS()),
        "43-32-6 Full SGD, cross-entropy": plan(wearer, Full(), "cross_entropy", SGD(RATE)),
        "43-32-6 Head(1) SGD, cross-entropy": plan(wearer, Head(1), "cross_entropy", SGD(RATE)),
        "43-32-6 Bias SGD, cross-entropy": plan(wearer, Bias(), "cross_entropy", SGD(RATE)),
        "43-32-6 LoRA(4) RMSProp, cross-entropy": plan(wearer, LoRA(4), "cross_entropy", RMSProp()),
    }
