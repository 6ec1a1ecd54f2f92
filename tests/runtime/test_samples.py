"""The samples in C (mt_samples.c), under sanitizers, against lists: every call in any order, and what a draw is."""

import math
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from microtune.compiler.sources import runtime_directory
from microtune.toolchain import compile_program

LARGEST = 2**32 - 1
TARGETS = 2


@dataclass(frozen=True)
class Shown:
    """Everything a probe holds. samples (size, stride) in order, words (ring + reservoir, stride) as they lie."""

    count: int
    next: int
    kept: int
    seen: int
    random: int
    samples: np.ndarray
    words: np.ndarray
    seen_of: list[int]


class Probe:
    """One process for all tests; ``begin`` makes new samples in it."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def tell(self, command: str, *numbers: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(np.array([ord(command), *numbers], np.uint32).tobytes())

    def read(self, count: int) -> np.ndarray:
        assert self.process.stdin and self.process.stdout and self.process.stderr
        try:
            self.process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(self.process.stderr.read().decode()) from None
        data = self.process.stdout.read(4 * count)
        assert len(data) == 4 * count, self.process.stderr.read().decode()
        return np.frombuffer(data, np.uint32)

    def begin(self, ring: int, reservoir: int, classes: int, random: int = 1, cut: int = 3) -> None:
        self.stride, self.places, self.classes = cut + TARGETS + 1, ring + reservoir, classes
        self.tell("b", cut, TARGETS, ring, reservoir, classes, random)

    def add(self, *samples: tuple[float, float, int]) -> None:
        """(mark, label, time) of each: the cut begins with the mark, the targets with the label."""
        rows = [word for mark, label, time in samples for word in row(mark, label, time, self.stride)]
        self.tell("a", len(samples), *rows)

    def show(self) -> Shown:
        self.tell("?")
        head = self.read(5)
        count, after = head[:2].view(np.uint16)[:2]
        size = int(head[4])
        samples = self.read(size * self.stride).reshape(size, self.stride)
        words = self.read(self.places * self.stride).reshape(self.places, self.stride)
        kept = int(head[1:2].view(np.uint16)[0])
        return Shown(
            int(count), int(after), kept, int(head[2]), int(head[3]), samples, words, self.read(self.classes).tolist()
        )


def row(mark: float, label: float, time: int, stride: int) -> list[int]:
    floats = np.zeros(stride - 1, np.float32)
    floats[: stride - 1 - TARGETS] = mark
    floats[stride - 1 - TARGETS] = label
    return [*floats.view(np.uint32).tolist(), time]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    sources = [runtime_directory() / "mt_samples.c", Path(__file__).parent / "samples_probe.c"]
    program = compile_program(
        sources, [runtime_directory()], tmp_path_factory.mktemp("samples") / "probe", sanitize=True,
        defines=["MT_NO_DIVIDER"],
    )  # fmt: skip
    made = Probe(program)
    yield made
    assert made.process.stdin
    made.process.stdin.close()
    assert made.process.wait(10) == 0


Sample = tuple[float, float, int]


class Model:
    """mt_samples.h in lists."""

    def __init__(self, ring: int, reservoir: int, classes: int, random: int) -> None:
        self.most, self.room, self.random = ring, reservoir, random
        self.ring: list[Sample] = []
        self.kept: list[Sample] = []
        self.balanced = classes > 0
        self.seen: Counter[float] = Counter()

    def below(self, count: int) -> int:
        x = self.random
        x ^= x << 13 & LARGEST
        x ^= x >> 17
        x ^= x << 5 & LARGEST
        self.random = x
        return x * count // 2**32

    def of(self, label: float) -> list[int]:
        return [i for i, sample in enumerate(self.kept) if sample[1] == label or not self.balanced]

    def add(self, sample: Sample) -> None:
        self.ring.append(sample)
        if len(self.ring) > self.most:
            self.offer(self.ring.pop(0))

    def offer(self, sample: Sample) -> None:
        if not self.room:
            return
        label = sample[1] if self.balanced else 0.0
        self.seen[label] += 1
        if len(self.kept) == self.room:
            own = self.of(label)
            largest = max((self.of(each[1]) for each in self.kept), key=len)  # of several the one that is first
            if len(own) == self.seen[label] - 1 and len(own) < len(largest):
                place = largest[self.below(len(largest))]
            else:
                rank = self.below(self.seen[label])
                if rank >= len(own):
                    return
                place = own[rank]
            del self.kept[place]
        self.kept.append(sample)

    def drop_newest(self, count: int) -> None:
        self.ring = self.ring[: max(len(self.ring) - count, 0)]

    def since(self, time: int, now: int) -> int:
        found, after = 0, now
        for *_, stamp in reversed(self.kept + self.ring):
            if not time <= stamp <= after:
                break
            found, after = found + 1, stamp
        return found

    def remove(self, index: int) -> None:
        if index < len(self.kept):
            label = self.kept[index][1] if self.balanced else 0.0
            self.seen[label] -= self.seen[label] // len(self.of(label))
            del self.kept[index]
        elif index < len(self.kept) + len(self.ring):
            del self.ring[index - len(self.kept)]


class Life(RuleBasedStateMachine):
    """Any calls in any order."""

    probe: Probe

    @initialize(
        ring=st.integers(1, 5),
        reservoir=st.integers(0, 6),
        classes=st.sampled_from((0, 2, 3)),
        random=st.integers(1, LARGEST),
    )
    def begin(self, ring: int, reservoir: int, classes: int, random: int) -> None:
        self.model = Model(ring, reservoir, classes, random)
        self.labels = max(classes, 3)
        self.clock, self.marks = 1000, 0
        self.probe.begin(ring, reservoir, classes, random)

    @rule(label=st.integers(0, 2), later=st.integers(0, 40))
    def add(self, label: int, later: int) -> None:
        self.clock, self.marks = self.clock + later, self.marks + 1
        label = min(label, self.labels - 1)
        sample = (float(self.marks), float(label), self.clock)
        if self.model.balanced and self.probe.classes == 2:
            sample = (sample[0], float(label > 0), sample[2])
        self.model.add(sample)
        self.probe.add(sample)

    @rule(labels=st.lists(st.integers(0, 1), min_size=5, max_size=12))
    def add_many(self, labels: list[int]) -> None:
        for label in labels:
            self.add(label, 10)

    @rule(time=st.integers(0, 900))
    def clock_jumps_back(self, time: int) -> None:
        self.clock = time

    @rule(count=st.integers(0, 7))
    def drop_newest(self, count: int) -> None:
        self.model.drop_newest(count)
        self.probe.tell("n", count)

    @rule(before=st.integers(0, 150))
    def drop_since(self, before: int) -> None:
        time = max(self.clock - before, 0)
        for _ in range(self.model.since(time, self.clock)):
            self.model.remove(len(self.model.kept) + len(self.model.ring) - 1)
        self.probe.tell("s", time, self.clock)

    @rule(index=st.integers(0, 12))
    def remove(self, index: int) -> None:
        self.model.remove(index)
        self.probe.tell("r", index)

    @precondition(lambda self: self.marks > 20)
    @rule()
    def clear(self) -> None:
        model = self.model
        model.ring, model.kept, model.seen = [], [], Counter()
        self.probe.tell("c")

    @invariant()
    def the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        model, stride = self.model, self.probe.stride
        shown = self.probe.show()
        expected = [row(*sample, stride) for sample in model.kept + model.ring]
        assert shown.samples.tolist() == expected
        assert (shown.count, shown.kept, shown.seen) == (len(model.ring), len(model.kept), sum(model.seen.values()))
        assert shown.seen_of == [model.seen[label] for label in range(self.probe.classes)]
        assert shown.random == model.random
        # nothing dropped is left behind, and nothing lies twice
        occupied = sorted(words for words in shown.words.tolist() if any(words))
        assert occupied == sorted(expected)
        time = max(self.clock - 30, 0)
        self.probe.tell("q", time, self.clock)
        assert self.probe.read(1)[0] == min(model.since(time, self.clock), len(model.ring))


def test_any_calls_in_any_order(probe: Probe) -> None:
    Life.probe = probe
    checks = (HealthCheck.too_slow, HealthCheck.filter_too_much)
    run_state_machine_as_test(
        Life, settings=settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=checks)
    )


@example([0, 0, 0], 1, 0, -3e9, 3, 3)
@given(
    state=st.lists(st.integers(0, LARGEST), min_size=3, max_size=3),
    random=st.sampled_from((0, 1, LARGEST)),
    seen=st.sampled_from((0, 1, LARGEST)),
    label=st.sampled_from((0.0, 0.4, 1.0, 2.0, -1.0, 3e9, -3e9, math.nan, math.inf, -math.inf)),
    classes=st.sampled_from((0, 3)),
    reservoir=st.sampled_from((0, 3)),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bits_are_a_state(
    probe: Probe, state: list[int], random: int, seen: int, label: float, classes: int, reservoir: int
) -> None:
    """Counts and places beyond all arrays, labels that are none, a generator at zero: the sanitizers stay quiet."""
    probe.begin(2, reservoir, classes)
    for command, *numbers in (("a",), ("r", 0), ("n", 1), ("s", 5, 9), ("n", LARGEST), ("r", LARGEST)):
        probe.add(*[(1.0, label, 7)] * 8)
        probe.tell("w", *state)
        probe.tell("o", *[seen] * classes)
        probe.tell("g", random)
        if command == "a":
            probe.add(*[(2.0, label, 7)] * 2)
        else:
            probe.tell(command, *numbers)
        shown = probe.show()
        assert len(shown.samples) <= 2 + reservoir
        assert shown.seen_of == [] or max(shown.seen_of) <= LARGEST
    probe.tell("c")
    assert len(probe.show().samples) == 0


def test_counters_stop_at_the_largest_number(probe: Probe) -> None:
    probe.begin(1, 2, 2)
    probe.add(*[(float(i), 0.0, 0) for i in range(5)])
    probe.tell("w", 1, 2, LARGEST)  # ring holds one, reservoir two, and no more can be counted
    probe.tell("o", LARGEST, 1)
    probe.add(*[(float(i), 0.0, 0) for i in range(9)])
    shown = probe.show()
    assert (shown.seen, shown.seen_of) == (LARGEST, [LARGEST, 1])
    assert shown.kept == 2


def test_a_yes_no_target_is_balanced_by_its_nearest_class(probe: Probe) -> None:
    probe.begin(1, 4, 2)
    probe.add(*[(float(i), p, 0) for i, p in enumerate((0.0, 0.3, 0.49, 0.5, 0.9, 1.0, 0.0))])
    assert probe.show().seen_of == [3, 3]


def chances(probe: Probe, labels: list[float], trials: int) -> np.ndarray:
    """(samples of the stream,): how often each is in the reservoir at the end of the stream."""
    probe.tell("t", trials, len(labels), *np.array(labels, np.float32).view(np.uint32).tolist())
    return probe.read(len(labels))


def bound(chance: float, trials: int, places: int, failing: float = 1e-6) -> float:
    """How far a count may be off its mean at any of so many places (Bernstein 1924, and a union bound)."""
    doubt = math.log(2 * places / failing)
    return math.sqrt(2 * trials * chance * (1 - chance) * doubt + (doubt / 3) ** 2) + doubt / 3


def test_the_reservoir_is_a_fair_draw_of_all_that_left_the_ring(probe: Probe) -> None:
    """100 000 streams: every sample is kept as often as any other, to within 5 % (one wrong draw shifts it by 20)."""
    trials, length, ring, room = 100_000, 33, 3, 5
    probe.begin(ring, room, 0, random=1, cut=1)
    found = chances(probe, [0.0] * length, trials)
    offered = length - ring
    assert (found[offered:] == 0).all()
    assert found.sum() == trials * room
    limit = bound(room / offered, trials, offered)
    assert limit < 0.05 * trials * room / offered
    assert np.abs(found[:offered] - trials * room / offered).max() < limit


def test_balanced_what_is_kept_of_a_class_is_a_fair_draw_of_it(probe: Probe) -> None:
    """25 of one class and 5 of another, mixed: the others are kept whole or evenly, and of the many each as often."""
    trials, room = 50_000, 6
    labels = [float(i % 6 == 5) for i in range(30)]
    probe.begin(1, room, 2, random=1, cut=1)
    found = chances(probe, [*labels, 0.0], trials)[:30]
    for label, count in ((0.0, 25), (1.0, 5)):
        of_class = found[np.array(labels) == label]
        mean = float(of_class.mean())
        # three places for each class of six: an even share
        assert mean == trials * (room / 2) / count
        assert np.abs(of_class - mean).max() < bound(mean / trials, trials, count)


@pytest.mark.parametrize("counts", [[100] * 10, [100, 3, 80, 0, 1, 60, 100, 5, 70, 90]])
@pytest.mark.parametrize("order", ["sorted", "sorted twice", "mixed"])
def test_every_class_keeps_its_share(probe: Probe, counts: list[int], order: str) -> None:
    """A stream that brings one class after the other, as a person does who first says all zeros, then all ones."""
    room = 50
    labels = np.repeat(np.arange(10.0), counts)
    if order == "sorted twice":
        labels = np.concatenate([labels, labels])
    if order == "mixed":
        np.random.default_rng(0).shuffle(labels)
    probe.begin(1, room, 10)
    probe.add(*[(float(i), float(label), 0) for i, label in enumerate([*labels, 0.0])])
    kept = Counter(probe.show().samples[:room, 3].view(np.float32).tolist())
    given_of = Counter(labels.tolist())
    scarce = {label for label, count in given_of.items() if count <= room // 10}
    assert all(kept[label] == given_of[label] for label in scarce), "a scarce class is kept whole"
    others = [kept[label] for label in given_of if label not in scarce]
    assert sum(kept.values()) == room
    assert max(others) - min(others) <= 1
