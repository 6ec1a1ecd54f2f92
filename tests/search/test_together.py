"""Forms of a net and update schemes searched together: one budget, one frontier, equal shares of the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import microtune as mt
from microtune.cli import app
from microtune.errors import BudgetError, PlanError
from microtune.ir import Graph
from microtune.search import auto, command, run
from microtune.search.picture import frontier_figures, frontier_picture, frontier_tables
from microtune.search.trial import IN_PLACE
from microtune.search.variants import fixed_costs, load_models, named
from microtune.tuning.losses import loss_of

from .networks import renamed, two_layers, write_onnx

WEIGHTS = two_layers(inputs=60, hidden=200)
DATA = renamed(WEIGHTS, 200)
FEW: list[tuple[Any, str]] = [(mt.Head(1), "float32"), (mt.Bias(), "float32")]


@pytest.fixture(scope="module", autouse=True)
def few_candidates() -> Iterator[None]:
    """Two schemes on each model: what is tested is how models share a search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "candidates", lambda graph, measured, fits: list(FEW))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a float net and its pruned form, as a recipe leaves them."""
    folder = tmp_path_factory.mktemp("shrunk")
    write_onnx(WEIGHTS, folder / "float.onnx")
    early = np.where(np.abs(WEIGHTS["w1"]) > np.quantile(np.abs(WEIGHTS["w1"]), 0.8), WEIGHTS["w1"], 0)
    write_onnx({**WEIGHTS, "w1": early.astype("f4")}, folder / "pruned.onnx")
    return folder


@pytest.fixture(scope="module")
def models(files: Path) -> dict[str, Graph]:
    found = load_models([files])
    assert isinstance(found, dict) and list(found) == ["float", "pruned"]
    return found


@pytest.fixture(scope="module")
def together(models: dict[str, Graph]) -> tuple[mt.Frontier, list[str]]:
    said: list[str] = []
    budget = mt.Budget(flash="44KB")
    found = mt.search(models, DATA, budget=budget, epochs=1, progress=lambda text, point: said.append(text))
    return found, said


def test_every_form_is_judged_before_and_after(together: tuple[mt.Frontier, list[str]]) -> None:
    found, said = together
    assert list(found.models) == ["float", "pruned", "float int8", "pruned int8"]
    assert set(found.bases) == {"pruned", "float int8", "pruned int8"} and found.base == max(found.bases.values())
    assert {each.model for each in found.points} <= set(found.bases)
    for point in found.points:
        assert point.base == found.bases[point.model] and point.name.startswith(f"{point.model} > ")
        assert point.flash <= 44 * 1024
    tried = {each.name for each in (*found.points, *found.left_out) if each.scheme is not None}
    assert tried == {f"{model} > {scheme}" for model in found.bases for scheme in ("head:1", "bias")}
    # the model that had the least time is next: each has its first before one has its second
    order = [text.partition(" > ")[0] for text in said if " > " in text]
    assert set(order[:3]) == set(found.bases)
    assert order[:3] == sorted(order[:3], key=lambda name: -found.bases[name]), "what is righter as it is begins"


def test_a_form_whose_weights_are_over_the_budget_is_not_even_measured(
    together: tuple[mt.Frontier, list[str]], models: dict[str, Graph]
) -> None:
    found, said = together
    gone = next(each for each in found.left_out if each.scheme is None)
    costs = fixed_costs(models["float"], loss_of("cross_entropy"))
    assert gone.name == "float" and gone.excess == costs.flash / (44 * 1024) > 1
    assert f"needs {costs.flash:,} bytes of flash for its weights alone of 45,056" in gone.reason
    assert not any(text.startswith("float as it is") for text in said)
    assert costs.flash >= sum(each.nbytes for each in WEIGHTS.values())
    # exactly as much is not too much
    assert costs.over(mt.Budget(ram=costs.ram, flash=costs.flash)) is None
    # stored without its zeros, the pruned one fits
    assert fixed_costs(models["pruned"], loss_of("cross_entropy")).flash < 44 * 1024


def test_nothing_fits_and_the_nearest_form_is_named(models: dict[str, Graph]) -> None:
    found = mt.search(models, DATA, budget=mt.Budget(flash=5000), quantized=False)
    assert not found.points and {each.name for each in found.left_out} == {"float", "pruned"}
    with pytest.raises(BudgetError, match="The nearest, pruned, needs"):
        _ = found.best


def test_the_figures_the_tables_and_the_picture_say_which_form(together: tuple[mt.Frontier, list[str]]) -> None:
    found = together[0]
    figures = frontier_figures(found)
    assert figures["best"]["model"] == found.best.model and figures["best"]["base"] == found.best.base
    assert figures["bases"] == dict(found.bases)
    assert {"model": "float", "learn": None}.items() <= figures["left_out"][0].items()
    assert len(frontier_tables(found).renderables) == 2
    long = replace(found.best, model="prune-43.75-again-ptq", scheme=mt.Sparse({0: slice(2, 4), 1: slice(0, 180)}, 2))
    console = Console(width=80)
    with console.capture() as shown:
        console.print(frontier_tables(replace(found, points=(long,))), crop=False)
    assert all(word in shown.get() for word in ("prune-43.75-again-ptq >", "sparse:0=2:4,", "1=0:180,", "biases=2"))
    root = ElementTree.fromstring(frontier_picture(found))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(found.models) <= set(texts)
    assert any(text and text.endswith(f"as it is, {100 * found.base:.1f} %") for text in texts)


def test_auto_plans_the_form_that_serves_best(
    together: tuple[mt.Frontier, list[str]], models: dict[str, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def found(graphs: Any, data: Any, *_: Any, **more: Any) -> mt.Frontier:
        given.update(more, graphs=graphs)
        return together[0]

    monkeypatch.setattr(auto, "search", found)
    choice = mt.Auto(mt.Budget(flash="44KB"), data=DATA, epochs=1, models={"pruned": models["pruned"]}, quantized=True)
    plan = mt.plan(models["float"], choice, loss="cross_entropy", learner=IN_PLACE)
    assert list(given["graphs"]) == ["as given", "pruned"] and given["quantized"] is True
    assert plan.memory.flash == together[0].best.flash <= 44 * 1024 and plan.scheme == together[0].best.scheme
    # which the model that was given cannot
    assert sum(each.nbytes for each in WEIGHTS.values()) > 44 * 1024


def test_what_are_no_forms_of_one_net(models: dict[str, Graph], files: Path, tmp_path: Path) -> None:
    other = mt.load(write_onnx(two_layers(inputs=5), tmp_path / "other.onnx"))
    with pytest.raises(PlanError, match=r"'other' takes \(5,\) and gives 4 values, 'float' takes \(60,\)"):
        named({"float": models["float"], "other": other})
    with pytest.raises(PlanError, match="graphs by name"):
        named({})
    with pytest.raises(PlanError, match="'float' is a str"):
        named({"float": "float.onnx"})  # type: ignore[dict-item]
    with pytest.raises(PlanError, match="two models are called 'float'"):
        load_models([files, files / "float.onnx"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="holds no model"):
        load_models([tmp_path / "empty"])


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_searches_a_folder(
    together: tuple[mt.Frontier, list[str]], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    data, kept = tmp_path / "samples.npz", tmp_path / "pick.onnx"
    np.savez(data, x=DATA[0], y=DATA[1])
    best = replace(next(each for each in together[0].points if each.model == "float int8"), accuracy=1.0)
    searched: list[Any] = []

    def found(graphs: Any, *_: Any, **__: Any) -> mt.Frontier:
        searched.append(graphs)
        return replace(together[0], points=(replace(best, right=(1.0,) * len(best.right)),))

    monkeypatch.setattr(command, "search", found)
    options = ["--data", str(data), *(["--save", str(kept), "--json"] if as_json else [])]
    result = CliRunner().invoke(app, ["search", str(files), *options])
    assert result.exit_code == 0, result.output
    assert list(searched[0]) == ["float", "pruned"]
    if not as_json:
        assert "--save PICK.onnx keeps it" in result.output and "microtune build PICK.onnx" in result.output
        return
    assert json.loads(result.stdout)["best"]["model"] == "float int8"
    x = DATA[0][:20]
    answers = [
        mt.compile_inference(each, tmp_path / "net").run(x) for each in (mt.load(kept), found({}).models["float int8"])
    ]
    np.testing.assert_array_equal(answers[0].argmax(1), answers[1].argmax(1))
