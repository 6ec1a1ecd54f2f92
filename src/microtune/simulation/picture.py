"""The picture of a study: suggestions accepted, week by week, as SVG."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

from microtune.simulation.many import Summary, Week

WIDTH, HEIGHT = 720, 280  # of the chart, in pixels, without its margins
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 48, 44
LINES: tuple[tuple[str, str, str, Callable[[Week], float | None]], ...] = (
    ("accepted", "all devices", "#0b6e4f", lambda week: week.accepted),
    ("worst", "the worst tenth", "#d1762a", lambda week: week.worst_tenth),
    ("base", "the base alone", "#8b949e", lambda week: week.base),
)
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1b1f24; }
.title { font-size: 14px; font-weight: 600; }
.grid { stroke: #d8dee4; }
.line { fill: none; stroke-width: 2; }
rect { fill: #ffffff; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #30363d; } rect { fill: #0d1117; } }
"""


def picture(summary: Summary) -> str:
    """An SVG document: one line each for all devices, the worst tenth of them, and the base without learning."""
    total = len(summary.weeks)

    def x(week: int) -> float:
        return LEFT + WIDTH * ((week - 1) / (total - 1) if total > 1 else 0.5)

    def y(share: float) -> float:
        return TOP + HEIGHT * (1.0 - share)

    title = (
        f"{summary.person}, {summary.devices} {summary.package} {'device' if summary.devices == 1 else 'devices'}, "
        f"{summary.days:g} days: suggestions accepted, %"
    )
    drawn = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']
    for percent in range(0, 101, 20):
        at = y(percent / 100)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{percent}</text>')
    step = next((each for each in (1, 2, 4, 13, 26, 52) if total <= 16 * each), 260)
    for week in range(1, total + 1, step):
        drawn.append(f'<text x="{x(week):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{week}</text>')
    drawn.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">week</text>')
    for row, (name, label, colour, value) in enumerate(LINES):
        drawn.append(f'<g class="{name}">{_line(summary, value, colour, x, y)}</g>')
        at = TOP + 14 + 20 * row
        begin = LEFT + WIDTH + 14
        drawn.append(f'<line class="line" stroke="{colour}" x1="{begin}" x2="{begin + 18}" y1="{at}" y2="{at}"/>')
        drawn.append(f'<text x="{begin + 24}" y="{at + 4}">{label}</text>')
    width, height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    content = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect width="{width}" height="{height}"/>\n{content}\n</svg>\n'
    )


def _line(
    summary: Summary,
    value: Callable[[Week], float | None],
    colour: str,
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> str:
    """One curve, broken in weeks at which nobody was at home; a week between two such is a dot."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for week in summary.weeks:
        share = value(week)
        if share is None:
            pieces.append([])
        else:
            pieces[-1].append((x(week.week), y(share)))
    drawn = []
    for piece in pieces:
        if len(piece) == 1:
            drawn.append(f'<circle cx="{piece[0][0]:.1f}" cy="{piece[0][1]:.1f}" r="2.5" fill="{colour}"/>')
        elif piece:
            points = " ".join(f"{across:.1f},{down:.1f}" for across, down in piece)
            drawn.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
    return "".join(drawn)
