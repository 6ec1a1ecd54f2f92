"""Settings of the learner: as text, and what contradicts itself."""

from collections.abc import Callable

import numpy as np
import pytest

import microtune as mt
from microtune import choices

READ = {
    "": mt.Learner(),
    "replay=40,profiles=2,recognise": mt.Learner(replay=40, profiles=2, recognise=True),
    "restart=no,folds=0,in_place=yes": mt.Learner(restart=False, folds=0, in_place=True),
    "contexts=weekend:0.5+3:6/12": mt.Learner(contexts=(mt.Context("weekend", (0.5,)), mt.Context(3, (6.0, 12.0)))),
    "fallback=0.5/0.25,ewc=2.5,sensors=no": mt.Learner(fallback=(0.5, 0.25), ewc=2.5, sensors=False),
}


@pytest.mark.parametrize("text", READ)
def test_text_says_what_python_says(text: str) -> None:
    assert choices.learner(text) == READ[text]


def test_text_goes_over_what_is_given() -> None:
    assert choices.learner("every=3", buffer=7, every=5) == mt.Learner(buffer=7, every=3)


@pytest.mark.parametrize("text, says", [
    ("replays=4", "unknown setting 'replays' of the learner. Known: buffer, replay, every"),
    ("replay", "replay takes a value"),
    ("replay=", "replay takes a value"),
    ("contexts", "contexts takes a value"),
    ("replay=few", "replay=few: 'few' is not a whole number"),
    ("ewc=much", "ewc=much: 'much' is not a number"),
    ("restart=maybe", "write restart, restart=yes or restart=no"),
    ("contexts=weekend", "by its name or place, and edges: 0:6/12/18"),
    ("contexts=weekend:2/1", "edges must be finite numbers that rise"),
    ("recognise", "there is one profile; set profiles=2 or more"),
    ("profiles=17", "must be 1 to 16"),
    ("profiles=16,contexts=a:1/2/3/4", "are 80 sets of parameters and samples; at most 64"),
    ("buffer=60000,replay=6000", "at most 65535 samples in all"),
    ("every=8,buffer=7", "an update needs more samples than are kept"),
    ("folds=1", "judging needs at least 2 folds"),
    ("in_place", "set folds=0, restart=False"),
    ("disuse=-1", "must be 0 to 36500"),
])  # fmt: skip
def test_other_text_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(mt.PlanError) as refused:
        choices.learner(text)
    assert says in str(refused.value)


@pytest.mark.parametrize("make, says", [
    (lambda: mt.Learner(buffer=60.5), "Learner(buffer=60.5): must be a whole number, 1 to 65535"),
    (lambda: mt.Learner(profiles="two"), "Learner(profiles='two'): must be a whole number, 1 to 16"),
    (lambda: mt.Learner(ewc="much"), "Learner(ewc='much'): must be a number, 0 to 1000000.0"),
    (lambda: mt.Learner(tolerance=float("inf")), "must be above 0, and finite"),
    (lambda: mt.Learner(fallback=0.5), "Learner(fallback=0.5): a list of finite numbers, one for each output"),
    (lambda: mt.Learner(fallback=[float("nan")]), "a list of finite numbers"),
    (lambda: mt.Learner(contexts=mt.Context("hour", [12])), "a list of contexts, such as [Context('hour', [12])]"),
    (lambda: mt.Learner(contexts=["hour"]), "a list of contexts"),
    (lambda: mt.Context("weekend", 0.5), "edges are a list of numbers, such as [0.5]"),  # type: ignore[arg-type]
    (lambda: mt.Sensors(ignore="hour"), "a tuple of names, such as ('hour',)"),  # type: ignore[arg-type]
    (lambda: mt.Input("hour", None, 24), "leave out what has no limit"),  # type: ignore[arg-type]
])  # fmt: skip
def test_what_is_of_another_kind_is_refused_with_a_sentence(make: Callable[[], object], says: str) -> None:
    with pytest.raises(mt.PlanError) as refused:
        make()
    assert says in str(refused.value)


def test_numbers_of_numpy_become_plain_ones() -> None:
    learner = mt.Learner(buffer=np.int64(7), every=np.int32(3), pull=np.float32(0.5))
    assert learner == mt.Learner(buffer=7, every=3, pull=0.5)
    assert (type(learner.buffer), type(learner.pull)) == (int, float)
