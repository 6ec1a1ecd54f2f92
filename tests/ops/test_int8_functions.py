"""The slopes of a lookup table are those of the function it was made from, as PyTorch differentiates it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from microtune.ops.quantized_build import activation_quantization, lookup_table, rescale_table
from microtune.ops.quantized_functions import lookup_slopes

F = torch.nn.functional
KNOWN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "identity": lambda x: 1.0 * x,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "scale": lambda x: -0.37 * x,
}


def by_torch(function: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and derivatives."""
    given = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = function(given)
    y.sum().backward()
    assert given.grad is not None
    return y.detach().numpy(), given.grad.numpy()


@pytest.mark.parametrize("x_scale", [0.02, 0.05])
@pytest.mark.parametrize("x_zero", [-128, -7, 40])
@pytest.mark.parametrize("name", KNOWN)
def test_of_known_functions(name: str, x_scale: float, x_zero: int) -> None:
    x_q = activation_quantization(x_scale, x_zero)
    x = float(x_q.scale) * (np.arange(-128, 128) - x_zero)
    y, slopes = by_torch(KNOWN[name], x)
    # a range that cuts a tenth off at the top
    low, high = min(float(y.min()), 0.0), 0.9 * max(float(y.max()), 0.0)
    y_scale = max(high - low, 1e-3) / 255
    y_zero = int(np.clip(round(-128 - low / y_scale), -128, 127))
    y_q = activation_quantization(y_scale, y_zero)
    table = lookup_table(lambda real: by_torch(KNOWN[name], real)[0], x_q, y_q)
    stored = y / float(y_q.scale) + y_zero
    found = lookup_slopes(table, x_q, y_q)
    # a fitted slope is off by the rounding of the table at its far end, of which 64 entries are left at least
    fitted = name in ("leaky_relu", "scale")
    allowed = float(y_q.scale) / (64 * float(x_q.scale)) if fitted else 2.0**-24
    inside = (stored > table.min() - 0.49) & (stored < table.max() + 0.49)
    outside = (stored < table.min() - 0.51) | (stored > table.max() + 0.51)
    # at a kink either side will do: a table over x >= 0 is the same for ReLU and the identity
    kinks = {"relu": (0.0,), "relu6": (0.0, 6.0), "leaky_relu": (0.0,)}.get(name, ())
    at_kink = np.any([np.abs(x - kink) < y_scale for kink in kinks], axis=0) if kinks else np.zeros(256, bool)
    check = inside & ~at_kink
    assert np.all(np.abs(found - slopes)[check] <= allowed)
    assert not np.any(found[outside])


def test_of_a_requantisation() -> None:
    x_q, y_q = activation_quantization(0.04, 3), activation_quantization(0.05, -20)
    assert np.all(lookup_slopes(rescale_table(x_q, y_q), x_q, y_q) == 1)


def test_of_an_unknown_function() -> None:
    """Differences over eight entries: off by a rounding of half a step at each end, and by the curve between."""
    x_q, y_q = activation_quantization(0.05, 0), activation_quantization(0.01, 0)
    x = 0.05 * np.arange(-128, 128)
    found = lookup_slopes(lookup_table(np.sin, x_q, y_q), x_q, y_q)
    step = 4 * 0.05
    inner = slice(4, -4)
    assert np.all(np.abs(found - np.cos(x))[inner] <= 0.01 / (2 * step) + step**2 / 6 + 1e-6)
