"""Change detection for classes and yes/no in C: its decisions are those of docs/change.md done anew in float64, and it
keeps what that page promises of false alarms, of changes found and of what is forgotten for them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from microtune.compiler.sources import runtime_directory
from microtune.targets.emulator import Emulator
from microtune.targets.machine import HostMachine, Machine
from microtune.toolchain import compile_image, compile_library

RUNTIME = runtime_directory()
SOURCES = (RUNTIME / "mt_change.c", RUNTIME / "mt_samples.c", Path(__file__).parent / "change_probe.c")
KINDS, KEPT, STRIDE = 16, 160, 69
NEAREST, LONGEST = 5, 40
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


class Settings(ctypes.Structure):
    """The head of the struct of change_probe.c."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("cut", "targets", "ring", "reservoir", "kinds", "binary", "bytes")),
        ("balanced", ctypes.c_uint32),
        ("factor", ctypes.c_float),
        ("random", ctypes.c_uint32),
        ("samples", ctypes.c_uint16 * 6),
        ("near", ctypes.c_float),
        ("spread", ctypes.c_float),
        ("wrong", ctypes.c_float),
        ("changes", ctypes.c_uint32),
    ]


@dataclass(frozen=True)
class Stream:
    """Uses of a person: cuts (n, cut), labels (n,) or (n, outputs), and how many labels there are."""

    cuts: Floats
    labels: Labels
    kinds: int

    @property
    def is_binary(self) -> bool:
        return self.kinds == 2 or self.labels.ndim == 2


@dataclass(frozen=True)
class Found:
    """What the C found: (n,) each; the share of careless uses it saw in the end."""

    runs: NDArray[np.uint32]
    removed: NDArray[np.uint32]
    wrong: float


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    library = tmp_path_factory.mktemp("change") / "change.so"
    return HostMachine(compile_library(SOURCES, [RUNTIME], library, strict=True))


def run(
    machine: Machine, stream: Stream, ring: int = 64, reservoir: int = 0, factor: float = 1.0, as_bytes: bool = False
) -> Found:
    size = machine.call("probe_size")
    labels = stream.labels.reshape(len(stream.labels), -1)
    if as_bytes:  # four to a word
        assert stream.cuts.shape[1] % 4 == 0
        cuts = np.clip(np.rint(20.0 * stream.cuts), -127, 127).astype(np.int8).view(np.uint32)
    else:
        cuts = stream.cuts.astype(np.float32).view(np.uint32)
    kinds = 2 * labels.shape[1] if stream.is_binary else stream.kinds
    head = Settings(
        cuts.shape[1], labels.shape[1], ring, reservoir, kinds, stream.is_binary, as_bytes, reservoir > 0, factor, 7
    )
    room = machine.allocate(size)
    given = machine.allocate(4 * (cuts.size + labels.size))
    told = machine.allocate(8 * len(cuts))
    machine.write(room, bytes(size))
    machine.write(room, bytes(head))
    machine.write(given, cuts.tobytes() + labels.astype(np.float32).tobytes())
    machine.call("probe_begin", room)
    machine.call("probe_live", room, given, given + 4 * cuts.size, len(cuts), told, told + 4 * len(cuts))
    runs, removed = np.frombuffer(machine.read(told, 8 * len(cuts)), np.uint32).reshape(2, -1)
    state = Settings.from_buffer_copy(machine.read(room, ctypes.sizeof(Settings)))
    assert state.changes == np.count_nonzero(runs)
    return Found(runs, removed, state.wrong)


# The page done anew, for samples that are a list: `ring` newest.


