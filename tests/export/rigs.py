"""A flash driver with the store on it, on an emulated core or on this machine, whose power can fail at any step."""

from __future__ import annotations

import copy
import ctypes
from pathlib import Path
from typing import Any, Protocol

import unicorn
from unicorn import arm_const

from microtune import toolchain
from microtune.targets.image import read_image

from .controllers import Flash

HERE = Path(__file__).parent
STUBS = HERE / "stubs"
PAYLOAD = 200
PAGE = 4096


class Rig(Protocol):
    """Calls return what the C returned, or None where the power failed on the way."""

    new: Any  # what it keeps before it was ever used

    def power_on(self, left: int | None = None, seed: int = 0) -> None: ...
    def call(self, name: str, *arguments: int | bytes | ctypes.Array[Any]) -> int | None: ...
    def keep(self) -> Any: ...
    def put_back(self, kept: Any) -> None: ...
    def protect(self, on: bool) -> None: ...
    @property
    def steps(self) -> int: ...
    @property
    def breaches(self) -> list[str]: ...


def save(rig: Rig, payload: bytes) -> int | None:
    return rig.call("probe_save", payload, len(payload))


def load(rig: Rig) -> tuple[int | None, bytes | None]:
    """Status, and the payload where one was found."""
    payload, found = ctypes.create_string_buffer(PAYLOAD), ctypes.create_string_buffer(4)
    status = rig.call("probe_load", payload, PAYLOAD, found)
    return status, payload.raw if int.from_bytes(found.raw, "little") else None


