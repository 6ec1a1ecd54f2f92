"""How well a player knows somebody: the area under the ROC curve on songs they never heard, learning frozen."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from player import Play, Player, afterwards, live
from sklearn.metrics import roc_auc_score
from world import Array, Listener, Song, draw_listener

import microtune as mt

COUNTS = (5, 10, 20, 50)
SESSIONS = 20
"""Sessions of fresh songs by which somebody is judged, each from what the player remembers by then."""
CHOICE = 3
"""Songs from which a player with a choice takes the one it thinks most of."""


@dataclass(frozen=True)
class Trial:
    """One listener: the plays that are learnt, in order, and after so many of them what could come next."""

    listener: Listener
    plays: list[Play]
    fresh: dict[int, list[Play]]


def trial(seed: int, songs: Sequence[Song], counts: Sequence[int] = COUNTS, sessions: int = SESSIONS) -> Trial:
    """The listener of a seed. No fresh song was played before; what is fresh at a count depends on no other count."""
    rng = np.random.default_rng((seed, 0))
    listener, player = draw_listener(rng), Player()
    catalogue, plays, fresh = list(songs), list[Play](), dict[int, list[Play]]()
    for play in live(listener, player, catalogue, rng, max(counts)):
        plays.append(play)
        if len(plays) in counts:
            known = {each.song.title for each in plays}
            unknown = [song for song in catalogue if song.title not in known]
            own = np.random.default_rng((seed, len(plays)))
            fresh[len(plays)] = afterwards(listener, deepcopy(player), unknown, own, sessions)
    return Trial(listener, plays, fresh)


@dataclass(frozen=True)
class Rating:
    """Area under the curve, and the share of songs heard to the end where the player has a choice."""

    area: float
    heard: float


def rating(chances: Array, plays: Sequence[Play]) -> Rating:
    """What chances (n,) are worth on these plays; somebody who likes all of them, or none, tells nothing: 0.5."""
    liked = np.array([play.liked for play in plays])
    area = float(roc_auc_score(liked, chances)) if 0.0 < liked.mean() < 1.0 else 0.5
    rows = len(liked) // CHOICE * CHOICE
    taken = np.argmax(chances[:rows].reshape(-1, CHOICE), axis=1)[:, None]
    return Rating(area, float(np.take_along_axis(liked[:rows].reshape(-1, CHOICE), taken, axis=1).mean()))


def chances(device: mt.Device, plays: Sequence[Play]) -> Array:
    """What a device gives each of them (n,); nothing is learnt."""
    return np.array([float(device.predict(play.inputs).value[0]) for play in plays])


def learn(device: mt.Device, play: Play) -> None:
    """A song came up and was skipped, or heard to the end: one micro-update."""
    device.predict(play.inputs)
    device.observe([play.liked])
    device.idle()


def known(package: mt.Package, each: Trial, learns: bool = True) -> dict[int, Rating]:
    """One listener's life with one device: {plays: rating on what could come next}."""
    device, found = mt.Device(package), {}
    for count, play in enumerate(each.plays, start=1):
        if learns:
            learn(device, play)
        if count in each.fresh:
            found[count] = rating(chances(device, each.fresh[count]), each.fresh[count])
    return found
