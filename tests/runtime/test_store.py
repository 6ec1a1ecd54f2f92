"""The store keeps a state whole through power cuts and damage, and says what it found (SPEC C5, C10)."""

import ctypes
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import microtune.toolchain
from microtune.toolchain import compile_library

HERE = Path(__file__).parent
RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
OK, INVALID, FAILED, CORRUPT, FOREIGN = 0, 1, 6, 7, 8
FOREVER, KEEP = 0xFFFFFFFF, 256
BUILD, OTHER_BUILD = 0x1234ABCD, 0x1234ABCC
UNIT, HEADER = 32, 64
MEANT = 20  # bytes of the header that mean something: zeros and the mark follow


class Flash(ctypes.Structure):
    """``flash`` of flash.c."""

    _fields_ = [
        ("bytes", ctypes.c_void_p),
        ("size", ctypes.c_uint32),
        ("sector", ctypes.c_uint32),
        ("left", ctypes.c_uint32),
        ("garbage", ctypes.c_uint32),
        ("erased", ctypes.c_uint32),
        ("backward", ctypes.c_uint32),
        ("unreadable", ctypes.c_uint32),
        ("unreadable_bytes", ctypes.c_uint32),
        ("breaches", ctypes.c_uint32),
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The store with its simulated flash, as one library."""
    return build_store(tmp_path_factory.mktemp("store"))


def build_store(directory: Path) -> ctypes.CDLL:
    sources = [RUNTIME / "mt_store.c", HERE / "flash.c"]
    library = ctypes.CDLL(str(compile_library(sources, [RUNTIME], directory / "store.so", strict=True)))
    library.mt_crc32.restype = ctypes.c_uint32
    return library


@dataclass
class Chip:
    """Flash memory with the store on it; a copy is what a restart finds."""

    store: ctypes.CDLL
    memory: bytearray
    sector: int = 64
    erased: int = 0xFF
    backward: bool = False
    sequence: int = 0
    unreadable: tuple[int, int] = (0, 0)
    written: int = 0  # bytes erased and written by the last save

    def _flash(self, left: int, garbage: int) -> Flash:
        storage = (ctypes.c_char * len(self.memory)).from_buffer(self.memory)
        at, size = ctypes.addressof(storage), len(self.memory)
        return Flash(at, size, self.sector, left, garbage, self.erased, self.backward, *self.unreadable, breaches=0)

    def save(self, payload: bytes, identity: int = BUILD, cut: int = FOREVER, garbage: int = KEEP) -> int:
        flash, number = self._flash(cut, garbage), ctypes.c_uint32(self.sequence)
        status = self.store.flash_save(ctypes.byref(flash), identity, payload, len(payload), ctypes.byref(number))
        self.sequence = number.value
        self.written = cut - flash.left
        assert flash.breaches == 0
        return int(status)

    def load(self, size: int, identity: int = BUILD) -> tuple[int, bytes | None]:
        flash, number, found = self._flash(FOREVER, KEEP), ctypes.c_uint32(), ctypes.c_int()
        payload = ctypes.create_string_buffer(size)
        status = self.store.flash_load(
            ctypes.byref(flash), identity, payload, size, ctypes.byref(number), ctypes.byref(found)
        )
        self.sequence = number.value
        assert flash.breaches == 0
        return int(status), payload.raw if found.value else None

    def copy(self) -> "Chip":
        return replace(self, memory=bytearray(self.memory))


def payload_of(number: int, size: int) -> bytes:
    return np.random.default_rng(number).bytes(size)


def slot_size(size: int, sector: int = 64) -> int:
    return -(-(HEADER + -(-size // UNIT) * UNIT) // sector) * sector


def test_checksum_is_crc32(store: ctypes.CDLL) -> None:
    for size in (0, 1, 7, 64, 1000):
        data = payload_of(size, size)
        split = size // 3
        started = store.mt_crc32(0, data[:split], split)
        assert store.mt_crc32(started, data[split:], size - split) == zlib.crc32(data)


@pytest.mark.parametrize("garbage", [KEEP, 0x00, 0xFF, 0xA5], ids=lambda byte: f"last_byte_{byte:x}")
@pytest.mark.parametrize("erased, backward", [(0xFF, False), (0xFF, True), (0x00, False)])
@pytest.mark.parametrize("slots", [2, 3])
def test_power_cut_at_every_byte(store: ctypes.CDLL, slots: int, erased: int, backward: bool, garbage: int) -> None:
    """Eight saves one after the other, each cut off at every byte it erases or writes: the state before it or
    its own, whole; and the device goes on from there."""
    size = 45  # not a multiple of the unit
    chip = Chip(store, bytearray([erased] * slot_size(size) * slots), erased=erased, backward=backward)
    before: bytes | None = None
    for number in range(8):
        payload = payload_of(number, size)
        finished = chip.copy()
        assert finished.save(payload) == OK
        for cut in range(1, finished.written + 1):
            torn = chip.copy()
            assert torn.save(payload, cut=cut, garbage=garbage) == FAILED
            status, found = torn.load(size)
            assert status == OK, f"save {number} cut at byte {cut}"
            assert found in (before, payload)
            following = payload_of(1000 + cut, size)
            assert torn.save(following) == OK
            assert torn.load(size) == (OK, following)
        chip, before = finished, payload
        assert chip.load(size) == (OK, payload)


def test_power_cut_again_and_again_in_the_same_save(store: ctypes.CDLL) -> None:
    size = 40
    chip = Chip(store, bytearray(b"\xff" * 256))
    assert chip.save(payload_of(0, size)) == OK
    for cut in range(1, 300):
        assert chip.save(payload_of(cut, size), cut=cut, garbage=0x5A) == FAILED
        status, found = chip.load(size)
        assert status == OK
        assert found in (payload_of(0, size), payload_of(cut, size))
        if found == payload_of(cut, size):
            break
    else:
        pytest.fail("no cut left the new state")


def test_any_flipped_bit_of_the_newest_state_gives_the_one_before(store: ctypes.CDLL) -> None:
    size = 21
    old, new = payload_of(1, size), payload_of(2, size)
    chip = Chip(store, bytearray(b"\xff" * 256))
    assert (chip.save(old), chip.save(new)) == (OK, OK)
    for bit in range((HEADER + size) * 8):
        damaged = chip.copy()
        damaged.memory[bit // 8] ^= 1 << bit % 8
        # The mark tells only why nothing is whole: the state does not hang on it.
        unused = MEANT <= bit // 8 < HEADER
        assert damaged.load(size) == (OK, new if unused else old), f"bit {bit}"


@pytest.mark.parametrize("saves", [1, 2])
def test_any_flipped_bit_of_all_there_is_gives_the_base_and_says_so(store: ctypes.CDLL, saves: int) -> None:
    size = 21
    chip = Chip(store, bytearray(b"\xff" * 256))
    for number in range(saves):
        assert chip.save(payload_of(number, size)) == OK
    for bit in range((HEADER + size) * 8):
        if MEANT <= bit // 8 < HEADER:
            continue
        damaged = chip.copy()
        for start in (128, 0)[:saves]:  # the first save goes to the second slot
            damaged.memory[start + bit // 8] ^= 1 << bit % 8
        assert damaged.load(size) == (CORRUPT, None), f"bit {bit}"


def test_storage_never_written(store: ctypes.CDLL) -> None:
    for erased in (0xFF, 0x00):
        assert Chip(store, bytearray([erased]) * 256).load(50) == (OK, None)


def test_garbage_is_corrupt_and_the_next_save_works(store: ctypes.CDLL) -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        chip = Chip(store, bytearray(generator.bytes(256)))
        assert chip.load(50) == (CORRUPT, None)
        assert chip.save(payload_of(1, 50)) == OK
        assert chip.load(50) == (OK, payload_of(1, 50))


@pytest.mark.parametrize("foreign_size", [50, 10, 90, 200])
def test_state_of_another_build(store: ctypes.CDLL, foreign_size: int) -> None:
    chip = Chip(store, bytearray(b"\xff" * 1024))
    for number in range(3):
        assert chip.save(payload_of(number, foreign_size), identity=OTHER_BUILD) == OK
        status, found = chip.copy().load(50)
        assert (status, found) == (FOREIGN, None)
    assert chip.load(50) == (FOREIGN, None)
    for number in range(20):
        assert chip.save(payload_of(number, 50)) == OK
        assert chip.load(50) == (OK, payload_of(number, 50))


def test_truncated_storage_never_gives_half_a_state(store: ctypes.CDLL) -> None:
    """A file cut short and read on as zeros or ones: an older state, or a status that says so."""
    size = 40
    chip = Chip(store, bytearray(b"\xff" * 256))
    assert (chip.save(payload_of(1, size)), chip.save(payload_of(2, size))) == (OK, OK)
    for kept in range(1, 256):
        for blank in (0xFF, 0x00):
            cut = chip.copy()
            cut.memory[kept:] = bytes([blank]) * (256 - kept)
            expected = (OK, payload_of(2, size)) if kept >= HEADER + size else (CORRUPT, None)
            assert cut.load(size) == expected, f"{kept} bytes kept"


def test_sequence_numbers_wrap_around(store: ctypes.CDLL) -> None:
    size = 40
    for slots in (2, 3, 4, 5, 7):
        chip = Chip(store, bytearray(b"\xff" * 128 * slots), sequence=0xFFFFFFFF - 2 * slots)
        for number in range(5 * slots):
            before = chip.copy()
            payload = payload_of(number, size)
            assert chip.save(payload) == OK
            assert chip.load(size) == (OK, payload)
            torn = before.copy()
            assert torn.save(payload, cut=134) == FAILED
            if number:
                assert torn.load(size) == (OK, payload_of(number - 1, size))


def test_wear_is_shared(store: ctypes.CDLL) -> None:
    size, slots = 40, 8
    chip = Chip(store, bytearray(b"\xff" * 128 * slots))
    erased = np.zeros(slots, int)
    for number in range(slots * 10):
        before = bytes(chip.memory)
        assert chip.save(payload_of(number, size)) == OK
        changed = [i for i in range(slots) if before[128 * i : 128 * i + 128] != chip.memory[128 * i : 128 * i + 128]]
        assert len(changed) == 1
        erased[changed] += 1
    assert erased.tolist() == [10] * slots


def test_unreadable_slot_does_not_hide_the_other(store: ctypes.CDLL) -> None:
    size = 40
    chip = Chip(store, bytearray(b"\xff" * 256))
    assert (chip.save(payload_of(1, size)), chip.save(payload_of(2, size))) == (OK, OK)
    chip.unreadable = (0, 8)
    assert chip.load(size) == (OK, payload_of(1, size))
    chip.unreadable = (0, 256)
    assert chip.load(size) == (FAILED, None)


def test_impossible_ports(store: ctypes.CDLL) -> None:
    for length, sector in ((128, 64), (256, 0), (256, 48), (0, 64), (200, 64), (32, 64)):
        chip = Chip(store, bytearray(b"\xff" * length) or bytearray(1), sector=sector)
        assert chip.load(40) == (INVALID, None)
        assert chip.save(payload_of(1, 40)) == INVALID
    assert Chip(store, bytearray(b"\xff" * 256)).save(payload_of(1, 65)) == INVALID


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of saves, cuts, restarts and other builds against a model: what may be there."""

    library: ctypes.CDLL

    @initialize(
        size=st.integers(1, 200),
        slots=st.integers(2, 5),
        sector=st.sampled_from([32, 64, 256]),
        erased=st.sampled_from([0x00, 0xFF]),
        spare=st.integers(0, 7),
        start=st.sampled_from([0, 0xFFFFFFF0]),
    )
    def begin(self, size: int, slots: int, sector: int, erased: int, spare: int, start: int) -> None:
        self.size = size
        length = slot_size(size, sector) * slots + spare
        self.chip = Chip(self.library, bytearray([erased]) * length, sector, erased, sequence=start)
        self.possible: set[bytes | None] = {None}
        self.number = 0

    def _next(self) -> bytes:
        self.number += 1
        return payload_of(self.number, self.size)

    @rule()
    def save(self) -> None:
        payload = self._next()
        assert self.chip.save(payload) == OK
        self.possible = {payload}

    @rule(cut=st.integers(1, 600), garbage=st.sampled_from([KEEP, 0, 0xFF, 0x5A]))
    def power_fails(self, cut: int, garbage: int) -> None:
        payload = self._next()
        status = self.chip.save(payload, cut=cut, garbage=garbage)
        assert status in (OK, FAILED)
        self.possible = {payload} if status == OK else self.possible | {payload}
        self._restart()

    @rule()
    def restart(self) -> None:
        self._restart()

    def _restart(self) -> None:
        status, found = self.chip.load(self.size)
        assert status == OK
        assert found in self.possible
        self.possible = {found}

    @invariant()
    def another_build_finds_no_state_of_its_own(self) -> None:
        if getattr(self, "number", 0):
            status, found = self.chip.copy().load(self.size, identity=OTHER_BUILD)
            assert found is None
            assert status == (FOREIGN if None not in self.possible else status)


@pytest.fixture
def machine(store: ctypes.CDLL) -> Iterator[type[StoreMachine]]:
    StoreMachine.library = store
    yield StoreMachine


def test_any_history(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=20, deadline=None))
