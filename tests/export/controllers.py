"""Models of flash controllers: what the registers of nRF52, STM32F4 and STM32L4 do, as their reference manuals say.

Programming clears bits and erasing sets them. What a chip does not take (a write without an unlock, out of line, twice,
while busy) has no effect and is counted in ``breaches``. The power fails after ``left`` steps (a word programmed or a
page erased): what is under way then keeps any of its bits, and nothing happens from then on.

Sources: nRF52840 product specification (NVMC); ST RM0090 (STM32F4, embedded flash interface); ST RM0351 (STM32L4,
embedded flash memory).
"""

from __future__ import annotations

import random
from collections.abc import Callable

WORD = 0xFFFFFFFF
BUSY = 3
"""So many times a controller says that it is busy after each operation."""


class Flash:
    """Bytes of flash from ``start`` on, and the power. A controller is one of these with registers."""

    def __init__(self, start: int, size: int, page: int) -> None:
        self.start, self.size, self.page = start, size, page
        self.content = bytearray(b"\xff" * size)
        self.protected = False
        self.breaches: list[str] = []
        self.stop: Callable[[], None] = lambda: None
        self.power_on()

    def power_on(self, left: int | None = None, seed: int = 0) -> None:
        """Registers as after a reset; the power fails after so many steps."""
        self.left, self.steps, self.dead = left, 0, False
        self.random = random.Random(seed)
        self.busy = 0
        self.written: set[int] = getattr(self, "written", set())
        self.reset()

    def reset(self) -> None:
        raise NotImplementedError

    def breach(self, what: str) -> None:
        if not self.dead:
            self.breaches.append(what)

    def spend(self) -> bool:
        self.steps += 1
        if self.left is not None and self.steps > self.left:
            self.dead = True
            self.stop()
            return False
        return True

    def program(self, at: int, data: bytes) -> None:
        """Clear bits from the offset ``at`` on; once in a unit between two erases."""
        if self.dead or self.protected:
            return
        if at in self.written:
            self.breach(f"{at:#x} programmed twice")
        self.written.add(at)
        whole = self.spend()
        for i, value in enumerate(data):
            self.content[at + i] &= value if whole else value | self.random.getrandbits(8)
        if not whole:
            self.torn(at)
        self.busy = BUSY

    def erase(self, at: int, size: int) -> None:
        if self.dead or self.protected:
            return
        self.written -= set(range(at, at + size))
        if self.spend():
            self.content[at : at + size] = b"\xff" * size
        else:
            for i in range(at, at + size):
                self.content[i] |= self.random.getrandbits(8)
        self.busy = BUSY

    def torn(self, at: int) -> None:
        """A unit was being programmed when the power failed."""

    def is_busy(self) -> bool:
        if self.busy:
            self.busy -= 1
            return True
        return False

    def load(self, at: int, size: int) -> int:
        if self.busy:
            self.breach(f"{at:#x} read while busy")
        return int.from_bytes(self.content[at : at + size], "little")

    def store(self, at: int, size: int, value: int) -> None:
        raise NotImplementedError


class Nrf52(Flash):
    """NVMC: a mode, and a register that takes the address of a page to erase."""

    registers = 0x4001E000

    def reset(self) -> None:
        self.mode = 0

    def read_register(self, at: int, size: int) -> int:
        return {0x400: int(not self.is_busy()), 0x504: self.mode}.get(at, 0)

    def write_register(self, at: int, size: int, value: int) -> None:
        if self.busy:
            self.breach(f"register {at:#x} written while busy")
        if at == 0x504:
            self.mode = value
        elif at == 0x508 and self.mode == 2 and value % self.page == 0:
            self.erase(value - self.start, self.page)
        else:
            self.breach(f"register {at:#x} takes no {value:#x} in mode {self.mode}")

    def store(self, at: int, size: int, value: int) -> None:
        if self.mode != 1 or size != 4 or at % 4 or self.busy:
            self.breach(f"{size} bytes written to {at:#x} in mode {self.mode}")
        else:
            self.program(at, value.to_bytes(4, "little"))


