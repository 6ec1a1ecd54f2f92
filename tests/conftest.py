"""How the suite runs: one thread to a worker, a file to one worker, the long files first."""

from __future__ import annotations

import os

import pytest

# Before numpy and PyTorch are imported, here and in every process a test starts. There is a worker to each processor
# already: threads of their own would only wait for each other.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a file builds for its tests is built once, and no worker begins a long file when the others are done.

    Files with tests marked ``slow`` come first; a test that says otherwise (``xdist_group``) stays where it says.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
