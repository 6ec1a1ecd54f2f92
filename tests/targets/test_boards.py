"""Boards can be named like cores, are described truthfully in docs/targets.md, and refuse what does not fit them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

import microtune as mt
from microtune.targets import Target, boards, qemu, target, targets
from microtune.targets.size import image_size

PAGE = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section of the page."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `.*$", section, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_the_catalogue() -> None:
    assert rows("Cores and platforms") == [[each.name, each.description] for each in targets()]
    memory = [(each, each.board) for each in boards() if each.board]
    assert rows("Boards") == [
        [each.name, board.title, board.chip, board.core, f"{board.flash // 1024:,} KB", f"{board.ram // 1024:,} KB",
         f"{board.megahertz:g} MHz"]
        for each, board in memory
    ]  # fmt: skip
    assert rows("On a second emulator") == [[core, board.machine] for core, board in qemu.BOARDS.items()]


def test_a_board_is_its_core_with_memory() -> None:
    assert len(boards()) >= 11 and {each.name for each in boards()}.isdisjoint(each.name for each in targets())
    for each in boards():
        assert target(each.name) == each and each.board is not None
        assert each.board.ram < each.board.flash and 10e6 <= each.board.hertz <= 1e9
        if each.kind != "source":
            core = target(each.core)
            assert each.compile_flags == core.compile_flags and each.emulated_cpu == core.emulated_cpu
            assert core.board is None and each.image and each.kind == core.kind


@pytest.fixture(scope="module")
def plan() -> mt.Plan:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    base = MLPRegressor(hidden_layer_sizes=[4], max_iter=5, random_state=0).fit(x, x[:, 0])
    return mt.plan(mt.load(base), mt.Head(1), learner=mt.Learner(buffer=8, every=4))


def smaller(name: str, **limits: int) -> Target:
    """A board with little memory."""
    chosen = target(name)
    assert chosen.board is not None
    return replace(chosen, board=replace(chosen.board, **limits))


@pytest.mark.parametrize("name", ["microbit-v1", "esp32-c3", "esp32-s3"])
def test_what_does_not_fit_is_refused_by_how_much(name: str, plan: mt.Plan, tmp_path: Path) -> None:
    package = mt.build(plan, tmp_path / "lamp", targets=[name])
    built = package.manifest["targets_built"][name]
    assert ("file" in built) == (name != "esp32-s3")
    ram = plan.memory.ram - plan.memory.stack + built["stack"]
    for what, limit, need in (("ram", "RAM", ram), ("flash", "flash", built["flash"])):
        mt.build(plan, tmp_path / "lamp", targets=[smaller(name, **{what: need})])
        said = rf"on {name} the package takes {need} bytes of {limit}; the board has {need - 7} \(7 too many\)"
        with pytest.raises(mt.BudgetError, match=said):
            mt.build(plan, tmp_path / "other", targets=[smaller(name, **{what: need - 7})])
    assert not (tmp_path / "other").exists()


def test_a_network_that_does_not_fit_is_refused_too(plan: mt.Plan, tmp_path: Path) -> None:
    network = mt.compile_inference(plan.graph, tmp_path / "net", targets=["nano-33-ble"])
    flash = image_size(network.directory / "lib" / "nano-33-ble.elf").flash
    said = rf"on nano-33-ble the network takes {flash} bytes of flash.*\(1 too many\)"
    with pytest.raises(mt.BudgetError, match=said):
        mt.compile_inference(plan.graph, tmp_path / "net", targets=[smaller("nano-33-ble", flash=flash - 1)])
    with pytest.raises(mt.BudgetError, match=r"the network takes \d+ bytes of RAM; the board has 8 "):
        mt.compile_inference(plan.graph, tmp_path / "net", targets=[smaller("nano-33-ble", ram=8)])


def test_a_real_board_refuses_a_buffer_that_is_too_large(tmp_path: Path, plan: mt.Plan) -> None:
    large = mt.plan(plan.graph, mt.Head(1), learner=mt.Learner(buffer=2000, every=5))
    with pytest.raises(mt.BudgetError, match=r"on microbit-v1 the package takes \d+ bytes of RAM; the board has 16384"):
        mt.build(large, tmp_path / "lamp", targets=["microbit-v1"])
