"""How whatever takes a while tells of its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

Progress = Callable[[str, Found | None], None]
"""Called with what is being done, and with what came of it where something did: a ``Point`` of a search, an ``Epoch``
of training, a ``Row`` of a recipe."""
