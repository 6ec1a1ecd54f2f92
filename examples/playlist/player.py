"""The player: what it knows when a song comes up. It remembers how songs went, and no taste: that is in the 42 numbers.

The 24 inputs of the network:

* song, 10: the features, as they are.
* history, 4: how many songs are heard to the end, in the long term (of about the last fifty) and in this session; how
  like the song is to the average of what came up in the long term, and in this session.
* skips, 4: how many songs are skipped early, in the long term and in this session; the same of late.
* slots, 6: 1 for the four hours of the day that it is now, else 0.

Shares begin as those of the crowd and count like four songs (in a session one), so that the first skip does not tell
all.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain, islice, repeat

import numpy as np
from world import EARLY, FEATURES, SLOTS, Array, Listener, Song, draw_mood, heard, mood_for, wanted

HISTORY = (
    "songs heard to the end lately", "songs heard to the end this session",
    "likeness to the usual", "likeness to this session",
)  # fmt: skip
SKIPS = ("early skips lately", "early skips this session", "late skips lately", "late skips this session")
LONGEST = 50
"""Songs that the long term reaches back, about."""
USUAL = np.array([0.5, 0.3, 0.2])
"""Shares of songs that the crowd hears to the end, skips early and skips late."""
FAR = 1.5
"""A distance from the middle of the catalogue that is usual."""
SESSION = (6, 13)
"""Songs of a session: at least, and less than."""


def outcome(song: Song, seconds: float) -> int:
    """0 heard to the end, 1 skipped early, 2 skipped late."""
    return 0 if seconds >= song.seconds else 1 if seconds < EARLY else 2


@dataclass
class Averages:
    """Running means of how songs went (3,) and of their features (10,), as of about the ``longest`` last ones."""

    prior: int
    longest: int
    songs: int = 0
    shares: Array = field(default_factory=lambda: USUAL.copy())
    middle: Array = field(default_factory=lambda: np.zeros(len(FEATURES)))

    def add(self, song: Song, seconds: float) -> None:
        """A song that was heard for so long."""
        self.songs += 1
        self.shares += (np.eye(3)[outcome(song, seconds)] - self.shares) / min(self.prior + self.songs, self.longest)
        self.middle += (song.features - self.middle) / min(self.songs, self.longest)

    def likeness(self, song: Song) -> float:
        """1 for a song right in the middle, 0 for one that is as far off as most; 0 too where nothing was heard."""
        return 1.0 - float(np.linalg.norm(song.features - self.middle)) / FAR if self.songs else 0.0


class Player:
    """What a player remembers beside its 42 numbers: 13 numbers and a count of the long term, as many of a session."""

    def __init__(self) -> None:
        self.lately = Averages(4, LONGEST)
        self.begin()

    def begin(self) -> None:
        """A session begins."""
        self.session = Averages(1, LONGEST)

    def inputs(self, song: Song, slot: int) -> Array:
        """The network's inputs (24,) for a song now."""
        both = self.lately, self.session
        shares = 2.0 * (np.stack([each.shares for each in both], axis=1) - USUAL[:, None])  # (3, 2)
        return np.concatenate(
            [song.features, shares[0], [each.likeness(song) for each in both], shares[1:].ravel(), np.eye(6)[slot]]
        )

    def add(self, song: Song, seconds: float) -> None:
        """How long a song was heard."""
        self.lately.add(song, seconds)
        self.session.add(song, seconds)


@dataclass(frozen=True)
class Play:
    """A song that came up: what the player knew (24,), how much it was wanted, but for the mood, and how long it was
    heard. ``liked`` is 1.0 for a song heard to the end."""

    song: Song
    slot: int
    inputs: Array
    logit: float
    seconds: float

    @property
    def liked(self) -> float:
        return float(self.seconds >= self.song.seconds)


def session(listener: Listener, player: Player, songs: list[Song], rng: np.random.Generator) -> Iterator[Play]:
    """One session, song by song. The player remembers what was yielded."""
    slot, mood = int(rng.choice(len(SLOTS), p=listener.when)), draw_mood(rng)
    styles: list[int] = []
    player.begin()
    for _ in range(rng.integers(*SESSION)):
        song = songs[rng.integers(len(songs))]
        inputs, logit = player.inputs(song, slot), wanted(listener, song, slot, styles)
        seconds = heard(rng, song, logit + mood_for(song, mood))
        player.add(song, seconds)
        styles.append(song.style)
        yield Play(song, slot, inputs, logit, seconds)


def live(listener: Listener, player: Player, songs: list[Song], rng: np.random.Generator, count: int) -> Iterator[Play]:
    """The first ``count`` plays of somebody's sessions."""
    return islice(chain.from_iterable(session(listener, player, songs, rng) for _ in repeat(None)), count)


def afterwards(
    listener: Listener, player: Player, songs: list[Song], rng: np.random.Generator, count: int
) -> list[Play]:
    """What could come next: ``count`` sessions, each of which begins with what the player remembers now."""
    return [play for _ in range(count) for play in session(listener, deepcopy(player), songs, rng)]
