"""A4: what a student is taught is what the papers say, and it learns it; nothing that was given is changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

torch = pytest.importorskip("torch")
from tests.training.nets import Residual, digits, randomised  # noqa: E402
from torch import nn  # noqa: E402

import microtune as mt  # noqa: E402
from microtune.training.modules import predictions  # noqa: E402
from microtune.training.teaching import _same_size, softened  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 6)).astype(np.float32)
MIX = RNG.normal(size=(6, 3))
Y = np.argmax(X @ MIX + 2 * np.tanh(X[:, :3]), axis=1)


def dense(wide: int, outputs: int = 3, seed: int = 0) -> nn.Sequential:
    return randomised(nn.Sequential(nn.Linear(6, wide), nn.ReLU(), nn.Linear(wide, outputs)), seed)


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_softened_answers_are_compared_as_published(temperature: float) -> None:
    """Hinton et al. (2015), section 2, in numpy and float64."""
    ours, theirs = RNG.normal(size=(5, 3)) * 3, RNG.normal(size=(5, 3)) * 3
    student, teacher = torch.tensor(ours, requires_grad=True), torch.tensor(theirs)
    log_p, log_q = log_softmax(theirs / temperature), log_softmax(ours / temperature)
    divergence = temperature**2 * np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))
    found = softened(student, teacher, "cross_entropy", temperature)
    assert found.item() == pytest.approx(divergence, rel=1e-9)
    found.backward()
    # equation 2 of the paper, times T^2: T (q - p), here averaged over five samples
    np.testing.assert_allclose(student.grad, temperature * (np.exp(log_q) - np.exp(log_p)) / 5, atol=1e-12)

    # yes/no is two classes, of which one has the logit 0
    two = [np.stack([np.zeros(5), each[:, 0]], 1) for each in (ours, theirs)]
    binary = softened(student[:, :1], teacher[:, :1], "binary_cross_entropy", temperature)
    classes = softened(*(torch.tensor(each) for each in two), "cross_entropy", temperature)
    assert binary.item() == pytest.approx(classes.item(), rel=1e-9)
    assert softened(student, teacher, "mse", temperature).item() == pytest.approx(np.mean((ours - theirs) ** 2))
    for loss in ("cross_entropy", "binary_cross_entropy", "mse", "huber"):
        assert softened(teacher, teacher, loss, temperature).item() == pytest.approx(0, abs=1e-12)


def test_when_hot_it_is_the_logits_that_are_compared() -> None:
    """Equation 4 of the paper: gradients tend to (z - v) / N, whatever the temperature, for logits of mean zero."""
    ours, theirs = (each - each.mean(1, keepdims=True) for each in RNG.normal(size=(2, 4, 3)))
    student = torch.tensor(ours, requires_grad=True)
    softened(student, torch.tensor(theirs), "cross_entropy", 1000.0).backward()
    np.testing.assert_allclose(student.grad, (ours - theirs) / 3 / 4, rtol=0.01, atol=1e-4)


def test_a_student_learns_what_its_teacher_says_and_not_what_the_labels_say() -> None:
    teacher, wrong = dense(32, seed=5).eval(), RNG.permutation(Y)
    said = predictions(teacher, X).argmax(1)
    settings = {"epochs": 40, "lr": 0.03}
    agree = {}
    for weight in (0.0, 1.0):
        student = mt.distill(dense(16), teacher, (X, wrong), weight=weight, **settings)
        agree[weight] = np.mean(predictions(student, X).argmax(1) == said)
    assert agree[1.0] > 0.9 and agree[0.0] < 0.8
    blind = mt.distill(dense(16), teacher, (X, None), weight=1.0, **settings)
    again = mt.distill(dense(16), teacher, (X, wrong), weight=1.0, **settings)
    assert all(torch.equal(a, b) for a, b in zip(blind.parameters(), again.parameters(), strict=True))
    with pytest.raises(mt.TrainingError, match=r"weight=0[.]5 listens to y as well, which is None"):
        mt.distill(dense(16), teacher, (X, None))


def test_teachers_may_be_any_callable_and_values_are_taught_too() -> None:
    forest = LogisticRegression().fit(X, Y)
    student = mt.distill(dense(8), forest.predict_log_proba, (X, Y), epochs=20, lr=0.02)
    assert np.mean(predictions(student, X).argmax(1) == forest.predict(X)) > 0.9
    binary = LogisticRegression().fit(X, Y > 0)
    student = mt.distill(
        dense(8, 1), binary.decision_function, (X, Y > 0), loss="binary_cross_entropy", epochs=20, lr=0.02
    )
    assert np.mean((predictions(student, X)[:, 0] > 0) == binary.predict(X)) > 0.9
    data = (X, np.zeros((160, 3)))
    values = mt.distill(dense(8, 3), lambda x: x @ MIX, data, loss="mse", weight=1, epochs=60, lr=0.02)
    assert np.mean((predictions(values, X) - X @ MIX) ** 2) < 0.1 * np.var(X @ MIX)


class Maps(nn.Module):
    """Two convolutions; the second has its own stride."""

    def __init__(self, wide: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, wide, 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(wide, 2 * wide, 3, padding=1, stride=stride), nn.ReLU())
        self.out = nn.Linear(2 * wide, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(torch.relu(self.first(x))).mean((2, 3)))


def test_hidden_layers_are_matched_over_regressors_that_are_dropped() -> None:
    """Three linear maps that shall tell of six can at best be their first three principal components."""
    x, y = digits()
    x, y = x[:120], y[:120]
    teacher, student = randomised(Maps(6, 1), 1), randomised(Maps(3, 2), 2)
    teacher.train()  # it teaches as it predicts all the same
    before = [copy.deepcopy(each.state_dict()) for each in (student, teacher)]

    def rows(module: nn.Module) -> np.ndarray:
        with torch.no_grad():
            maps = module.first(torch.tensor(x)).movedim(1, -1).numpy().astype(np.float64)
        return maps.reshape(-1, maps.shape[-1]) - maps.reshape(-1, maps.shape[-1]).mean(0)

    def unexplained(module: nn.Module) -> float:
        """The share of the teacher's maps that no linear map of the student's gives."""
        ours, theirs = rows(module), rows(teacher)
        return float(np.sum((theirs - ours @ np.linalg.lstsq(ours, theirs, rcond=None)[0]) ** 2) / np.sum(theirs**2))

    energy = np.linalg.svd(rows(teacher), compute_uv=False) ** 2
    best = energy[3:].sum() / energy.sum()
    settings = {"epochs": 25, "lr": 0.03, "batch": 8, "weight": 0.0}
    plain = mt.distill(student, teacher, (x, y), **settings)
    hinted = mt.distill(student, teacher, (x, y), hidden={"first": "first"}, hidden_weight=30.0, **settings)
    assert best <= unexplained(hinted) < 1.5 * best < unexplained(plain)
    mt.distill(student, teacher, (x, y), hidden={"second": "second"}, epochs=1)  # maps of half the size
    assert hinted.state_dict().keys() == student.state_dict().keys()
    assert not any(each._forward_hooks for net in (hinted, student, teacher) for each in net.modules())
    assert teacher.training
    for net, old in zip((student, teacher), before, strict=True):
        assert all(torch.equal(each, old[name]) for name, each in net.state_dict().items())


def test_hidden_layers_count_as_much_whatever_their_size() -> None:
    """A hidden layer that says nothing is off by the teacher's whole mean square, which is the unit."""
    student = dense(8)
    with torch.no_grad():
        student[0].weight.zero_(), student[0].bias.zero_()
    for factor in (1e-3, 1.0, 1e3):
        teacher, losses = dense(8), list[float]()
        with torch.no_grad():
            teacher[0].weight.mul_(factor), teacher[0].bias.mul_(factor)
        for hidden in (None, {"0": "0"}):
            mt.distill(
                student, teacher, (X, Y), weight=0.0, hidden=hidden, hidden_weight=5.0, epochs=1, lr=1e-9,
                progress=lambda text, epoch, losses=losses: losses.append(epoch.loss),
            )  # fmt: skip
        assert losses[1] - losses[0] == pytest.approx(5.0, rel=1e-4)