class Stm32(Flash):
    """What F4 and L4 have in common: keys, a control and a status register, a data cache."""

    ACR, KEYR, SR, CR = 0x00, 0x04, 0x0C, 0x10
    keys = (0x45670123, 0xCDEF89AB)

    def reset(self) -> None:
        self.acr, self.cr, self.errors, self.given = 0x600, 1 << 31, 0, 0
        self.kept: dict[int, int] = {}

    def read_register(self, at: int, size: int) -> int:
        if at == self.SR:
            return (self.is_busy() << 16) | self.errors
        return {self.ACR: self.acr, self.CR: self.cr}.get(at, 0)

    def write_register(self, at: int, size: int, value: int) -> None:
        if self.busy:
            self.breach(f"register {at:#x} written while busy")
        if at == self.KEYR:
            self.given = self.given + 1 if self.given < 2 and value == self.keys[self.given] else -9
            if self.given == 2:
                self.cr &= ~(1 << 31)
                self.given = 0
        elif at == self.SR:
            self.errors &= ~value
        elif at == self.ACR:
            if value & (1 << 12):
                if value & (1 << 10):
                    self.breach("data cache emptied while on")
                self.kept.clear()
            self.acr = value
        elif at == self.CR:
            if self.cr >> 31:
                self.breach("control register written while locked")
                return
            self.cr = value & ~(1 << 16)
            if value >> 16 & 1:
                self.begin(value)
        else:
            self.breach(f"register {at:#x} written")

    def begin(self, control: int) -> None:
        """An erase was started."""
        raise NotImplementedError

    def refuse(self, error: int, what: str) -> None:
        self.errors |= error
        self.breach(what)

    def load(self, at: int, size: int) -> int:
        """Through the data cache: what was kept of an erased page is wrong until the cache is emptied."""
        if not self.acr & (1 << 10):
            return super().load(at, size)
        fresh = super().load(at, size).to_bytes(size, "little")
        return int.from_bytes(bytes(self.kept.setdefault(at + i, fresh[i]) for i in range(size)), "little")

    def program(self, at: int, data: bytes) -> None:
        if self.protected:
            self.errors |= 1 << 4
        super().program(at, data)
        for i in range(len(data)):
            self.kept.pop(at + i, None)

    def erase(self, at: int, size: int) -> None:
        if self.protected:
            self.errors |= 1 << 4
        super().erase(at, size)


class Stm32f4(Stm32):
    """512 KB: sectors of 16, 64 and 128 KB, programmed by words with PSIZE."""

    registers = 0x40023C00
    kilobytes = 512

    def begin(self, control: int) -> None:
        sector = control >> 3 & 0x1F
        starts = [*range(0, 0x10000, 0x4000), 0x10000, *range(0x20000, self.kilobytes * 1024, 0x20000)]
        if not control & 2 or control & 1 or control >> 8 & 3 != 2 or sector >= len(starts):
            self.refuse(1 << 7, f"erase started by {control:#x}")
            return
        ends = [*starts[1:], self.kilobytes * 1024]
        at = starts[sector] - (self.start - 0x08000000)
        if not (at >= 0 and ends[sector] - starts[sector] == self.page and at + self.page <= self.size):
            self.breach(f"sector {sector} erased, which is not the storage's")
            return
        self.erase(at, self.page)

    def store(self, at: int, size: int, value: int) -> None:
        if self.cr >> 31 or not self.cr & 1 or self.busy:
            self.refuse(1 << 7, f"{at:#x} written without PG")
        elif self.cr >> 8 & 3 != 2 or size != 4:
            self.refuse(1 << 6, f"{size} bytes written to {at:#x} with control {self.cr:#x}")
        elif at % 4:
            self.refuse(1 << 5, f"{at:#x} written out of line")
        elif not self.errors:
            self.program(at, value.to_bytes(4, "little"))


class Stm32l4(Stm32):
    """Pages of 2 KB in two banks, double words with an error correction."""

    registers = 0x40022000
    KEYR, SR, CR, ECCR = 0x08, 0x10, 0x14, 0x18

    def reset(self) -> None:
        super().reset()
        self.half: tuple[int, int] | None = None
        self.eccr = 0
        self.uncorrectable: set[int] = getattr(self, "uncorrectable", set())

    def read_register(self, at: int, size: int) -> int:
        return self.eccr if at == self.ECCR else super().read_register(at, size)

    def write_register(self, at: int, size: int, value: int) -> None:
        if at == self.ECCR:
            self.eccr &= ~(value & 0xC0000000)
        else:
            super().write_register(at, size, value)

    def begin(self, control: int) -> None:
        page = (control >> 3 & 0xFF) + (256 if control >> 11 & 1 else 0)
        at = page * self.page - (self.start - 0x08000000)
        if not control & 2 or control & 1 or not 0 <= at < self.size:
            self.refuse(1 << 7, f"erase started by {control:#x}")
            return
        self.uncorrectable -= set(range(at, at + self.page))
        self.erase(at, self.page)

    def store(self, at: int, size: int, value: int) -> None:
        if self.cr >> 31 or not self.cr & 1 or self.busy or self.errors:
            self.refuse(1 << 7, f"{at:#x} written without PG, or with errors standing")
        elif size != 4:
            self.refuse(1 << 6, f"{size} bytes written to {at:#x}")
        elif self.half is None and at % 8 == 0:
            self.half = at, value
        elif self.half is not None and at == self.half[0] + 4:
            first, low = self.half
            self.half = None
            if any(self.content[first + i] != 0xFF for i in range(8)):
                self.refuse(1 << 3, f"{first:#x} programmed and not erased")
            self.program(first, low.to_bytes(4, "little") + value.to_bytes(4, "little"))
        else:
            self.half = None
            self.refuse(1 << 5, f"{at:#x} written out of line")

    def torn(self, at: int) -> None:
        self.uncorrectable.add(at)

    def load(self, at: int, size: int) -> int:
        if at // 8 * 8 in self.uncorrectable:
            self.eccr |= 1 << 31
        return super().load(at, size)
