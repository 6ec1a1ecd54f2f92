"""The memory of a program over time: a picture (SVG) and a table for the terminal.

Bytes of the arena are on the vertical axis, the nodes in the order in which they run on the horizontal one; every
buffer is a rectangle from the node that first writes it to the last that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rich.console import Group
from rich.table import Table
from rich.text import Text

from microtune.compiler.passes.memory import Arena, Buffer
from microtune.compiler.planned import Plan
from microtune.compiler.program import Program
from microtune.ir import Graph
from microtune.ops import loss

WIDTH, HEIGHT = 960, 300  # of a chart, in pixels, without its margins
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 58, 44
LETTER, LINE = 6.2, 11  # width and height of a letter of the labels, in pixels
KINDS = {
    "input": "input",
    "forward": "activation",
    "backward": "gradient",
    "scratch": "workspace of one node",
}
# colours are given twice instead of by variables, which few programs but browsers know
LIGHT = {
    "text": "#1b1f24", "faint": "#57606a", "grid": "#d8dee4", "paper": "#ffffff", "input": "#4ac26b",
    "forward": "#6cb6ff", "backward": "#f0a35e", "scratch": "#afb8c1",
}  # fmt: skip
DARK = {
    "text": "#e6edf3", "faint": "#9198a1", "grid": "#30363d", "paper": "#0d1117", "input": "#3fb950",
    "forward": "#58a6ff", "backward": "#f0883e", "scratch": "#8b949e",
}  # fmt: skip
FONT = """
.memory text { font: 11px system-ui, sans-serif; }
.memory .title { font-size: 14px; font-weight: 600; }
.memory .label { font-size: 10px; pointer-events: none; }
.memory .bound { stroke-dasharray: 5 3; }
.memory .peak { fill-opacity: 0.12; }
"""


def _colours(colour: Mapping[str, str]) -> str:
    kinds = "\n".join(
        f".memory .{kind} {{ fill: {colour[kind]}; stroke: {colour['paper']}; stroke-width: 0.6; }}" for kind in KINDS
    )
    return f"""{kinds}
