"""Random networks by their number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from microtune.ir import Graph

from .networks import random_net


@pytest.fixture(scope="session")
def net_of() -> Callable[[int], Graph]:
    return lambda seed: random_net(np.random.default_rng(seed))
