"""precision="int8": graphs without a float, what they learn, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import microtune as mt
from microtune.compiler.passes.autodiff import differentiate
from microtune.compiler.program import _with_loss, compile_programs, training_step, without_final
from microtune.errors import PlanError
from microtune.ir import Graph, verify
from microtune.ops.evaluate import evaluate
from microtune.tuning.integers import _with_room
from microtune.tuning.losses import loss_of
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import Selection, float_output, select

from .networks import random_int8_net, random_sample

MSE = loss_of("mse")
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")


def dtypes(graph: Graph) -> set[str]:
    return {graph.tensor(name).dtype for node in graph.nodes for name in (*node.inputs, *node.outputs)}


def scheme_of(r: np.random.Generator, graph: Graph) -> Scheme:
    return [mt.Full(), mt.Bias(), mt.Head(1), mt.Sparse({0: 1.0, 1: 0.6}, biases_from=1)][int(r.integers(4))]


@pytest.mark.parametrize("seed", range(12))
def test_a_step_moves_along_the_gradient_of_mixed_precision(seed: int) -> None:
    """Of any net: without a float anywhere, all that learns goes where float gradients point.

    The outputs of the two differ by the rounding of the last layer, which integers leave out, and so do the errors:
    the target is far enough for that to be 2 per cent, and blocks round on every layer. 0.99 is a turn of 8 degrees.
    """
    r = np.random.default_rng(seed)
    graph = float_output(random_int8_net(r))
    scheme = scheme_of(r, graph)
    mixed, fixed = select(graph, scheme, "mixed"), select(graph, scheme, "int8")
    assert fixed.trained == mixed.trained
    last = graph.producer(graph.outputs[0])
    assert last is not None
    # int8 outputs on a limit pass no gradient; those of integers have no limit
    for _ in range(50):
        x, _ = random_sample(r, graph)
        answer = evaluate(replace(graph, outputs=(last.inputs[0], *graph.outputs)), {graph.inputs[0]: x})
        if np.max(np.abs(answer[last.inputs[0]] + 0.5)) < 127:
            break
    outputs = answer[graph.outputs[0]]
    target = outputs + 60 * float(last.attributes["scale"]) * r.choice([-1, 1], outputs.shape)
    whole, loss = _with_loss(mixed.graph, MSE)
    backward, gradients = differentiate(whole, loss, mixed.trained)
    asked = replace(backward, outputs=tuple(dict.fromkeys(gradients.values())))
    wanted = evaluate(asked, {graph.inputs[0]: x, loss.inputs[1]: target})
    step, state = training_step(fixed.graph, fixed.trained, MSE, mt.SGD(lr=1e-3))
    assert dtypes(step) <= {"int8", "int16", "int32"}
    updates = {old: new for node in step.nodes for new, old in node.updates.items()}
    asked = replace(verify(step), outputs=tuple(updates.values()))
    given = {name: np.zeros(step.tensor(name).shape, step.tensor(name).dtype) for name in state}
    taken, aim, noise = (name for name in step.inputs if name not in state)
    given |= {taken: x, aim: np.round(target * 65536).astype(np.int32), noise: np.int32(1)}
    found = evaluate(asked, given)
    for name in fixed.trained:
        tensor = step.tensor(name)
        assert tensor.data is not None and tensor.quantization is not None
        old, new = (np.asarray(each, float) for each in (tensor.data, found[updates[name]]))
        if f"{name}.rest" in updates:
            new = new + found[updates[f"{name}.rest"]] / 256
        scale = np.asarray(tensor.quantization.scale, float).reshape(-1)
        wide = np.ones(tensor.data.ndim, int)
        wide[tensor.quantization.axis or 0] = -1
        moved = ((old - new) * scale.reshape(wide)).ravel()
        ideal = 1e-3 * wanted[gradients[name]].ravel()
        # what a step is rounded to, when moves are as small as that
        steps = 256 if tensor.dtype == "int8" else 1
        grain = np.linalg.norm(np.broadcast_to(scale.reshape(wide) / steps, old.shape))
        size = np.linalg.norm(ideal)
        assert np.dot(moved, ideal) >= 0.99 * np.linalg.norm(moved) * size - grain * size, name


def digits() -> tuple[Graph, np.ndarray, np.ndarray]:
    """A net that knows digits, quantised; and digits moved to the right, which it does not know so well."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    base = MLPClassifier((16,), max_iter=60, random_state=0, learning_rate_init=0.01).fit(x[:600], y[:600])
    moved = np.roll(x.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)[600:]
    return mt.quantize(mt.load(base), np.concatenate([x[:600], moved[:200]])), moved, y[600:]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_integers_learn_what_floats_do(momentum: float) -> None:
    """Digits moved by a pixel, 500 of them learnt once, 600 others asked: within 12 answers of float32 SGD."""
    graph, x, y = digits()
    loss = loss_of("cross_entropy")
    graph = float_output(without_final(graph, loss))
    q = graph.tensor(graph.inputs[0]).quantization
    assert q is not None
    stored = np.clip(np.round(x / q.scale) + q.zero_point, -128, 127).astype(np.int8)
    right: dict[str, list[float]] = {}
    for precision in ("float32", "int8"):
        selection = select(graph, mt.Full(), precision)
        lr = 0.05 * (1 - momentum)
        step, state = training_step(selection.graph, selection.trained, loss, mt.SGD(lr=lr, momentum=momentum))
        one = np.int32(65536) if precision == "int8" else np.float32(1)
        updates = {old: new for node in step.nodes for new, old in node.updates.items()}
        values = {name: step.tensor(name).data for name in selection.trained}
        values |= {name: np.zeros(step.tensor(name).shape, step.tensor(name).dtype) for name in state}
        taken, aim, scalar = (name for name in step.inputs if name not in state)

        def accuracy(selection: Selection = selection, values: dict = values) -> float:
            tensors = {k: replace(t, data=values.get(k, t.data)) for k, t in selection.graph.tensors.items()}
            out = evaluate(replace(selection.graph, tensors=tensors), {selection.graph.inputs[0]: stored[500:1100]})
            return float(np.mean(next(iter(out.values())).argmax(1) == y[500:1100]))

        right[precision] = [accuracy()]
        asked = replace(step, outputs=tuple(updates.values()))
        for count in range(500):
            tensors = {k: replace(t, data=values[k]) if k in selection.trained else t for k, t in step.tensors.items()}
            given = {name: values[name] for name in state} | {taken: stored[count], aim: np.array([y[count] * one])}
            given[scalar] = np.int32(count) if precision == "int8" else np.float32(lr)
            found = evaluate(replace(asked, tensors=tensors), given)
            values |= {old: found[new] for old, new in updates.items()}
        right[precision].append(accuracy())
    print(right)
    assert right["int8"][1] >= right["float32"][1] - 0.02
    assert right["int8"][1] >= right["int8"][0] + 0.05


