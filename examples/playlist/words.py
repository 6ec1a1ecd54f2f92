"""What a micro-update did, in words: which of the 42 numbers moved, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from network import SLOTS as SLOT_COUNT
from network import TERMS
from player import HISTORY, SKIPS
from world import FEATURES, SLOTS, Array

import microtune as mt

NAMES = (*FEATURES, *HISTORY, *SKIPS)
"""Of the 18 terms, in the order of the inputs."""
SOUNDS: Mapping[str, tuple[str, str]] = {
    "valence": ("sad", "cheerful"),
    "energy": ("calm", "energetic"),
    "tempo": ("slow", "fast"),
    "acousticness": ("electric", "acoustic"),
    "danceability": ("hard to dance to", "danceable"),
    "loudness": ("quiet", "loud"),
    "speechiness": ("without speech", "full of speech"),
    "instrumentalness": ("sung", "instrumental"),
    "liveness": ("from a studio", "from a stage"),
    "popularity": ("little known", "popular"),
    "likeness to the usual": ("unusual", "like most"),
    "likeness to this session": ("unlike those before it", "like those before it"),
}
"""What a song is where a term is below, and above, zero."""
MARKED = 0.3
"""A feature this far from the middle is worth a word."""


@dataclass(frozen=True)
class Numbers:
    """The 42 parameters as real numbers: mood, history and skip behaviour in one, scoring, time of day."""

    own: Array  # (18,)
    scoring: Array  # (18,)
    time: Array  # (6,)

    @property
    def weights(self) -> Array:
        """What each of the 18 terms counts (18,): its own parameter times its score."""
        return self.own * self.scoring

    @property
    def times(self) -> Array:
        """How much all of it counts at each time of day (6,); 1 where nothing is known of it."""
        return 1.0 + self.time


def numbers(device: mt.Device, plan: mt.Plan) -> Numbers:
    """What a device has learnt. Integers count in steps that the plan's graph knows."""
    found = dict[str, Array]()
    for name, values in device.parameters().items():
        stored = plan.graph.tensor(name).quantization
        found[name] = values.ravel() * (1.0 if stored is None else np.asarray(stored.scale, float))
    rest = [found.pop(name) for name in ("scoring", "time")]
    own = np.concatenate([found[name] for name in TERMS]) if TERMS[0] in found else next(iter(found.values()))
    return Numbers(own.astype(float), *(each.astype(float) for each in rest))


def moved(before: Numbers, after: Numbers) -> int:
    """How many of the 42 are not what they were."""
    pairs = ((before.own, after.own), (before.scoring, after.scoring), (before.time, after.time))
    return sum(int(np.count_nonzero(first != second)) for first, second in pairs)


@dataclass(frozen=True)
class Change:
    """What something counts, before and after, and how much of the change of this song's logit that makes."""

    name: str
    before: float
    after: float
    effect: float
    why: str

    @property
    def text(self) -> str:
        """Such as "energy up, -0.58 to -0.18: the song is calm"."""
        way = "up" if self.after > self.before else "down"
        return f"{self.name} {way}, {self.before:+.2f} to {self.after:+.2f}: {self.why}"


def changes(before: Numbers, after: Numbers, inputs: Array) -> list[Change]:
    """What moved, that which matters most for this song first.

    The logit is time of day x sum of weights x terms. Each weight's effect is reckoned at the mean of the two times of
    day, and that of the time of day at the mean of the two sums, so that the effects add up to the change of the logit.
    """
    terms, slot = inputs[:-SLOT_COUNT], int(np.argmax(inputs[-SLOT_COUNT:]))
    old, new, then, now = before.weights, after.weights, float(before.times[slot]), float(after.times[slot])
    found = [
        (name, float(old[each]), float(new[each]), float((new - old)[each] * terms[each]) * (then + now) / 2.0)
        for each, name in enumerate(NAMES)
    ]
    found.append((SLOTS[slot], then, now, (now - then) * float((old + new) @ terms) / 2.0))
    all_in_all = sum(effect for *_, effect in found)
    values = dict(zip(NAMES, terms, strict=True))
    told = [
        Change(name, was, becomes, effect, _why(name, values.get(name), effect * all_in_all > 0.0))
        for name, was, becomes, effect in found
        if becomes != was
    ]
    return sorted(told, key=lambda each: -abs(each.effect))


def _why(name: str, value: float | None, agrees: bool) -> str:
    """Why something moved, given its term; ``agrees``: it takes the score where the whole update took it."""
    if not agrees:
        return "moved along with the others"
    if value is None:
        return "that is the time of day"
    if name not in SOUNDS:
        return f"they are {'many' if value > 0.0 else 'few'} just now"
    return f"the song is {'a little ' if abs(value) < MARKED else ''}{SOUNDS[name][int(value > 0.0)]}"


def describe(song: Array, most: int = 3) -> str:
    """A song (10,) by the features that stand out most."""
    marked = [each for each in np.argsort(-np.abs(song)) if abs(song[each]) >= MARKED][:most]
    return ", ".join(SOUNDS[FEATURES[each]][int(song[each] > 0.0)] for each in marked) or "like most songs"


def tell(before: Numbers, after: Numbers, inputs: Array, most: int = 3) -> list[str]:
    """How many of the 42 moved and to what end, and the changes that matter most for this song, a line each."""
    found = changes(before, after, inputs)
    if not found:
        return ["nothing moved"]
    direction = "higher" if sum(each.effect for each in found) > 0.0 else "lower"
    return [
        f"{moved(before, after)} of 42 numbers moved, so that songs like this score {direction}; most of all",
        *(each.text for each in found[:most]),
    ]
