"""The training loop: it learns, repeats itself, disturbs nothing, and undoes what went wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import microtune as mt  # noqa: E402
from microtune.ops.loss import OPS as OPERATORS  # noqa: E402
from microtune.training.fit import Epoch, evaluate, fit, loss_function  # noqa: E402
from microtune.training.modules import predictions, samples_for  # noqa: E402
from microtune.training.samples import Samples  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(65, 3)).astype(np.float32)


def net(*extra: nn.Module, outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), *extra, nn.ReLU(), nn.Linear(8, outputs))


def state(module: nn.Module) -> list[torch.Tensor]:
    return [each.clone() for each in module.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("loss", "y", "at_least", "at_most"),
    [
        ("cross_entropy", (X[:, 0] > X[:, 1]).astype(int), 0.95, 1.0),
        ("binary_cross_entropy", X[:, :2] > 0, 0.95, 1.0),
        ("mse", X[:, :2] - 2 * X[:, 1:], 0.0, 0.1),
        ("huber", X[:, :2] - 2 * X[:, 1:], 0.0, 0.05),
    ],
)
def test_every_loss_is_learnt(loss: str, y: np.ndarray, at_least: float, at_most: float) -> None:
    module = net()
    samples = samples_for(module, (X, y), loss)
    history = fit(module, samples, loss=loss, epochs=60, lr=0.02, batch=16)
    assert history[-1].loss < 0.3 * history[0].loss
    assert at_least <= evaluate(module, samples, loss) <= at_most


@pytest.mark.parametrize("name", ["mse", "huber", "binary_cross_entropy", "cross_entropy"])
def test_losses_are_those_of_the_device(name: str) -> None:
    """The operator that the emitted C is made of, sample by sample."""
    outputs = RNG.normal(size=(6, 3)).astype(np.float32) * 2
    targets = RNG.integers(0, 2, (6, 3)).astype(np.float32) if name != "cross_entropy" else RNG.integers(0, 3, 6)
    attributes = {"delta": 1.0} if name == "huber" else {}
    operator = next(each for each in OPERATORS if each.name == name)
    theirs = [
        operator.reference([row, np.atleast_1d(target)], attributes)[0]
        for row, target in zip(outputs.astype(np.float64), targets, strict=True)
    ]
    ours = loss_function(name)(torch.from_numpy(outputs), torch.from_numpy(targets))
    assert float(ours) == pytest.approx(np.mean(theirs), rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_disturbs_no_random_numbers() -> None:
    first, second, other = (net(nn.BatchNorm1d(8), nn.Dropout(0.3)) for _ in range(3))
    first[1].eval()  # a part in another mode than the rest stays so
    samples = Samples(X, (X[:, 0] > 0).astype(np.int64))
    before = torch.get_rng_state()
    seen: list[tuple[str, Epoch | None]] = []
    history = fit(first, samples, epochs=3, batch=64, progress=lambda text, epoch: seen.append((text, epoch)))
    fit(second, samples, epochs=3, batch=64)
    fit(other, samples, epochs=3, batch=64, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(first), state(second)) and not same(state(first), state(other))
    assert first.training and not first[1].training and first[2].training
    assert all(each.grad is None for each in first.parameters())
    assert [epoch for _, epoch in seen] == list(history) and seen[2][0].startswith("epoch 3 of 3: loss ")


def test_frozen_parts_stay_and_a_further_term_counts() -> None:
    module, samples = net(), Samples(X, (X[:, 0] > 0).astype(np.int64))
    module[0].requires_grad_(False)
    before = state(module)
    fit(module, samples, epochs=5, lr=0.05, extra=lambda part, x, outputs: 100 * part[2].bias.square().sum())
    after = state(module)
    assert same(before[:2], after[:2]) and not torch.equal(before[2], after[2])
    assert float(after[3].abs().max()) < 0.02


def test_failed_training_leaves_the_module_whole() -> None:
    module = net(nn.BatchNorm1d(8))
    before = state(module)
    labels = (X[:, 0] > 0).astype(np.int64)
    with pytest.raises(mt.TrainingError, match=r"running_var is no longer finite: lr=0[.]001 is too high, or x"):
        fit(module, Samples(X * np.float32(3e37), labels), epochs=2)
    with pytest.raises(mt.TrainingError, match=r"the loss became inf in epoch 1 of 2: lr=0[.]001 is too high, or x"):
        fit(module, Samples(X, X[:, :2] * np.float32(1e37)), loss="mse", epochs=2)
    assert same(before, state(module)) and module.training

    def interrupted(text: str, epoch: Epoch | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(module, Samples(X, labels), epochs=2, progress=interrupted)
    assert same(before, state(module))


def test_settings_and_modules_that_cannot_be_are_refused() -> None:
    module, samples = net(), Samples(X, np.zeros(65, np.int64))
    nan, odd = float("nan"), ("a", None, float("nan"), float("inf"), True, [1], -1)
    for name in ("lr", "epochs", "batch", "seed"):
        for value in (*odd, *({"lr": (0.0, 1001)}.get(name, (1.5,)))):
            with pytest.raises(mt.TrainingError, match=f"{name}=.*: (above|a whole number)"):
                fit(module, samples, **{"epochs": 1, name: value})  # type: ignore[arg-type]
    for settings in ({"steps": "a"}, {"steps": nan}, {"multiple": None}, {"last_epochs": "a"}, {"seed": 2**70}):
        with pytest.raises(mt.TrainingError, match=f"{next(iter(settings))}=.*: a whole number"):
            mt.prune(module, (X, np.zeros(65)), weights=0.5, **settings)
    for settings in ({"temperature": "a"}, {"weight": None}, {"hidden_weight": nan}, {"seed": -1}):
        with pytest.raises(mt.TrainingError, match=f"{next(iter(settings))}=.*: "):
            mt.distill(module, module, (X, np.zeros(65)), **settings)  # type: ignore[arg-type]
    for name, value in (("samples", "a"), ("percentile", None)):
        with pytest.raises(mt.MicrotuneError, match=f"{name} must be .*, not {value!r}"):
            mt.quantize_aware(module, (X, np.zeros(65)), **{name: value})
    for data in (None, 3, (X,), (X, X, X), "abc", (None, X)):
        with pytest.raises(mt.TrainingError, match=r"data must be a pair|x must be an array of numbers"):
            mt.quantize_aware(module, data)  # type: ignore[arg-type]
    with pytest.raises(mt.TrainingError, match=r"Linear fails on an input of shape \(2, 3\)"):
        samples_for(nn.Linear(4, 2), (X, np.zeros(65)))
    with pytest.raises(mt.TrainingError, match="LSTM returns tuple; one tensor"):
        samples_for(nn.LSTM(3, 2), (X, np.zeros(65)))
    with pytest.raises(mt.TrainingError, match="data must be a pair"):
        samples_for(module, X)


def test_every_epoch_sees_all_samples_in_another_order() -> None:
    seen: list[torch.Tensor] = []

    def watched(module: nn.Module, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs)
        return torch.zeros(())

    fit(net(), Samples(X, np.zeros(65, np.int64)), epochs=2, extra=watched)
    epochs = [torch.cat(seen[first : first + 3]).numpy() for first in (0, 3)]
    assert [len(each) for each in seen] == 2 * [22, 22, 21]
    assert all(np.array_equal(np.unique(each, axis=0), np.unique(X, axis=0)) for each in epochs)
    assert not any(np.array_equal(each, other) for each, other in zip(epochs, (X, epochs[0]), strict=True))


def test_whatever_pytorch_is_set_to() -> None:
    """Gradients off, and double precision as the default for new tensors."""
    module, teacher, data = net(), nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 2)), (X, X[:, 0] > 0)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            small = mt.prune(module, data, channels=0.5, steps=1, epochs=1)
            taught = mt.distill(small, teacher, data, hidden={"0": "0"}, epochs=1)
            again = mt.to_torch(mt.load(taught, example=X[:1]))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {each.dtype for each in (*small.parameters(), *taught.parameters(), *again.parameters())} == {torch.float32}
    assert not torch.equal(small[0].weight, taught[0].weight)


def test_tables_are_looked_up_by_whole_numbers() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    words = RNG.integers(0, 5, (40, 2))
    samples = samples_for(module, (words, words[:, 0] > words[:, 1]))
    assert samples.x.dtype == np.int64
    fit(module, samples, epochs=40, lr=0.05)
    assert evaluate(module, samples) > 0.9
    with pytest.raises(mt.TrainingError, match="whole numbers"):
        samples_for(module, (words + 0.5, np.zeros(40)))


def test_predictions_are_those_of_inference() -> None:
    module = net(nn.BatchNorm1d(8), nn.Dropout(0.5))
    whole = copy.deepcopy(module).eval()(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_array_equal(predictions(module, X), whole)
    np.testing.assert_allclose(predictions(module, X, batch=7), whole, rtol=1e-5, atol=1e-6)
    assert module.training
