"""Run a linked image of a core under unicorn: exact instruction counts and painted stacks, no board needed.

Instruction counts are architectural and repeat exactly. An instruction inside an IT block whose condition
fails counts as one, because the core spends a cycle on it. Cycles are not modelled.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone
import unicorn
from unicorn import arm_const, riscv_const

from microtune.errors import EmulationError
from microtune.targets.catalogue import Target, target
from microtune.targets.image import Image, read_image

_PAGE = 4096
_RETURN = 0x0F000000  # a page of its own: a call that returns arrives here
_SYSTEM_CONTROL = 0xE000E000
_COPROCESSOR_ACCESS = 0xE000ED88
_RAM = 0x20000000
_PAINT = 0xA5
_MASK = 0xFFFFFFFF
_FAULTS = {
    unicorn.UC_ERR_READ_UNMAPPED: "read from an address where there is no memory",
    unicorn.UC_ERR_WRITE_UNMAPPED: "write to an address where there is no memory",
    unicorn.UC_ERR_FETCH_UNMAPPED: "jump to an address where there is no code",
    unicorn.UC_ERR_WRITE_PROT: "write to flash",
    unicorn.UC_ERR_FETCH_PROT: "jump into data",
    unicorn.UC_ERR_READ_UNALIGNED: "unaligned read",
    unicorn.UC_ERR_WRITE_UNALIGNED: "unaligned write",
    unicorn.UC_ERR_INSN_INVALID: "undefined instruction",
    unicorn.UC_ERR_EXCEPTION: "undefined instruction or fault",
}


@dataclass(frozen=True)
class _Architecture:
    """How unicorn is told of a core, its procedure-call standard, and how its instructions are counted in a block."""

    machine: tuple[int, int]
    cpu: Any  # the module of unicorn's constants
    prefix: str  # of its CPUs
    arguments: tuple[int, ...]
    stack: int
    link: int
    counter: int
    align: int  # bytes of the stack at a call
    code_bit: int
    count: Callable[[bytes], int]  # instructions of a block; 0 where it cannot be read


def _count_thumb(content: bytes) -> int:
    disassembler = capstone.Cs(
        capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
    )
    sizes = [size for _, size, _, _ in disassembler.disasm_lite(content, 0)]
    return len(sizes) if sum(sizes) == len(content) else 0


def _count_riscv(content: bytes) -> int:
    """The lowest two bits of an instruction tell its size."""
    count = place = 0
    while place < len(content):
        place += 4 if content[place] & 3 == 3 else 2
        count += 1
    return count if place == len(content) else 0


_ARM = _Architecture(
    (unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS),
    arm_const,
    "UC_CPU_ARM_",
    tuple(arm_const.UC_ARM_REG_R0 + index for index in range(4)),
    arm_const.UC_ARM_REG_SP,
    arm_const.UC_ARM_REG_LR,
    arm_const.UC_ARM_REG_PC,
    8,
    1,
    _count_thumb,
)
_RISCV = _Architecture(
    (unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32),
    riscv_const,
    "UC_CPU_RISCV32_",
    tuple(riscv_const.UC_RISCV_REG_A0 + index for index in range(8)),
    riscv_const.UC_RISCV_REG_SP,
    riscv_const.UC_RISCV_REG_RA,
    riscv_const.UC_RISCV_REG_PC,
    16,
    0,
    _count_riscv,
)


@dataclass(frozen=True)
class Measurement:
    """What one call took."""

    result: int  # as ``call`` returns it
    instructions: int
    stack: int  # bytes below the stack pointer at the call that were written


class Emulator:
    """A ``Machine`` that is a core: flash as linked, RAM holding data, the caller's buffers and the
    stack.

    ``ram`` and ``stack`` are bytes; the stack stands at the bottom of RAM, so that an overflow hits unmapped
    memory and is reported, and does not eat data in silence.
    """

    pointer_size = 4

    def __init__(self, image: str | Path, name: str | Target, *, ram: int = 8 << 20, stack: int = 64 << 10) -> None:
        chosen = target(name)
        if not chosen.emulated:
            raise EmulationError(f"target {chosen.name} is not a core that is emulated here.")
        self.target = chosen
        self.image: Image = read_image(image)
        self._core = core = _ARM if chosen.kind == "elf-thumb" else _RISCV
        self._uc = unicorn.Uc(*core.machine)
        self._uc.ctl_set_cpu_model(getattr(core.cpu, f"{core.prefix}{chosen.emulated_cpu}"))
        self._instructions_in: dict[tuple[int, int], int] = {}
        self._count = 0
        self._load(ram, stack)

    def _load(self, ram: int, stack: int) -> None:
        """Map memory, copy the image to it, and switch the floating-point unit on as start-up code would."""
        uc = self._uc
        flash = [section for section in self.image.sections if section.address < _RAM]
        data = [section for section in self.image.sections if section.address >= _RAM]
        start = min(section.address for section in flash) // _PAGE * _PAGE
        end = max(section.address + section.size for section in flash)
        uc.mem_map(start, _up(end - start, _PAGE), unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        data_end = max((section.address + section.size for section in data), default=_RAM)
        self._heap, self._heap_end = _up(data_end, 16), _RAM + _up(data_end - _RAM + ram, _PAGE)
        readable = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
        uc.mem_map(_RAM, self._heap_end - _RAM, readable)
        self._stack_size = _up(stack, _PAGE)
        self._stack_top = _RAM - _PAGE  # an unmapped page above it too
        uc.mem_map(self._stack_top - self._stack_size, self._stack_size, readable)
        uc.mem_map(_RETURN, _PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        for section in self.image.sections:
            uc.mem_write(section.address, section.content or bytes(section.size))
        if self.target.fpu and self._core is _ARM:
            uc.mem_map(_SYSTEM_CONTROL, _PAGE, readable)
            uc.mem_write(_COPROCESSOR_ACCESS, struct.pack("<I", 0xF << 20))

    def call(self, symbol: str, *arguments: int) -> int:
        """Call by the procedure-call standard (further arguments on the stack). Faults are ``EmulationError``."""
        core, function = self._core, self.image.symbol(symbol)
        stack, extra = self._stack_top - self._passed(arguments), arguments[len(core.arguments) :]
        if extra:
            self._uc.mem_write(stack, b"".join(struct.pack("<I", value & _MASK) for value in extra))
        for register, value in zip(core.arguments, arguments, strict=False):
            self._uc.reg_write(register, value & _MASK)
        self._uc.reg_write(core.stack, stack)
        self._uc.reg_write(core.link, _RETURN | core.code_bit)
        try:
            self._uc.emu_start(function.address | core.code_bit, _RETURN)
        except unicorn.UcError as error:
            raise EmulationError(self._explain(symbol, error)) from error
        if self._uc.reg_read(core.counter) != _RETURN:
            raise EmulationError(f"{self.target.name}: {symbol} stopped without returning, at {self._place()}.")
        return int(self._uc.reg_read(core.arguments[0])) & _MASK

    def _passed(self, arguments: tuple[int, ...]) -> int:
        """Bytes of stack that arguments beyond the registers take."""
        return _up(4 * len(arguments[len(self._core.arguments) :]), self._core.align)

    def measure(self, symbol: str, *arguments: int) -> Measurement:
        """Like ``call``, and count instructions and stack. Slower than ``call`` by about ten times."""
        self._count = 0
        # Translated code carries its hooks, so what was translated without them must go, and back again.
        self._uc.ctl_flush_tb()
        hook = self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._count_block)
        try:
            result, stack = self.paint(symbol, *arguments)
        finally:
            self._uc.hook_del(hook)
            self._uc.ctl_flush_tb()
        return Measurement(result, self._count, stack)

    def paint(self, symbol: str, *arguments: int) -> tuple[int, int]:
        """Like ``call``: its result, and the bytes of stack it wrote, found by painting. About as fast."""
        bottom = self._stack_top - self._stack_size
        self._uc.mem_write(bottom, bytes([_PAINT]) * self._stack_size)
        result = self.call(symbol, *arguments)
        used = bytes(self._uc.mem_read(bottom, self._stack_size)).lstrip(bytes([_PAINT]))
        # The words written lie on four-byte borders: one that ends in the paint itself is counted in full.
        return result, max(0, _up(len(used), 4) - self._passed(arguments))  # arguments on the stack are the caller's

    def _count_block(self, uc: Any, address: int, size: int, _: Any) -> None:
        count = self._instructions_in.get((address, size))
        if count is None:
            count = self._instructions_in[address, size] = self._core.count(bytes(uc.mem_read(address, size)))
            if count == 0:
                raise EmulationError(f"cannot disassemble the block at {self.image.where(address)}.")
        self._count += count

    def read(self, address: int, size: int) -> bytes:
        """See ``Machine``."""
        try:
            return bytes(self._uc.mem_read(address, size))
        except unicorn.UcError as error:
            raise EmulationError(f"no memory at {address:#x}, {size} bytes.") from error

    def write(self, address: int, data: bytes) -> None:
        """See ``Machine``."""
        try:
            self._uc.mem_write(address, data)
        except unicorn.UcError as error:
            raise EmulationError(f"no memory at {address:#x}, {len(data)} bytes.") from error

    def symbol(self, name: str) -> int:
        """Address of a symbol; of a function as a function pointer holds it."""
        found = self.image.symbol(name)
        return found.address | self._core.code_bit if found.function else found.address

    def allocate(self, size: int, align: int = 8) -> int:
        """See ``Machine``."""
        address = _up(self._heap, align)
        if address + size > self._heap_end:
            raise EmulationError(
                f"out of emulated RAM: {size} bytes asked, {self._heap_end - address} left; "
                "make the Emulator with more ram=."
            )
        self._heap = address + size
        return address

    def _place(self) -> str:
        return self.image.where(int(self._uc.reg_read(self._core.counter)))

    def _explain(self, symbol: str, error: unicorn.UcError) -> str:
        what = _FAULTS.get(error.errno, str(error))
        stack = int(self._uc.reg_read(self._core.stack))
        if not self._stack_top - self._stack_size <= stack <= self._stack_top:
            what += f"; the stack of {self._stack_size} bytes has overflowed"
        return f"{self.target.name}: {what}, in {symbol}, at or soon after {self._place()}."


def _up(value: int, step: int) -> int:
    return (value + step - 1) // step * step
