"""Each flash driver, with the store on it, on a model of its chip: states survive power cuts at every step, and the
chip is never asked for what it does not take."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microtune.export.formats import DRIVERS, FLASH

from .conftest import Exported
from .controllers import Flash, Nrf52, Stm32f4, Stm32l4
from .rigs import PAYLOAD, Emulated, Native, Rig, emulated, load, native, save

MT_OK, MT_STORAGE_FAILED = 0, 6
PAYLOADS = [bytes((7 * i + n) % 256 for i in range(PAYLOAD)) for n in range(6)]
POSIX = [f"{each}=simulated_{each}" for each in ("open", "fcntl", "lseek", "ftruncate", "pread", "pwrite", "fsync")]


def on_nrf52(library: Path, folder: Path) -> Emulated:
    place = ["MT_FLASH_ADDRESS=0xF0000u", "MT_FLASH_SIZE=0x5000u"]
    return emulated("nrf52", library, folder, Nrf52(0xF0000, 0x5000, 4096), place)


def on_stm32f4(library: Path, folder: Path) -> Emulated:
    rig = emulated("stm32f4_sector", library, folder, Stm32f4(0x08040000, 0x40000, 0x20000), [])
    rig.fixed(0x1FFF7A22, (512).to_bytes(2, "little"))
    return rig


def on_stm32f4_small(library: Path, folder: Path) -> Emulated:
    """The sectors of 16 KB behind the vectors."""
    where = ["MT_FLASH_SECTOR=2u", "MT_FLASH_SECTORS=2u"]
    (folder / "small").mkdir(exist_ok=True)
    rig = emulated("stm32f4_sector", library, folder / "small", Stm32f4(0x08008000, 0x8000, 0x4000), where)
    rig.fixed(0x1FFF7A22, (256).to_bytes(2, "little"))
    return rig


def on_stm32l4(library: Path, folder: Path) -> Emulated:
    """The last two pages of bank 1 and the first four of bank 2, of a chip of 1 MB."""
    place = ["MT_FLASH_ADDRESS=0x0807F000u", "MT_FLASH_SIZE=0x3000u"]
    rig = emulated("stm32l4_page", library, folder, Stm32l4(0x0807F000, 0x3000, 2048), place)
    rig.fixed(0xE0042000, (0x10076415).to_bytes(4, "little"))
    return rig


def on_host(driver: str, *defines: str) -> Callable[[Path, Path], Native]:
    return lambda library, folder: native(driver, library, folder, list(defines))


RIGS: dict[str, tuple[str, str, Callable[[Path, Path], Any]]] = {
    "nrf52": ("cmake", "nrf52", on_nrf52),
    "stm32f4": ("cmake", "stm32f4_sector", on_stm32f4),
    "stm32f4 small": ("cmake", "stm32f4_sector", on_stm32f4_small),
    "stm32l4": ("cmake", "stm32l4_page", on_stm32l4),
    "rp2040": (
        "cmake", "rp2040", on_host("rp2040", "MT_FLASH_ADDRESS=(XIP_BASE+8192u)", "MT_FLASH_SIZE=0x5000u", "__MBED__")
    ),
    "esp32": ("esp-idf", "esp32_partition", on_host("esp32_partition")),
    "zephyr": ("zephyr", "zephyr_flash_map", on_host("zephyr_flash_map")),
    "posix": ("cmake", "posix_file", on_host("posix_file", "MT_FLASH_SIZE=0x5000u", *POSIX)),
}  # fmt: skip


@pytest.fixture(scope="module", params=RIGS)
def rig(request: pytest.FixtureRequest, exports: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory) -> Rig:
    format, _, make = RIGS[request.param]
    found: Rig = make(exports["toaster"][format], tmp_path_factory.mktemp("rig"))
    found.new = found.keep()
    return found


def start(rig: Rig, kept: Any, left: int | None = None, seed: int = 0) -> None:
    rig.put_back(kept)
    rig.power_on(left, seed)
    assert rig.call("probe_open") == 0


def test_every_driver_is_tested() -> None:
    assert {each for _, each, _ in RIGS.values()} == {each.name for each in DRIVERS} - {"none"}
    assert {each.name for each in DRIVERS} == {path.stem for path in FLASH.glob("*.c")}


def test_states_survive_power_cuts_at_every_step(rig: Rig) -> None:
    start(rig, rig.new)
    assert load(rig) == (MT_OK, None)
    for payload in PAYLOADS[:4]:
        assert save(rig, payload) == MT_OK
        assert load(rig) == (MT_OK, payload)
    kept, old, new = rig.keep(), PAYLOADS[3], PAYLOADS[4]
    start(rig, kept)
    load(rig)
    assert save(rig, new) == MT_OK
    seen = set()
    total = rig.steps
    assert total > 20
    for cut in range(total):
        start(rig, kept, left=None, seed=cut)
        load(rig)
        rig.power_on(cut, seed=cut)
        assert rig.call("probe_open") == 0
        assert load(rig)[1] == old
        assert save(rig, new) != MT_OK
        rig.power_on()
        assert rig.call("probe_open") == 0
        status, found = load(rig)
        assert status == MT_OK and found in (old, new), f"cut at step {cut} of {total}"
        seen.add(found)
        assert save(rig, PAYLOADS[5]) == MT_OK
        assert load(rig) == (MT_OK, PAYLOADS[5])
    assert seen == {old, new}
    assert not rig.breaches


def test_calls_out_of_bounds_are_refused(rig: Rig) -> None:
    start(rig, rig.new)
    size, sector = rig.call("probe_size"), rig.call("probe_sector")
    assert size and sector and size % sector == 0 and size >= 2 * sector
    before, data = rig.keep(), bytes(64)
    room = ctypes.create_string_buffer(64)
    for name, address, buffer in (
        ("probe_write", size - 32, data), ("probe_write", size, data), ("probe_write", 0xFFFFFFE0, data),
        ("probe_read", size - 32, room), ("probe_read", 0xFFFFFFE0, room),
    ):  # fmt: skip
        assert rig.call(name, address, buffer, 64) == -1
    for address, count in ((0, size + sector), (size, sector), (0xFFFFFFFF // sector * sector, 2 * sector)):
        assert rig.call("probe_erase", address, count) == -1
    if isinstance(rig, Emulated):
        assert rig.call("probe_write", 2, data, 64) == -1 and rig.call("probe_write", 0, data, 62) == -1
        assert rig.call("probe_erase", 4, sector) == -1 and rig.call("probe_erase", 0, sector - 4) == -1
        assert not rig.breaches
    assert rig.keep() == before


def test_what_was_erased_is_gone(rig: Rig) -> None:
    """Also from the chip's cache."""
    start(rig, rig.new)
    sector, room = rig.call("probe_sector"), ctypes.create_string_buffer(64)
    assert sector
    for payload in PAYLOADS[:2]:
        assert rig.call("probe_erase", sector, sector) == 0
        assert rig.call("probe_read", sector + 64, room, 64) == 0 and room.raw == b"\xff" * 64
        assert rig.call("probe_write", sector + 64, payload, 64) == 0
        assert rig.call("probe_read", sector + 64, room, 64) == 0 and room.raw == payload[:64]
    assert not rig.breaches


