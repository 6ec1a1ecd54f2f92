"""Common boards: which core, how much memory, what clock. A board can be named wherever a target can.

Memory is what one program has in one piece: further blocks of RAM elsewhere in the address space are in ``note``, and
not counted. Memory and clock are those of the chips' data sheets (Nordic's product specifications; ST DS8626,
DS11532, DS12110 and DS10198; Raspberry Pi's RP2040; Espressif's), flash outside the chip that of the board's maker.
Current is that of the chip as its data sheet gives it, where it does; otherwise estimates use that of another chip
with the same core, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from microtune.targets.power import Power

_KB, _MB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Board:
    """A board and its chip. flash, ram: bytes; megahertz: the highest clock of the core; power: of this very chip."""

    name: str
    title: str
    chip: str
    core: str
    flash: int
    ram: int
    megahertz: float
    power: Power | None = None
    note: str = ""

    @property
    def hertz(self) -> float:
        """The clock."""
        return self.megahertz * 1e6


# Currents while the core runs from flash, peripherals off.
NRF52840 = Power("nRF52840", 3.3, 3.0, 64, 1.4, "Nordic Semiconductor, product specification, CPU running, DC/DC")
ESP32_C3 = Power(
    "ESP32-C3", 23, 3.3, 160, 1.5, "Espressif, ESP32-C3 data sheet, modem-sleep, CPU running, peripheral clocks off"
)

BOARDS = (
    Board("microbit-v1", "BBC micro:bit v1", "nRF51822", "cortex-m0", 256 * _KB, 16 * _KB, 16),
    Board("microbit-v2", "BBC micro:bit v2", "nRF52833", "cortex-m4", 512 * _KB, 128 * _KB, 64),
    Board("nano-33-ble", "Arduino Nano 33 BLE", "nRF52840", "cortex-m4", 1 * _MB, 256 * _KB, 64, NRF52840),
    Board("nrf52840-dk", "Nordic nRF52840 DK", "nRF52840", "cortex-m4", 1 * _MB, 256 * _KB, 64, NRF52840),
    Board("raspberry-pi-pico", "Raspberry Pi Pico", "RP2040", "cortex-m0", 2 * _MB, 264 * _KB, 133,
          note="two cores; the package runs on one"),
    Board("stm32f407-discovery", "ST STM32F4 Discovery", "STM32F407VG", "cortex-m4", 1 * _MB, 128 * _KB, 168,
          note="and 64 KB that only the core reaches"),
    Board("nucleo-f767zi", "ST Nucleo-F767ZI", "STM32F767ZI", "cortex-m7", 2 * _MB, 512 * _KB, 216),
    Board("nucleo-h743zi", "ST Nucleo-H743ZI", "STM32H743ZI", "cortex-m7", 2 * _MB, 512 * _KB, 480,
          note="and 544 KB in other blocks, 192 of them close to the core"),
    Board("nucleo-l476rg", "ST Nucleo-L476RG", "STM32L476RG", "cortex-m4", 1 * _MB, 96 * _KB, 80,
          note="and 32 KB with parity"),
    Board("esp32-c3", "Espressif ESP32-C3-DevKitM-1", "ESP32-C3", "riscv32", 4 * _MB, 400 * _KB, 160, ESP32_C3),
    Board("esp32-s3", "Espressif ESP32-S3-DevKitC-1", "ESP32-S3", "xtensa", 8 * _MB, 512 * _KB, 240,
          note="two cores; the package runs on one"),
)  # fmt: skip
