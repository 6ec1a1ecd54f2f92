"""Where it is known what must learn, the search finds it; budgets are obeyed; ``Auto`` plans what was picked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

import microtune as mt
from microtune import choices
from microtune.cli import app
from microtune.errors import BudgetError, PlanError
from microtune.ir import Graph
from microtune.search.frontier import LeftOut, Point
from microtune.search.picture import frontier_picture
from microtune.search.trial import IN_PLACE

from .networks import renamed, shifted, two_layers, write_onnx

WEIGHTS = two_layers()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(WEIGHTS, tmp_path_factory.mktemp("model") / "person.onnx")


@pytest.fixture(scope="module")
def graph(model: Path) -> Graph:
    return mt.load(model)


@pytest.fixture(scope="module")
def after_shift(graph: Graph) -> mt.Frontier:
    """Of a person with a shifted sensor, without a budget."""
    return mt.search(graph, shifted(WEIGHTS), epochs=6, optimizer=mt.SGD(lr=0.02))


def accuracies(found: mt.Frontier) -> dict[str, float]:
    trained = [*found.points, *(each for each in found.left_out if each.accuracy is not None)]
    return {each.name: each.accuracy for each in trained if each.accuracy is not None}


def test_a_shifted_input_wants_early_layers(after_shift: mt.Frontier) -> None:
    """Its biases can take the shift back exactly; the last layer alone cannot."""
    right = accuracies(after_shift)
    assert after_shift.base < 0.6 and right["bias"] > 0.75 and right["bias"] > right["head:1"] + 0.03
    assert after_shift.best.accuracy > right["head:1"]
    assert choices.scheme_text(after_shift.best.scheme) != "head:1"


def test_other_classes_want_a_head(graph: Graph) -> None:
    """What a head learns as well is not bought with more RAM than it needs."""
    found = mt.search(
        graph, renamed(WEIGHTS), epochs=6, optimizer=mt.SGD(lr=0.02), budget=mt.Budget(ram="16KB", flash="64KB")
    )
    right = accuracies(found)
    assert found.base < 0.1 and right["head:1"] > 0.8
    assert found.best.ram <= min(each.ram for each in found.points if each.accuracy >= right["head:1"])
    assert right["head:1"] > right["bias"] + 0.3
    assert all(each.ram <= 16 * 1024 and each.flash <= 64 * 1024 for each in found.points)


def test_figures_are_those_of_the_plan_itself(graph: Graph, after_shift: mt.Frontier) -> None:
    best = after_shift.best
    memory = mt.plan(graph, best.scheme, "cross_entropy", best.optimizer, IN_PLACE).memory
    assert (best.ram, best.flash) == (memory.ram, memory.flash)
    assert best.instructions is not None and 500 < best.instructions < 1_000_000
    assert best.rate in [pytest.approx(0.02 * factor) for factor in (0.008, 0.04, 0.2, 1, 5)]


def test_nothing_on_the_frontier_is_beaten(after_shift: mt.Frontier) -> None:
    line = after_shift.frontier
    assert line and list(line) == sorted(line, key=lambda each: each.ram)
    for point in line:
        assert not any(
            each.accuracy >= point.accuracy and each.ram < point.ram for each in after_shift.points if each is not point
        )
    for each in after_shift.left_out:
        if each.accuracy is not None and each.excess == 0 and each.ram is not None:
            assert any(point.accuracy >= each.accuracy and point.ram <= each.ram for point in after_shift.points)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (mt.Budget(ram=300), "bytes of RAM or more of 300"),
        (mt.Budget(ram=1280, instructions=100), "instructions a step of 100"),
    ],
)
def test_when_nothing_fits_the_nearest_is_named(graph: Graph, budget: mt.Budget, says: str) -> None:
    x, y = shifted(WEIGHTS, 40)
    found = mt.search(graph, (x, y), epochs=1, budget=budget)
    over = [each for each in found.left_out if each.excess > 0]
    assert not found.points and over and all(each.excess > 1 for each in over)
    with pytest.raises(BudgetError) as error:
        _ = found.best
    nearest = min(over, key=lambda each: each.excess)
    assert says in str(error.value) and nearest.name in str(error.value)
    assert ElementTree.fromstring(frontier_picture(found)).tag.endswith("svg")


def test_auto_plans_what_fits_with_its_buffer(graph: Graph) -> None:
    budget = mt.Budget(ram="5KB")
    data = renamed(WEIGHTS, 80)
    plan = mt.plan(graph, mt.Auto(budget, data=data, epochs=1), loss="cross_entropy", learner=mt.Learner(buffer=20))
    assert plan.memory.ram <= 5 * 1024 and plan.learner.buffer == 20 and plan.budget == budget
    with pytest.raises(PlanError, match=r"give it data"):
        mt.plan(graph, mt.Auto(budget), loss="cross_entropy")


def test_time_is_bounded(graph: Graph) -> None:
    """Once one scheme has been found, the others wait for another day."""
    found = mt.search(graph, renamed(WEIGHTS, 80), epochs=1, seconds=1e-3)
    assert len(found.points) == 1 and any("no time left" in each.reason for each in found.left_out)


def test_what_cannot_be_searched(graph: Graph) -> None:
    with pytest.raises(PlanError, match="gradient steps"):
        mt.search(graph, renamed(WEIGHTS), optimizer=mt.RLS())
    with pytest.raises(PlanError, match="held_out"):
        mt.search(graph, renamed(WEIGHTS), held_out=1.0)


def test_the_pick_is_what_one_error_cannot_tell_from_the_best() -> None:
    def point(ram: int, wrong: int) -> Point:
        right = np.r_[np.zeros(wrong), np.ones(100 - wrong)]
        return Point(mt.Head(), "float32", right.mean(), ram, 1, None, 1, mt.SGD(), tuple(right))

    def pick(*points: Point) -> int:
        return mt.Frontier(points, 0.0, 100, mt.Budget(), ()).best.ram

    assert pick(point(3, 10), point(2, 11), point(1, 30)) == 3  # 1 of 100 apart, with an error of 0.995 of 100
    assert pick(point(3, 10), point(2, 10), point(1, 30)) == 2
    assert pick(point(1, 0)) == 1
    with pytest.raises(BudgetError, match="diverges"):
        _ = mt.Frontier((), 0.0, 1, mt.Budget(), (LeftOut(mt.Head(), "float32", "diverges"),)).best


def test_the_picture_shows_every_point_and_the_pick(after_shift: mt.Frontier) -> None:
    root = ElementTree.fromstring(frontier_picture(after_shift, "a <person>"))
    space = "{http://www.w3.org/2000/svg}"
    circles = [each for each in root.iter(f"{space}circle") if each.find(f"{space}title") is not None]
    tips = [each.find(f"{space}title").text or "" for each in circles]  # type: ignore[union-attr]
    for each in after_shift.points:
        assert sum(tip.startswith(f"{each.name}: ") for tip in tips) == 1
    rings = [each for each in root.iter(f"{space}circle") if each.get("class") == "ring"]
    assert len(rings) == 2  # in the legend and around the pick
    assert next(root.iter(f"{space}text")).text == "a <person>"
    assert [each.text for each in root.iter(f"{space}text") if each.get("class") == "picked"]
    line = next(root.iter(f"{space}polyline")).get("points") or ""
    assert len(line.split(",")) == len(after_shift.frontier)
    assert "prefers-color-scheme: dark" in (root.find(f"{space}style").text or "")  # type: ignore[union-attr]


def test_the_command_picks_what_build_takes(model: Path, tmp_path: Path) -> None:
    data, picture = tmp_path / "samples.npz", tmp_path / "frontier.svg"
    x, y = renamed(WEIGHTS, 80)
    np.savez(data, x=x, y=y)
    options = ["--data", str(data), "--epochs", "1", "--buffer", "10", "--ram", "4KB", "--instructions", "9000"]
    quick = ["--data", str(data), "--seconds", "0.001", "--picture", str(picture)]
    shown = CliRunner().invoke(app, ["search", str(model), *quick])
    assert shown.exit_code == 0, shown.output
    assert "Left out" in shown.output and "no time left" in shown.output and "--learn head:1" in shown.output
    assert "learn=mt.Head(layers=1)" in shown.output
    assert shown.stdout.count("no time left") == 1 and re.search(r"\d+ more .*no time left; --seconds", shown.stdout)
    base, right = (
        float(re.search(text, shown.output)[1]) for text in (r"as it is: ([\d.]+) %", r"Pick: .*, ([\d.]+) %")
    )  # type: ignore[index]
    assert ("the model as it is, learning nothing, is righter" in shown.stdout) == (base > right)
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    result = CliRunner().invoke(app, ["search", str(model), *options, "--json"])
    found = json.loads(result.stdout)
    best = found["best"]
    assert best["ram"] <= 4096 and best["instructions"] <= 9000
    given = best["command"].split()
    planned = CliRunner().invoke(
        app, ["plan", str(model), "--loss", "cross_entropy", "--buffer", "10", "--ram", "4KB", *given, "--json"]
    )
    assert planned.exit_code == 0 and json.loads(planned.stdout)["ram"] == best["ram"]
    (tmp_path / "bad.npz").write_text("no samples")
    refused = CliRunner().invoke(app, ["search", str(model), "--data", str(tmp_path / "bad.npz")])
    assert refused.exit_code == 1 and "is not an .npz file" in refused.output and "Traceback" not in refused.output


@pytest.mark.parametrize(
    "scheme",
    [
        mt.Full(), mt.Head(2), mt.Bias(), mt.NormAffine(), mt.Adapter(3), mt.Adapter(3, layers=1), mt.LoRA(2),
        mt.LoRA(2, alpha=4.0, layers=1), mt.LoRA(1, tensors=(0, "late")), mt.Sparse({0: slice(2, 4), "late": 0.5}),
        mt.Sparse({1: slice(0, 8)}, biases_from=2), mt.Sparse({}, biases_from="late"),
    ],
)  # fmt: skip
def test_schemes_as_text_and_as_python(scheme: object) -> None:
    assert choices.scheme(choices.scheme_text(scheme)) == scheme  # type: ignore[arg-type]
    assert eval(choices.python_text(scheme), {"mt": mt}) == scheme


@pytest.mark.parametrize("text", ["lora:2,size=3", "lora:2,alpha", "head:1,layers=2", "sparse:0=1:x", "adapter:x"])
def test_texts_that_are_no_scheme(text: str) -> None:
    with pytest.raises(PlanError):
        choices.scheme(text)
