"""One SGD step on this machine: ours, a plain C loop compiled alike, PyTorch, scikit-learn and River.

Repetitions are interleaved and medians are taken, so that a busy moment of the machine hits all alike.
"""

from __future__ import annotations

import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.nets import RATE, small
from microtune.compiler.layout import lay_out
from microtune.compiler.sources import write_sources
from microtune.toolchain import compile_library

HERE = Path(__file__).parent
REPETITIONS = 41
SAMPLES = 64

Run = Callable[[], int]
"""Runs some steps and returns how many."""


def samples() -> np.ndarray:
    r = np.random.default_rng(0)
    x = r.uniform(-1, 1, size=(SAMPLES, 4))
    return np.column_stack([x, np.sin(x.sum(axis=1))]).astype(np.float32)


def in_c(data: np.ndarray) -> tuple[dict[str, Run], object]:
    """Our step and the plain loop, each in its own translation unit; and the library, to keep it loaded."""
    plan = small()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = [*write_sources(plan, "small", folder), HERE / "plain.c", HERE / "repeat.c"]
        library = ctypes.CDLL(str(compile_library(sources, [folder, HERE], folder / "step.so")))
    device = (ctypes.c_uint64 * (lay_out(plan).bytes // 8 + 2))()
    weights = np.concatenate([each.data.ravel() for each in plan.programs.trained]).astype(np.float32)
    order = {each.name: each.data for each in plan.programs.trained}
    net = np.concatenate([order[name].ravel() for name in ("w1", "b1", "w2", "b2")]).astype(np.float32)
    if library.small_init(ctypes.byref(device), None) != 0 or weights.size != net.size:
        raise RuntimeError("the device did not start")
    steps = 20_000

    def repeat(function: str, memory: ctypes.c_void_p) -> Run:
        library[function].restype = ctypes.c_float
        arguments = (memory, ctypes.c_void_p(data.ctypes.data), ctypes.c_uint32(SAMPLES), ctypes.c_uint32(steps))

        def run() -> int:
            loss = library[function](*arguments)
            if not 0 <= loss < 10:
                raise RuntimeError(f"{function} ended with the loss {loss}")
            return steps

        return run

    return {
        "microtune": repeat("repeat_small", ctypes.c_void_p(ctypes.addressof(device))),
        "plain C loop": repeat("repeat_plain", ctypes.c_void_p(net.ctypes.data)),
    }, (library, device, net)


def in_torch(data: np.ndarray) -> Run:
    """Eager PyTorch on one thread, the tensors made beforehand."""
    import torch

    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    xs, ys = torch.tensor(data[:, :4]), torch.tensor(data[:, 4:])

    def run() -> int:
        for x, y in zip(xs, ys, strict=True):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
        return len(data)

    return run


def in_sklearn(data: np.ndarray) -> Run:
    """``MLPRegressor.partial_fit`` on one sample at a time."""
    from sklearn.neural_network import MLPRegressor

    net = MLPRegressor(
        hidden_layer_sizes=(16,), activation="relu", solver="sgd", alpha=0, momentum=0, learning_rate_init=RATE
    )
    xs, ys = data[:, None, :4], data[:, 4:]

    def run() -> int:
        for x, y in zip(xs, ys, strict=True):
            net.partial_fit(x, y)
        return len(data)

    return run


def in_river(data: np.ndarray) -> Run:
    """River has no such network: its linear regression by SGD, a far smaller model (5 parameters)."""
    from river import linear_model, optim

    model = linear_model.LinearRegression(optim.SGD(RATE))
    rows = [({f"x{i}": float(value) for i, value in enumerate(row[:4])}, float(row[4])) for row in data]

    def run() -> int:
        for x, y in rows:
            model.learn_one(x, y)
        return len(data)

    return run


def compare() -> dict[str, float]:
    """Median nanoseconds of one step, by contender; those not installed are left out."""
    data = samples()
    runs, _keep = in_c(data)
    for name, make in (
        ("PyTorch eager", in_torch),
        ("scikit-learn partial_fit", in_sklearn),
        ("River linear regression", in_river),
    ):
        try:
            runs[name] = make(data)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(REPETITIONS):
        for name, run in runs.items():
            start = time.perf_counter_ns()
            steps = run()
            times[name].append((time.perf_counter_ns() - start) / steps)
    return {name: statistics.median(found) for name, found in times.items()}
