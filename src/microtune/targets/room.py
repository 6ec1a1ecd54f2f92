"""Whether a board has room for what is built for it."""

from __future__ import annotations

from microtune.errors import BudgetError
from microtune.targets.catalogue import Target


def hold_to_board(where: Target, what: str, ram: int, flash: int) -> None:
    """Raise BudgetError, by how much, when ``what`` takes more bytes than the board has; a bare core holds anything."""
    if where.board is None:
        return
    for kind, need, limit in (("RAM", ram, where.board.ram), ("flash", flash, where.board.flash)):
        if need > limit:
            over = f"the board has {limit} ({need - limit} too many)"
            raise BudgetError(f"on {where.name} {what} takes {need} bytes of {kind}; {over}")
