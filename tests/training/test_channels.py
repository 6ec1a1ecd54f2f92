"""A3, structured: channels that go are really gone, and nothing else changes.

The oracle is a net whose doomed channels were made dead by hand: they are exactly zero, whatever the input, so the
smaller net must answer the same. Nothing of torch-pruning is in it.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")
from tests.training.conftest import Known  # noqa: E402
from tests.training.nets import (  # noqa: E402
    ChannelsLast,
    FromInput,
    Gated,
    Joined,
    Normed,
    Recurrent,
    Residual,
    Sound,
    Tied,
    randomised,
)
from torch import nn  # noqa: E402

import microtune as mt  # noqa: E402
from microtune.ops.evaluate import evaluate as evaluate_graph  # noqa: E402
from microtune.training.channels import kept  # noqa: E402
from microtune.training.fit import evaluate  # noqa: E402
from microtune.training.modules import predictions, samples_for  # noqa: E402
from microtune.training.pruning import shares_at  # noqa: E402
from microtune.training.tied import tied_channels  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(128, 1, 8, 8)).astype(np.float32), RNG.integers(0, 10, 128)
DATA = (X[:64], Y[:64])
CUT_ONLY = {"steps": 1, "epochs": 0, "schedule": "one-shot"}

# net, and the layers that give the same channels
NETS: dict[str, tuple[type[nn.Module], list[tuple[str, ...]]]] = {
    "residual": (Residual, [
        ("first", "norm", "back", "deep"), ("inner", "inner_norm"), ("point", "point_norm"), ("dense",),
    ]),
    "joined": (Joined, [("left",), ("right",), ("after",)]),
    "channels last": (ChannelsLast, [("map",), ("dense",)]),
    "sound": (Sound, [("first",), ("second",)]),
}  # fmt: skip


def kill(net: nn.Module, layers: tuple[str, ...], channels: np.ndarray) -> None:
    """Make channels zero for every input: no weights, no bias, and no batch norm that shifts them."""
    with torch.no_grad():
        for name in layers:
            layer = net.get_submodule(name)
            for each in (layer.weight, layer.bias):
                if each is not None:
                    each[channels] = 0.0


def width(net: nn.Module, name: str) -> int:
    return len(net.get_submodule(name).weight)


@pytest.mark.parametrize("name", NETS)
def test_without_its_dead_channels_a_net_answers_the_same(name: str) -> None:
    make, sets = NETS[name]
    net, rng = randomised(make()).eval(), np.random.default_rng(1)
    for layers in sets:
        count = width(net, layers[0])
        kill(net, layers, rng.permutation(count)[: count // 2])
    small = mt.prune(net, DATA, channels=0.5, **CUT_ONLY)
    for layers in sets:
        assert {width(small, each) for each in layers} == {width(net, layers[0]) - width(net, layers[0]) // 2}
    assert width(small, "out") == 10
    before, after = predictions(net, X[64:128]), predictions(small, X[64:128])
    # sums of at most 144 products in another order: 144 roundings of 2^-24, through a few layers
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())
    shuffled = predictions(small, X[64:128].transpose(0, 1, 3, 2))
    assert np.abs(shuffled - before).max() > 0.1 * np.abs(before).max()  # a net that ignores its inputs proves nothing


def test_the_smaller_net_is_loaded_and_answers_the_same() -> None:
    net = randomised(Residual()).eval()
    small = mt.prune(net, DATA, channels={"first": 0.5, "dense": 0.25}, **CUT_ONLY)
    graph = mt.load(small, example=X[:1])
    assert max(each.size for each in graph.constants) == 9 * 256  # of 12 * 256
    found = evaluate_graph(graph, {graph.inputs[0]: X[:4]})[graph.outputs[0]]
    expected = predictions(small, X[:4])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    # and a graph is pruned like a module: the layers read from it are tied in the same way, and all of them are found
    half = mt.prune(graph, DATA, channels=0.5, **CUT_ONLY)
    modules = mt.prune(small, DATA, channels=0.5, **CUT_ONLY)
    sizes = [sorted(each.numel() for each in net.parameters() if each.ndim > 1) for net in (half, modules)]
    assert sizes[0] == sizes[1]


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 3), st.integers(5, 12), st.sampled_from([0.25, 0.5, 0.7]), st.sampled_from([1, 4]))
def test_any_depth_width_share_and_multiple(depth: int, wide: int, share: float, multiple: int) -> None:
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(64 if number == 0 else wide, wide), nn.BatchNorm1d(wide), nn.ReLU()]
    net = randomised(nn.Sequential(*layers, nn.Linear(wide, 10))).eval()
    stay = kept(wide, share, multiple)
    assert stay == min(-(-round(wide * (1 - share)) // multiple) * multiple, wide)
    dead = np.random.default_rng(wide).permutation(wide)[: wide - stay]
    for number in range(depth):
        kill(net, (str(1 + 3 * number), str(2 + 3 * number)), dead)
    small = mt.prune(net, DATA, channels=share, multiple=multiple, **CUT_ONLY)
    assert [width(small, str(1 + 3 * number)) for number in range(depth)] == [stay] * depth
    before = predictions(net, X[:32])
    np.testing.assert_allclose(predictions(small, X[:32]), before, rtol=0, atol=1e-4 * np.abs(before).max())


def test_what_cannot_be_cut_exactly_stays_and_is_named() -> None:
    free, bound = tied_channels(randomised(Normed()), X[:2])
    assert [each.layers for each in free] == [("inner",)]
    assert "layer norm" in bound["first"] and bound["back"] == bound["first"] and "outputs" in bound["out"]
    small = mt.prune(randomised(Normed()), DATA, channels=0.5, **CUT_ONLY)
    assert [width(small, name) for name in ("first", "inner", "back", "out")] == [8, 8, 8, 10]

    for net, reasons in (
        (FromInput(), {"same": "inputs", "down": "inputs", "out": "outputs"}),
        (Recurrent(), {"into": "recurrent", "out": "out"}),
        (Gated(), {"both": "both is split into parts", "out": "outputs"}),
    ):
        free, bound = tied_channels(net, X[:2])
        assert not free and bound.keys() == reasons.keys()
        assert all(reason in bound[name] for name, reason in reasons.items()), bound
        with pytest.raises(mt.TrainingError, match=r"no channels of .* can be cut: "):
            mt.prune(net, DATA, channels=0.5, **CUT_ONLY)


def test_layers_that_share_weights_stay_and_others_are_cut() -> None:
    net = randomised(Tied())
    small = mt.prune(net, DATA, channels=0.5, epochs=1)
    assert (width(small, "first"), width(small, "second"), width(small, "down")) == (64, 64, 4)
    assert small.second.weight is small.first.weight
    with pytest.raises(mt.TrainingError, match=r"layer 'first' cannot be pruned: .* that shares its weights"):
        mt.prune(net, DATA, channels={"first": 0.5})
    with pytest.raises(mt.TrainingError, match="no channels of Flatten can be cut: it has no dense or conv"):
        mt.prune(nn.Flatten(), DATA, channels=0.5)


def test_shares_that_do_not_fit_are_refused() -> None:
    net = randomised(Residual())
    for channels, said in (
        ({"nope": 0.5}, "there is no layer 'nope' with weights. Known: first, .*out$"),
        ({"out": 0.5}, "layer 'out' cannot be pruned: out gives the net's outputs"),
        ({"first": 0.5, "back": 0.25}, "these layers' channels go together"),
        (1.0, "channels=1.0: the share that is taken away, from 0 to below 1"),
        ({"dense": -0.1}, r"channels\['dense'\]=-0.1"),
    ):
        with pytest.raises(mt.TrainingError, match=said):
            mt.prune(net, DATA, channels=channels, **CUT_ONLY)
    with pytest.raises(mt.TrainingError, match="either channels= or weights="):
        mt.prune(net, DATA)
    with pytest.raises(mt.TrainingError, match="schedule='quick': one of cubic, linear, one-shot"):
        mt.prune(net, DATA, channels=0.5, schedule="quick")
    with pytest.raises(mt.TrainingError, match="y holds classes 1 to 10; the module has 0 to 9"):
        mt.prune(net, (X, Y + 1), channels=0.5)


def test_schedules_reach_the_share_in_their_own_ways() -> None:
    assert shares_at(0.8, 4, "linear") == pytest.approx((0.2, 0.4, 0.6, 0.8))
    # Zhu and Gupta (2017), equation 1, from 0: s = s_f (1 - (1 - t / n)^3)
    assert shares_at(0.8, 4, "cubic") == pytest.approx((0.4625, 0.7, 0.7875, 0.8))
    assert shares_at(0.8, 4, "one-shot") == (0.8,)


def test_a_net_made_small_step_by_step_still_knows(known: Known) -> None:
    """And the one that was given is as it was, bit for bit, and so are PyTorch's random numbers."""
    net = copy.deepcopy(known.module)
    net.norm.train()
    net.first.weight.requires_grad_(False)
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    random, seen = torch.get_rng_state(), []
    small = mt.prune(
        net, known.learnt, channels=0.3, lr=0.003, steps=3, epochs=1, last_epochs=4, seed=3,
        progress=lambda text, epoch: seen.append((text, epoch)),
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())
    assert [part.training for part in net.modules()] == [part.training for part in small.modules()] == modes
    assert not small.first.weight.requires_grad and small.back.weight.requires_grad
    assert all(each.grad is None for each in (*net.parameters(), *small.parameters()))

    said = [text for text, epoch in seen if epoch is None]
    left = [int(text.split(": ")[1].split(" of ")[0].replace(",", "")) for text in said]
    assert len(said) == 3 and left == sorted(left, reverse=True)
    assert left[-1] == sum(each.numel() for each in small.parameters())
    assert [epoch.count for _, epoch in seen if epoch is not None] == [1, 1, 4, 4, 4, 4]

    cut_only = mt.prune(net, known.learnt, channels=0.3, **CUT_ONLY)
    judged = samples_for(small, known.judged)
    assert evaluate(cut_only, judged) < known.accuracy - 0.05  # or training afterwards would prove nothing
    assert evaluate(small, judged) > known.accuracy - 0.03


def test_a_seed_settles_everything() -> None:
    net = randomised(Residual())
    runs = [mt.prune(net, DATA, channels=0.5, steps=2, epochs=1, seed=seed) for seed in (1, 1, 2)]
    first, again, other = ([*run.state_dict().values()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
