"""The picture of a study: suggestions accepted, week by week, as SVG."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

from microtune.curves import curve
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
        # broken in weeks at which nobody was at home
        shares = [(x(week.week), value(week)) for week in summary.weeks]
        points = [(across, None if share is None else y(share)) for across, share in shares]
        drawn.append(f'<g class="{name}">{curve(points, colour, 2.5)}</g>')
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