def test_maps_of_different_size_are_averaged_to_the_smaller() -> None:
    small, large = RNG.normal(size=(2, 2, 3, 5)), RNG.normal(size=(2, 4, 6, 5))
    for given in ((small, large), (large, small)):
        found = _same_size(*(torch.tensor(each) for each in given))
        for each, array in zip(found, given, strict=True):
            expected = array if array is small else array.reshape(2, 2, 2, 3, 2, 5).mean((2, 4))
            np.testing.assert_allclose(each, expected)


def test_a_seed_settles_everything_and_steps_can_follow_each_other() -> None:
    teacher, student = dense(32, seed=5), dense(8)
    random, seen = torch.get_rng_state(), []
    settings = {"hidden": {"1": "1"}, "epochs": 2}
    first = mt.distill(student, teacher, (X, Y), progress=lambda text, epoch: seen.append(epoch.number), **settings)
    assert torch.equal(torch.get_rng_state(), random) and seen == [1, 2]
    again = mt.distill(student, teacher, (X, Y), **settings)
    other = mt.distill(student, teacher, (X, Y), seed=1, **settings)
    flat = [torch.cat([each.flatten() for each in net.parameters()]) for net in (first, again, other)]
    assert torch.equal(flat[0], flat[1]) and not torch.equal(flat[0], flat[2])
    # the assistant of Mirzadeh et al. (2020): a net between both is taught first, and teaches then
    small = mt.distill(mt.distill(dense(4), first, (X, Y), epochs=2), teacher, (X, Y), epochs=2)
    assert predictions(small, X).shape == (160, 3)


