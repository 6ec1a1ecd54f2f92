"""The metrics log keeps what was appended through power cuts, and its wear is bounded (SPEC C11, issue 4)."""

import ctypes
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.inspection import inspect_bytes
from microtune.inspection.image import KINDS
from microtune.storage import Port
from microtune.toolchain import compile_library, compile_objects

from .test_store import RUNTIME
from .test_store_life import CHIPS, FOUND, GIVEN, Life

HERE = Path(__file__).parent
UNIT = 32
OK, INVALID, FAILED = 0, 1, 6
START, TAKEN, DROPPED, RESET, USE = 1, 2, 3, 8, 9
LIVED = ["sectors", "before", "stubborn", "appends", "cutting"]
CAME = ["cuts", "records", "refused", "under_way", "again", "rotten", "most_erases", "least_erases"]
FAILURES = ["lost", "changed", "disordered", "outside", "unopened"]


class LogLife(ctypes.Structure):
    """``log_life`` of log_life.c."""

    _fields_ = [("flash", Life), *((name, ctypes.c_uint32) for name in LIVED + CAME + FAILURES)]


class Region(ctypes.Structure):
    """``mt_log_region``."""

    _fields_ = [("port", ctypes.POINTER(Port)), ("start", ctypes.c_uint32), ("bytes", ctypes.c_uint32)]


class Head(ctypes.Structure):
    """``mt_log_head``."""

    _fields_ = [("next", ctypes.c_uint32), ("uses", ctypes.c_uint32)]


class Settings(ctypes.Structure):
    """``mt_log_settings``."""

    _fields_ = [("every", ctypes.c_uint16), ("apart", ctypes.c_uint16)]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    sources = [RUNTIME / "mt_store.c", RUNTIME / "mt_log.c", HERE / "log_life.c"]
    library = ctypes.CDLL(
        str(compile_library(sources, [RUNTIME], tmp_path_factory.mktemp("log") / "log.so", strict=True))
    )
    library.mt_log_of.restype = Region
    return library


def test_a_port_without_functions_is_no_log(log: ctypes.CDLL) -> None:
    port, head = Port(size=8192, sector=256, log=512), Head()
    region = log.mt_log_of(ctypes.byref(port))
    assert region.bytes == 512
    assert log.mt_log_open(ctypes.byref(region), ctypes.byref(head)) == INVALID


## Life on flash ##


def live(log: ctypes.CDLL, **chosen: int) -> Any:
    """A life; fails when a record was lost, changed or out of order, or the log broke a rule of flash."""
    flash = Life(**{"erased": 0xFF, "seed": 1, "rots": 6, **{key: chosen[key] for key in chosen if key in GIVEN}})
    rest = {key: chosen[key] for key in chosen if key in LIVED}
    life = LogLife(flash, **{"sectors": 2, "before": 2 * flash.sector, "appends": 4000, "cutting": 128, **rest})
    result = log.log_life_run(ctypes.byref(life))
    told = {name: getattr(life, name) for name in LIVED + CAME + FAILURES}
    told |= {name: getattr(life.flash, name) for name in GIVEN + FOUND}
    assert result == 0, told
    assert not any(told[name] for name in FAILURES), told
    return life


@pytest.mark.parametrize("chip", CHIPS)
def test_power_cuts_at_random_instants(log: ctypes.CDLL, chip: str) -> None:
    """Ordinary cuts, and a power line that fails at most of the records; a sixth of the cuts is followed by bit rot."""
    found = {key: value for key, value in CHIPS[chip].items() if key != "slots"}
    ordinary = live(log, **found, sectors=3, cutting=30, seed=2)
    assert ordinary.cuts > 300
    assert ordinary.records >= 4000 - ordinary.cuts  # a cut costs the record under way
    awful = live(log, **found, cutting=192, seed=3)
    assert awful.cuts > 2500
    assert min(awful.under_way, awful.rotten, awful.records) > 0
    if found["unit"] <= UNIT:
        stubborn = live(log, **found, stubborn=1, cutting=192, seed=4)
        assert (stubborn.refused, stubborn.again) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "sector": st.sampled_from([32, 64, 96, 256, 1024]),
            "unit": st.sampled_from([1, 4, 8, 16, 32, 256]),
            "erased": st.sampled_from([0xFF, 0x00]),
            "strict": st.integers(0, 1),
            "seed": st.integers(0, 2**31),
            "sectors": st.integers(2, 7),
            "cutting": st.integers(1, 255),
            "rots": st.integers(0, 9),
        }
    )
)
def test_any_flash(log: ctypes.CDLL, chosen: dict[str, int]) -> None:
    live(log, **chosen, appends=600)


