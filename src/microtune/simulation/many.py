"""Many devices over years, in parallel processes: `simulate`, and the summary of what came of it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtune.errors import MicrotuneError
from microtune.package import Package, open_package
from microtune.simulation.driver import LEFT_ALONE, OBSERVED, PREDICTED, TAKEN, UPDATED, Driver
from microtune.simulation.life import live
from microtune.simulation.people import Feedback, Person
from microtune.simulation.world import World

MOST_DEVICES = 1 << 20
HARM = 0.01
"""A person is harmed whose device is accepted less often, by more than this, than its base would have been."""


@dataclass(frozen=True)
class Study:
    """What is simulated. Device number n of seed s lives the life number s * MOST_DEVICES + n."""

    package: Package
    world: World
    person: Person
    days: float = 90.0
    uses_per_day: float = 3.0
    devices: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        devices: Any = self.devices
        if not (isinstance(devices, Integral) and 1 <= self.devices <= MOST_DEVICES):
            raise MicrotuneError(f"devices: {self.devices} must be a whole number, 1 to {MOST_DEVICES}")
        if not (0 < self.days <= 36525 and 0 < self.uses_per_day <= 1000):
            raise MicrotuneError(
                f"{self.days:g} days at {self.uses_per_day:g} uses: days must be above 0 and at most 36525, "
                "uses a day above 0 and at most 1000"
            )
        if self.seed < 0:
            raise MicrotuneError(f"seed: {self.seed} must not be negative")

    @property
    def weeks(self) -> int:
        """Weeks begun."""
        return int(np.ceil(self.days / 7.0))


@dataclass(frozen=True)
class Outcome:
    """What came of one device. uses, accepted, base (weeks,): uses, and how often its suggestion was good enough for
    what was truly wanted, and how often the base's would have been. saves: updates done, each of which is written to
    the storage of a device that has one. suspect: uses not learnt as a sensor was not believed; changes: of habits,
    that the device found."""

    number: int
    uses: NDArray[np.int64]
    accepted: NDArray[np.int64]
    base: NDArray[np.int64]
    updates_accepted: int
    updates_rolled_back: int
    saves: int
    left_alone: int
    not_learnt: int
    refused: int
    suspect: int
    changes: int


@dataclass(frozen=True)
class Week:
    """Shares of uses at which the suggestion was good enough, over all devices; None: nobody was at home.

    worst_tenth: of the tenth of devices that are accepted least over the whole time.
    """

    week: int
    uses: int
    accepted: float | None
    worst_tenth: float | None
    base: float | None


@dataclass(frozen=True)
class Summary:
    """A study's figures: shares are of uses, ``harmed`` is of devices. ``saves`` is per device and year.

    left_alone: uses at which a suggestion was left alone, of people who do that. not_learnt: uses whose input was
    accepted but whose label was not given, or refused. refused: inputs refused, out of range or not finite. suspect:
    uses not learnt because a sensor was not believed. changes: of habits, found.
    """

    package: str
    world: str
    person: str
    feedback: str
    devices: int
    days: float
    uses: int
    accepted: float
    base: float
    worst_tenth: float
    harmed: float
    updates_accepted: int
    updates_rolled_back: int
    saves: float
    left_alone: int
    not_learnt: int
    refused: int
    suspect: int
    changes: int
    weeks: tuple[Week, ...]


def simulate(
    package: str | os.PathLike[str] | Package,
    world: World,
    person: str | Person = "consistent",
    *,
    days: float = 90.0,
    uses_per_day: float = 3.0,
    devices: int = 100,
    seed: int = 0,
    feedback: Feedback | None = None,
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Let a person live with so many devices for so many days. The same seed gives the same summary, whatever the
    number of processes (default: as many as processors).

    feedback: in place of the person's own. progress: called with the number of devices done. On systems without
    ``fork`` it all runs in one process. Raises MicrotuneError.
    """
    if isinstance(person, str):
        person = live(person, world, 0).person
    if feedback is not None:
        person = replace(person, feedback=feedback)
    study = Study(open_package(package), world, person, days, uses_per_day, devices, seed)
    outcomes = []
    for outcome in _outcomes(study, processes or os.cpu_count() or 1):
        outcomes.append(outcome)
        if progress is not None:
            progress(len(outcomes))
    return summarise(study, sorted(outcomes, key=lambda each: each.number))