class Emulated:
    """The driver's machine code on a Cortex-M4; registers and storage are a model's."""

    def __init__(self, image: Path, flash: Flash) -> None:
        self.image, self.flash = read_image(image), flash
        self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
        flash.stop = self.uc.emu_stop
        pages = {address // PAGE for each in self.image.sections for address in each_page(each)}
        pages -= set(range(flash.start // PAGE, (flash.start + flash.size) // PAGE))
        for page in sorted(pages):
            self.uc.mem_map(page * PAGE, PAGE)
        self.uc.mem_map(0x30000000, 16 * PAGE)  # stack, and what is handed over
        self.uc.mem_map(0x0F000000, PAGE)  # where calls return to
        self.uc.mmio_map(
            flash.start,
            flash.size,
            lambda uc, at, size, _: flash.load(at, size),
            None,
            lambda uc, at, size, value, _: flash.store(at, size, value),
            None,
        )
        base = flash.registers // PAGE * PAGE
        self.uc.mmio_map(
            base,
            PAGE,
            lambda uc, at, size, _: flash.read_register(at + base - flash.registers, size),
            None,
            lambda uc, at, size, value, _: flash.write_register(at + base - flash.registers, size, value),
            None,
        )
        self.power_on()

    def fixed(self, address: int, data: bytes) -> None:
        """What the chip has at an address for good."""
        self.uc.mem_map(address // PAGE * PAGE, PAGE)
        self.uc.mem_write(address, data)

    def power_on(self, left: int | None = None, seed: int = 0) -> None:
        self.flash.power_on(left, seed)
        for each in self.image.sections:
            content = each.content or bytes(each.size)
            for at in range(0, each.size, 4):
                if not self.flash.start <= each.address + at < self.flash.start + self.flash.size:
                    self.uc.mem_write(each.address + at, content[at : at + 4])

    def call(self, name: str, *arguments: int | bytes | ctypes.Array[Any]) -> int | None:
        place, buffers = 0x30000000, []
        for register, each in enumerate(arguments):
            value = each
            if not isinstance(each, int):
                raw = each if isinstance(each, bytes) else each.raw
                self.uc.mem_write(place, raw)
                value, buffers = place, [*buffers, (place, each)]
                place += (len(raw) + 7) // 8 * 8
            self.uc.reg_write(arm_const.UC_ARM_REG_R0 + register, value)
        self.uc.reg_write(arm_const.UC_ARM_REG_SP, 0x30000000 + 16 * PAGE)
        self.uc.reg_write(arm_const.UC_ARM_REG_LR, 0x0F000001)
        self.uc.emu_start(self.image.symbol(name).address | 1, 0x0F000000)
        if self.flash.dead:
            return None
        assert self.uc.reg_read(arm_const.UC_ARM_REG_PC) == 0x0F000000
        for address, each in buffers:
            if not isinstance(each, bytes):
                each.raw = bytes(self.uc.mem_read(address, len(each)))
        result = self.uc.reg_read(arm_const.UC_ARM_REG_R0)
        return result - (1 << 32) if result >> 31 else result

    def keep(self) -> Any:
        flash = self.flash
        return copy.deepcopy((flash.content, flash.written, getattr(flash, "uncorrectable", set())))

    def put_back(self, kept: Any) -> None:
        self.flash.content, self.flash.written, uncorrectable = copy.deepcopy(kept)
        if hasattr(self.flash, "uncorrectable"):
            self.flash.uncorrectable = uncorrectable

    def protect(self, on: bool) -> None:
        self.flash.protected = on

    @property
    def steps(self) -> int:
        return self.flash.steps

    @property
    def breaches(self) -> list[str]:
        return self.flash.breaches


def each_page(section: Any) -> range:
    return range(section.address // PAGE * PAGE, section.address + max(section.size, 1), PAGE)


class Native:
    """The driver on this machine; its SDK is simulated_flash.c."""

    def __init__(self, library: Path) -> None:
        self.c = ctypes.CDLL(str(library))
        self.c.simulated_storage.restype = self.c.simulated_disk.restype = ctypes.c_void_p
        self.power_on()

    def power_on(self, left: int | None = None, seed: int = 0) -> None:
        self.c.simulate(ctypes.c_uint32(0xFFFFFFFF if left is None else left), ctypes.c_uint32(seed))

    def call(self, name: str, *arguments: int | bytes | ctypes.Array[Any]) -> int | None:
        given = [ctypes.c_uint32(each) if isinstance(each, int) else each for each in arguments]
        return int(getattr(self.c, name)(*given))

    def keep(self) -> Any:
        places = self.c.simulated_storage(), self.c.simulated_disk()
        return [ctypes.string_at(each, 65536) for each in places]

    def put_back(self, kept: Any) -> None:
        for place, content in zip((self.c.simulated_storage(), self.c.simulated_disk()), kept, strict=True):
            ctypes.memmove(place, content, len(content))

    def protect(self, on: bool) -> None:
        self.c.simulate_kind(0, 1, int(on))

    @property
    def steps(self) -> int:
        return int(self.c.simulated_steps())

    @property
    def breaches(self) -> list[str]:
        count = int(self.c.simulated_breaches())
        return [f"{count} of simulated_flash.c"] * (count > 0)


def native(driver: str, library: Path, folder: Path, defines: list[str]) -> Native:
    """A driver of the export ``library``, compiled for this machine."""
    include = [library / "include", STUBS, *(STUBS / each for each in ("pico", "esp", "zephyr", "mbed"))]
    objects = [library / "src" / "mt_store.c", HERE / "probe.c", library / "flash" / f"{driver}.c"]
    simulated = toolchain.compile_library(
        [*objects, STUBS / "simulated_flash.c"], include, folder / f"{driver}.so", strict=True, defines=defines
    )
    found = Native(simulated)
    found.c.simulate_kind(0, 1, 0)
    return found


def emulated(
    driver: str, library: Path, folder: Path, flash: Flash, defines: list[str], more: tuple[Path, ...] = ()
) -> Emulated:
    """A driver of the export ``library``, with ``more`` sources, compiled for a Cortex-M4."""
    sources = [*more, library / "src" / "mt_store.c", HERE / "probe.c", library / "flash" / f"{driver}.c"]
    include = [library / "include", STUBS / "mbed"]
    image = toolchain.compile_image(
        sources, include, folder / f"{driver}.elf", "cortex-m4", strict=True, defines=defines
    )
    return Emulated(image, flash)
