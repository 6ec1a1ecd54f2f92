"""The picture and the table of the memory say what the plan says (SPEC B4)."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

from rich.console import Console

from microtune.compiler.passes.memory import Arena
from microtune.compiler.picture import memory_picture, memory_table, peak_of, plan_picture, plan_tables, spaced
from microtune.compiler.plan import plan
from microtune.compiler.program import Program
from microtune.ir import Graph
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

from .random_plans import random_plan

SVG = "{http://www.w3.org/2000/svg}"
TIP = re.compile(r"(.+): ([\d ]+) bytes at ([\d ]+), nodes (\d+) to (\d+)")


def a_step(net: Any) -> Program:
    step = plan(net([16, 32, 24, 4]), Full(), "mse", SGD()).programs.step
    assert step is not None
    return step


def drawn(image: str) -> list[tuple[str, list[int], list[float]]]:
    """Names, numbers and rectangle (left, top, right, bottom) of every buffer in a picture."""
    found = []
    for rectangle in ElementTree.fromstring(image).iter(f"{SVG}rect"):
        tip = rectangle.find(f"{SVG}title")
        if tip is not None:
            match = TIP.fullmatch(tip.text or "")
            assert match, tip.text
            numbers = [int(part.replace(" ", "")) for part in match.groups()[1:]]
            left, top, wide, high = (float(rectangle.get(key, "nan")) for key in ("x", "y", "width", "height"))
            found.append((match.group(1), numbers, [left, top, left + wide, top + high]))
    return found


def test_every_buffer_is_drawn_where_it_lies(net: Any) -> None:
    step = a_step(net)
    found = drawn(memory_picture([("step", step)]))
    want = {(" > ".join(each.tensors), each.bytes, each.offset, each.first, each.last) for each in step.arena.buffers}
    assert {(name, *numbers) for name, numbers, _ in found} == want
    for _, (size, _, first, last), (left, top, right, bottom) in found:
        # one scale for all
        assert abs((right - left) / (last + 1 - first) - 960 / len(step.graph.nodes)) < 0.02
        assert abs((bottom - top) / size - 300 / step.arena.bytes) < 0.02


def test_no_two_rectangles_overlap(net: Any) -> None:
    rectangles = [place for *_, place in drawn(memory_picture([("step", a_step(net))]))]
    for index, (left, top, right, bottom) in enumerate(rectangles):
        for other in rectangles[:index]:
            beside = left >= other[2] - 0.05 or other[0] >= right - 0.05
            assert beside or top >= other[3] - 0.05 or other[1] >= bottom - 0.05


def test_colours_for_light_and_dark_and_nothing_from_outside(net: Any) -> None:
    image = memory_picture([("a < b & c", a_step(net))])
    assert "prefers-color-scheme: dark" in image and "a &lt; b &amp; c" in image
    assert "http" not in image.replace("http://www.w3.org/2000/svg", "")
    assert image == memory_picture([("a < b & c", a_step(net))])


def test_the_bound_and_the_peak_are_named(net: Any) -> None:
    step = a_step(net)
    peak = peak_of(step.arena)
    assert peak is not None and peak.bytes == step.arena.bound == sum(each.bytes for each in peak.buffers)
    image = memory_picture([("step", step)])
    assert f"lower bound {spaced(step.arena.bound)}" in image
    assert f"most alive at node {peak.step}: {step.graph.nodes[peak.step].op}" in image


def as_text(table: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_lists_the_largest_and_marks_the_peak(net: Any) -> None:
    step = a_step(net)
    text = as_text(memory_table(step, "training step", rows=3))
    largest = sorted(step.arena.buffers, key=lambda each: (-each.bytes, each.first))[:3]
    for buffer in largest:
        assert buffer.tensors[0] in text
    peak = peak_of(step.arena)
    assert peak is not None and text.count("●") == sum(each in peak.buffers for each in largest)
    assert f"{len(step.arena.buffers) - 3} more" in text and f"node {peak.step}" in text


def test_plans_of_every_kind_have_a_picture() -> None:
    for seed in range(20):
        made = random_plan(seed)
        image = plan_picture(made)
        ElementTree.fromstring(image)
        assert image.count('class="title"') == as_text(plan_tables(made)).count(f"{made.graph.name}: ")


def test_no_memory_no_failure() -> None:
    nothing = Program(Graph("empty", {}, (), (), ()), Arena((), 0, 0))
    ElementTree.fromstring(memory_picture([("empty", nothing)]))
    assert "no memory" in as_text(memory_table(nothing, "empty"))
