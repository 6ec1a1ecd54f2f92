"""The picture of a log, as SVG: answers right, mean error and updates over the uses of a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from microtune.curves import curve
from microtune.errors import MicrotuneError
from microtune.inspection.image import Log, Record

WIDTH, HEIGHT, GAP = 720, 130, 34  # of a panel, in pixels; between two
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 54, 44
ROUTINE = ("uses", "update taken", "update dropped")  # anything else is marked
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1b1f24; }
.title { font-size: 14px; font-weight: 600; }
.grid { stroke: #d8dee4; }
.line { fill: none; stroke-width: 2; }
.event { stroke: #8b949e; stroke-dasharray: 3 3; }
.paper { fill: #ffffff; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #30363d; } .paper { fill: #0d1117; } }
"""
GREEN, BROWN, GREY = "#0b6e4f", "#d1762a", "#8b949e"


@dataclass(frozen=True)
class Panel:
    """One chart: lines as (name, colour, a value for each record; None where it is not known)."""

    title: str
    lines: tuple[tuple[str, str, Sequence[float | None]], ...]
    top: float
    unit: str = ""


def unwrapped(counts: Sequence[int]) -> list[float]:
    """A counter of 16 bits as it goes on: what is less than before has wrapped around, if by less than half."""
    found: list[float] = []
    for index, count in enumerate(counts):
        step = (count - counts[index - 1]) % 65536 if index else 0
        found.append(float(count) if not index else found[-1] + step if step < 32768 else float(count))
    return found


def _round_top(value: float) -> float:
    """A number not below a positive one, of which a quarter is round."""
    power = 1.0
    while power < value:
        power *= 10.0
    while power >= 10.0 * value:
        power /= 10.0
    return next(part * power for part in (0.12, 0.2, 0.4, 0.6, 0.8, 1.0) if part * power >= value)


def _panels(records: Sequence[Record]) -> tuple[Panel, ...]:
    errors = [record.error for record in records]
    taken = unwrapped([record.taken for record in records])
    dropped = unwrapped([record.dropped for record in records])
    shares = [None if record.right is None else 100.0 * record.right for record in records]
    sure = [100.0 * record.confidence for record in records]
    known = [error for error in errors if error is not None and error > 0.0]
    return (
        Panel("of the last answers", (("right", GREEN, shares), ("confidence", GREY, sure)), 100.0, " %"),
        Panel("mean error", (("mean error", BROWN, errors),), _round_top(max(known, default=1.0))),
        Panel(
            "updates so far",
            (("taken", GREEN, taken), ("dropped", BROWN, dropped)),
            _round_top(max([*taken, *dropped, 4.0])),
        ),
    )


def _events(records: Sequence[Record], x: Callable[[float], float], bottom: float) -> list[str]:
    """Upright lines; their names stand where there is room."""
    drawn, last = [], -1000.0
    for record in records:
        if record.kind in ROUTINE:
            continue
        at = x(record.uses)
        drawn.append(f'<line class="event" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        if at - last > 6.2 * len(record.kind):
            drawn.append(f'<text x="{at:.1f}" y="{TOP - 6}" text-anchor="middle">{escape(record.kind)}</text>')
            last = at
    return drawn


def log_picture(log: Log | None, title: str) -> str:
    """An SVG document of three panels over the uses. Raises MicrotuneError when there is no record to draw."""
    if log is None or not log.records:
        raise MicrotuneError("there is no log in it to draw: mt.Learner(log=32) keeps one, in the port's last bytes")
    records = log.records
    low, high = min(record.uses for record in records), max(record.uses for record in records)

    def x(uses: float) -> float:
        return LEFT + WIDTH * ((uses - low) / (high - low) if high > low else 0.5)

    panels = _panels(records)
    bottom = TOP + len(panels) * HEIGHT + (len(panels) - 1) * GAP
    drawn = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>', *_events(records, x, bottom)]
    for row, panel in enumerate(panels):
        floor = TOP + row * (HEIGHT + GAP) + HEIGHT
        for part in range(5):
            at = floor - HEIGHT * part / 4
            drawn.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
            label = f"{panel.top * part / 4:.4g}{panel.unit}"
            drawn.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
        drawn.append(f'<text x="{LEFT + WIDTH + 14}" y="{floor - HEIGHT + 10}">{escape(panel.title)}</text>')
        for index, (name, colour, values) in enumerate(panel.lines):
            heights = [None if value is None else floor - HEIGHT * min(value / panel.top, 1.0) for value in values]
            points = [(x(each.uses), y) for each, y in zip(records, heights, strict=True)]
            drawn.append(curve(points, colour, 2))
            at, begin = floor - HEIGHT + 30 + 18 * index, LEFT + WIDTH + 14
            drawn.append(f'<line class="line" stroke="{colour}" x1="{begin}" x2="{begin + 18}" y1="{at}" y2="{at}"/>')
            drawn.append(f'<text x="{begin + 24}" y="{at + 4}">{escape(name)}</text>')
    step = max(1, round(_round_top((high - low) / 8 or 1.0)))
    for part in range(-(-low // step) * step, high + 1, step):
        drawn.append(f'<text x="{x(part):.1f}" y="{bottom + 18}" text-anchor="middle">{part:,}</text>')
    drawn.append(f'<text x="{LEFT + WIDTH / 2}" y="{bottom + 36}" text-anchor="middle">uses</text>')
    width, height = LEFT + WIDTH + RIGHT, bottom + BOTTOM
    content = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f'<style>{STYLE}</style>\n<rect class="paper" width="{width}" height="{height}"/>\n{content}\n</svg>\n'
    )
