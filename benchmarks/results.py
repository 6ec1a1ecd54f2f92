"""``results.json``: every measured figure, one section per benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "results.json"


def record(section: str, figures: Mapping[str, Any]) -> None:
    """Replace one section and keep the others."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known[section] = figures
    FILE.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
