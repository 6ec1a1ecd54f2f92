"""Tables of pages in Markdown."""

from __future__ import annotations


def row_of(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def table_of(head: str, *rows: str) -> str:
    """A table whose head is a row, ended by a line break."""
    return "\n".join((head, "|---" * (head.count("|") - 1) + "|", *rows)) + "\n"
