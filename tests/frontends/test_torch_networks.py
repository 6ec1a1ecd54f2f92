"""Convolutional PyTorch modules against their own forward pass, through PyTorch's exporter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from microtune.compress.folding import fold  # noqa: E402
from microtune.frontends import load  # noqa: E402
from microtune.frontends.torch import from_torch  # noqa: E402
from microtune.ir import verify  # noqa: E402
from microtune.ops.evaluate import evaluate  # noqa: E402


def norm_relu(inputs: int, outputs: int, **options: Any) -> Any:
    layer = nn.Conv2d(inputs, outputs, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
    """The inverted residual block of MobileNetV2."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            norm_relu(channels, hidden, kernel_size=1),
            norm_relu(hidden, hidden, kernel_size=3, padding=1, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Any) -> Any:
        return x + self.body(x)


class Excited(nn.Module):
    """Squeeze and excitation, as in MobileNetV3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Any) -> Any:
        gate = nn.functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return nn.functional.hardswish(x * nn.functional.hardsigmoid(self.excite(gate)))


class Residual(nn.Module):
    """A stage of the small ResNet of MLPerf Tiny, with a convolution on the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs))
        self.short = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        return torch.relu(self.second(self.first(x)) + self.short(x))


class Joined(nn.Module):
    """Branches that are concatenated, zero padding, and a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.pad = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 3), nn.ZeroPad2d((1, 1, 1, 1))

    def forward(self, x: Any) -> Any:
        both = torch.cat([self.left(x), self.right(self.pad(x))], 1)
        return both[:, 1:5, 2:].flatten(1)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv, self.last = nn.Embedding(11, 4), nn.Conv1d(4, 5, 3), nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        return self.last(self.conv(self.table(x).transpose(1, 2)).relu().mean(-1))


def head(channels: int) -> list[Any]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


def ds_cnn() -> Any:
    """The keyword net of MLPerf Tiny, smaller."""
    blocks = []
    for _ in range(2):
        blocks += [norm_relu(6, 6, kernel_size=3, padding=1, groups=6), norm_relu(6, 6, kernel_size=1)]
    return nn.Sequential(norm_relu(1, 6, kernel_size=(10, 4), stride=2, padding=(5, 1)), *blocks, *head(6))


MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 5, 5, stride=2, padding=2), nn.BatchNorm1d(5), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(),
            nn.Linear(20, 2),
        ),
        (3, 16),
    ),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding="same"), nn.Hardswish(), nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1), nn.Flatten(),
            nn.Linear(20, 2),
        ),
        (3, 9, 7),
    ),
    "mobilenet": (
        lambda: nn.Sequential(
            norm_relu(3, 4, kernel_size=3, stride=2, padding=1), Inverted(4, 8), Excited(4), *head(4)
        ),
        (3, 12, 12),
    ),
    "ds-cnn": (ds_cnn, (1, 20, 10)),
    "resnet": (
        lambda: nn.Sequential(Residual(3, 3, 1), Residual(3, 6, 2), *head(6), nn.Softmax(-1)),
        (3, 12, 12),
    ),
    "joined": (Joined, (3, 6, 6)),
}  # fmt: skip
FOLDED = {
    "conv1d": ["transpose", "reshape", "conv2d", "relu", "max_pool2d", "reshape", "dense"],
    "ds-cnn": ["reshape", *["conv2d", "relu6"], *["depthwise_conv2d", "relu6", "conv2d", "relu6"] * 2, "global_average",
               "dense"],
    "resnet": ["transpose", "conv2d", "relu", "conv2d", "add", "relu", "conv2d", "relu", "conv2d", "conv2d", "add",
               "relu", "global_average", "dense", "softmax"],
}  # fmt: skip


def trained(module: Any, sample: tuple[int, ...]) -> Any:
    for _ in range(3):
        module(torch.randn(16, *sample) + 0.5)  # the running means and variances move
    return module.eval()


@pytest.mark.parametrize("name", MODULES)
def test_modules_agree_with_their_forward(name: str, error_bound: Any) -> None:
    torch.manual_seed(3)
    make, sample = MODULES[name]
    module, x = trained(make(), sample), torch.randn(4, *sample)
    unfolded = from_torch(module, x)
    folded = fold(verify(unfolded))  # as load does, without a second export
    with torch.no_grad():
        expected = module(x).numpy()
    found = evaluate(folded, {folded.inputs[0]: x.numpy()}, np.float64)[folded.outputs[0]]
    for row, want, got in zip(x.numpy(), expected, found, strict=True):
        bound = error_bound(unfolded, row)
        assert bound.max() < 1e-3
        assert (np.abs(want - got) <= bound).all(), (np.abs(want - got).max(), bound.min())
    ops = [node.op for node in folded.nodes]
    if name in FOLDED:
        assert ops == FOLDED[name]


def test_an_embedding_takes_whole_numbers(error_bound: Any) -> None:
    torch.manual_seed(3)
    module, x = Words().eval(), torch.randint(0, 11, (4, 7))
    graph = load(module, example=x)
    assert graph.nodes[0].op == "embedding"
    with torch.no_grad():
        expected = module(x).numpy()
    for row, want in zip(x.numpy(), expected, strict=True):
        bound = error_bound(from_torch(module, x), row.astype(np.float32))
        found = evaluate(graph, {graph.inputs[0]: row.astype(np.float32)}, np.float64)[graph.outputs[0]]
        assert (np.abs(want - found) <= bound).all()
