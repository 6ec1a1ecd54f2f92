"""The ecosystems a package can be exported to, and the drivers for their flash, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from microtune.errors import BuildError

ROOM = Path(__file__).parent
FLASH = ROOM / "flash"
TEMPLATES = ROOM / "templates"


@dataclass(frozen=True)
class Driver:
    """A file of ``flash/``: storage behind ``mt_port`` on one family of chips."""

    name: str
    chips: str
    when: str  # preprocessor condition that tells the chip, where one library serves boards of all kinds


DRIVERS = (
    Driver("nrf52", "nRF52: NVMC", "defined(NRF52840_XXAA) || defined(NRF52833_XXAA) || defined(NRF52832_XXAA)"),
    Driver("stm32f4_sector", "STM32F4 up to 1 MB: sectors", "defined(STM32F4xx)"),
    Driver("stm32l4_page", "STM32L4: pages", "defined(STM32L4xx)"),
    Driver("rp2040", "RP2040, RP2350: Pico SDK", "defined(ARDUINO_ARCH_RP2040) || defined(TARGET_RP2040)"),
    Driver("esp32_partition", "ESP32: a partition, ESP-IDF", "defined(ESP_PLATFORM)"),
    Driver("zephyr_flash_map", "Zephyr: a partition of the devicetree", "defined(__ZEPHYR__)"),
    Driver("posix_file", "Linux and POSIX: a file", "defined(__unix__) || defined(__APPLE__)"),
    Driver("none", "no storage", ""),
)


@dataclass(frozen=True)
class Format:
    """One ecosystem. Its other files are the tree under ``templates/<name>``, with NAME for the device's name."""

    name: str
    what: str
    headers: str  # folder of the headers
    sources: str  # folder of the C sources
    flash: str  # folder of the drivers
    drivers: tuple[str, ...]
    guarded: bool = False  # all drivers are compiled, and each takes part on its own chip only
    exact: bool = False  # the ecosystem takes no compiler flags from a library: the sources say it themselves


_BOARDS = ("nrf52", "stm32f4_sector", "stm32l4_page", "rp2040", "esp32_partition", "none")
_CHIPS = ("nrf52", "stm32f4_sector", "stm32l4_page", "rp2040", "posix_file", "none")

FORMATS = (
    Format("arduino", "a library with a sketch", "src", "src", "src/flash", _BOARDS, guarded=True, exact=True),
    Format("platformio", "a library with a project", "include", "src", "src/flash", _BOARDS, guarded=True),
    Format("esp-idf", "a component with a project", "include", "src", "flash", ("esp32_partition",)),
    Format("zephyr", "a module with a sample", "include", "src", "flash", ("zephyr_flash_map", "none")),
    Format("cmake", "a CMake project that installs a package", "include", "src", "flash", _CHIPS),
    Format("make", "a Makefile", "include", "src", "flash", _CHIPS),
)


def format_of(name: str) -> Format:
    """The format of this name. BuildError lists the known ones."""
    for each in FORMATS:
        if each.name == name:
            return each
    raise BuildError(f"format '{name}' is not known. Known formats: {', '.join(each.name for each in FORMATS)}")


def driver_source(driver: Driver, chosen: Format) -> str:
    """A driver as it stands in an export; guarded, it is compiled on its own chip only."""
    text = (FLASH / f"{driver.name}.c").read_text()
    if not chosen.guarded:
        return text
    others = [each.when for each in DRIVERS if each.name in chosen.drivers and each.when]
    when = driver.when or " || ".join(f"({each})" for each in others)
    test = f"#if {when}" if driver.when else f"#if !({when})"
    # the header in front of the guard: a C file must hold something
    return f'#include "mt_flash.h"\n\n{test}\n\n{text}\n#endif\n'