def net() -> Graph:
    """A quantised net of two dense layers."""
    r = np.random.default_rng(0)
    base = MLPClassifier((6,), max_iter=5, random_state=0).fit(r.normal(size=(40, 5)), np.arange(40) % 3)
    return mt.quantize(mt.load(base), r.normal(size=(40, 5)))


def test_the_last_dense_layer_keeps_its_sums() -> None:
    graph = float_output(without_final(net(), loss_of("cross_entropy")))
    found = select(graph, mt.Bias(), "int8").graph  # the weights are as they were
    assert [node.op for node in found.nodes] == ["dense_int8", "dense_int8_logits"]
    x = np.random.default_rng(1).integers(-128, 128, (50, 5)).astype(np.int8)
    real = evaluate(graph, {graph.inputs[0]: x})[graph.outputs[0]]
    kept = evaluate(found, {found.inputs[0]: x})[found.outputs[0]] / 65536
    q = graph.tensor(graph.nodes[-1].inputs[0]).quantization
    assert q is not None
    inside = np.abs(real / q.scale + q.zero_point) < 127
    # half a step of int8, of which a dense layer is rounded to the nearest, and the rounding of the output
    assert np.all(np.abs(real - kept)[inside] <= q.scale * 0.5001 + 2.0**-16)


def test_programs_hold_no_float() -> None:
    loss = loss_of("cross_entropy")
    graph = float_output(without_final(net(), loss))
    selection = select(graph, mt.Head(1), "int8")
    programs = compile_programs(selection.graph, selection.trained, loss, mt.SGD(momentum=0.5))
    for program in (programs.backbone, programs.head, programs.step):
        assert program is not None and dtypes(program.graph) <= {"int8", "int16", "int32"}
    assert [each.dtype for each in programs.state] == ["int8", "int16", "int32"]
    assert programs.rounds


