"""Curves of pictures, as SVG."""

from __future__ import annotations

from collections.abc import Sequence


def curve(points: Sequence[tuple[float, float | None]], colour: str, dot: float) -> str:
    """A line of the class ``line`` through points (x, y) in pixels, broken where y is not known; a point between two
    such is a dot of the radius ``dot``."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    drawn = []
    for piece in pieces:
        if len(piece) == 1:
            drawn.append(f'<circle cx="{piece[0][0]:.1f}" cy="{piece[0][1]:.1f}" r="{dot:g}" fill="{colour}"/>')
        elif piece:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
            drawn.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
    return "".join(drawn)
