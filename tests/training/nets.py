"""Small nets of every shape that pruning has to follow, with weights at random, and digits to train them on."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Residual(nn.Module):
    """Batch norm, a residual sum, a depthwise and a pointwise convolution, a flatten and two dense layers."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, wide, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(wide)
        self.inner = nn.Conv2d(wide, wide, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(wide)
        self.back = nn.Conv2d(wide, wide, 3, padding=1)
        self.deep = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.point = nn.Conv2d(wide, 2 * wide, 1)
        self.point_norm = nn.BatchNorm2d(2 * wide)
        self.dense = nn.Linear(2 * wide * 16, 12)
        self.out = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.back(torch.relu(self.inner_norm(self.inner(x)))))
        x = torch.relu(self.point_norm(self.point(torch.relu(self.deep(x)))))
        x = nn.functional.max_pool2d(x, 2)
        return self.out(torch.relu(self.dense(x.flatten(1))))


class Joined(nn.Module):
    """Two branches side by side, pooled to one value each."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 4, 3)
        self.after = nn.Conv2d(10, 8, 1)
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.cat([self.left(x), self.right(x)], 1))
        return self.out(torch.relu(self.after(x)).mean((2, 3)))


class ChannelsLast(nn.Module):
    """What is flattened has its channels innermost, as in TFLite's models."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(1, 6, 3, stride=2)
        self.dense, self.out = nn.Linear(54, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.map(x)).permute(0, 2, 3, 1)
        return self.out(torch.relu(self.dense(x.reshape(-1, 54 // 6 * self.map.out_channels))))


class Sound(nn.Module):
    """One-dimensional convolutions over 64 samples of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 6, 5, stride=2), nn.Conv1d(6, 8, 5, stride=2)
        self.out = nn.Linear(8 * 13, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x.flatten(1)[:, None]))))
        return self.out(x.flatten(1))


class Normed(nn.Module):
    """A layer norm, which mixes all channels, and an inner layer that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.inner = nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 16)
        self.back, self.out = nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.flatten(1)))
        return self.out(x + self.back(torch.relu(self.inner(x))))


class FromInput(nn.Module):
    """Channels that are added to the net's inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.down, self.out = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.same(x)).flatten(1)
        return self.out(x + self.down(x))


class Recurrent(nn.Module):
    """A recurrent layer, which reads what a dense one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.memory, self.out = nn.Linear(8, 6), nn.GRU(6, 5, batch_first=True), nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.memory(self.into(x.reshape(-1, 8, 8)))[0][:, -1])


class Tied(nn.Module):
    """Two dense layers of one weight, and two that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.down, self.out = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))
        return self.out(torch.relu(self.down(x)))


class Gated(nn.Module):
    """Half of the channels say how much of the other half passes."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.out = nn.Conv2d(1, 8, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.both(x).chunk(2, 1)
        return self.out((values * torch.sigmoid(gates)).mean((2, 3)))


class Attending(nn.Module):
    """Attention, which reads the weights of its last layer past it."""

    def __init__(self) -> None:
        super().__init__()
        self.among, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 8, 8)
        return self.out(self.among(x, x, x)[0].mean(1))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, and batch norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in net.named_parameters():
            scale = each[0].numel() ** -0.5 if each.ndim > 1 else 0.1 if "bias" in name else 1.0
            each.copy_(torch.randn(each.shape, generator=generator) * scale)
        for name, each in net.named_buffers():
            if "running" in name:
                each.copy_(torch.rand(each.shape, generator=generator) + 0.5)
    return net


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 handwritten digits (n, 1, 8, 8), 0 to 1, and what they are, in random order."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).reshape(-1, 1, 8, 8).astype(np.float32), y[order]