@pytest.mark.parametrize("sector, sectors", [(256, 2), (256, 8), (1024, 3), (4096, 2), (4096, 4)])
def test_wear_is_bounded_and_shared(log: ctypes.CDLL, sector: int, sectors: int) -> None:
    """1000 records erase each sector 1000 / (records of the ring) times, rounded up for those it has begun."""
    ring = sector * sectors // UNIT
    life = live(log, unit=8, sector=sector, sectors=sectors, appends=1000, cutting=0)
    assert life.records == 1000
    assert life.most_erases == -(-1000 // ring)
    assert life.least_erases >= 1000 // ring
    # each power cut costs a unit, or an erase at the begin of a sector
    cut = live(log, unit=8, sector=sector, sectors=sectors, appends=1000, cutting=26, rots=0)
    assert cut.cuts > 60
    assert cut.most_erases <= -(-(1000 + cut.cuts) // ring) + cut.cuts * UNIT / sector + 3


## What is due ##


def due(log: ctypes.CDLL, chosen: tuple[int, int], last: int, kind: int, uses: int) -> bool:
    head = Head(7, last)
    return bool(log.mt_log_due(ctypes.byref(Settings(*chosen)), ctypes.byref(head), kind, uses))


def test_which_records_are_due(log: ctypes.CDLL) -> None:
    chosen = (32, 8)
    assert [due(log, chosen, 100, USE, uses) for uses in (100, 131, 132, 500)] == [False, False, True, True]
    assert not due(log, (0, 8), 100, USE, 50_000)
    for often in (TAKEN, DROPPED):
        assert [due(log, chosen, 100, often, uses) for uses in (100, 107, 108)] == [False, False, True]
    assert [due(log, (32, 0), 100, TAKEN, uses) for uses in (100, 101)] == [False, True]
    for event in (START, RESET, 77):
        assert [due(log, chosen, 100, event, uses) for uses in (100, 101)] == [False, True]
    # a power cut took uses back that were not saved
    assert due(log, chosen, 100, START, 96)


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=300), st.integers(1, 50), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_no_more_than_a_record_a_use(log: ctypes.CDLL, calls: list[tuple[int, bool]], every: int, apart: int) -> None:
    """However often a button is pressed or the device restarts; routine alone needs `apart` uses."""
    uses = last = records = routine = 0
    for kind, use in calls:
        uses += use
        if due(log, (every, apart), last, kind, uses):
            records += 1
            routine += kind in (TAKEN, DROPPED)
            last = uses
    assert records <= uses
    assert routine <= uses / max(apart, 1)


## The ring ##


@dataclass
class Memory:
    """A port over plain bytes, and the log in its last ``log`` of them."""

    library: ctypes.CDLL
    bytes: bytearray
    sector: int = 64
    log: int = 192
    erased: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = dict(Port._fields_)

        def read(_: int, address: int, data: int, size: int) -> int:
            ctypes.memmove(data, bytes(self.bytes[address : address + size]), size)
            return 0

        def write(_: int, address: int, data: int, size: int) -> int:
            self.bytes[address : address + size] = ctypes.string_at(data, size)
            return 0

        def erase(_: int, address: int, size: int) -> int:
            self.bytes[address : address + size] = b"\xff" * size
            self.erased.append(address)
            return 0

        self.port = Port(read=kinds["read"](read), write=kinds["write"](write), erase=kinds["erase"](erase))
        self.port.size, self.port.sector, self.port.log = len(self.bytes), self.sector, self.log
        self.region, self.head = self.library.mt_log_of(ctypes.byref(self.port)), Head()

    def open(self) -> int:
        return int(self.library.mt_log_open(ctypes.byref(self.region), ctypes.byref(self.head)))

    def append(self, uses: int) -> int:
        record = struct.pack("<HBBIIIBBBBfHHI", 0, USE, 0, 0, 0, uses, 0, 20, 32, 200, 0.5, 3, 1, 0)
        return int(self.library.mt_log_append(ctypes.byref(self.region), ctypes.byref(self.head), record))

    def numbers(self) -> list[tuple[int, int]]:
        """Number and uses of the whole records, as they lie in the region."""
        found = []
        for at in range(self.region.start, self.region.start + self.region.bytes, UNIT):
            unit = bytes(self.bytes[at : at + UNIT])
            if unit[:2] == b"L1" and zlib.crc32(unit[:28]) == struct.unpack("<I", unit[28:])[0]:
                found.append((struct.unpack_from("<I", unit, 4)[0], struct.unpack_from("<I", unit, 12)[0]))
        return found


@pytest.fixture
def memory(log: ctypes.CDLL) -> Iterator[Callable[..., Memory]]:
    yield lambda size=256, **chosen: Memory(log, bytearray(b"\xa5" * size), **chosen)


def test_the_ring(memory: Callable[..., Memory]) -> None:
    """Garbage is no log; six records fit; nothing before the region changes; a restart goes on."""
    chip = memory()
    assert chip.open() == OK
    assert (chip.head.next, chip.head.uses) == (0, 0)
    for number in range(40):
        assert chip.append(1000 + number) == OK
        if number % 3 == 0:
            assert chip.open() == OK
        assert (chip.head.next, chip.head.uses) == (number + 1, 1000 + number)
        found = sorted(chip.numbers())
        newest = [(each, 1000 + each) for each in range(max(0, number - number % 2 - 4), number + 1)]
        assert found == newest
    assert chip.bytes[:64] == b"\xa5" * 64
    assert chip.erased == [64 + 64 * (each % 3) for each in range(20)]


def test_numbers_wrap_around(memory: Callable[..., Memory]) -> None:
    chip = memory()
    words = struct.pack("<2sBBIIIBBBBfHH", b"L1", USE, 0, 0xFFFFFFFD, 0, 41, 0, 20, 32, 200, 0.5, 3, 1)
    position = 64 + 0xFFFFFFFD % 6 * UNIT
    chip.bytes[position : position + UNIT] = words + struct.pack("<I", zlib.crc32(words))
    chip.open()
    assert (chip.head.next, chip.head.uses) == (0xFFFFFFFE, 41)
    for uses in range(42, 60):
        assert chip.append(uses) == OK
        assert chip.open() == OK
        assert chip.head.uses == uses
    assert chip.head.next < 100


@pytest.mark.parametrize("before, after", [(192, 128), (128, 192), (192, 448), (448, 128)])
def test_an_older_builds_region_was_another_one(memory: Callable[..., Memory], before: int, after: int) -> None:
    """Its records that lie in the new region count on; those behind its end or its begin are overwritten in time."""
    for count in range(1, 20):
        old = memory(512, log=before)
        old.open()
        for uses in range(count):
            assert old.append(uses) == OK
        new = Memory(old.library, old.bytes, log=after)
        seen = {uses for _, uses in new.numbers()}
        assert new.open() == OK
        for uses in range(count, count + 3):
            assert new.append(uses) == OK
            assert new.open() == OK
            assert new.head.uses == uses
        order = [uses for _, uses in sorted(new.numbers())]
        assert order == sorted(order)
        assert {count, count + 1, count + 2} <= set(order) <= seen | {count, count + 1, count + 2}


def test_regions_that_cannot_be(memory: Callable[..., Memory]) -> None:
    for log_bytes, sector in ((0, 64), (64, 64), (127, 64), (320, 64), (192, 0), (192, 48), (192, 16)):
        chip = memory(log=log_bytes, sector=sector)
        assert (chip.open(), chip.append(1)) == (INVALID, INVALID), (log_bytes, sector)
    # bytes behind the last whole sector are left alone
    chip = memory(256 + 40)
    assert (chip.region.start, chip.region.bytes) == (64, 192)


def test_what_fails_wears_no_more_than_a_sector_out(memory: Callable[..., Memory]) -> None:
    chip = memory()
    chip.open()
    chip.append(1)
    takes = dict(Port._fields_)["write"]
    chip.port.write = takes(lambda *_: 1)
    for _ in range(10):
        before = len(chip.erased)
        assert chip.append(2) == FAILED
        assert len(chip.erased) - before <= 1
    chip.port.write = takes(lambda *_: 0)  # says so, and keeps nothing
    assert chip.append(2) == FAILED


def test_inspect_reads_what_the_device_wrote(memory: Callable[..., Memory]) -> None:
    chip = memory(1024)
    chip.open()
    record = ctypes.create_string_buffer(UNIT)
    chip.library.log_sample_record(record)
    sequence = ctypes.c_uint32(0)
    for number in range(1, 10):
        state = bytes([number]) * 100
        saved = chip.library.mt_store_save(ctypes.byref(chip.port), 0xBEEF, state, 100, ctypes.byref(sequence))
        assert saved == OK
        assert chip.library.mt_log_append(ctypes.byref(chip.region), ctypes.byref(chip.head), record) == OK
    found = inspect_bytes(bytes(chip.bytes))
    assert [(each.sequence, each.identity, each.bytes, each.whole) for each in found.slots] == [
        (8, "0x0000BEEF", 100, True), (9, "0x0000BEEF", 100, True), (6, "0x0000BEEF", 100, True),
        (7, "0x0000BEEF", 100, True),
    ]  # fmt: skip
    assert found.wear is not None and (found.wear.slots, found.wear.saves, found.wear.erases) == (4, 9, 3)
    assert found.log is not None
    assert [each.number for each in found.log.records] == [4, 5, 6, 7, 8]
    newest = asdict(found.log.records[-1])
    assert newest == {
        "number": 8, "kind": KINDS[5][0], "detail": 2, "time": 86400, "uses": 1000, "profile": 3, "right": 0.75,
        "recent": 32, "confidence": 0.2, "error": 0.375, "taken": 40000, "dropped": 7,
    }  # fmt: skip
    assert (found.log.at, found.log.erases) == (chip.region.start, 2)


def test_every_kind_has_a_name() -> None:
    declared = re.findall(r"MT_LOG_\w+ = (\d+)", (RUNTIME / "mt_log.h").read_text())
    assert [int(number) for number in declared] == sorted(KINDS)


def test_it_is_small() -> None:
    """docs/log.md says so."""
    from elftools.elf.elffile import ELFFile

    (compiled,) = compile_objects([RUNTIME / "mt_log.c"], [RUNTIME], "cortex-m4", strict=True)
    with compiled.open("rb") as stream:
        sections = [each for each in ELFFile(stream).iter_sections() if each["sh_flags"] & 2]
        size = sum(each["sh_size"] for each in sections if each["sh_type"] == "SHT_PROGBITS")
    assert size <= 900