def oracle(stream: Stream, ring: int, factor: float) -> tuple[list[int], list[int]]:
    labels, kinds = stream.labels, stream.kinds
    runs, removed, kept = [], [], []
    evidence, toward, since = np.zeros(kinds), np.zeros(kinds, int), np.zeros(kinds, int)
    near = spread = 0.0
    wrong = 0.1

    def neighbours(i: int, older: list[int]) -> tuple[Floats, Labels]:
        distances = ((stream.cuts[older] - stream.cuts[i]) ** 2).sum(1)
        order = np.argsort(distances, kind="stable")[:NEAREST]
        return distances[order], labels[np.array(older, int)[order]]

    def usual(said: Labels) -> int | None:
        votes = np.bincount(said, minlength=kinds)
        return int(votes.argmax()) if 2 * votes.max() > NEAREST else None

    for i, label in enumerate(labels):
        kept = [*kept, i][-ring:]
        since[since > 0] += 1
        late = since > min(LONGEST, len(kept) // 2)
        evidence[late], since[late] = 0.0, 0
        runs.append(0)
        removed.append(0)
        older = kept[: len(kept) - max(1, since.max())]
        if len(older) < NEAREST:
            continue
        distances, said = neighbours(i, older)
        mean = float(distances.mean())
        if near == 0.0:
            near = spread = mean
            continue
        known = mean <= near + 2.0 * spread
        off = min(mean - near, 3.0 * spread)
        near += off / 16.0
        spread += (abs(off) - spread) / 16.0
        before = usual(said)
        if not known or before is None:
            continue
        alike = [j for j in older if labels[j] == label]
        if label != before:
            own = ((stream.cuts[alike] - stream.cuts[i]) ** 2).sum(1)
            if len(alike) < 4 or own.min() <= 1.2 * mean:
                continue
        share = ((said == label).sum() + 0.25) / (NEAREST + 0.25 * kinds)
        careless = max(wrong, 0.03)
        expected = math.log((1.0 - careless) * share + careless / kinds)
        if label == before:
            evidence[before] += math.log(0.2) - expected
        else:
            first = math.log(0.8 / (kinds - 1)) - expected
            if since[before]:
                new = 0.8 if kinds == 2 else 0.64 if label == toward[before] else 0.16 / (kinds - 2)
                evidence[before] += math.log(new) - expected
            if not since[before] or first >= evidence[before]:
                evidence[before], toward[before], since[before] = first, label, 1
        if evidence[before] <= 0.0:
            evidence[before], since[before] = 0.0, 0
        wrong += ((label != before) - wrong) / 32.0
        longest = int(since.max())
        block = longest > 0 and (labels[kept[-longest:]] == label).all()
        if label == before or longest < 2:
            continue
        if evidence.sum() > (6.5 if kinds > 2 else 7.0) * factor * (2.0 if block else 1.0):
            runs[-1] = longest
            gone = affected(stream, kept, longest, evidence, 1.5 * (near + 2.0 * spread), neighbours, usual)
            removed[-1] = len(gone)
            kept = [j for j in kept if j not in gone]
            evidence[:], since[:] = 0.0, 0
    return runs, removed


def affected(stream, kept, longest, evidence, reach, neighbours, usual) -> set[int]:  # type: ignore[no-untyped-def]
    older, newest = kept[:-longest], kept[-longest:]
    said = [usual(neighbours(i, older)[1]) for i in newest]
    gone: set[int] = set()
    for label in np.flatnonzero(evidence > 1.0):
        causes = [i for i, before in zip(newest, said, strict=True) if before == label and stream.labels[i] != label]
        alike = [j for j in older if stream.labels[j] == label]
        if not causes or not alike:
            continue
        x, others = stream.cuts[causes], stream.cuts[alike]
        between = ((others[:, None] - x[None]) ** 2).sum(2)
        apart = ((x[:, None] - x[None]) ** 2).sum(2).max()
        everywhere = apart > 0.5 * between.mean()
        gone.update(j for j, distance in zip(alike, between.min(1), strict=True) if everywhere or distance < reach)
    return gone


# People.


def clusters(rng: np.random.Generator, uses: int, kinds: int = 6, cut: int = 16, apart: float = 5.0) -> Stream:
    """One cloud for each class; `apart` is the usual distance of two of them, in standard deviations."""
    centres = rng.normal(0.0, apart / math.sqrt(2.0 * cut), (kinds, cut))
    labels = rng.integers(kinds, size=uses)
    return Stream(_float32(centres[labels] + rng.normal(size=(uses, cut))), labels, kinds)


def preference(rng: np.random.Generator, uses: int) -> Stream:
    """Yes on one side of a plane through a toaster's contexts."""
    meals = 2.0 * math.pi / 24.0 * np.where(rng.random(uses) < 0.65, 7.5, 18.5) + 0.2 * rng.normal(size=uses)
    cuts = np.stack(
        [
            rng.choice((-1.0, -1 / 3, 1 / 3, 1.0), uses),
            np.where(rng.random(uses) < 0.25, 1.0, -1.0),
            np.sin(meals),
            np.cos(meals),
            np.where(rng.random(uses) < 2 / 7, 1.0, -1.0),
        ],
        axis=1,
    )
    return Stream(_float32(cuts), (cuts @ rng.normal(size=5) + 0.5 * rng.normal() > 0.0).astype(int), 2)


def careless(rng: np.random.Generator, stream: Stream, share: float) -> Stream:
    """So many labels are another one, any with the same chance."""
    wrong = rng.random(len(stream.labels)) < share
    other = (stream.labels + rng.integers(1, stream.kinds, len(wrong))) % stream.kinds
    return Stream(stream.cuts, np.where(wrong, other, stream.labels), stream.kinds)


def by_class(stream: Stream, block: int = 20) -> Stream:
    """The same uses, a block of each class after the other, round and round."""
    of = [list(np.flatnonzero(stream.labels == label)) for label in range(stream.kinds)]
    order: list[int] = []
    while any(of):
        for each in of:
            order += each[:block]
            del each[:block]
    return Stream(stream.cuts[order], stream.labels[order], stream.kinds)


def swapped(stream: Stream, at: int, labels: tuple[int, int] = (0, 1)) -> tuple[Stream, NDArray[np.bool_]]:
    """From use `at` on two labels change places; and which uses that concerns."""
    a, b = labels
    concerned = np.isin(stream.labels, labels) & (np.arange(len(stream.labels)) >= at)
    return Stream(stream.cuts, np.where(concerned, a + b - stream.labels, stream.labels), stream.kinds), concerned


def _float32(values: Floats) -> Floats:
    return values.astype(np.float32).astype(float)


def people(rng: np.random.Generator, uses: int) -> Iterator[tuple[str, Stream]]:
    """Who stays the same."""
    for share in (0.0, 0.1, 0.2):
        yield f"classes, {share:.0%} careless", careless(rng, clusters(rng, uses), share)
        yield f"three classes that overlap, {share:.0%} careless", careless(rng, clusters(rng, uses, 3, 16, 4.0), share)
        yield f"yes/no, {share:.0%} careless", careless(rng, preference(rng, uses), share)


# Promises.


def test_every_decision_is_that_of_the_page(host: Machine) -> None:
    """Long streams of all sorts, with changes in them; float64 against float32 differs at no use of these seeds."""
    found = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lives = [each for _, each in people(rng, 200)]
        lives += [swapped(each, 100)[0] for each in lives] + [by_class(clusters(rng, 200)), by_class(lives[2])]
        for stream in lives:
            for ring, factor in ((64, 1.0), (20, 0.5)):
                runs, removed = oracle(stream, ring, factor)
                seen = run(host, stream, ring, factor=factor)
                assert list(seen.runs) == runs and list(seen.removed) == removed
                found += np.count_nonzero(runs)
    assert found > 40


def test_who_stays_the_same_raises_less_than_one_alarm_in_a_thousand_uses(host: Machine) -> None:
    alarms: dict[str, int] = {}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        for name, stream in people(rng, 1000):
            alarms[name] = alarms.get(name, 0) + int(np.count_nonzero(run(host, stream).runs))
        for name, stream in (("classes", clusters(rng, 1000)), ("yes/no", preference(rng, 1000))):
            name += " in blocks of one label"
            alarms[name] = alarms.get(name, 0) + int(np.count_nonzero(run(host, by_class(stream)).runs))
    assert max(alarms.values()) < 10, alarms
    assert alarms["classes, 0% careless"] == 0 and alarms["yes/no in blocks of one label"] < 5


@pytest.mark.parametrize("careless_share", [0.0, 0.1])
def test_a_swap_of_two_labels_is_found_and_nothing_else_is_lost(host: Machine, careless_share: float) -> None:
    """Uses of the two labels until it is known, and what is left of the older samples."""
    needed, stale, kept = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        stream, concerned = swapped(clusters(rng, 200, apart=8.0), 100)
        seen = run(host, careless(rng, stream, careless_share), reservoir=64)
        changes = np.flatnonzero(seen.runs[100:])
        if len(changes) == 0:
            needed.append(99)
            continue
        use = 100 + int(changes[0])
        needed.append(int(concerned[: use + 1].sum()))
        # older samples of the two labels are all overtaken; of the other labels none
        older = stream.labels[: use + 1 - int(seen.runs[use])]
        two = int(np.count_nonzero(older < 2))
        stale.append(1.0 - min(1.0, float(seen.removed[use]) / two))
        kept.append(1.0 - max(0.0, float(seen.removed[use]) - two) / (len(older) - two))
    assert np.median(needed) <= 6
    assert np.mean(np.array(needed) == 99) <= 0.05
    assert np.mean(stale) < 0.2 and np.mean(kept) > 0.9


def test_a_preference_that_flips_is_found(host: Machine) -> None:
    needed = []
    for seed in range(60):
        stream, _ = swapped(preference(np.random.default_rng(1000 + seed), 200), 100)
        changes = np.flatnonzero(run(host, stream).runs[100:])
        needed.append(int(changes[0]) + 1 if len(changes) else 99)
    assert np.median(needed) <= 6 and np.mean(np.array(needed) > 12) <= 0.1


def test_one_contradiction_is_never_enough_and_half_the_evidence_is_sooner(host: Machine) -> None:
    rng = np.random.default_rng(0)
    stream = clusters(rng, 120, 5, 8, 12.0)
    for factor in (1.0, 0.01):
        labels = stream.labels.copy()
        labels[100] = (labels[100] + 1) % 5
        assert not run(host, Stream(stream.cuts, labels, 5), factor=factor).runs.any()
    changed, _ = swapped(stream, 60)
    whole, half = (int(np.flatnonzero(run(host, changed, factor=factor).runs)[0]) for factor in (1.0, 0.4))
    assert half < whole


def test_several_questions_bytes_and_numbers_beyond_all_scale(host: Machine) -> None:
    """Of three yes/no outputs one flips; int8 cuts; distances that overflow."""
    rng = np.random.default_rng(5)
    base = preference(rng, 200)
    answers = np.stack([base.labels, 1 - base.labels, rng.random(200) < 0.5], axis=1).astype(int)
    answers[:, 2] = base.cuts[:, 1] > 0.0
    flipped = answers.copy()
    flipped[100:, 1] ^= 1
    assert not run(host, Stream(base.cuts, answers, 2)).runs.any()
    found = run(host, Stream(base.cuts, flipped, 2)).runs
    assert 102 <= np.flatnonzero(found)[0] <= 115

    stream, _ = swapped(clusters(rng, 200, apart=8.0), 100)
    found = run(host, stream, as_bytes=True).runs
    assert not found[:100].any() and found[100:130].any()

    huge = Stream(_float32(stream.cuts * 1e30), stream.labels, stream.kinds)
    assert not run(host, huge).runs.any()


def test_it_is_the_same_on_a_cortex_m4_and_its_cost(host: Machine, tmp_path: Path) -> None:
    """64 samples of 64 floats and as many uses: what one use costs beyond keeping it."""
    machine = Emulator(
        compile_image(SOURCES, [RUNTIME], tmp_path / "change.elf", "cortex-m4", strict=True), "cortex-m4"
    )
    stream, _ = swapped(clusters(np.random.default_rng(1), 130, apart=8.0), 80)
    here, there = run(host, stream), run(machine, stream)
    np.testing.assert_array_equal(here.runs, there.runs)
    np.testing.assert_array_equal(here.removed, there.removed)
    assert here.wrong == there.wrong and here.runs.any()
