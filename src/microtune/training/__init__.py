"""Training on the desk: PyTorch modules made small before they are compiled. Needs PyTorch; the core does not."""

from __future__ import annotations

import importlib.util

from microtune.errors import TrainingError


def require(what: str, *packages: str) -> None:
    """Raises TrainingError, saying what to install, where one of the packages (``torch`` first) is missing."""
    for package in packages or ("torch",):
        if importlib.util.find_spec(package) is None:
            raise TrainingError(f"{what} needs {package.replace('_', '-')}: pip install 'microtune[torch]'")
