"""How the suite runs: one thread to a worker, a file to one worker, the long files first."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Before numpy and PyTorch are imported, here and in every process a test starts. There is a worker to each processor
# already: threads of their own would only wait for each other.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# The same examples in every run: what fails in CI fails here. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests marked ``slow`` come first: no worker begins a long file when the others are done.

    ``make test`` gives whole files to the workers, so what a file builds for its tests is built once.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
