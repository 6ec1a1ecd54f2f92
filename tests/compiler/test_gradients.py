"""The generated C against PyTorch in float64: random networks, every loss, optimiser and scheme (SPEC B1, B3, B5).

The tolerance is measured conditioning. PyTorch's own float32 makes the same mathematics with other roundings;
it runs four times, each time from parameters and inputs moved at random by up to one unit roundoff, which is the
least that any float32 program commits. The largest error E of those runs, tensor by tensor, is what float32 costs
this network over these steps. The C may be off by at most

    4 E + T u max|p|

where the second term, one rounding of each stored parameter a step, covers networks so small that all
four runs were lucky. The factor 4 covers what is rounded differently: our exponential and square root are
within 2 ulp, PyTorch's within 1, and sums have another order. ``test_a_wrong_kernel_is_caught`` shows that
errors of one part in ten thousand in a kernel do not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microtune.compiler.plan import plan
from microtune.compiler.planned import Plan
from microtune.ir import Graph
from microtune.tuning.heads import RLS
from microtune.tuning.losses import Huber
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Bias, Full, Head, LoRA

U = 2.0**-24
STEPS = 50
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "softmax")
LOSSES = ("mse", "huber", "binary_cross_entropy", "cross_entropy")
SCHEMES = ("Full", "Head", "Bias", "LoRA")
RULES = ("sgd", "momentum", "adam", "rmsprop")
Steps = dict[int, dict[str, np.ndarray]]
"""Parameters and loss after so many steps."""


@dataclass(frozen=True, eq=False)  # a case is itself alone
class Case:
    """A network, what of it learns and how, and the samples it sees."""

    name: str
    plan: Plan
    graph: Graph
    loss: str
    xs: np.ndarray
    ys: np.ndarray


def make_case(net: Callable[..., Graph], index: int, loss: str, scheme: str, rule: str) -> Case:
    r = np.random.default_rng(1000 + index)
    layers = 1 + (index + index // 4 + index // 16) % 4  # so that no loss, scheme or rule has only one depth
    sizes = [int(size) for size in r.integers(2, 10, layers + 1)]
    if loss in ("mse", "huber") and r.uniform() < 0.3 and scheme != "LoRA":
        sizes[-1] = 1
    activations = [str(name) for name in r.choice(ACTIVATIONS, layers)]
    if loss not in ("mse", "huber") or r.uniform() < 0.7 or activations[-1] == "softmax":
        activations = activations[:-1]
    graph = net(sizes, activations, seed=index)
    decay = {"decay": float(r.choice([0.0, 0.01, 0.3])), "clip": float(r.choice([0.0, 0.05, 1.0]))}
    optimizer = {
        "sgd": SGD(0.05, **decay),
        "momentum": SGD(0.02, momentum=0.9, **decay),
        "adam": Adam(0.01, **decay),
        "rmsprop": RMSProp(0.005, **decay),
    }[rule]
    learn = {
        "Full": Full(),
        "Head": Head(int(r.integers(1, layers + 1))),
        "Bias": Bias(),
        "LoRA": LoRA(1, alpha=float(r.choice([1.0, 3.0]))),
    }[scheme]
    made = plan(graph, learn, Huber(0.3) if loss == "huber" else loss, optimizer)
    xs = r.normal(size=(10, sizes[0])).astype(np.float32)
    ys = {
        "binary_cross_entropy": r.integers(0, 2, (10, sizes[-1])),
        "cross_entropy": r.integers(0, sizes[-1], (10, 1)),
    }.get(loss, r.normal(size=(10, sizes[-1]))).astype(np.float32)
    return Case(f"{'-'.join(map(str, sizes))} {loss} {scheme} {rule}", made, graph, loss, xs, ys)


def single(value: float) -> float:
    """The number that stands in the C."""
    return float(np.float32(value))


def torch_run(case: Case, dtype: Any, generator: np.random.Generator | None = None) -> dict[int, dict[str, np.ndarray]]:
    """Parameters (and losses) after 1 and after STEPS steps of PyTorch; with a generator, from a moved start."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def tensor(values: np.ndarray) -> Any:
        values = np.asarray(values, np.float64)
        if generator is not None:
            values = values * (1 + U * generator.uniform(-1, 1, values.shape))
        return torch.tensor(values, dtype=dtype)

    trained = {each.name for each in case.plan.programs.trained}
    weights = {each.name: tensor(each.data) for each in case.plan.graph.constants}
    for name in trained:
        weights[name].requires_grad_()
    optimizer = case.plan.optimizer
    order = [weights[each.name] for each in case.plan.programs.trained]
    rates = {"lr": single(optimizer.lr)}
    if isinstance(optimizer, SGD):
        engine = torch.optim.SGD(order, **rates, momentum=single(optimizer.momentum))
    elif isinstance(optimizer, Adam):
        betas = (single(optimizer.beta1), single(optimizer.beta2))
        engine = torch.optim.Adam(order, **rates, betas=betas, eps=single(optimizer.epsilon))
    else:
        smoothing = single(optimizer.smoothing)
        engine = torch.optim.RMSprop(order, **rates, alpha=smoothing, eps=single(optimizer.epsilon))
    activation = {
        "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu6": functional.relu6,
        "leaky_relu": lambda h: functional.leaky_relu(h, 0.125), "softmax": lambda h: torch.softmax(h, -1),
    }  # fmt: skip

    def forward(h: Any) -> Any:
        for node in case.graph.nodes:
            if node.op == "dense":
                x, h = h, functional.linear(h, weights[node.inputs[1]], weights[node.inputs[2]])
                if f"{node.name}_lora_a" in weights:
                    scale = case.plan.scheme.alpha / case.plan.scheme.rank
                    low = functional.linear(x, weights[f"{node.name}_lora_a"])
                    h = h + functional.linear(scale * low, weights[f"{node.name}_lora_b"])
            else:
                h = activation[node.op](h)
        return h

    def loss_of(output: Any, target: np.ndarray) -> Any:
        if case.loss == "cross_entropy":
            return functional.cross_entropy(output, torch.tensor(int(target[0])))
        goal = torch.tensor(target, dtype=dtype)
        if case.loss == "huber":
            return functional.huber_loss(output, goal, delta=single(0.3))
        return {
            "mse": functional.mse_loss,
            "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        }[case.loss](output, goal)

    found: dict[int, dict[str, np.ndarray]] = {}
    inputs = [tensor(x) for x in case.xs]
    for step in range(STEPS):
        for group in engine.param_groups:
            group["lr"] = single(optimizer.lr) / (1 + single(optimizer.decay) * step)
        engine.zero_grad()
        loss = loss_of(forward(inputs[step % len(inputs)]), case.ys[step % len(inputs)])
        loss.backward()
        if optimizer.clip:
            torch.nn.utils.clip_grad_value_(order, single(optimizer.clip))
        engine.step()
        if step + 1 in (1, STEPS):
            found[step + 1] = {name: weights[name].detach().double().numpy().copy() for name in trained}
            found[step + 1]["loss"] = np.array(loss.item())
    return found


def c_run(case: Case, device: Any) -> dict[int, dict[str, np.ndarray]]:
    """The same by the generated C."""
    found = {}
    for step in range(STEPS):
        loss = device.step(case.xs[step % len(case.xs)], case.ys[step % len(case.ys)])
        if step + 1 in (1, STEPS):
            found[step + 1] = {**device.parameters(), "loss": np.array(loss)}
    return found


@cache
def oracles(case: Case) -> tuple[Steps, list[Steps]]:
    """PyTorch in float64, and four times in float32 from moved starts."""
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    return torch_run(case, torch.float64), [torch_run(case, torch.float32, generator) for _ in range(4)]


def excess(case: Case, device: Any) -> float:
    """The largest error of the C as a share of what is allowed, over tensors, after 1 and after STEPS steps."""
    exact, singles = oracles(case)
    found = c_run(case, device)
    worst = 0.0
    for steps, tensors in exact.items():
        for name, want in tensors.items():
            cost = max(np.abs(run[steps][name] - want).max() for run in singles)
            # a loss is of the size of its logits, and rounds about as often as a sample has outputs
            size = (16 if name == "loss" else steps) * U * max(np.abs(want).max(), 1.0 if name == "loss" else 0.0)
            assert np.isfinite(found[steps][name]).all()
            error = np.abs(found[steps][name] - want).max()
            worst = max(worst, float(error / (4 * cost + size)))
    return worst


@pytest.fixture(scope="module")
def cases(net: Callable[..., Graph]) -> list[Case]:
    return [make_case(net, index, *chosen) for index, chosen in enumerate(product(LOSSES, SCHEMES, RULES))]


@pytest.fixture(scope="module")
def devices(cases: list[Case], drive: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return list(drive([case.plan for case in cases], tmp_path_factory.mktemp("nets")))


def test_cases_cover_what_they_promise(cases: list[Case]) -> None:
    assert {case.name.split()[0].count("-") for case in cases} == {1, 2, 3, 4}
    assert {node.op for case in cases for node in case.graph.nodes} == {"dense", *ACTIVATIONS}
    for attribute in ("decay", "clip"):
        rules = {(case.plan.optimizer.rule, getattr(case.plan.optimizer, attribute) > 0) for case in cases}
        assert rules == set(product(RULES, (False, True)))
    heads = {case.plan.scheme.layers for case in cases if isinstance(case.plan.scheme, Head)}
    assert {1, 2, 3} <= heads


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize("index", range(64), ids=[" ".join(chosen) for chosen in product(LOSSES, SCHEMES, RULES)])
def test_learns_as_pytorch_in_float64(index: int, cases: list[Case], devices: list[Any]) -> None:
    assert excess(cases[index], devices[index]) <= 1, cases[index].name


@dataclass(frozen=True)
class Fault:
    """A small error to put into a kernel, and which cases run that kernel."""

    header: str
    right: str
    wrong: str
    runs: Callable[[Case], bool]


def by_rule(rule: str) -> Callable[[Case], bool]:
    return lambda case: case.plan.optimizer.rule == rule


def inside(op: str) -> Callable[[Case], bool]:
    """A network that learns before this activation, by a rule that does not hide the size of a gradient."""

    def runs(case: Case) -> bool:
        plain = case.plan.optimizer.rule in ("sgd", "momentum")
        return plain and any(node.op == f"{op}_grad" for node in case.plan.programs.step.graph.nodes)

    return runs


FAULTS = {
    "a lane of the sum lost": Fault(
        "mt_kernels.h", "(lane[0] + lane[1]) + (lane[2] + lane[3])", "lane[0] + (lane[1] + lane[2])",
        lambda case: isinstance(case.plan.scheme, Full),
    ),
    "momentum off by 1e-4": Fault(
        "mt_kernels_update.h", "momentum * *v + g", "momentum * 1.0001f * *v + g", by_rule("momentum")
    ),
    "second moment off by 1e-4": Fault(
        "mt_kernels_update.h", "(1.0f - beta2) * (g * g)", "1.0001f * (1.0f - beta2) * (g * g)", by_rule("adam")
    ),
    "root off by 5e-5": Fault(
        "mt_kernels_update.h", "(mt_sqrt(*v) + epsilon)", "(mt_sqrt(*v * 1.0001f) + epsilon)", by_rule("rmsprop")
    ),
    "gradient of tanh off by 1e-4": Fault(
        "mt_kernels_elementwise.h", "1.0f - y[i] * y[i]", "1.0f - 0.9999f * y[i] * y[i]", inside("tanh")
    ),
    "gradient of sigmoid off by 1e-4": Fault(
        "mt_kernels_elementwise.h", "(y[i] * (1.0f - y[i]))", "(y[i] * (1.0001f - y[i]))", inside("sigmoid")
    ),
    "gradient of mse off by 1e-4": Fault(
        "mt_kernels_loss.h", "error * (2.0f / (float)size)", "error * (2.0002f / (float)size)",
        lambda case: case.loss == "mse" and case.plan.optimizer.rule == "sgd",
    ),
    "decay a step early": Fault(
        "mt_kernels_update.h", "1.0f + decay * steps[0]", "1.0f + decay * (steps[0] + 1.0f)",
        lambda case: case.plan.optimizer.decay > 0,
    ),
    "clip not applied": Fault(
        "mt_kernels_update.h", "mt_clamp(gradient, -clip, clip)", "gradient",
        lambda case: case.plan.optimizer.clip == 0.05,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_kernel_is_caught(name: str, cases: list[Case], drive: Any, tmp_path: Path) -> None:
    """Small errors put into the kernels do not pass the tolerance."""
    fault = FAULTS[name]

    def edit(folder: Path) -> None:
        text = (folder / fault.header).read_text()
        assert fault.right in text
        (folder / fault.header).write_text(text.replace(fault.right, fault.wrong))

    users = [case for case in cases if fault.runs(case)][:4]
    assert users
    broken = drive([case.plan for case in users], tmp_path, edit)
    assert max(excess(case, device) for case, device in zip(users, broken, strict=True)) > 1


def test_recursive_least_squares_is_the_closed_form_of_ridge_regression(
    net: Callable[..., Graph], drive: Any, tmp_path: Path
) -> None:
    """After n samples RLS holds the weighted ridge solution with weights forgetting^(n - i), computed here at once.

    The prior pulls to the base weights: minimise sum_i f^(n-i) |y_i - W phi_i|^2 + f^n |W - W0|^2 / prior.
    Forgetting pauses while a variance stands at the prior, and the oracle pauses too; then the new sample keeps
    the weight 1 / f of one that is not yet divided. Error: each step solves with the normal matrix to about its
    condition number in units of u, so n steps are allowed n u cond |W|.
    """
    r = np.random.default_rng(11)
    forgetting, prior, steps = float(np.float32(0.97)), 4.0, 60
    graphs = [net([4, 5, 2], "tanh", seed=5), net([3, 1], seed=6)]
    made = [plan(graph, Head(1), "mse", RLS(forgetting, prior)) for graph in graphs]
    for graph, chosen, device in zip(graphs, made, drive(made, tmp_path), strict=True):
        weights = {each.name: each.data.astype(np.float64) for each in graph.constants}
        dense = [node for node in graph.nodes if node.op == "dense"]
        last = dense[-1]
        w0 = np.column_stack([weights[last.inputs[1]], weights[last.inputs[2]]])
        size = w0.shape[1]
        information, moment = np.eye(size) / prior, w0.T / prior
        for _ in range(steps):
            x = r.normal(size=graph.tensor("x").shape).astype(np.float32)
            y = r.normal(size=w0.shape[0]).astype(np.float32)
            device.step(x, y)
            h = x.astype(np.float64)
            if len(dense) == 2:
                h = np.tanh(weights[dense[0].inputs[1]] @ h + weights[dense[0].inputs[2]])
            phi = np.append(h, 1.0)
            information = information + np.outer(phi, phi) / forgetting
            moment = moment + np.outer(phi, y) / forgetting
            if np.linalg.inv(information).diagonal().max() < prior * forgetting:
                information, moment = information * forgetting, moment * forgetting
        exact = np.linalg.solve(information, moment).T
        found = device.parameters()
        have = np.column_stack([found[each.name] for each in chosen.programs.trained])
        allowed = steps * U * np.linalg.cond(information) * np.abs(exact).max()
        assert np.abs(have - exact).max() <= allowed < 1e-3
