"""One step of the generated C, for every scheme: parameters move by -rate times PyTorch's gradient.

Floats: the references in float32 and in float64 tell what float32 costs a gradient, E; the C sums in another order and
may be off by four times that (or, for nets that were lucky, 32 U of the largest gradient), and each parameter is
rounded once. Integers in mixed precision: the gradient is known to the same tolerance; where both of its ends round to
the same integer the C must give that integer, else one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

import microtune as mt
from microtune.compiler.planned import Plan
from microtune.ir import Graph
from microtune.ops.quantized_update import spread, stochastic_step
from microtune.tuning.selection import Selection, float_output, select

from .built import Built, built
from .networks import gradients, moved, random_int8_net, random_net, random_sample
from .test_gradients_of_schemes import IN_INTEGERS, SCHEMES, Choice, U, twin_of

KINDS = ("float", "int8", "mixed")
CASES = [
    (kind, name, seed) for kind in KINDS for name in (IN_INTEGERS if kind == "mixed" else SCHEMES) for seed in (1,)
]
RATE = 0.5


@dataclass
class Case:
    graph: Graph
    choice: Choice
    selection: Selection
    plan: Plan
    x: np.ndarray
    target: np.ndarray
    want: Mapping[str, np.ndarray]
    allowed: Mapping[str, float]
    device: Built | None = None


def make_case(kind: str, name: str, seed: int) -> Case:
    r = np.random.default_rng([KINDS.index(kind), sorted(SCHEMES).index(name), seed])
    graph = random_net(r) if kind == "float" else float_output(random_int8_net(r))
    choice = SCHEMES[name](r, graph)
    precision = "mixed" if kind == "mixed" else "float32"
    selection = moved(r, select(graph, choice.scheme, precision))
    x, target = random_sample(r, graph)
    want = twin_of(graph, selection, choice, kind == "mixed").gradients(x, target)
    single = gradients(selection, x, target, np.float32)
    largest = {key: np.abs(value).max() for key, value in want.items()}
    errors = {key: np.abs(single[key] - value).max() for key, value in want.items()}
    relative = max((errors[key] / size for key, size in largest.items() if size), default=0.0)
    allowed = {key: max(4 * errors[key], max(4 * relative, 32 * U) * largest[key]) for key in want}
    rate = RATE
    if kind == "mixed":  # so that weights move by a few steps of their grid
        steps = [np.abs(value).max() / scale_of(selection, key).min() for key, value in want.items()]
        rate = float(np.float32(4 / max(steps)))
    made = mt.plan(graph, choice.scheme, "mse", mt.SGD(rate), precision=precision)
    return Case(graph, choice, selection, made, x, target, want, allowed)


def scale_of(selection: Selection, name: str) -> np.ndarray:
    q = selection.graph.tensor(name).quantization
    return np.ones(1) if q is None else np.asarray(q.scale, np.float64).reshape(-1)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int], Case]:
    made = {key: make_case(*key) for key in CASES}
    devices = built([case.plan for case in made.values()], tmp_path_factory.mktemp("nets"))
    return {key: replace(case, device=device) for (key, case), device in zip(made.items(), devices, strict=True)}


@pytest.mark.parametrize("key", CASES, ids=lambda key: "-".join(map(str, key)))
def test_a_step_goes_down_the_gradient(key: tuple[str, str, int], cases: dict[tuple[str, str, int], Case]) -> None:
    case = cases[key]
    device = case.device
    assert device is not None
    start = {name: case.selection.graph.tensor(name).data for name in case.selection.trained}
    assert set(start) == set(device.values)
    device.load({name: data for name, data in start.items() if data is not None})
    loss = device.step(case.x, case.target)
    y = twin_of(case.graph, case.selection, case.choice, key[0] == "mixed").output(case.x).detach().numpy()
    exact = float(((y - case.target) ** 2).mean())
    assert loss == pytest.approx(exact, rel=1e-4)
    rate = float(np.float32(case.plan.optimizer.lr))
    after = device.values
    parameters = dict(case.selection.graph.tensors)
    for name, gradient in case.want.items():
        before, have = parameters[name].data, after[name]
        assert before is not None
        if have.dtype == np.float32:
            want = before.astype(np.float64) - rate * gradient
            allowed = rate * case.allowed[name] + 2 * U * np.abs(want).max()
            assert np.abs(have - want).max() <= allowed, name
            if np.abs(gradient).max() > 1e-3:
                assert allowed < 0.01 * rate * np.abs(gradient).max(), "the tolerance is no test"
            continue
        salt = next(
            node.attributes["salt"] for node in case.plan.programs.step.graph.nodes if node.name == f"{name}.update"
        )
        q = parameters[name].quantization
        steps = rate / spread(scale_of(case.selection, name), before.shape, q.axis or 0)
        ends = [
            stochastic_step(before, gradient + offset, steps, np.array(1), {"clip": 0.0, "salt": salt})
            for offset in (-case.allowed[name], case.allowed[name])
        ]
        sure = ends[0] == ends[1]
        assert np.array_equal(have[sure], ends[0][sure]), name
        assert ((have == ends[0]) | (have == ends[1])).all(), name
        assert sure.mean() > 0.9 or before.size < 10, (name, sure.mean())


def test_integers_do_move(cases: dict[tuple[str, str, int], Case]) -> None:
    """The comparison above is not one of weights that stay where they are."""
    for key, case in cases.items():
        if key[0] != "mixed":
            continue
        device = case.device
        assert device is not None
        device.load({name: case.selection.graph.tensor(name).data for name in case.selection.trained})
        device.step(case.x, case.target)
        moves = {name: value != case.selection.graph.tensor(name).data for name, value in device.values.items()}
        assert any(move.any() for move in moves.values()), key
