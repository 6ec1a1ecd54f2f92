"""A1 for PyTorch: modules against their own forward pass, through PyTorch's exporter."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from microtune.compress.folding import fold  # noqa: E402
from microtune.errors import ModelError  # noqa: E402
from microtune.frontends import load  # noqa: E402
from microtune.frontends.torch import from_torch  # noqa: E402
from microtune.ir import verify  # noqa: E402
from microtune.ops.evaluate import evaluate  # noqa: E402


class Residual(nn.Module):
    """Standardisation, a skip connection, a gate, and a regression output without its dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.inner, self.last = (
            nn.Parameter(torch.randn(4)),
            nn.Linear(4, 4, bias=False),
            nn.Linear(4, 1),
        )

    def forward(self, x: Any) -> Any:
        x = (x - self.mean) / 3
        x = x + nn.functional.silu(self.inner(x))
        return self.last(x * torch.tanh(x)).squeeze(-1)


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(12, 2)

    def forward(self, x: Any) -> Any:
        return torch.softmax(self.last(x.view(x.size(0), -1) / 255), dim=1)


def trained_norm() -> Any:
    net = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU6(),
        nn.Dropout(0.5),
        nn.Linear(6, 5),
        nn.LeakyReLU(0.2),
        nn.Linear(5, 3),
        nn.Sigmoid(),
    )
    for _ in range(5):
        net(torch.randn(32, 4) * 2 + 1)  # the running mean and variance move
    return net


MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "relu": (lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)), (4,)),
    "norm": (trained_norm, (4,)),
    "residual": (Residual, (4,)),
    "flattened": (Flattened, (3, 4)),
    "flatten layer": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Tanh()), (1, 3, 4)),
}


def assert_same(module: Any, example: Any, x: Any, error_bound: Any) -> None:
    unfolded = from_torch(module, example)
    folded = fold(verify(unfolded))  # as load does, without a second export
    with torch.no_grad():
        expected = module.eval()(x).numpy().reshape(len(x), -1)
    found = evaluate(folded, {folded.inputs[0]: x.numpy()}, np.float64)[folded.outputs[0]]
    for row, want, got in zip(x.numpy(), expected, found, strict=True):
        bound = error_bound(unfolded, row)
        assert (np.abs(want - got) <= bound).all(), (want - got, bound)


@pytest.mark.parametrize("name", MODULES)
def test_modules_agree_with_their_forward(name: str, error_bound: Any) -> None:
    torch.manual_seed(5)
    make, sample = MODULES[name]
    x = torch.randn(6, *sample)
    assert_same(make(), x, x, error_bound)


@pytest.mark.parametrize("example", [torch.zeros(4), np.zeros((1, 4)), [[0.0] * 4] * 3, np.zeros(4, np.int64)])
def test_example_is_a_sample_or_a_batch(example: Any) -> None:
    graph = load(nn.Sequential(nn.Linear(4, 3)), example=example)
    assert (graph.tensor(graph.inputs[0]).shape, graph.tensor(graph.outputs[0]).shape) == ((4,), (3,))


def test_example_of_one_sample_of_an_image() -> None:
    graph = load(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), example=torch.zeros(3, 4))
    assert graph.tensor(graph.inputs[0]).shape == (3, 4)


def test_module_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    net = trained_norm()
    net[1].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    load(net, example=torch.zeros(4))
    assert (net.training, net[1].training, net[3].training) == (True, False, True)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_equal_initial_biases_of_two_layers_are_not_tied() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    for layer in (net[0], net[2]):
        nn.init.zeros_(layer.bias)
        nn.init.eye_(layer.weight)
    assert len(load(net, example=torch.zeros(3)).constants) == 4


def test_names_and_double_precision() -> None:
    graph = load(nn.Sequential(nn.Linear(4, 2).double()), example=torch.zeros(4), name="toaster")
    assert graph.name == "toaster"
    assert [tensor.name for tensor in graph.constants] == ["0.weight", "0.bias"]
    assert {tensor.dtype for tensor in graph.constants} == {"float32"}


def test_older_exporter_is_used_without_onnxscript(monkeypatch: pytest.MonkeyPatch, error_bound: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    x = torch.randn(4, 4)
    assert_same(trained_norm(), x, x, error_bound)


def test_refusals() -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"Sequential: give an example input, such as load\(module, example="):
        load(net)
    with pytest.raises(ModelError, match=r"Sequential fails on an example of shape \(1, 3\): .*mat1 and mat2"):
        load(net, example=torch.zeros(3))
    with pytest.raises(ModelError, match=r"example has the shape \(0, 4\)"):
        load(net, example=torch.zeros(0, 4))
    with pytest.raises(ModelError, match=r"\(Erf\).*not supported. Supported: Add|\(Gelu\): not supported"):
        load(nn.Sequential(nn.Linear(4, 2), nn.GELU()), example=torch.zeros(4))
    with pytest.raises(ModelError, match="example is no tensor, and 'str' cannot be made one"):
        load(net, example="text")


def test_softmax_over_the_batch_is_refused() -> None:
    with pytest.raises(ModelError, match="must span a whole sample"):
        load(nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=0)), example=torch.zeros(4))
    assert "torch" in sys.modules
