"""What can be planned, and what is refused with a sentence that helps (SPEC B1, B4, B5)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import microtune as mt
from microtune.errors import BudgetError, BuildError, PlanError


def test_memory_is_the_sum_of_what_the_device_holds(net: Any) -> None:
    plan = mt.plan(net([4, 16, 1]), mt.Full(), "mse", mt.SGD(), mt.Learner(buffer=50))
    assert plan.memory.parameters == 4 * (4 * 16 + 16 + 16 + 1)
    assert plan.memory.buffers == 50 * 4 * (4 + 2)  # cut, target, time
    assert plan.memory.optimizer == 0
    assert plan.memory.ram > plan.memory.parameters + plan.memory.buffers + plan.memory.arena + plan.memory.stack
    assert plan.memory.arena == max(span.offset + span.bytes for span in plan.memory.timeline)
    assert plan.memory.arena >= plan.memory.bound


def test_what_a_refused_budget_offers_does_fit(net: Any) -> None:
    graph = net([8, 16, 1])
    full = mt.plan(graph, mt.Full(), learner=mt.Learner(buffer=200)).memory
    limit = full.ram - 1000
    with pytest.raises(BudgetError) as caught:
        mt.plan(graph, mt.Full(), learner=mt.Learner(buffer=200), budget=mt.Budget(ram=limit))
    text = str(caught.value)
    assert f"{full.ram} bytes of RAM of {limit} (1000 too many)" in text
    offers = re.findall(r"(?:learn=(\S+) with )?buffer=(\d+) \((\d+) bytes of RAM, (\d+) of flash\)", text)
    assert offers
    for scheme, buffer, ram, flash in offers:
        chosen = eval(scheme, vars(mt)) if scheme else mt.Full()
        learner = mt.Learner(buffer=int(buffer))
        fitting = mt.plan(graph, chosen, learner=learner, budget=mt.Budget(ram=limit)).memory
        assert (fitting.ram, fitting.flash) == (int(ram), int(flash))


def test_a_refused_budget_offers_fewer_people_and_a_smaller_past(net: Any) -> None:
    graph = net([4, 4, 1])
    learner = mt.Learner(buffer=20, replay=40, profiles=3, recognise=True, contexts=[mt.Context(0, [0.0])])
    least = mt.plan(graph, learner=mt.Learner(buffer=10)).memory
    offer = r"buffer=10, replay=0, contexts=\(\), profiles=1, recognise=False \("
    with pytest.raises(BudgetError, match=offer) as caught:
        mt.plan(graph, learner=learner, budget=mt.Budget(ram=least.ram))
    assert f"({least.ram} bytes of RAM, {least.flash} of flash)" in str(caught.value)
    three = mt.plan(graph, learner=mt.Learner(buffer=10, replay=40, profiles=3)).memory
    with pytest.raises(BudgetError, match=r"Would fit: replay=0 \(.*; profiles=1 \("):
        mt.plan(graph, learner=mt.Learner(buffer=10, replay=40, profiles=3), budget=mt.Budget(ram=three.ram - 500))


def test_a_model_that_was_not_loaded_is_refused() -> None:
    with pytest.raises(PlanError, match=r"a object cannot be planned as it is: mt.plan\(mt.load\(model\), ...\)"):
        mt.plan(object())  # type: ignore[arg-type]  # the mistake that is tested


def test_a_hopeless_budget_says_so(net: Any) -> None:
    with pytest.raises(BudgetError, match=r"bytes of RAM of 100 .*bytes of flash of 200 .*Nothing smaller fits"):
        mt.plan(net([4, 4, 1]), budget=mt.Budget(ram=100, flash=200))


def test_a_budget_that_is_met_exactly_is_enough(net: Any) -> None:
    graph = net([4, 4, 1])
    need = mt.plan(graph).memory
    assert mt.plan(graph, budget=mt.Budget(ram=need.ram, flash=need.flash)).memory == need
    with pytest.raises(BudgetError, match=r"1 too many"):
        mt.plan(graph, budget=mt.Budget(flash=need.flash - 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "mae"}, r"unknown loss 'mae'. Known: mse, huber, binary_cross_entropy, cross_entropy"),
        ({"learn": "head"}, r"unknown update scheme 'head'. Known: Full\(\)"),
        ({"learn": mt.Head(3)}, r"Head\(layers=3\).*has 2 such layers; use 1 to 2"),
        ({"learn": mt.Head(0)}, r"use 1 to 2"),
        ({"learn": mt.LoRA(4)}, r"LoRA\(rank=4\).*the rank must be below 4"),
        ({"learn": mt.LoRA(0)}, r"rank must be at least 1"),
        ({"precision": "float16"}, r"unknown precision 'float16'. Known: 'float32'"),
        ({"inputs": [mt.Input("a")]}, r"1 inputs are described, but the model takes 4"),
        ({"learner": mt.Learner(fallback=[1.0, 2.0])}, r"fallback=...\) has 2 values, the model has 3 outputs"),
        ({"optimizer": mt.RLS(), "learn": mt.Full()}, r"RLS learns the last dense layer.*learn=Head\(1\)"),
        ({"optimizer": mt.RLS(), "loss": "huber"}, r"RLS.*loss='mse'"),
        ({"optimizer": "sgd"}, r"optimizer='sgd': write it as optimizer=SGD\(lr=0.05\)"),
        ({"learner": {"buffer": 9}}, r"write it as learner=Learner\(buffer=100\)"),
        ({"budget": "64KB"}, r"write it as budget=Budget\(ram='64KB'\)"),
        ({"inputs": [mt.Input(name) for name in "abca"]}, r"2 inputs are called 'a'"),
        ({"inputs": list("abcd")}, r"described by Input\(name, low, high, unit\), not by 'a'"),
    ],
)
def test_contradictions_are_explained(net: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        mt.plan(net([4, 5, 3]), **arguments)


def test_cross_entropy_needs_classes(net: Any) -> None:
    with pytest.raises(PlanError, match="use binary_cross_entropy"):
        mt.plan(net([4, 1]), loss="cross_entropy")


def test_a_final_softmax_belongs_to_the_cross_entropy(net: Any) -> None:
    graph = net([4, 5, 3], ["relu", "softmax"])
    assert mt.plan(graph, loss="cross_entropy").programs.head.graph.nodes[-1].op == "dense"
    with pytest.raises(PlanError, match="ends in softmax, which goes with cross_entropy"):
        mt.plan(graph, loss="binary_cross_entropy")


def test_a_layer_without_a_bias_is_given_one(net: Any) -> None:
    graph = net([4, 5, 3], bias=False)
    assert mt.plan(graph, mt.Bias()).memory.parameters == 4 * (5 + 3)


def test_more_outputs_than_the_device_can_count_are_refused(net: Any) -> None:
    """The C counts outputs in 16 bits."""
    with pytest.raises(PlanError, match="65535"):
        mt.plan(net([1, 65536]), mt.Full())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mt.SGD(lr=0), "lr must be above 0"),
        (lambda: mt.SGD(momentum=1.0), "momentum must be in 0 to 1"),
        (lambda: mt.Adam(beta2=1.0), "betas must be in 0 to 1"),
        (lambda: mt.RMSProp(clip=-1), "clip must not be negative"),
        (lambda: mt.RLS(forgetting=0), "forgetting must be in 0 to 1"),
        (lambda: mt.Huber(0), "delta must be above 0"),
        (lambda: mt.Learner(buffer=0), "must be 1 to 65535"),
        (lambda: mt.Learner(every=11, buffer=10), "needs more samples than are kept"),
        (lambda: mt.Learner(folds=1), "at least 2 folds"),
        (lambda: mt.Input("dial", 10, 1), "low 10 must be below high 1"),
        (lambda: mt.Budget(ram="lots"), "cannot read 'lots' as a size"),
        (lambda: mt.Budget(ram=0), "above 0"),
    ],
)
def test_settings_out_of_range_are_explained(make: Any, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("text", "size"), [("128KB", 131072), ("1.5 MB", 1572864), ("64 kib", 65536), (7, 7), ("9", 9)]
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert mt.Budget(ram=text).ram_bytes == size


def test_build_leaves_foreign_directories_alone(net: Any, tmp_path: Path) -> None:
    plan = mt.plan(net([2, 1]))
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.png").write_bytes(b"meow")
    with pytest.raises(BuildError, match="is not a microtune package"):
        mt.build(plan, foreign)
    assert (foreign / "cat.png").read_bytes() == b"meow" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(BuildError, match="cannot name a device"):
        mt.build(plan, tmp_path / "my toaster")
    first = mt.build(plan, tmp_path / "toaster")
    again = mt.build(plan, tmp_path / "toaster")
    assert first.manifest == again.manifest
    assert mt.open_package(tmp_path / "toaster").manifest == again.manifest


def test_open_package_explains_what_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"has no manifest\.json"):
        mt.open_package(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BuildError, match="cannot be read"):
        mt.open_package(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(BuildError, match="format 99"):
        mt.open_package(tmp_path)