def test_what_does_not_fit_is_refused() -> None:
    student, teacher, data = dense(8), dense(32), (X, Y)
    few = LogisticRegression().fit(X, Y > 0)
    for settings, said in (
        ({"temperature": 0.0}, "temperature=0.0: above 0"),
        ({"weight": 1.5}, "weight=1.5: from 0"),
        ({"hidden_weight": -1.0}, "hidden_weight=-1.0"),
        ({"hidden": ["0"]}, r"hidden=\['0'\]: a dictionary"),
        ({"hidden": {"nope": "0"}}, "hidden: the student has no layer 'nope'. Known: 0, 1, 2"),
        ({"hidden": {"0": "nope"}}, "hidden: the teacher has no layer 'nope'"),
        ({"teacher": dense(8, 4)}, r"the teacher answers 160 samples by \(160, 4\); \(160, 3\) is needed"),
        ({"teacher": few}, "LogisticRegression is not called itself; pass .* teacher=net.predict_log_proba"),
        ({"teacher": lambda x: x @ np.full((6, 3), np.inf)}, "the teacher's answers are not all finite"),
        ({"teacher": lambda x: x @ np.ones(5)}, r"the teacher fails on inputs of shape \(160, 6\): "),
        ({"teacher": lambda x: x @ MIX, "hidden": {"0": "0"}}, "a function, whose layers cannot be seen"),
        ({"data": (X, Y + 1)}, "y holds classes 1 to 3; the module has 0 to 2"),
        ({"data": X}, "data must be a pair"),
    ):  # fmt: skip
        given = {"teacher": teacher, "data": data, **settings}
        with pytest.raises(mt.TrainingError, match=said), np.errstate(invalid="ignore"):
            mt.distill(student, given.pop("teacher"), given.pop("data"), **given)
    with pytest.raises(mt.TrainingError, match="'first' gives a sample 3 dimensions and '0' 1; "):
        x, y = digits()
        mt.distill(Residual(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (x[:8], y[:8]), hidden={"first": "0"})
    solid, wide = (
        nn.Sequential(nn.Unflatten(1, (1, 2, 3, 1)), nn.Conv3d(1, 2, size), nn.Flatten(), nn.LazyLinear(3))
        for size in ((1, 1, 1), (2, 1, 1))
    )
    with pytest.raises(mt.TrainingError, match=r"maps of \(2, 3, 1\) and '1' of \(1, 3, 1\); only those of one"):
        [net(torch.tensor(X)) for net in (solid, wide)]
        mt.distill(solid, wide, data, hidden={"1": "1"}, epochs=1)
