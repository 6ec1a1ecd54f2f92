"""Settings of the learner: as text, and what contradicts itself."""

import pytest

import microtune as mt
from microtune import choices

READ = {
    "": mt.Learner(),
    "replay=40,profiles=2,recognise": mt.Learner(replay=40, profiles=2, recognise=True),
    "restart=no,folds=0,in_place=yes": mt.Learner(restart=False, folds=0, in_place=True),
    "contexts=weekend:0.5+3:6/12": mt.Learner(
        contexts=(mt.Context("weekend", (0.5,)), mt.Context(3, (6.0, 12.0)))
    ),
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
    ("replay=few", "'few' is not a whole number"),
    ("ewc=much", "'much' is not a number"),
    ("restart=maybe", "write restart, restart=yes or restart=no"),
    ("contexts=weekend", "'' is not a number"),
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