def run_device(study: Study, number: int) -> Outcome:
    """One device of a study, from the factory to the last day."""
    life = live(study.person, study.world, study.seed * MOST_DEVICES + number)
    device, factory = Driver(study.package), Driver(study.package)
    uses, accepted, base = np.zeros((3, study.weeks), np.int64)
    counts = dict.fromkeys(("taken", "updated", "left_alone", "not_learnt", "refused"), 0)
    for year in life.years(study.days, study.uses_per_day):
        week = (year.day // 7.0).astype(np.int64)
        record = device.live(year, study.world, study.person.feedback)
        untaught = factory.watch(year.context)
        for total, chosen in (
            (uses, np.ones(len(year), bool)),
            (accepted, record.accepted(study.world, year.prefers)),
            (base, untaught.accepted(study.world, year.prefers)),
        ):
            total += np.bincount(week[chosen], minlength=study.weeks)
        counts["taken"] += record.count(TAKEN)
        counts["updated"] += record.count(UPDATED)
        counts["left_alone"] += record.count(LEFT_ALONE)
        counts["not_learnt"] += record.count(PREDICTED) - record.count(OBSERVED)
        counts["refused"] += len(year) - record.count(PREDICTED)
    metrics = device.device.metrics()
    return Outcome(
        number, uses, accepted, base, counts["taken"], counts["updated"] - counts["taken"], counts["updated"],
        counts["left_alone"], counts["not_learnt"], counts["refused"], metrics.suspect, metrics.changes,
    )  # fmt: skip


def summarise(study: Study, outcomes: Iterable[Outcome]) -> Summary:
    """The figures of all devices of a study."""
    found = list(outcomes)
    uses, accepted, base = (np.stack([getattr(each, name) for each in found]) for name in ("uses", "accepted", "base"))
    own = uses.sum(axis=1)
    # a device that nobody used has no share: it is neither the worst nor harmed
    used = np.flatnonzero(own)
    shares, base_shares = accepted.sum(axis=1)[used] / own[used], base.sum(axis=1)[used] / own[used]
    worst = used[np.argsort(shares, kind="stable")[: max(1, len(used) // 10)]]

    def share(of: NDArray[np.int64], total: NDArray[np.int64]) -> float | None:
        return round(float(of.sum() / total.sum()), 6) if total.sum() else None

    weeks = tuple(
        Week(
            week + 1, int(uses[:, week].sum()), share(accepted[:, week], uses[:, week]),
            share(accepted[worst, week], uses[worst, week]), share(base[:, week], uses[:, week]),
        )
        for week in range(study.weeks)
    )  # fmt: skip
    years = study.devices * study.days / 365.0
    return Summary(
        package=study.package.name,
        world=study.world.name,
        person=study.person.name,
        feedback=study.person.feedback,
        devices=study.devices,
        days=study.days,
        uses=int(uses.sum()),
        accepted=share(accepted, uses) or 0.0,
        base=share(base, uses) or 0.0,
        worst_tenth=round(float(shares[np.isin(used, worst)].mean()), 6) if len(used) else 0.0,
        harmed=round(float(np.mean(shares < base_shares - HARM)), 6) if len(used) else 0.0,
        updates_accepted=sum(each.updates_accepted for each in found),
        updates_rolled_back=sum(each.updates_rolled_back for each in found),
        saves=round(sum(each.saves for each in found) / years, 3),
        left_alone=sum(each.left_alone for each in found),
        not_learnt=sum(each.not_learnt for each in found),
        refused=sum(each.refused for each in found),
        suspect=sum(each.suspect for each in found),
        changes=sum(each.changes for each in found),
        weeks=weeks,
    )


# Processes. They are forked, so that worlds and people need not be pickled: they are full of functions.

_inherited: Study | None = None


def _begin(study: Study) -> None:
    global _inherited
    _inherited = study


def _run_inherited(number: int) -> Outcome:
    assert _inherited is not None
    return run_device(_inherited, number)


def _outcomes(study: Study, processes: int) -> Iterator[Outcome]:
    Driver(study.package)  # compiled before there are processes, and refused here if it must be
    processes = min(processes, study.devices)
    if processes <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield from (run_device(study, number) for number in range(study.devices))
        return
    chunk = max(1, min(16, study.devices // (4 * processes)))
    with _pool(study, processes) as pool:
        yield from pool.imap_unordered(_run_inherited, range(study.devices), chunk)


@contextmanager
def _pool(study: Study, processes: int) -> Iterator[multiprocessing.pool.Pool]:
    pool = multiprocessing.get_context("fork").Pool(processes, _begin, (study,))
    try:
        yield pool
    finally:
        pool.terminate()
        pool.join()
