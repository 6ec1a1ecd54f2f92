"""A3, unstructured: weights that go are exact zeros, biases and norms stay, and the zeros last."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests.training.conftest import Known  # noqa: E402
from tests.training.nets import Attending, Recurrent, Residual, digits, randomised  # noqa: E402
from torch import nn  # noqa: E402

import microtune as mt  # noqa: E402
from microtune.training.fit import evaluate, fit  # noqa: E402
from microtune.training.modules import predictions, samples_for  # noqa: E402
from microtune.training.sparsity import weighted_layers, zeros_kept  # noqa: E402

X, Y = digits()
DATA = (X[:64], Y[:64])
CUT_ONLY = {"steps": 1, "epochs": 0}


def zeros(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: (each.weight == 0).numpy() for name, each in weighted_layers(module).items()}


def test_the_least_weights_become_zero_and_narrow_layers_keep_more() -> None:
    net = randomised(Residual())
    sparse = mt.prune(net, DATA, weights=0.7, **CUT_ONLY)
    scores, kept = {}, {}
    for name, layer in weighted_layers(sparse).items():
        before, after = (each.weight.detach().numpy().ravel() for each in (net.get_submodule(name), layer))
        # Lee et al. (2021), definition 1: the square over the sum of all squares of the layer that are not smaller
        squares = before.astype(np.float64) ** 2
        scores[name] = [square / squares[squares >= square].sum() for square in squares]
        kept[name] = after != 0
        np.testing.assert_array_equal(after[kept[name]], before[kept[name]])
        assert not np.signbit(after[~kept[name]]).any()
    every, stays = (np.concatenate(list(each.values())) for each in (scores, kept))
    assert (~stays).sum() == round(0.7 * every.size)
    assert every[stays].min() >= every[~stays].max()
    assert kept["deep"].mean() > 0.5 > 0.3 > kept["dense"].mean()
    others = {name for name, _ in net.named_parameters()} - {f"{name}.weight" for name in weighted_layers(net)}
    assert {name for name in others if "norm" in name} and {name for name in others if "bias" in name}
    for name in others:
        assert torch.equal(net.get_parameter(name), sparse.get_parameter(name))


def test_layers_are_chosen_by_name_and_others_left_alone() -> None:
    sparse = mt.prune(randomised(Residual()), DATA, weights={"dense": 0.9, "point": 0.0}, **CUT_ONLY)
    counts = {name: int(each.sum()) for name, each in zeros(sparse).items()}
    size = sparse.dense.weight.numel()
    assert counts == {**dict.fromkeys(counts, 0), "dense": round(0.9 * size)}
    with pytest.raises(mt.TrainingError, match="weights: there is no layer 'norm' with weights"):
        mt.prune(randomised(Residual()), DATA, weights={"norm": 0.5})
    with pytest.raises(mt.TrainingError, match="weights='much'"):
        mt.prune(randomised(Residual()), DATA, weights="much")
    with pytest.raises(mt.TrainingError, match="Embedding has no dense or convolutional layer"):
        mt.prune(nn.Embedding(5, 10), (np.arange(16).reshape(8, 2) % 5, np.zeros((8, 20))), weights=0.5, loss="mse")
    computed = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 10)))
    with pytest.raises(mt.TrainingError, match="weight of layer '1' is computed by a parametrisation"):
        mt.prune(computed, DATA, weights=0.5)
    masked = nn.Sequential(nn.Flatten(), nn.utils.prune.l1_unstructured(nn.Linear(64, 10), "weight", 0.5))
    masked(torch.tensor(X[:1]))
    with pytest.raises(mt.TrainingError, match=r"Sequential cannot be copied: .*Masks .* made permanent by its remove"):
        mt.prune(masked, DATA, weights=0.5)
    among = mt.prune(Attending(), DATA, weights=0.5, epochs=1, steps=2)
    assert bool((among.among.out_proj.weight != 0).all()) and int((among.out.weight == 0).sum()) == 40
    memory = mt.prune(Recurrent(), DATA, weights=0.5, **CUT_ONLY)  # beside a recurrent layer, which stays
    assert bool((memory.memory.weight_ih_l0 != 0).all()) and bool((memory.into.weight == 0).any())


def test_zeros_last_through_all_steps_and_the_net_still_knows(known: Known) -> None:
    net, seen = known.module, []
    before = copy.deepcopy(net.state_dict())
    sparse = mt.prune(
        net, known.learnt, weights=0.8, lr=0.003, epochs=1, last_epochs=4,
        progress=lambda text, epoch: seen.append(text) if epoch is None else None,
    )  # fmt: skip
    assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())
    total = sum(each.size for each in zeros(sparse).values())
    assert sum(each.sum() for each in zeros(sparse).values()) == round(0.8 * total)
    left = [int(text.split(": ")[1].split(" of ")[0].replace(",", "")) for text in seen]
    # a cubic schedule in four steps
    np.testing.assert_allclose(left, total * (1 - 0.8 * (1 - (1 - np.arange(1, 5) / 4) ** 3)), atol=1)
    assert {name for name, _ in sparse.named_parameters()} == {name for name, _ in net.named_parameters()}
    assert not any(each._forward_pre_hooks for each in sparse.modules())
    copy.deepcopy(sparse)

    cut_only = mt.prune(net, known.learnt, weights=0.8, **CUT_ONLY)
    judged = samples_for(sparse, known.judged)
    assert evaluate(cut_only, judged) < known.accuracy - 0.1 < 0.9
    assert evaluate(sparse, judged) > known.accuracy - 0.03

    # whatever is trained within, such as quantisation-aware, keeps them
    held, lost = copy.deepcopy(sparse), copy.deepcopy(sparse)
    with zeros_kept(held):
        fit(held, samples_for(held, known.learnt), epochs=1)
    fit(lost, samples_for(lost, known.learnt), epochs=1)
    assert all(np.array_equal(each, zeros(held)[name]) for name, each in zeros(sparse).items())
    assert not any(np.array_equal(each, zeros(lost)[name]) for name, each in zeros(sparse).items())
    assert not torch.equal(held.dense.weight, sparse.dense.weight)


def test_the_graph_has_the_same_zeros() -> None:
    """Between layers without batch norm, whose scale would be folded into them all the same."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    sparse = mt.prune(net, DATA, weights={"1": 0.75, "3": 0.75}, steps=2, epochs=1)
    graph = mt.load(sparse, example=X[:1])
    found = sorted(int((each.data == 0).sum()) for each in graph.constants if each.data.ndim == 2)
    assert found == [120, 768]
    assert predictions(sparse, X[:4]).shape == (4, 10)
