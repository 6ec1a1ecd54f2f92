"""New firmware takes over what an older build of the same model had learnt, and nothing it cannot trust (issue 4)."""

import ctypes
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.inspection.image import FLOATS, METRICS, METRICS_AT, PERSON, RECOGNISED
from microtune.interface import LAST
from microtune.toolchain import compile_library

from .test_store import RUNTIME

HERE = Path(__file__).parent
COUNTERS = len(METRICS[1]) - 1
HEAD = METRICS_AT[1] + 4 * len(METRICS[1])  # sizeof(mt_state)
GUARD = b"\xc3" * 64


class Old(ctypes.Structure):
    """``old_memory`` of migration_probe.c."""

    _fields_ = [
        ("payload", ctypes.c_char_p),
        ("bytes", ctypes.c_uint32),
        ("at", ctypes.c_uint32),
        ("outside", ctypes.c_uint32),
        ("reads", ctypes.c_uint32),
        ("fails_at", ctypes.c_uint32),
    ]


@dataclass(frozen=True)
class Saved:
    """A saved payload, as the C lays it out: the device, what its people share, and each of them."""

    version: int = 1
    profiles: int = 2
    contexts: int = 2
    people_at: int = HEAD + 20
    person_bytes: int = 200
    parameters_at: int = 52
    parameters: int = 3
    structure: int = 0xCAFE0001
    profile: int = 1
    mean_error: float = 0.25
    first: float = 1.0
    tail: int = 40

    @property
    def bytes(self) -> bytes:
        """Parameters are first, first + 1, ... but the last one of each person: an integer whose bits are NaN's."""
        words = struct.pack(
            "<4H5I2HI", self.version, self.profiles, self.contexts, 0, self.people_at, self.person_bytes,
            self.parameters_at, self.parameters, self.structure, self.profile, 0, 0,
        )  # fmt: skip
        head = words + struct.pack(f"<{COUNTERS}If", *range(100, 100 + COUNTERS), self.mean_error)
        memory = bytearray(head.ljust(self.people_at, b"\x11"))
        for person in range(self.profiles * self.contexts):
            each = bytearray(b"\x22" * self.person_bytes)
            floats = [self.first + 10 * person + i for i in range(self.parameters - 1)]
            struct.pack_into(f"<{len(floats)}fi", each, self.parameters_at, *floats, -1 - person)
            memory += each
        return bytes(memory) + b"\x33" * self.tail

    def learnt(self, payload: bytes) -> list[bytes]:
        starts = [self.people_at + i * self.person_bytes for i in range(self.profiles * self.contexts)]
        return [payload[at + self.parameters_at : at + self.parameters_at + 4 * self.parameters] for at in starts]


OLD = Saved()
# the new build has a smaller buffer, shares more, and saves what a person has learnt elsewhere
NEW = Saved(people_at=HEAD + 8, person_bytes=120, parameters_at=64, profile=0, mean_error=0.0, first=-7.0, tail=0)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    sources = [RUNTIME / "mt_store.c", RUNTIME / "mt_migration.c", HERE / "migration_probe.c"]
    output = tmp_path_factory.mktemp("migration") / "migration.so"
    return ctypes.CDLL(str(compile_library(sources, [RUNTIME], output, strict=True)))


def take(probe: ctypes.CDLL, old: bytes, new: Saved = NEW, floats: int = 2, fails_at: int = 0) -> bytes | None:
    """The new payload afterwards; None: refused. Nothing outside either payload may be touched."""
    memory = Old(old, len(old), 512, 0, 0, fails_at)
    payload = new.bytes
    room = ctypes.create_string_buffer(GUARD + payload + GUARD, len(payload) + 2 * len(GUARD))
    start = ctypes.byref(room, len(GUARD))
    result = probe.probe_take(ctypes.byref(memory), start, len(payload), floats)
    assert memory.outside == 0
    assert room.raw.startswith(GUARD) and room.raw.endswith(GUARD)
    return room.raw[len(GUARD) : -len(GUARD)] if result == 0 else None


def metrics(payload: bytes) -> bytes:
    return payload[METRICS_AT[1] : HEAD]


def test_inspect_and_the_runtime_agree_on_the_layout(probe: ctypes.CDLL) -> None:
    layout = (ctypes.c_uint32 * 14)()
    probe.probe_layout(layout)
    size, at, metrics_size, mean, people, structure, profile, teaching, *person, version, recognise = layout
    names = METRICS[version]
    assert (size, at, metrics_size, mean) == (HEAD, METRICS_AT[version], 4 * len(names), 4 * (len(names) - 1))
    assert (people, structure, profile, teaching) == (8, 24, 28, 32)
    marked = bytearray(PERSON[FLOATS].size)
    for offset, value in zip(person, (1, 2, 3, 1.5), strict=True):
        struct.pack_into("<f" if value == 1.5 else "<I", marked, offset, value)
    assert PERSON[FLOATS].unpack(marked) == (1, 2, 3, 1.5)
    assert (version, recognise) == (max(METRICS), RECOGNISED)
    declared = re.search(
        r"typedef struct mt_metrics \{(.*?)\} mt_metrics;", (RUNTIME / "mt_learner.h").read_text(), re.S
    )
    assert declared is not None
    code = re.sub(r"/\*.*?\*/", "", declared[1], flags=re.S)
    assert tuple(re.findall(r"\w+(?=[,;])", code)) == names


