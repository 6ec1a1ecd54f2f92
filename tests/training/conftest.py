"""Digits, and one net that knows them, for all tests of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Known:
    """A module trained on ``learnt`` and what it knows of ``judged``."""

    module: Any
    learnt: tuple[np.ndarray, np.ndarray]
    judged: tuple[np.ndarray, np.ndarray]
    accuracy: float


@pytest.fixture(scope="session")
def known() -> Known:
    torch = pytest.importorskip("torch")
    from tests.training.nets import Residual, digits

    from microtune.training.fit import evaluate, fit
    from microtune.training.modules import samples_for

    x, y = digits()
    torch.manual_seed(0)
    net = Residual()
    fit(net, samples_for(net, (x[:700], y[:700])), epochs=10, lr=0.003)
    net.eval()
    judged = (x[700:], y[700:])
    return Known(net, (x[:700], y[:700]), judged, evaluate(net, samples_for(net, judged)))
