"""What the learner's settings come to for a model: contexts, elastic weights, memory; and what cannot go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.compiler.layout import lay_out
from microtune.errors import PlanError
from microtune.tuning.learner import MOST_SETS

INPUTS = [mt.Input("hour", 0, 24), mt.Input("weekend", 0, 1), mt.Input("light")]
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (150, 3)) * [12, 0.5, 1] + [12, 0.5, 0]


def planned(net: Any, learner: mt.Learner, optimizer: Any = None, loss: str = "mse", **given: Any) -> mt.Plan:
    outputs = 3 if loss == "cross_entropy" else 1
    return mt.plan(net([3, 4, outputs], "tanh"), None, loss, optimizer, learner, inputs=INPUTS, **given)


# What cannot go together


@pytest.mark.parametrize(("learner", "given", "message"), [
    ({"contexts": [mt.Context("day", (1,))]}, {}, "there is no input 'day'. There are: 'hour', 'weekend', 'light'"),
    ({"contexts": [mt.Context(3, (1,))]}, {}, "there is no input 3"),
    ({"contexts": [mt.Context(-1, (1,))]}, {}, "there is no input -1"),
    ({"ewc": 1.0}, {}, r"give them: mt\.plan\(\.\.\., calibration=x\)"),
    ({"sensors": True}, {}, "give the factory's samples"),
    ({"sensors": True}, {"calibration": SAMPLES[:99]}, "at least 100 are needed"),
    ({"sensors": mt.Sensors(ignore=("day",))}, {"calibration": SAMPLES}, "day"),
    ({"ewc_memory": 1.0}, {"optimizer": mt.Adam()}, "gradients are read off steps of SGD, not of Adam"),
    ({"ewc_memory": 1.0}, {"optimizer": mt.RLS()}, "is for learning by gradient steps, not for RLS"),
    ({"recency": 5.0}, {"optimizer": mt.RLS()}, "is for learning by gradient steps, not for RLS"),
    ({"ewc": 1.0}, {"optimizer": mt.Bayes(), "calibration": SAMPLES}, r"Bayes\(\) has its own way; leave ewc out"),
    ({"replay": 5}, {"optimizer": mt.Bayes()}, "leave replay out"),
    ({"pull": 0.1}, {"optimizer": mt.Bayes()}, "leave pull out"),
    ({"replay": 2}, {"loss": "cross_entropy"}, "3 classes share it; use 3 or more, or 0"),
    ({"fallback": (1.0, 2.0)}, {}, "has 2 values, the model has 1 outputs"),
    ({}, {"calibration": SAMPLES[:, :2]}, r"has the shape \(150, 2\); \(samples, 3\) is needed"),
    ({}, {"calibration": SAMPLES * np.nan}, "no finite numbers"),
    ({}, {"calibration": (SAMPLES, SAMPLES[:9, 0])}, "150 samples and 9 labels"),
    ({}, {"calibration": (SAMPLES, 3)}, "150 samples and 1 labels"),
    ({}, {"calibration": [SAMPLES, SAMPLES[:, 0]]}, r"a tuple \(x, y\) with what is wanted of each"),
    ({}, {"calibration": (SAMPLES, ["warm"] * 150)}, r"\(150, 1\) finite numbers are needed"),
    ({"sensors": "yes"}, {"calibration": SAMPLES}, r"Learner\(sensors='yes'\): True, False"),
    ({}, {"calibration": (SAMPLES, np.full(150, 3)), "loss": "cross_entropy"}, "class indices 0 to 2"),
])  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(
    learner: dict[str, Any], given: dict[str, Any], message: str, net: Any
) -> None:
    with pytest.raises(PlanError, match=message):
        planned(net, mt.Learner(**learner), **given)


def test_integers_that_learn_are_not_pulled(net: Any) -> None:
    stored = mt.quantize(net([3, 4, 1]), SAMPLES.astype(np.float32))
    for name in ("pull", "ewc", "ewc_memory"):
        with pytest.raises(PlanError, match=f"{name}=0 or precision='float32'"):
            mt.plan(stored, mt.Head(1), "mse", mt.SGD(), mt.Learner(**{name: 0.5}), "mixed", calibration=SAMPLES)
    with pytest.raises(PlanError, match="takes them as int8"):
        mt.plan(stored, mt.Head(1), "mse", mt.SGD(), mt.Learner(contexts=[mt.Context(0, (1,))]))
    with pytest.raises(PlanError, match="takes them as int8"):
        mt.plan(stored, mt.Head(1), "mse", mt.SGD(), mt.Learner(sensors=True), calibration=SAMPLES)


# Sensors that nobody asked for


def test_sensors_are_looked_at_where_that_is_possible(net: Any) -> None:
    assert len(planned(net, mt.Learner(), calibration=SAMPLES).sensors) == 3
    assert planned(net, mt.Learner(), calibration=SAMPLES[:99]).sensors == ()
    assert planned(net, mt.Learner()).sensors == ()
    assert planned(net, mt.Learner(sensors=False), calibration=SAMPLES).sensors == ()
    wide = mt.plan(net([65, 2, 1]), calibration=np.random.default_rng(0).normal(size=(200, 65)))
    assert wide.sensors == ()


# Elastic weights


def test_pulls_are_the_proximal_steps_of_fisher_information(net: Any) -> None:
    """Of a linear model: the mean of x squared, and 1 for the bias (SPEC C2)."""
    graph = net([3, 2])
    learner = mt.Learner(ewc=3.0, sensors=False)
    made = mt.plan(graph, mt.Full(), "mse", mt.SGD(lr=0.25), learner, calibration=SAMPLES)
    strength = 0.25 * 3.0 * np.concatenate([np.tile((SAMPLES**2).mean(0), 2), np.ones(2)])
    assert made.pulls is not None and made.pulls.dtype == np.float32
    np.testing.assert_allclose(made.pulls, strength / (1 + strength), rtol=1e-5)
    assert planned(net, mt.Learner(), calibration=SAMPLES).pulls is None


def test_of_many_samples_an_even_spread_is_taken(net: Any) -> None:
    many = np.concatenate([SAMPLES, 5 * SAMPLES, SAMPLES, 5 * SAMPLES])
    learner = mt.Learner(ewc=1e-7, sensors=False)
    made = mt.plan(net([3, 1]), mt.Full(), "mse", mt.SGD(lr=1.0), learner, calibration=many)
    assert made.pulls is not None
    # small pulls are proportional to the information: half of the samples have 25 times as much
    np.testing.assert_allclose(made.pulls[:3] / made.pulls[3], (many**2).mean(0), rtol=0.15)


# Memory


def test_every_person_in_every_context_is_paid_for(net: Any) -> None:
    one = lay_out(planned(net, mt.Learner(buffer=10)))
    contexts = (mt.Context("hour", (6.0, 18.0)), mt.Context(1, (0.5,)))
    many = lay_out(planned(net, mt.Learner(buffer=10, profiles=4, contexts=contexts)))
    assert (one.sets, many.sets, many.person) == (1, 24, one.person)
    assert many.bytes - one.bytes == many.saved - one.saved == 23 * one.person
    with pytest.raises(PlanError, match=f"at most {MOST_SETS}"):
        mt.Learner(profiles=11, contexts=contexts)


def test_what_is_not_asked_for_takes_no_memory(net: Any) -> None:
    def size(**settings: Any) -> int:
        return lay_out(planned(net, mt.Learner(buffer=10, **settings), calibration=SAMPLES)).bytes

    plain = size(sensors=False)
    # 4 weights and a bias learn; a sample is 4 words of the cut, a target and a time
    assert size(sensors=False, slice=7, recency=5.0, disuse=30, pull=0.1, ewc=1.0) == plain
    assert size(sensors=False, ewc_memory=1.0) == plain + 4 * 5
    assert size(sensors=False, replay=7) == plain + 7 * 4 * 6
    assert size(sensors=False, log=5) == plain + 8
    assert size() == plain + 3 * 12
    assert size(sensors=False, profiles=2, recognise=True) - size(sensors=False, profiles=2) == 2 * 4 * (2 * 3 + 1)


# Contexts


def test_an_input_is_in_the_context_that_its_edges_say(net: Any, tmp_path: Path) -> None:
    """Of the generated C, against numpy; edges belong to the part above them."""
    contexts = (mt.Context("hour", (6.0, 18.0)), mt.Context("light", (-0.5,)))
    made = planned(net, mt.Learner(buffer=2, every=1, contexts=contexts), mt.SGD(0.1))
    device = mt.Device(mt.build(made, tmp_path / "lamp"))
    people = device.package.manifest["layout"]["people"]
    r = np.random.default_rng(3)
    x = np.stack([r.uniform(0, 24, 60), r.uniform(0, 1, 60), r.normal(size=60)], axis=1)
    x[:4, 0], x[:4, 2] = [6.0, 18.0, np.nextafter(np.float32(6), np.float32(0)), 0.0], [-0.5, -0.5, 3.0, -0.50001]
    expected = 2 * np.digitize(x[:, 0].astype(np.float32), [6.0, 18.0]) + np.digitize(
        x[:, 2].astype(np.float32), [-0.5]
    )
    uses = np.zeros(people["count"], int)
    for row, context in zip(x, expected, strict=True):
        device.predict(row)
        device.observe([0.0])
        uses[context] += 1
        assert device.status().uses == uses[context]
    assert people["count"] == 6 and (uses > 0).all()


def test_the_structure_is_of_what_learns_and_what_it_was_learnt_on(net: Any) -> None:
    """Builds that may take over each other's parameters, and builds that may not."""
    from microtune.compiler.emit import emit

    def structure(seed: int = 0, scheme: Any = None, **settings: Any) -> str:
        made = mt.plan(net([3, 4, 1], seed=seed), scheme, learner=mt.Learner(**settings))
        return next(line for line in str(emit(made, "lamp")["lamp.c"]).splitlines() if "of what learns" in line)

    assert structure() == structure(buffer=50, pull=0.5, profiles=3)
    assert len({structure(), structure(seed=1), structure(scheme=mt.Head(2)), structure(scheme=mt.Bias())}) == 4
    assert structure(scheme=mt.Full()) == structure(seed=1, scheme=mt.Full())  # nothing is frozen