def test_a_whole_old_state(probe: ctypes.CDLL) -> None:
    old = OLD.bytes
    found = take(probe, old)
    assert found is not None
    assert NEW.learnt(found) == OLD.learnt(old)
    assert metrics(found) == metrics(old)
    # nothing else but the chosen profile changed
    expected = bytearray(replace(NEW, profile=1).bytes)
    struct.pack_into("<H", expected, LAST, 1 * NEW.contexts)  # and who a report is about
    expected[METRICS_AT[1] : HEAD] = metrics(old)
    for index, learnt in enumerate(OLD.learnt(old)):
        at = NEW.people_at + index * NEW.person_bytes + NEW.parameters_at
        expected[at : at + len(learnt)] = learnt
    assert found == expected


def test_a_device_that_recognised_people_goes_on_to(probe: ctypes.CDLL) -> None:
    found = take(probe, replace(OLD, profile=RECOGNISED).bytes)
    assert found is not None and struct.unpack_from("<2H", found, LAST - 2) == (RECOGNISED, 0)


@pytest.mark.parametrize(
    "other",
    [{"structure": 5}, {"parameters": 4}, {"profiles": 4, "contexts": 1}, {"contexts": 1}, {"profiles": 3}],
    ids=str,
)
def test_another_network_leaves_the_counters(probe: ctypes.CDLL, other: dict[str, int]) -> None:
    """Also where there are as many people in all: a profile is no context."""
    old = replace(OLD, **other)
    found = take(probe, old.bytes)
    expected = bytearray(NEW.bytes)
    expected[METRICS_AT[1] : HEAD] = metrics(old.bytes)
    assert found == expected


def test_what_is_not_known_is_refused(probe: ctypes.CDLL) -> None:
    for version in (0, 2, 257, 65535):
        assert take(probe, replace(OLD, version=version).bytes) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(probe: ctypes.CDLL, value: float) -> None:
    assert take(probe, replace(OLD, mean_error=value).bytes) is None
    for person in range(4):
        for word in range(2):
            old = bytearray(OLD.bytes)
            struct.pack_into("<f", old, OLD.people_at + person * OLD.person_bytes + OLD.parameters_at + 4 * word, value)
            assert take(probe, bytes(old)) is None


def test_a_state_that_is_cut_off_is_refused(probe: ctypes.CDLL) -> None:
    old = OLD.bytes
    needed = OLD.people_at + 4 * OLD.person_bytes
    for kept in range(0, len(old), 3):
        assert (take(probe, old[:kept]) is None) == (kept < needed)
    other = replace(OLD, structure=5).bytes
    assert take(probe, other[: HEAD - 1]) is None
    assert take(probe, other[:HEAD]) is not None


def test_a_read_that_fails(probe: ctypes.CDLL) -> None:
    for number in range(1, 6):
        assert take(probe, OLD.bytes, fails_at=number) is None
    assert take(probe, OLD.bytes, fails_at=6) is not None


WORD = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 4, 200, 2**31, 2**32 - 1, 2**32 - 4]))


@settings(max_examples=300, deadline=None)
@given(st.lists(WORD, min_size=3, max_size=3), st.sampled_from([(0, 0), (1, 1), (2, 2), (65535, 65535)]), WORD)
def test_absurd_places(probe: ctypes.CDLL, places: list[int], sets: tuple[int, int], words: int) -> None:
    """A state that was whole by its checksum and yet says that people are anywhere: nothing outside it is read."""
    old = bytearray(OLD.bytes)
    struct.pack_into("<HH", old, 2, *sets)
    struct.pack_into("<4I", old, 8, *places, words)
    take(probe, bytes(old), replace(NEW, parameters=3))
    # and the new build's own words are believed no more than that
    new = bytearray(NEW.bytes)
    struct.pack_into("<4I", new, 8, *places, words)
    struct.pack_into("<HH", new, 2, *sets)
    memory = Old(bytes(old), len(old), 0, 0, 0, 0)
    room = ctypes.create_string_buffer(GUARD + bytes(new) + GUARD, len(new) + 2 * len(GUARD))
    probe.probe_take(ctypes.byref(memory), ctypes.byref(room, len(GUARD)), len(new), 2)
    assert memory.outside == 0
    assert room.raw.startswith(GUARD) and room.raw.endswith(GUARD)


def test_more_floats_than_parameters(probe: ctypes.CDLL) -> None:
    assert take(probe, OLD.bytes, floats=4) is None
    assert take(probe, OLD.bytes, floats=3) is None  # the last is no float
    assert take(probe, OLD.bytes, floats=0) is not None
