"""What a search found: a picture (SVG) of accuracy against RAM, and tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from microtune.choices import scheme_text
from microtune.compiler.picture import LETTER, LINE, round_step, spaced
from microtune.search.frontier import UNTRIED, Frontier, Point

WIDTH, HEIGHT = 860, 380  # of the chart, in pixels, without its margins
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 62, 52
LABEL = 44  # letters of a label at most
# colours are given twice instead of by variables, which few programs but browsers know
LIGHT = {
    "text": "#1b1f24", "faint": "#57606a", "grid": "#d8dee4", "paper": "#ffffff", "point": "#0969da",
    "line": "#6cb6ff", "pick": "#1a7f37", "limit": "#cf222e",
}  # fmt: skip
DARK = {
    "text": "#e6edf3", "faint": "#9198a1", "grid": "#30363d", "paper": "#0d1117", "point": "#58a6ff",
    "line": "#388bfd", "pick": "#3fb950", "limit": "#ff7b72",
}  # fmt: skip
# of the second model and those behind it, readable on both grounds
HUES = ("", "#bf8700", "#8250df", "#1b9e77", "#d6336c", "#6e7781")
FONT = """
.frontier text { font: 11px system-ui, sans-serif; }
.frontier .title { font-size: 14px; font-weight: 600; }
.frontier .line { fill: none; stroke-width: 2; }
.frontier .worse { fill-opacity: 0; stroke-width: 1.2; }
.frontier .ring { fill: none; stroke-width: 2; }
.frontier .dashed { stroke-dasharray: 5 3; }
"""


def _colours(colour: Mapping[str, str]) -> str:
    return f""".frontier text {{ fill: {colour["text"]}; }}
