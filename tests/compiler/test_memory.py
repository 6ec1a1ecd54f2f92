"""The memory plan never lets two live values share a byte (SPEC B4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from microtune.compiler.passes.memory import Arena, Buffer, pack
from microtune.compiler.plan import plan
from microtune.compiler.program import Program, placed, split, training_step
from microtune.ir import verify
from microtune.ops.evaluate import evaluate
from microtune.tuning.losses import LOSSES
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

from .playing import play, run
from .random_images import random_images
from .random_plans import plan_seeds, random_plan, seeds

U = 2.0**-24


def live_bytes(program: Program) -> int:
    """The most bytes of values that are still to be read after some node: no plan can do with fewer."""
    graph = program.graph
    most = 0
    for position in range(len(graph.nodes)):
        made = {name for node in graph.nodes[: position + 1] for name in node.outputs}
        read = {name for node in graph.nodes[position + 1 :] for name in node.inputs}
        waiting = {name for name in made & read if program.arena.offset(name) is not None}
        most = max(most, sum(graph.tensor(name).bytes for name in waiting))
    return most


@settings(max_examples=60, deadline=None)
@given(seed=plan_seeds)
def test_no_live_buffers_overlap(seed: int) -> None:
    programs = random_plan(seed).programs
    for program in (programs.backbone, programs.head, programs.step):
        assert program is not None
        play(program)
        assert live_bytes(program) <= program.arena.bound <= program.arena.bytes


@settings(max_examples=60, deadline=None)
@given(seed=plan_seeds)
def test_arena_wastes_little(seed: int) -> None:
    """Never above 1.5 times the bound on graphs of this size, and most often the bound itself."""
    step = random_plan(seed).programs.step
    assert step is not None
    assert step.arena.bytes <= 1.5 * step.arena.bound


def test_the_checker_sees_an_overlap(net: Any) -> None:
    """Moving any one buffer onto another that is live with it is found."""
    step = plan(net([4, 8, 6, 2], ["tanh", "tanh"]), Full(), "mse", SGD()).programs.step
    assert step is not None
    play(step)
    seen = 0
    for moved in step.arena.buffers:
        for other in step.arena.buffers:
            if moved is other or moved.last < other.first or other.last < moved.first:
                continue
            if moved.first == other.last or other.first == moved.last:
                continue
            buffers: tuple[Buffer, ...] = tuple(
                replace(each, offset=other.offset) if each is moved else each for each in step.arena.buffers
            )
            with pytest.raises(AssertionError):
                play(Program(step.graph, Arena(buffers, step.arena.bytes + 64, step.arena.bound)))
            seen += 1
    assert seen >= 3


def test_a_weight_gradient_takes_no_memory(net: Any) -> None:
    """Dense weights learn from the two factors of their gradient: the arena holds vectors only."""
    step = plan(net([16, 32, 32, 4]), Full(), "mse", SGD()).programs.step
    assert step is not None
    assert max(buffer.bytes for buffer in step.arena.buffers) == 4 * 32
    activations = 4 * (32 + 32 + 4)
    assert step.arena.bytes <= activations + 2 * 4 * 32


def test_poisoned_memory_changes_nothing(drive: Any, tmp_path: Path) -> None:
    """Programs of random graphs read nothing they have not written, and compute what their graph says.

    The oracle runs the training graph with the numpy references, in float64 and in float32; the C may be
    off by four times what float32 costs the references, and one rounding more of each parameter.
    """
    plans = [random_plan(seed) for seed in range(24)]
    devices = drive(plans, tmp_path)
    for index, (made, device) in enumerate(zip(plans, devices, strict=True)):
        r = np.random.default_rng(index)
        step = made.programs.step
        x = r.normal(size=made.graph.tensor("x").shape).astype(np.float32)
        y = r.integers(0, 2, made.graph.tensor(made.graph.outputs[0]).shape).astype(np.float32)
        start = {field: device.read(field) for field in ("parameters", "optimizer") if field in device.sizes}
        results = []
        for poison in (np.nan, 0.0, 3e38):
            for field, values in start.items():
                device.write(field, values)
            for scratch in ("arena", "pending_cut", "output"):
                if scratch in device.sizes:
                    device.write(scratch, np.full(device.sizes[scratch] // 4, poison, np.float32))
            results.append((device.step(x, y), device.read("parameters").tobytes()))
        assert results[0] == results[1] == results[2]
        cut = evaluate(made.programs.backbone.graph, {"x": x}) if made.programs.backbone.graph.nodes else {}
        given_values = {"x": x, "target": y, "rate": np.array(made.optimizer.lr, np.float32), **cut}
        if made.optimizer.rule == "adam":
            given_values["correction"] = np.array([1 - 0.9, np.sqrt(1 - 0.999)])
        given_values |= {
            name: np.zeros(step.graph.tensor(name).shape) for name in step.graph.inputs if name not in given_values
        }
        news = tuple(f"{each.name}.next" for each in made.programs.trained)
        graph = replace(step.graph, outputs=news)
        inputs = {name: given_values[name] for name in graph.inputs}
        if made.optimizer.rule == "adam":
            tensors = {**graph.tensors, "correction": replace(graph.tensor("correction"), shape=(2,))}
            graph = replace(graph, tensors=tensors)
        exact = evaluate(graph, inputs, np.float64)
        single = evaluate(graph, inputs, np.float32)
        moves = {each.name: np.abs(exact[f"{each.name}.next"] - each.data).max() for each in made.programs.trained}
        costs = {name: np.abs(single[f"{name}.next"] - exact[f"{name}.next"]).max() for name in moves}
        # of the whole step, since the one number of a small tensor may have been rounded well by chance
        relative = max((costs[name] / move for name, move in moves.items() if move), default=0.0)
        for name, have in device.parameters().items():
            want = exact[f"{name}.next"]
            allowed = 4 * max(costs[name], relative * moves[name]) + 2 * U * np.abs(want).max()
            assert np.abs(have - want).max() <= allowed, (index, name)


def mixed_step(seed: int) -> tuple[Program, dict[str, np.ndarray]]:
    """A training step of a random int8 network, some of its weights and biases learning as integers."""
    r = np.random.default_rng(seed)
    graph = random_images(r, classes=3)
    layers = [node for node in graph.nodes if len(node.inputs) == 5]
    trained = ["weight", "bias"]
    for node in layers[int(r.integers(len(layers))) :]:
        trained += [name for name in node.inputs[1:3] if r.random() < 0.6]
    _, head = split(graph, trained)
    step, _ = training_step(head, trained, LOSSES["cross_entropy"], SGD())
    program = placed(step, "attaching the updates", head.inputs)
    given: dict[str, np.ndarray] = {}
    for name in program.graph.inputs:
        tensor = program.graph.tensor(name)
        if tensor.dtype == "int8":
            given[name] = r.integers(-128, 128, tensor.shape).astype(np.int8)
        else:
            given[name] = np.array(r.integers(0, 2, tensor.shape), tensor.dtype)
    return program, given


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_sharing_memory_changes_no_bit_of_a_mixed_training_step(seed: int) -> None:
    program, given_values = mixed_step(seed)
    verify(program.graph, "planning")
    play(program)
    assert program.arena.bytes <= 1.5 * program.arena.bound
    alone = run(program, given_values, shared=False)
    assert run(program, given_values, shared=True) == alone
    assert len(alone) == 1 + sum(len(node.updates) for node in program.graph.nodes)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_lifetimes_of_any_shape_are_packed_well(seed: int) -> None:
    """No overlap; most often the bound itself, and never 15 % above it."""
    r = np.random.default_rng(seed)
    buffers = []
    for index in range(int(r.integers(1, 60))):
        first = int(r.integers(0, 50))
        last = first + int(r.choice([0, 1, 2, 5, 30]))
        buffers.append(Buffer("p", (f"t{index}",), 4 * int(r.choice([1, 3, 16, 100, 1000])), first, last))
    bound = max(sum(b.bytes for b in buffers if b.first <= step <= b.last) for step in range(81))
    offsets, size = pack(buffers, bound)
    assert bound <= size <= 1.15 * bound
    for index, (offset, buffer) in enumerate(zip(offsets, buffers, strict=True)):
        assert offset % 4 == 0 and 0 <= offset <= size - buffer.bytes
        for other_offset, other in zip(offsets[:index], buffers[:index], strict=True):
            if buffer.first <= other.last and other.first <= buffer.last:
                assert offset >= other_offset + other.bytes or other_offset >= offset + buffer.bytes
    assert (offsets, size) == pack(buffers, bound)