def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    loss = loss_of("cross_entropy")
    stored = float_output(without_final(net(), loss))
    with pytest.raises(PlanError, match=r"LoRA.*precision='float32'"):
        select(stored, mt.LoRA(1), "int8")
    r = np.random.default_rng(0)
    base = MLPClassifier((6,), max_iter=5, random_state=0).fit(r.normal(size=(40, 5)), np.arange(40) % 3)
    with pytest.raises(PlanError, match=r"computes in float32.*precision='mixed'"):
        select(without_final(mt.load(base), loss), mt.Full(), "int8")
    selection = select(stored, mt.Full(), "int8")
    with pytest.raises(PlanError, match=r"SGD.*clip"):
        training_step(selection.graph, selection.trained, loss, mt.SGD(clip=1.0))
    with pytest.raises(PlanError, match="SGD"):
        training_step(selection.graph, selection.trained, loss, mt.Adam())
    # the hidden layer twice: what it learns would come from two places
    first, last = stored.nodes[0], stored.nodes[1]
    square = replace(stored, nodes=(first, replace(first, name="again", outputs=(last.output,)), *stored.nodes[2:]))
    with pytest.raises(PlanError, match="shared by 2 layers"):
        select(square, mt.Full(), "int8")
    with pytest.raises(PlanError, match="softmax may only be the end, with loss='cross_entropy'"):
        select(float_output(net()), mt.Full(), "int8")
    for precision, advice in (("int8", "a model that is not quantised"), ("float32", "use a float model, or RLS")):
        with pytest.raises(PlanError, match=advice):
            mt.plan(net(), optimizer=mt.Bayes(), precision=precision)
    asked = {
        "NAME_select_profile": mt.Learner(profiles=2, recognise=True),
        "leave contexts out": mt.Learner(contexts=(mt.Context(0, (0.0,)),)),
        "leave sensors out": mt.Learner(sensors=True),
    }
    x = np.zeros((64, 5), np.float32)
    for advice, learner in asked.items():
        with pytest.raises(PlanError, match=advice):
            mt.plan(net(), loss="cross_entropy", learner=learner, precision="int8", calibration=x)


def test_weights_that_learn_have_room_to_grow() -> None:
    """The largest weight of a channel is stored as 127, where it could only shrink: what learns counts in steps twice
    as large, and computes the same to half of such a step of each weight."""
    digits = load_digits()
    net = MLPClassifier((8,), max_iter=5, random_state=0).fit(digits.data, digits.target)
    graph = without_final(mt.quantize(mt.load(net), calibration=digits.data[:200]), loss_of("cross_entropy"))
    selected = select(graph, mt.Head(1), "int8").graph
    layer = next(node for node in graph.nodes if node.name == "output")
    before, after = (each.tensor(layer.inputs[1]) for each in (graph, selected))
    assert before.data is not None and after.data is not None and before.quantization and after.quantization
    assert (np.abs(before.data).max(axis=1) == 127).all() and np.abs(after.data).max() <= 64
    np.testing.assert_array_equal(after.quantization.scale, 2 * before.quantization.scale)
    moved = after.data * after.quantization.scale[:, None] - before.data * before.quantization.scale[:, None]
    assert np.abs(moved).max() <= 0.5001 * after.quantization.scale.max()
    frozen = next(node for node in graph.nodes if node.name == "hidden1").inputs[1]
    np.testing.assert_array_equal(graph.tensor(frozen).data, selected.tensor(frozen).data)


def test_constants_that_another_layer_reads_stay_as_they_are() -> None:
    graph = float_output(without_final(net(), loss_of("cross_entropy")))
    first = graph.nodes[0]
    beside = replace(first, name="beside", outputs=("beside",))
    other = replace(graph.tensor(first.output), name="beside")
    shared = replace(graph, outputs=(*graph.outputs, "beside")).with_nodes([*graph.nodes, beside], [other])
    assert _with_room(graph, first) is not graph
    assert _with_room(shared, first) is shared