def test_flash_that_refuses_is_reported(rig: Rig) -> None:
    start(rig, rig.new)
    assert save(rig, PAYLOADS[0]) == MT_OK
    rig.protect(True)
    assert save(rig, PAYLOADS[1]) == MT_STORAGE_FAILED
    sector = rig.call("probe_sector")
    assert sector and rig.call("probe_write", 0, PAYLOADS[1], 64) == -1
    assert rig.call("probe_erase", sector, sector) == -1  # where the first state is
    rig.protect(False)
    assert load(rig) == (MT_OK, PAYLOADS[0])
    assert save(rig, PAYLOADS[2]) == MT_OK


def test_the_log_has_its_sectors(rig: Rig) -> None:
    """Two, behind at least two slots; two sectors in all leave it none."""
    start(rig, rig.new)
    size, sector, log = (rig.call(f"probe_{each}") for each in ("size", "sector", "log"))
    assert size and sector and log == (2 * sector if size >= 4 * sector else 0)


@pytest.mark.parametrize("driver, model", [("nrf52", Nrf52), ("stm32l4_page", Stm32l4)])
def test_storage_in_the_image(driver: str, model: type[Flash], exports: dict[str, Exported], tmp_path: Path) -> None:
    """Without an address the linker finds a place: whole pages of flash, as many as the device needs."""
    library, page = exports["toaster"]["cmake"], 4096 if driver == "nrf52" else 2048
    rig = emulated(driver, library, tmp_path, model(0xF0000, 0x1000, page), [])
    place = rig.image.symbol("image")
    saved = exports["toaster"].package.manifest["layout"]["saved"]
    assert place.address % page == 0 and 0x08000000 <= place.address < 0x20000000
    assert place.size == 4 * -(-(64 + -(-saved // 32) * 32) // page) * page + 2 * page
    if driver == "nrf52":
        rig = emulated(driver, library, tmp_path, model(place.address, place.size, page), [])
        assert rig.call("probe_open") == 0
        for payload in PAYLOADS:
            assert save(rig, payload) == MT_OK and load(rig) == (MT_OK, payload)
        assert not rig.breaches


def test_chips_that_do_not_fit_are_refused(exports: dict[str, Exported], tmp_path: Path) -> None:
    rig = on_stm32f4(exports["toaster"]["cmake"], tmp_path)
    for kilobytes, fits in ((512, True), (384, True), (256, False), (2048, False)):
        rig.uc.mem_write(0x1FFF7A22, kilobytes.to_bytes(2, "little"))
        assert (rig.call("probe_open") == 0) is fits
    l4 = on_stm32l4(exports["toaster"]["cmake"], tmp_path)
    for device, fits in ((0x415, True), (0x470, False), (0x471, False)):
        l4.uc.mem_write(0xE0042000, device.to_bytes(4, "little"))
        assert (l4.call("probe_open") == 0) is fits
    zephyr = native("zephyr_flash_map", exports["toaster"]["zephyr"], tmp_path, [])
    for align, even, fits in ((8, 1, True), (32, 1, True), (64, 1, False), (8, 0, False)):
        zephyr.c.simulate_kind(align, even, 0)
        assert (zephyr.call("probe_open") == 0) is fits
    esp = native("esp32_partition", exports["toaster"]["esp-idf"], tmp_path, ['MT_FLASH_PARTITION="other"'])
    assert esp.call("probe_open") == -1


def test_stm32f4_does_not_erase_its_firmware(exports: dict[str, Exported], tmp_path: Path) -> None:
    """ST's symbols tell where it ends."""
    for end, fits in (("0x08040000", True), ("0x08040004", False)):
        script = tmp_path / f"end_{end}.c"
        symbols = {"_sidata": f"{end} - 256", "_sdata": "0x20000000", "_edata": "0x20000100"}
        lines = "".join(f".global {name}\\n.set {name}, {value}\\n" for name, value in symbols.items())
        script.write_text(f'__asm__("{lines}");\ntypedef int nothing;\n')
        flash = Stm32f4(0x08040000, 0x40000, 0x20000)
        rig = emulated("stm32f4_sector", exports["toaster"]["cmake"], tmp_path, flash, [], more=(script,))
        rig.fixed(0x1FFF7A22, (512).to_bytes(2, "little"))
        assert (rig.call("probe_open") == 0) is fits


def test_nrf52_under_mbed_asks_before_it_writes(exports: dict[str, Exported], tmp_path: Path) -> None:
    flash = Nrf52(0xF0000, 0x5000, 4096)
    place = ["MT_FLASH_ADDRESS=0xF0000u", "MT_FLASH_SIZE=0x5000u", "__MBED__"]
    rig = emulated("nrf52", exports["toaster"]["cmake"], tmp_path, flash, place)
    counter, store = rig.image.symbol("mbed_writes").address, flash.store

    def guarded(at: int, size: int, value: int) -> None:
        if int.from_bytes(rig.uc.mem_read(counter, 4), "little") != 1:
            flash.breach("Mbed OS forbids the write")
        store(at, size, value)

    flash.store = guarded  # type: ignore[method-assign]
    assert rig.call("probe_open") == 0 and save(rig, PAYLOADS[0]) == MT_OK
    assert not rig.breaches and rig.uc.mem_read(counter, 4) == bytes(4)


def test_stm32l4_tells_its_own_nmi_from_others(exports: dict[str, Exported], tmp_path: Path) -> None:
    flash = Stm32l4(0x0807F000, 0x2000, 2048)
    place = ["MT_FLASH_ADDRESS=0x0807F000u", "MT_FLASH_SIZE=0x2000u"]
    rig = emulated("stm32l4_page", exports["toaster"]["cmake"], tmp_path, flash, place)
    rig.fixed(0xE0042000, (0x10076415).to_bytes(4, "little"))
    assert rig.call("mt_flash_nmi") == 0
    flash.eccr = 1 << 31
    assert rig.call("mt_flash_nmi") == 1 and flash.eccr == 0
    # the read under way fails, the next one does not
    rig.call("probe_open")
    flash.uncorrectable.add(64)
    room = ctypes.create_string_buffer(32)
    assert rig.call("probe_read", 64, room, 32) == -1 and rig.call("probe_read", 128, room, 32) == 0
