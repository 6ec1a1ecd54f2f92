"""How the device learns: the settings of the learner in ``runtime/mt_learner.h``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, prod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from microtune.errors import PlanError

if TYPE_CHECKING:
    from microtune.tuning.sensors import Sensors

MOST_SETS = 64
"""A device keeps at most so many sets of parameters and samples."""


@dataclass(frozen=True)
class Input:
    """One input feature, as the generated header documents it. Values outside low..high are refused."""

    name: str
    low: float = float("-inf")
    high: float = float("inf")
    unit: str = ""

    def __post_init__(self) -> None:
        ends: tuple[Any, ...] = (self.low, self.high)
        if not all(isinstance(each, Real) for each in ends):
            raise PlanError(f"{self}: low and high are numbers; leave out what has no limit")
        if not self.low < self.high:
            raise PlanError(f"Input('{self.name}'): low {self.low} must be below high {self.high}")

    @property
    def described(self) -> bool:
        """Whether anything is known of it but its place."""
        plain = self.unit == "" and self.low == float("-inf") and self.high == float("inf")
        return not (plain and self.name.startswith("input "))


@dataclass(frozen=True)
class Context:
    """An input that what is learnt is kept apart by: below the first edge, from there to the second, and so on.

    input: its name or place. edges: rising. ``Context("weekend", (0.5,))`` keeps weekdays and weekends apart.
    """

    input: str | int
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "edges", tuple(map(float, self.edges)))
        except (TypeError, ValueError):
            raise PlanError(f"{self}: edges are a list of numbers, such as [0.5] or [6, 12, 18]") from None
        rising = all(low < high for low, high in pairwise(self.edges))
        if not self.edges or not rising or not all(map(isfinite, self.edges)):
            raise PlanError(f"{self}: edges must be finite numbers that rise, at least one")

    @property
    def parts(self) -> int:
        return len(self.edges) + 1


def _checked(name: str, value: Any, low: float, high: float) -> int | float:
    """A setting of the learner as a plain number. Raises PlanError for what is none, or not in its range."""
    whole = isinstance(getattr(Learner, name), int)
    if not isinstance(value, Integral if whole else Real):
        raise PlanError(f"Learner({name}={value!r}): must be a {'whole ' if whole else ''}number, {low} to {high}")
    number = int(value) if isinstance(value, Integral) else float(value)
    if not low <= number <= high:
        raise PlanError(f"Learner({name}={value}): must be {low} to {high}")
    return number


def _fallback(values: Any) -> tuple[float, ...]:
    """The safe default as floats. Raises PlanError for another thing."""
    try:
        found = tuple(map(float, values))
    except (TypeError, ValueError):
        found = ()
    if not found or not all(map(isfinite, found)):
        raise PlanError(f"Learner(fallback={values!r}): a list of finite numbers, one for each output")
    return found


@dataclass(frozen=True)
class Learner:
    """Settings of the on-device loop.

    buffer: newest samples kept; the oldest makes room.
    replay: representative samples kept of those that left the buffer: a reservoir, balanced by class.
    every: new samples that cause an update.
    epochs: passes over the samples in one update.
    folds: an update is judged by cross-validation in so many folds, and dropped when the base does better or, on
        what neither has learnt, the parameters in use do; 0 takes every update unjudged.
    caution: standard deviations of the number of the base's faults, its root, by which an update must beat the base
        besides: fewer people harmed, and slower learning. Nothing with ``folds=0``, or with ``Bayes``.
    restart: learn each update from the base over all samples (no drift by path), or go on from the present
        parameters.
    pull: after each step the parameters move this share back towards the base (L2-SP, Li et al. 2018).
        Parameters are floats then: integers that learn (precision "mixed") are not pulled.
    ewc: elastic weights: each parameter is held to the base as its Fisher information on the factory's samples says,
        times this (Kirkpatrick et al. 2017). Needs ``calibration`` in ``plan``.
    ewc_memory: likewise to what was learnt last, by Fisher information gathered on the device (Schwarz et al. 2018).
        Needs ``SGD``.
    recency: samples after which an older one takes part in half as many passes; 0: all alike.
    changes: look for changes of habits (classes and yes/no) and drop the samples they have overtaken.
    disuse: days without a use in which half of what was learnt fades, by the port's clock, where there were more than
        14; 0: it stays.
    profiles: people who share the device, each with parameters and samples of their own.
    recognise: an unchosen profile is recognised by the contexts in which each was chosen.
    contexts: inputs by which what is learnt is kept apart; what is not named is shared.
    slice: slices of work (about one step each) in one call of idle; 0: all that the port allows.
    sensors: what sensors say is checked against the ``calibration`` given to ``plan``; ``Sensors(...)`` says how, None:
        where there are 100 samples or more and at most 64 inputs, and these are floats.
    log: observations between two records of the metrics log; 0: no log.
    tolerance: regression: an absolute error up to this, in output units, counts as right.
    threshold: confidence below which the safe default is given and the person is asked.
    fallback: the safe default, in output units or probabilities; None: what the base model predicts.
    in_place: learn on the parameters in use, without the two copies that judging and undoing take: for nets
        whose parameters fill the RAM. Needs ``folds=0`` and ``restart=False``; ``forget`` then goes back to
        the base, and so does an update that ends in numbers that are not finite.
    """

    buffer: int = 100
    replay: int = 0
    every: int = 5
    epochs: int = 8
    folds: int = 5
    caution: float = 0.0
    restart: bool = True
    pull: float = 0.0
    ewc: float = 0.0
    ewc_memory: float = 0.0
    recency: float = 0.0
    changes: bool = True
    disuse: float = 730.0
    profiles: int = 1
    recognise: bool = False
    contexts: tuple[Context, ...] = ()
    slice: int = 0
    sensors: Sensors | bool | None = None
    log: int = 0
    tolerance: float = 0.1
    threshold: float = 0.0
    fallback: Sequence[float] | None = None
    in_place: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.contexts, Context | str) or not all(isinstance(each, Context) for each in self.contexts):
            raise PlanError(f"Learner(contexts={self.contexts!r}): a list of contexts, such as [Context('hour', [12])]")
        object.__setattr__(self, "contexts", tuple(self.contexts))
        for name, low, high in (
            ("buffer", 1, 65535), ("replay", 0, 65535), ("every", 1, 65535), ("epochs", 1, 65535), ("folds", 0, 64),
            ("pull", 0, 1), ("threshold", 0, 1), ("caution", 0, 10), ("ewc", 0, 1e6),
            ("ewc_memory", 0, 1e6), ("recency", 0, 65535),
            ("disuse", 0, 36500), ("profiles", 1, 16), ("slice", 0, 65535), ("log", 0, 65535),
        ):  # fmt: skip
            object.__setattr__(self, name, _checked(name, getattr(self, name), low, high))
        tolerance: Any = self.tolerance
        if not (isinstance(tolerance, Real) and 0 < float(tolerance) < float("inf")):
            raise PlanError(f"Learner(tolerance={self.tolerance}): must be above 0, and finite")
        if self.fallback is not None:
            object.__setattr__(self, "fallback", _fallback(self.fallback))
        if self.every > self.buffer:
            raise PlanError(
                f"Learner(every={self.every}, buffer={self.buffer}): an update needs more samples than are kept"
            )
        if self.buffer + self.replay > 65535:
            raise PlanError(f"Learner(buffer={self.buffer}, replay={self.replay}): at most 65535 samples in all")
        if self.folds == 1:
            raise PlanError("Learner(folds=1): judging needs at least 2 folds, or 0 to take every update unjudged")
        if self.in_place and (self.folds != 0 or self.restart):
            raise PlanError(
                "Learner(in_place=True): nothing is kept to judge or to begin again; set folds=0, restart=False"
            )
        if self.in_place and self.ewc_memory:
            raise PlanError(
                f"Learner(in_place=True, ewc_memory={self.ewc_memory}): there is no copy to read gradients off; use one"
            )
        if self.recognise and self.profiles == 1:
            raise PlanError("Learner(recognise=True): there is one profile; set profiles=2 or more")
        if self.sets > MOST_SETS:
            raise PlanError(
                f"Learner: {self.profiles} profiles in {self.sets // self.profiles} contexts are {self.sets} sets of "
                f"parameters and samples; at most {MOST_SETS}"
            )

    @property
    def parts(self) -> int:
        """Contexts in which what is learnt is kept apart."""
        return prod(each.parts for each in self.contexts)

    @property
    def sets(self) -> int:
        """Sets of parameters and samples: one per profile and context."""
        return self.profiles * self.parts