.frontier .faint {{ fill: {colour["faint"]}; }}
.frontier .paper {{ fill: {colour["paper"]}; }}
.frontier .grid {{ stroke: {colour["grid"]}; }}
.frontier .base {{ stroke: {colour["faint"]}; }}
.frontier .line {{ stroke: {colour["line"]}; }}
.frontier .point {{ fill: {colour["point"]}; }}
.frontier .worse {{ stroke: {colour["faint"]}; }}
.frontier .ring {{ stroke: {colour["pick"]}; }}
.frontier .picked {{ fill: {colour["pick"]}; font-weight: 600; }}
.frontier .limit {{ stroke: {colour["limit"]}; }}
"""


_MODELS = "".join(f".frontier .m{place} {{ fill: {hue}; }}\n" for place, hue in enumerate(HUES) if hue)
STYLE = f"{FONT}{_colours(LIGHT)}@media (prefers-color-scheme: dark) {{\n{_colours(DARK)}}}\n{_MODELS}"


def percent(share: float) -> str:
    """A share as people read it: 93.3 %."""
    return f"{100 * share:.1f} %"


def _tip(point: Point) -> str:
    text = f"{point.name}: {percent(point.accuracy)}, {spaced(point.ram)} bytes of RAM, {spaced(point.flash)} of flash"
    steps = "" if point.instructions is None else f", {spaced(point.instructions)} instructions a step"
    before = f"; untrained {percent(point.base)}" if point.model and point.base is not None else ""
    return f"{text}{steps}, learning rate {point.rate:g}{before}"


def _untrained(found: Frontier) -> str:
    """What the line of the base says: of several models whose it is."""
    if not any(found.bases):
        return "the model as it is"
    return f"{max(found.bases, key=lambda name: found.bases[name])} as it is"


def _point_class(found: Frontier, model: str) -> str:
    """How dots of a model look: of several each in its colour, which come again after the last."""
    names = [name for name in found.models if name]
    place = names.index(model) % len(HUES) if model in names else 0
    return f"point m{place}" if place else "point"


def _legend(found: Frontier) -> Iterator[str]:
    left = float(LEFT)
    names = [name for name in found.models if name]
    kinds = [(_point_class(found, name), name) for name in names] or [("point", "measured")]
    for kind, text in (*kinds, ("worse", "no better than one in less RAM"), ("ring", "the pick")):
        yield f'<circle cx="{left + 5:g}" cy="33" r="{6 if kind == "ring" else 4}" class="{kind}"/>'
        yield f'<text x="{left + 16:g}" y="37" class="faint">{escape(text)}</text>'
        left += 16 + LETTER * len(text) + 24


def _chart(found: Frontier, title: str) -> Iterator[str]:
    worse = [each for each in found.left_out if each.accuracy is not None and each.ram is not None and not each.excess]
    limit = found.budget.ram_bytes
    rams = [each.ram for each in found.points] + [each.ram for each in worse if each.ram is not None]
    most = max([*rams, 1])
    if limit is not None and limit <= 2 * most:
        most = max(most, limit)
    most = int(most * 1.06) + 1
    shares = [found.base, *(each.accuracy for each in found.points)]
    shares += [each.accuracy for each in worse if each.accuracy is not None]
    low = max(0.0, min(shares) - 0.05) // 0.05 * 0.05
    high = max(min(1.0, max(shares) + 0.05), low + 0.05)

    def x(ram: float) -> float:
        return round(LEFT + WIDTH * ram / most, 2)

    def y(share: float) -> float:
        return round(TOP + HEIGHT * (high - share) / (high - low), 2)

    right, foot = LEFT + WIDTH, TOP + HEIGHT
    yield f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>'
    yield from _legend(found)
    for ram in range(0, most + 1, round_step(most, 8)):
        yield f'<line x1="{x(ram)}" y1="{TOP}" x2="{x(ram)}" y2="{foot}" class="grid"/>'
        yield f'<text x="{x(ram)}" y="{foot + 16}" text-anchor="middle" class="faint">{spaced(ram)}</text>'
    gap = 0.05 if high - low <= 0.5 else 0.1
    for part in range(round(low / gap), int(high / gap + 1e-9) + 1):
        yield f'<line x1="{LEFT}" y1="{y(part * gap)}" x2="{right}" y2="{y(part * gap)}" class="grid"/>'
        place = f'x="{LEFT - 8}" y="{y(part * gap) + 4:g}"'
        yield f'<text {place} text-anchor="end" class="faint">{100 * part * gap:.0f} %</text>'
    yield f'<text x="{LEFT}" y="{foot + 38}" class="faint">bytes of RAM, stack included</text>'
    text = f"% of {found.judged} held-out samples right"
    yield f'<text x="{right}" y="{foot + 38}" text-anchor="end" class="faint">{text}</text>'
    yield f'<line x1="{LEFT}" y1="{y(found.base)}" x2="{right}" y2="{y(found.base)}" class="base dashed"/>'
    text = f"{_untrained(found)}, {percent(found.base)}"
    yield f'<text x="{right - 4}" y="{y(found.base) + 14:g}" text-anchor="end" class="faint">{escape(text)}</text>'
    if limit is not None and limit <= most:
        yield f'<line x1="{x(limit)}" y1="{TOP}" x2="{x(limit)}" y2="{foot}" class="limit dashed"/>'
        yield f'<text x="{x(limit)}" y="{TOP - 6}" text-anchor="end">budget {spaced(limit)}</text>'
    for each in worse:
        assert each.ram is not None and each.accuracy is not None
        tip = f"{each.name} {each.reason}; {spaced(each.ram)} bytes of RAM without stack"
        place = f'cx="{x(each.ram)}" cy="{y(each.accuracy)}" r="4"'
        yield f'<circle {place} class="worse"><title>{escape(tip)}</title></circle>'
    steps = [f"{x(point.ram)} {y(point.accuracy)}" for point in found.frontier]
    if steps:
        yield f'<polyline points="{", ".join(steps)}" class="line"/>'
    best = found.best if found.points else None
    taken: list[tuple[float, float, float]] = []  # left end, right end and height of the labels so far
    for point in sorted(found.points, key=lambda each: (each is not best, each not in found.frontier)):
        across, up = x(point.ram), y(point.accuracy)
        tip = escape(_tip(point))
        yield f'<circle cx="{across}" cy="{up}" r="4" class="{_point_class(found, point.model)}">'
        yield f"<title>{tip}</title></circle>"
        if point is best:
            yield f'<circle cx="{across}" cy="{up}" r="8" class="ring"/>'
        name = point.name if len(point.name) <= LABEL else f"{point.name[: LABEL - 1]}…"
        wide = LETTER * len(name)
        backward = across + 12 + wide > right
        start = across - 12 - wide if backward else across + 12
        height = up + 4
        while any(abs(height - other) < LINE and start < end and begin < start + wide for begin, end, other in taken):
            height += LINE
        taken.append((start, start + wide, height))
        anchor = "end" if backward else "start"
        place = f'x="{across - 12 if backward else across + 12:g}" y="{height:g}" text-anchor="{anchor}"'
        picked = ' class="picked"' if point is best else ""
        yield f"<text {place}{picked}>{escape(name)}</text>"


def frontier_picture(found: Frontier, title: str = "update schemes") -> str:
    """An SVG image of accuracy against RAM: what was measured, the frontier, and the pick. Readable on light and dark
    ground; a pointer on a dot shows its figures."""
    width, height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'class="frontier" role="img" aria-label="accuracy against RAM of update schemes">'
    )
    paper = f'<rect width="{width}" height="{height}" class="paper"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", paper, *_chart(found, title), "</svg>"]) + "\n"


def _figures(point: Point) -> dict[str, Any]:
    named = (
        "model",
        "base",
        "accuracy",
        "ram",
        "flash",
        "instructions",
        "parameters",
        "rate",
        "precision",
        "command",
        "python",
    )
    return {"learn": scheme_text(point.scheme), **{name: getattr(point, name) for name in named}}


def frontier_figures(found: Frontier) -> dict[str, Any]:
    """For machines: what ``frontier_tables`` shows people."""
    return {
        "base": found.base,
        "bases": dict(found.bases),
        "judged": found.judged,
        "best": _figures(found.best),
        "frontier": [_figures(point) for point in found.frontier],
        "points": [_figures(point) for point in found.points],
        "left_out": [
            {
                "model": each.model,
                "learn": None if each.scheme is None else scheme_text(each.scheme),
                "precision": each.precision,
                "reason": each.reason,
                "ram": each.ram,
                "accuracy": each.accuracy,
            }
            for each in found.left_out
        ],
    }


def _several(found: Frontier) -> bool:
    """Whether forms of a net were searched together."""
    return any(found.bases)


COLUMNS = ("right", "RAM", "flash", "instructions\na step", "values\nlearnt", "rate")
WORDS = 18  # letters of a line of a name, where it can be broken behind a comma


def _lines(name: str) -> str:
    """A name that is never broken within a word: the model, what learns, and where that is long its parts."""
    *model, scheme = name.split(" > ")
    lines = [f"{each} >" for each in model]
    line = ""
    for piece in re.findall(r"[^, ]+[, ]*", scheme):
        if line and len(line) + len(piece.rstrip()) > WORDS:
            lines.append(line.rstrip())
            line = "  "
        line += piece
    return "\n".join([*lines, line.rstrip()])


def frontier_tables(found: Frontier) -> Group:
    """For the terminal: the frontier, the pick marked, and what was left out and why."""
    plain: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "show_edge": False, "collapse_padding": True}
    table = Table(title=f"Frontier, of {found.judged} held-out samples", pad_edge=False, **plain)
    table.add_column("pick", justify="center")
    table.add_column("what learns", no_wrap=True)
    together = _several(found)
    for name in (*(("before",) if together else ()), *COLUMNS):
        table.add_column(name, justify="right")
    if not together:
        table.add_row("", "nothing", percent(found.base), "", "", "", "0", "")
    best = found.best if found.points else None
    for point in found.frontier:
        steps = "not counted" if point.instructions is None else spaced(point.instructions)
        figures = (percent(point.accuracy), spaced(point.ram), spaced(point.flash), steps, spaced(point.parameters))
        before = (percent(point.base or 0.0),) if together else ()
        table.add_row("●" if point is best else "", _lines(point.name), *before, *figures, f"{point.rate:g}")
    table.width = Console(width=1000).measure(table).maximum  # figures that are cut are none
    rest = [each for each in found.points if each not in found.frontier]
    if not found.left_out and not rest:
        return Group(table)
    reasons = Table(title="\nLeft out", pad_edge=False, **plain)
    reasons.add_column("what learns", no_wrap=True)
    reasons.add_column("why", overflow="fold")
    for point in rest:
        reasons.add_row(_lines(point.name), f"is {percent(point.accuracy)} right in {spaced(point.ram)} bytes of RAM")
    for each in found.left_out:
        if each.reason != UNTRIED:
            reasons.add_row(Text(_lines(each.name)), Text(each.reason))
    if untried := sum(each.reason == UNTRIED for each in found.left_out):
        reasons.add_row(f"{untried:,} more", "not tried: no time left; --seconds, in Python seconds=, gives more")
    return Group(table, reasons)