.memory text {{ fill: {colour["text"]}; }}
.memory .faint {{ fill: {colour["faint"]}; }}
.memory .label {{ fill: #0d1117; }}
.memory .paper {{ fill: {colour["paper"]}; }}
.memory .grid {{ stroke: {colour["grid"]}; }}
.memory .bound {{ stroke: {colour["text"]}; }}
.memory .peak {{ fill: {colour["text"]}; }}
"""


STYLE = f"{FONT}{_colours(LIGHT)}@media (prefers-color-scheme: dark) {{\n{_colours(DARK)}}}\n"


@dataclass(frozen=True)
class Peak:
    """The first node at which the most bytes are alive, and the buffers alive there, largest first."""

    step: int
    bytes: int
    buffers: tuple[Buffer, ...]


def peak_of(arena: Arena) -> Peak | None:
    """Where the bound of an arena comes from; None for an empty one."""

    def alive(step: int) -> list[Buffer]:
        return [buffer for buffer in arena.buffers if buffer.first <= step <= buffer.last]

    steps = sorted({buffer.first for buffer in arena.buffers})
    if not steps:
        return None
    step = max(steps, key=lambda each: sum(buffer.bytes for buffer in alive(each)))
    buffers = sorted(alive(step), key=lambda buffer: -buffer.bytes)
    return Peak(step, sum(buffer.bytes for buffer in buffers), tuple(buffers))


def spaced(number: int) -> str:
    """A number with its thousands apart: 95 360."""
    return f"{number:,}".replace(",", " ")


def _kind(graph: Graph, buffer: Buffer) -> str:
    name = buffer.tensors[0]
    losses = {op.name for op in loss.OPS}
    turn = next((index for index, node in enumerate(graph.nodes) if node.op in losses), len(graph.nodes))
    if name in graph.inputs:
        return "input"
    if not graph.consumers(name) and name not in graph.outputs:
        return "scratch"
    return "backward" if buffer.first >= turn else "forward"


def round_step(span: float, most: int) -> int:
    """A step of 1, 2 or 5 times a power of ten that divides ``span`` into at most ``most`` parts."""
    rough = max(span / most, 1)
    power = 10 ** math.floor(math.log10(rough))
    return next(int(factor * power) for factor in (1, 2, 5, 10) if factor * power >= rough)


def _label(name: str, left: float, top: float, wide: float, high: float) -> str:
    """A name within a rectangle: along it, upright, or cut short; nothing where it would not be readable."""
    room = LETTER * len(name) + 6
    middle, across = top + high / 2, left + wide / 2
    if high < LINE or wide < LINE:
        return ""
    if room > wide and room <= high:
        place = f'x="0" y="3.5" transform="translate({across:.1f} {middle:.1f}) rotate(-90)" text-anchor="middle"'
    else:
        letters = int((wide - 6) / LETTER)
        if letters < min(len(name), 8):
            return ""
        name = name if letters >= len(name) else f"{name[: letters - 1]}…"
        place = f'x="{left + 3:.1f}" y="{middle + 3.5:.1f}"'
    return f'<text {place} class="label">{escape(name)}</text>'


def _chart(program: Program, title: str) -> Iterator[str]:
    """The elements of one chart, its upper left corner at the origin."""
    graph, arena = program.graph, program.arena
    steps, top = max(len(graph.nodes), 1), max(arena.bytes, 1)
    across, up = WIDTH / steps, HEIGHT / top

    def x(step: float) -> float:
        return round(LEFT + step * across, 2)

    def y(size: float) -> float:
        return round(TOP + HEIGHT - size * up, 2)

    peak = peak_of(arena)
    yield f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>'
    left = float(LEFT)
    for kind, text in KINDS.items():
        yield f'<rect x="{left:g}" y="28" width="10" height="10" class="{kind}"/>'
        yield f'<text x="{left + 14:g}" y="37" class="faint">{text}</text>'
        left += 14 + LETTER * len(text) + 22
    gap = round_step(top, 6)
    for size in range(0, top + 1, gap):
        yield f'<line x1="{LEFT}" y1="{y(size)}" x2="{LEFT + WIDTH}" y2="{y(size)}" class="grid"/>'
        yield f'<text x="{LEFT - 8}" y="{y(size) + 4:g}" text-anchor="end" class="faint">{spaced(size)}</text>'
    for step in range(0, steps, round_step(steps, 12)):
        middle, foot = x(step + 0.5), TOP + HEIGHT + 15
        yield f'<text x="{middle}" y="{foot}" text-anchor="middle" class="faint">{step}</text>'
    yield f'<text x="{LEFT}" y="{TOP + HEIGHT + 34}" class="faint">bytes of the arena, node by node</text>'
    for buffer in arena.buffers:
        names, kind = " > ".join(buffer.tensors), _kind(graph, buffer)
        wide, high = (buffer.last + 1 - buffer.first) * across, buffer.bytes * up
        tip = f"{names}: {spaced(buffer.bytes)} bytes at {spaced(buffer.offset)}, nodes {buffer.first} to {buffer.last}"
        yield (
            f'<rect x="{x(buffer.first)}" y="{y(buffer.offset + buffer.bytes)}" width="{wide:.2f}" '
            f'height="{high:.2f}" class="{kind}"><title>{escape(tip)}</title></rect>'
        )
        label = _label(buffer.tensors[-1], x(buffer.first), y(buffer.offset + buffer.bytes), wide, high)
        if label:
            yield label
    if peak is not None:
        node = graph.nodes[peak.step]
        yield f'<rect x="{x(peak.step)}" y="{TOP}" width="{across:.2f}" height="{HEIGHT}" class="peak"/>'
        text = f"most alive at node {peak.step}: {node.op} '{node.name}'"
        yield f'<text x="{LEFT + WIDTH}" y="{TOP + HEIGHT + 34}" text-anchor="end">{escape(text)}</text>'
    right, line = LEFT + WIDTH, y(arena.bound)
    yield f'<line x1="{LEFT}" y1="{line}" x2="{right}" y2="{line}" class="bound"/>'
    waste = arena.bytes - arena.bound
    text = f"arena {spaced(arena.bytes)} bytes, lower bound {spaced(arena.bound)}"
    text += " (reached)" if waste == 0 else f" ({100 * waste / max(arena.bound, 1):.1f} % above)"
    yield f'<text x="{right}" y="{TOP - 8}" text-anchor="end">{text}</text>'


def memory_picture(programs: Sequence[tuple[str, Program]]) -> str:
    """An SVG image of programs one below the other, each with its title. Readable on light and dark ground."""
    each = TOP + HEIGHT + BOTTOM
    width, height = LEFT + WIDTH + RIGHT, max(each * len(programs), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'class="memory" role="img" aria-label="memory over time">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" class="paper"/>',
    ]
    for index, (title, program) in enumerate(programs):
        parts += [f'<g transform="translate(0 {index * each})">', *_chart(program, title), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def plan_picture(plan: Plan) -> str:
    """An SVG image of all programs of a plan that take memory."""
    return memory_picture(_programs(plan))


def _programs(plan: Plan) -> list[tuple[str, Program]]:
    programs = plan.programs
    named = (
        ("frozen part of a prediction", programs.backbone),
        ("rest of a prediction", programs.head),
        ("training step", programs.step),
    )
    return [(f"{plan.graph.name}: {title}", program) for title, program in named if program and program.arena.buffers]


def memory_table(program: Program, title: str, rows: int = 10) -> Group:
    """For the terminal: the peak, and the largest buffers of a program, those alive at the peak marked."""
    arena, peak = program.arena, peak_of(program.arena)
    table = Table(title=title, title_justify="left")
    table.add_column("buffer", overflow="fold")
    for name in ("bytes", "at", "nodes"):
        table.add_column(name, justify="right")
    table.add_column("at the peak", justify="center")
    if peak is None:
        return Group(table, Text("takes no memory of the arena"))
    largest = sorted(arena.buffers, key=lambda buffer: (-buffer.bytes, buffer.first))
    for buffer in largest[:rows]:
        there = "●" if buffer in peak.buffers else ""
        nodes = f"{buffer.first} to {buffer.last}"
        table.add_row(" > ".join(buffer.tensors), spaced(buffer.bytes), spaced(buffer.offset), nodes, there)
    if len(largest) > rows:
        rest = largest[rows:]
        table.add_row(f"{len(rest)} more", spaced(sum(buffer.bytes for buffer in rest)), "", "", "")
    node = program.graph.nodes[peak.step]
    text = f"{spaced(arena.bytes)} bytes; {spaced(peak.bytes)} are alive at node {peak.step}, {node.op} '{node.name}'"
    return Group(table, Text(text))


def plan_tables(plan: Plan, rows: int = 10) -> Group:
    """For the terminal: a table for each program of a plan that takes memory."""
    return Group(*(memory_table(program, title, rows) for title, program in _programs(plan)))
