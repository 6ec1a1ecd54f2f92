"""States of older formats and older builds are carried over, whole, whenever the power fails (issue 4)."""

import ctypes
import struct
import zlib

import pytest

from .test_store import BUILD, CORRUPT, FAILED, FOREIGN, KEEP, OK, Chip, build_store, payload_of, slot_size

OLDER_BUILD = 0x0DDBA11D  # the one flash.c's migration knows
# What the store of format 1 left after saves 1, 2 and 3 of BUILD: the written parts of two slots of 256 bytes.
IMAGE = {
    0: "4d545331cdab3412020000002d000000b206c86ba55aa55a020910171e252c333a41484f565d646b727980878e959ca3aab1b8bf"
    "c6cdd4dbe2e9f0f7fe050c131a21282f36000000",
    256: "4d545331cdab3412030000002d00000087a8a180a55aa55a030a11181f262d343b424950575e656c737a81888f969da4abb2b9c0"
    "c7ced5dce3eaf1f8ff060d141b22293037000000",
}


def image() -> bytearray:
    memory = bytearray(b"\xff" * 512)
    for start, written in IMAGE.items():
        memory[start : start + len(written) // 2] = bytes.fromhex(written)
    return memory


def old_payload(number: int, size: int = 45) -> bytes:
    return bytes((7 * i + number) % 256 for i in range(size))


def old_slot(number: int, payload: bytes, identity: int) -> bytes:
    """A slot as format 1 wrote it: header of 24 bytes, payload padded to 8."""
    words = struct.pack("<4sIII", b"MTS1", identity, number, len(payload))
    return words + struct.pack("<II", zlib.crc32(words + payload), 0x5AA55AA5) + payload + bytes(-len(payload) % 8)


def old_storage(size: int, saves: int, length: int, identity: int = BUILD, sector: int = 256) -> bytearray:
    """Storage after so many saves in format 1, which cut its slots by its own shorter header."""
    memory = bytearray(b"\xff" * length)
    slot = -(-(24 + -(-size // 8) * 8) // sector) * sector
    for number in range(1, saves + 1):
        start = number % (length // slot) * slot
        written = old_slot(number, old_payload(number, size), identity)
        memory[start : start + slot] = written.ljust(slot, b"\xff")
    return memory


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build_store(tmp_path_factory.mktemp("store"))


def migrate(chip: Chip, size: int) -> tuple[int, bytes]:
    flash, payload = chip._flash(0xFFFFFFFF, KEEP), ctypes.create_string_buffer(size)
    status = chip.store.flash_migrate(ctypes.byref(flash), BUILD, payload, size)
    return int(status), payload.raw


def test_the_writer_here_is_format_1() -> None:
    assert old_storage(45, 3, 512) == image()


def test_a_state_of_format_1_goes_on_in_format_2(store: ctypes.CDLL) -> None:
    chip = Chip(store, image(), sector=256)
    assert chip.load(45) == (OK, old_payload(3))
    assert chip.sequence == 3
    for number in range(5):
        assert chip.save(payload_of(number, 45)) == OK
        assert chip.load(45) == (OK, payload_of(number, 45))
    assert chip.memory.count(b"MTS1") == 0
    assert chip.sequence == 8


def test_damage_in_format_1_is_noticed(store: ctypes.CDLL) -> None:
    for bit in range((24 + 45) * 8):
        chip = Chip(store, image(), sector=256)
        chip.memory[256 + bit // 8] ^= 1 << bit % 8
        assert chip.load(45) == (OK, old_payload(3 if 20 <= bit // 8 < 24 else 2)), f"bit {bit}"
        chip.memory[3] = ord("3")  # a format nobody knows yet
        if not 20 <= bit // 8 < 24:
            assert chip.load(45) == (CORRUPT, None)


@pytest.mark.parametrize("size", [45, 192, 216, 230, 440])
@pytest.mark.parametrize("saves", [1, 2, 3, 5, 6, 7])
def test_the_first_save_in_the_new_format_may_be_cut_off(store: ctypes.CDLL, size: int, saves: int) -> None:
    """Also where the longer header makes slots longer: the new one is not laid over the old state."""
    chip = Chip(store, old_storage(size, saves, 2048), sector=256)
    assert chip.load(size) == (OK, old_payload(saves, size))
    finished, new = chip.copy(), payload_of(1, size)
    assert finished.save(new) == OK
    for cut in range(1, finished.written + 1, 7):
        torn = chip.copy()
        assert torn.save(new, cut=cut, garbage=0x5A) == FAILED
        status, found = torn.load(size)
        assert status == OK
        assert found in (old_payload(saves, size), new)
        assert torn.save(new) == OK
        assert torn.load(size) == (OK, new)


@pytest.mark.parametrize("saves", range(1, 9))
@pytest.mark.parametrize("half", [10, 100, 110, 200, 300])
@pytest.mark.parametrize("old_format", [True, False])
def test_a_state_of_an_older_build_is_taken_over(store: ctypes.CDLL, half: int, saves: int, old_format: bool) -> None:
    """Its payload is half as long; whenever the first save is cut off, the old state can be taken over again."""
    size, length = 2 * half, 3 * slot_size(2 * half, 256)
    if old_format:
        chip = Chip(store, old_storage(half, saves, length, OLDER_BUILD), sector=256)
    else:
        chip = Chip(store, bytearray(b"\xff" * length), sector=256)
        for number in range(1, saves + 1):
            assert chip.save(old_payload(number, half), identity=OLDER_BUILD) == OK
    expected = bytes(part for byte in old_payload(saves, half) for part in (byte & 15, byte >> 4))
    assert chip.load(size) == (FOREIGN, None)
    assert chip.sequence >= saves  # the wear counts on
    assert migrate(chip, size) == (OK, expected)
    finished = chip.copy()
    assert finished.save(expected) == OK
    for cut in range(1, finished.written + 1, 13):
        torn = chip.copy()
        assert torn.save(expected, cut=cut, garbage=0x00) == FAILED
        status, found = torn.load(size)
        if found is None:
            assert status == FOREIGN
            assert migrate(torn, size) == (OK, expected)
        else:
            assert found == expected
    assert finished.load(size) == (OK, expected)


def test_builds_that_are_not_known_are_refused(store: ctypes.CDLL) -> None:
    chip = Chip(store, bytearray(b"\xff" * 1024), sector=256)
    assert migrate(chip, 80) == (FOREIGN, bytes(80))  # nothing there at all
    assert chip.save(payload_of(1, 40), identity=0xBAD) == OK
    assert chip.load(80) == (FOREIGN, None)
    assert migrate(chip, 80)[0] == FOREIGN
    chip.unreadable = (0, 1024)
    assert migrate(chip, 80)[0] == FAILED


def test_the_newest_whole_state_of_the_older_build_counts(store: ctypes.CDLL) -> None:
    chip = Chip(store, bytearray(b"\xff" * 2048), sector=256)
    for number in range(1, 8):
        assert chip.save(bytes([number]) * 40, identity=OLDER_BUILD) == OK
    assert migrate(chip, 80) == (OK, bytes([7, 0]) * 40)
    chip.memory[7 * 256 + 70] ^= 1
    assert migrate(chip, 80) == (OK, bytes([6, 0]) * 40)


def test_wear_is_what_was_erased(store: ctypes.CDLL) -> None:
    class Wear(ctypes.Structure):
        _fields_ = [("saves", ctypes.c_uint32), ("erases", ctypes.c_uint32)]

    for slots in (2, 3, 5):
        chip = Chip(store, bytearray(b"\xff" * 256 * slots), sector=256)
        erased = [0] * slots
        for number in range(1, 4 * slots + 2):
            before = bytes(chip.memory)
            assert chip.save(payload_of(number, 40)) == OK
            for i in range(slots):
                erased[i] += before[256 * i : 256 * i + 256] != chip.memory[256 * i : 256 * i + 256]
            wear, flash = Wear(), chip._flash(0xFFFFFFFF, KEEP)
            store.flash_wear(ctypes.byref(flash), 40, chip.sequence, ctypes.byref(wear))
            assert (wear.saves, wear.erases) == (number, max(erased))
    store.flash_wear(ctypes.byref(flash), 10_000, 7, ctypes.byref(wear))  # no two slots fit
    assert (wear.saves, wear.erases) == (0, 0)
