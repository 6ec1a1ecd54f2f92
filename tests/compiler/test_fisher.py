"""Fisher information against its definition in PyTorch: every answer the model may give, by its probability.

Both sides compute in float64; the result is rounded to float32 once. ``SLACK`` covers the order of sums of a few
hundred terms.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from tests.compiler.conftest import make_net
from tests.tuning.networks import moved, random_net
from tests.tuning.twin import Twin

import microtune as mt
from microtune.compiler.fisher import MOST, fisher, information
from microtune.ir import Graph
from microtune.tuning.losses import LOSSES
from microtune.tuning.selection import Selection, select

U = 2.0**-24
SLACK = 1e-11
SCHEMES = {"Full": mt.Full(), "Head": mt.Head(2), "Bias": mt.Bias(), "LoRA": mt.LoRA(1)}


def by_definition(twin: Twin, task: str, xs: np.ndarray) -> dict[str, np.ndarray]:
    """E over samples and over the model's own answers of (d log p / d parameter)^2.

    A regression's answers are its outputs plus noise of mean 0 and variance 1: -1 and 1 alike have those.
    """
    sums = {name: 0.0 for name in twin.trained}
    for x in xs:
        output = twin.output(x)
        size = len(output)
        if task == "cross_entropy":
            answers = [(torch.log_softmax(output, 0)[c], 1.0) for c in range(size)]
            answers = [(value, float(value.detach().exp())) for value, _ in answers]
        elif task == "binary_cross_entropy":
            answers = []
            for signs in itertools.product((-1.0, 1.0), repeat=size):
                value = torch.nn.functional.logsigmoid(torch.tensor(signs) * output).sum()
                answers.append((value, float(value.detach().exp())))
        else:
            answers = [
                (-0.5 * ((output.detach() + torch.tensor(signs) - output) ** 2).sum(), 0.5**size)
                for signs in itertools.product((-1.0, 1.0), repeat=size)
            ]
        assert sum(chance for _, chance in answers) == pytest.approx(1)
        for value, chance in answers:
            found = torch.autograd.grad(value, list(twin.leaves.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(twin.leaves, found, strict=True):
                if gradient is not None:
                    sums[name] = sums[name] + chance * gradient.numpy() ** 2 / len(xs)
    return {name: np.asarray(total) for name, total in sums.items()}


def chosen(graph: Graph, scheme: str, seed: int) -> Selection:
    return moved(np.random.default_rng(seed), select(graph, SCHEMES[scheme], "float32"))


TASKS = ("mse", "binary_cross_entropy", "cross_entropy")
CASES = [("dense", task, scheme) for task in TASKS for scheme in SCHEMES]
CASES += [("convolutions", "cross_entropy", scheme) for scheme in SCHEMES]
CASES += [("int8", "mse", "Head"), ("int8", "cross_entropy", "LoRA")]


@pytest.mark.parametrize(("kind", "task", "scheme"), CASES)
def test_agrees_with_its_definition(kind: str, task: str, scheme: str) -> None:
    seed = len(scheme) + len(task)
    r = np.random.default_rng(seed)
    graph = make_net([5, 7, 6, 3], "hard_swish", seed) if kind == "dense" else random_net(r)
    shape = graph.tensor(graph.inputs[0]).shape
    xs = r.normal(size=(4, *shape)).astype(np.float32)
    if kind == "int8":
        graph = mt.quantize(graph, r.normal(size=(24, *shape)).astype(np.float32))
        quantization = graph.tensor(graph.inputs[0]).quantization
        assert quantization is not None
        steps = np.round(xs / quantization.scale) + quantization.zero_point
        xs = np.clip(steps, -128, 127).astype(np.int8)
    before = mt.plan(graph, mt.Head(1), loss=task).graph if kind == "int8" else graph
    picked = chosen(before, scheme, seed)
    found = information(picked.graph, picked.trained, LOSSES[task].task, xs)
    wanted = by_definition(Twin(before, picked.graph, picked.trained), task, xs)
    assert found.keys() == wanted.keys() == set(picked.trained)
    assert sum(float(each.sum()) for each in found.values()) > 0
    for name, value in found.items():
        assert value.dtype == np.float32 and value.shape == picked.graph.tensor(name).shape
        limit = 2 * U * np.abs(wanted[name]) + SLACK * np.max(wanted[name])
        assert (np.abs(value - wanted[name]) <= limit).all(), name


def test_many_samples_are_thinned_out_evenly() -> None:
    graph = make_net([3, 4, 2])
    xs = np.random.default_rng(0).normal(size=(10 * MOST, 3)).astype(np.float32)
    picked = chosen(graph, "Full", 0)
    found = information(picked.graph, picked.trained, "MT_MULTICLASS", xs)
    few = xs[np.linspace(0, len(xs) - 1, MOST).astype(int)]
    again = information(picked.graph, picked.trained, "MT_MULTICLASS", few)
    assert all((found[name] == again[name]).all() for name in found)


def test_integers_that_learn_have_none() -> None:
    graph = mt.quantize(make_net([4, 5, 3]), np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32))
    plan = mt.plan(graph, mt.Full(), loss="cross_entropy", precision="mixed")
    found = fisher(plan.programs, plan.graph, np.zeros((3, 4), np.int8))
    assert set(found) == {tensor.name for tensor in plan.programs.trained if tensor.dtype == "float32"}


@pytest.mark.parametrize("task", TASKS)
def test_of_a_plan(task: str) -> None:
    plan = mt.plan(make_net([4, 5, 3]), mt.Head(1), loss=task)
    xs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    names = [tensor.name for tensor in plan.programs.trained]
    found, wanted = fisher(plan.programs, plan.graph, xs), information(plan.graph, names, LOSSES[task].task, xs)
    assert list(found) == names and all((found[name] == wanted[name]).all() for name in names)


def test_takes_seconds_for_the_nets_of_the_examples() -> None:
    for sizes in ([64, 32, 10], [43, 32, 6]):
        picked = chosen(make_net(sizes), "Full", 0)
        xs = np.random.default_rng(0).normal(size=(200, sizes[0])).astype(np.float32)
        began = time.monotonic()
        information(picked.graph, picked.trained, "MT_MULTICLASS", xs)
        taken = time.monotonic() - began
        print(f"{sizes}: {taken:.2f} s")
        assert taken < 5
