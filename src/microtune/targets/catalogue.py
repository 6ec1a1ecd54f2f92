"""Every core and platform microtune compiles for, declared once; boards.py has the boards that carry them. Tables,
command-line help and tests are drawn from here.
"""

import importlib.util
import platform
import sys
from dataclasses import dataclass, replace
from typing import Literal

from microtune.errors import ToolchainError
from microtune.targets.boards import BOARDS, ESP32_C3, NRF52840, Board
from microtune.targets.power import Power

Kind = Literal["host", "wasm", "elf-thumb", "elf-riscv", "library", "source"]


@dataclass(frozen=True)
class Target:
    """One core or platform, or a board that carries one.

    ``kind`` says what is built and how it is run: ``host`` a shared library through ctypes, ``wasm`` a module
    under wasmtime, ``elf-thumb`` and ``elf-riscv`` a linked image of a Cortex-M and of a 32-bit RISC-V under unicorn,
    ``library`` a shared library for another Linux, which is compiled but not run here, ``source`` nothing: the
    compiler here does not know the core, its own tools compile the C of the package.
    """

    name: str
    kind: Kind
    description: str
    triple: str
    cpu: str = ""  # the compiler's name of the CPU and its features; empty: the baseline of the triple
    flags: tuple[str, ...] = ()  # further compiler flags
    emulated_cpu: str = ""  # unicorn's constant for this core, without its prefix; empty: unicorn has none
    fpu: bool = False  # single-precision floating-point unit
    power: Power | None = None  # of a chip with this core, for estimates; None: nothing is estimated
    board: Board | None = None  # None: a core or platform, whose memory is not known

    @property
    def core(self) -> str:
        """The name of the core: its own, but for a board."""
        return self.name if self.board is None else self.board.core

    @property
    def image(self) -> bool:
        """Whether an ELF image without an operating system is linked for it."""
        return self.kind in ("elf-thumb", "elf-riscv")

    @property
    def emulated(self) -> bool:
        """Whether unicorn runs its images."""
        return bool(self.emulated_cpu)

    @property
    def compile_flags(self) -> tuple[str, ...]:
        """The flags that select this target, for compiling and for linking alike."""
        cpu = (f"-mcpu={self.cpu}",) if self.cpu else ()
        return ("-target", self.triple, *cpu, *self.flags)

    @property
    def suffix(self) -> str:
        """File ending of what is linked for this target."""
        if self.kind == "wasm":
            return ".wasm"
        if self.image:
            return ".elf"
        if "windows" in self.triple:
            return ".dll"
        return ".dylib" if "macos" in self.triple else ".so"


# The oldest glibc asked for, so that a library built here loads on older Linux systems too.
_GLIBC = "2.17"
_HOST_CPU = {"x86_64": "x86_64", "aarch64": "generic"}
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def _host() -> Target:
    """The machine this runs on, always at the baseline of its architecture: the same code, and bits, on every
    host.
    """
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    system = {"linux": f"linux-gnu.{_GLIBC}", "darwin": "macos", "win32": "windows-gnu"}.get(sys.platform, sys.platform)
    cpu = "" if sys.platform == "darwin" else _HOST_CPU.get(machine, "")
    return Target("host", "host", "this machine", f"{machine}-{system}", cpu, fpu=True)


def _cortex(name: str, cpu: str, description: str, power: Power, fpu: bool = False) -> Target:
    abi = "eabihf" if fpu else "eabi"
    core = name.removeprefix("cortex-").upper()
    return Target(
        name,
        "elf-thumb",
        description,
        f"thumb-freestanding-{abi}",
        cpu,
        emulated_cpu=f"CORTEX_{core}",
        fpu=fpu,
        power=power,
    )


# Currents while CoreMark runs from flash.
_MSPM0 = Power("MSPM0G3507", 7.6, 3.3, 80, 1.5, "Texas Instruments, data sheet SLASEX6, supply current, IDDRUN")
_CC1350 = Power("CC1350", 2.5, 3.6, 48, 1.4, "Texas Instruments, data sheet SWRS183, power consumption summary")
_PIC32CZ = Power("PIC32CZ CA70", 90, 3.3, 300, 1.0, "Microchip, data sheet PIC32CZ CA70/MC70, active current, APWR_1")
_NRF5340 = Power("nRF5340", 2.7, 3.0, 64, 1.4, "Nordic Semiconductor, product specification, application CPU, DC/DC")

_CORES = (
    _host(),
    Target("wasm32", "wasm", "WebAssembly: browsers, and the playground", "wasm32-freestanding", "mvp", fpu=True),
    _cortex("cortex-m0", "cortex_m0", "Cortex-M0 and M0+: no floating-point unit, no hardware division", _MSPM0),
    _cortex("cortex-m3", "cortex_m3", "Cortex-M3: no floating-point unit", _CC1350),
    _cortex("cortex-m4", "cortex_m4+vfp4d16sp", "Cortex-M4F: single-precision floating-point unit", NRF52840, fpu=True),
    _cortex(
        "cortex-m7", "cortex_m7+fp_armv8d16sp", "Cortex-M7: single-precision floating-point unit", _PIC32CZ, fpu=True
    ),
    _cortex(
        "cortex-m33", "cortex_m33+fp_armv8d16sp", "Cortex-M33: single-precision floating-point unit", _NRF5340, fpu=True
    ),
    # Integer vectors only: those of floating-point numbers flush subnormal numbers to zero, which would change bits.
    Target(
        "cortex-m55",
        "elf-thumb",
        "Cortex-M55: single-precision floating-point unit, integer vectors; runs under qemu-system-arm",
        "thumb-freestanding-eabihf",
        "cortex_m55+fp_armv8d16sp-mve_fp+mve",
        fpu=True,
    ),
    Target(
        "riscv32",
        "elf-riscv",
        "RISC-V 32 IMC: multiplication and division, no floating-point unit",
        "riscv32-freestanding-none",
        "generic_rv32+m+c",
        ("-mno-outline",),  # pieces of functions in functions of their own cost calls
        emulated_cpu="ANY",
        power=ESP32_C3,
    ),
    Target("linux-x86-64", "library", "Linux on x86-64", f"x86_64-linux-gnu.{_GLIBC}", "x86_64", fpu=True),
    Target("linux-aarch64", "library", "Linux on 64-bit Arm", f"aarch64-linux-gnu.{_GLIBC}", "generic", fpu=True),
    # No NEON here: on 32-bit Arm it flushes subnormal numbers to zero, which would change bits.
    Target(
        "linux-armv7",
        "library",
        "Linux on 32-bit Arm (v7, hard float)",
        f"arm-linux-gnueabihf.{_GLIBC}",
        "generic+v7a+vfp3d16-neon",
        fpu=True,
    ),
)


# The compiler here has no back end for it.
_XTENSA = Target("xtensa", "source", "Xtensa LX7: compiled from the package's C by the vendor's tools", "", fpu=True)


def _on(board: Board) -> Target:
    """The target that a board is: its core, with the memory, clock and current of its chip."""
    core = next(each for each in (*_CORES, _XTENSA) if each.name == board.core)
    return replace(core, name=board.name, description=board.title, power=board.power or core.power, board=board)


_BOARDS = tuple(_on(board) for board in BOARDS)


def targets() -> tuple[Target, ...]:
    """All cores and platforms, the host first."""
    return _CORES


def boards() -> tuple[Target, ...]:
    """All boards, as targets."""
    return _BOARDS


def target(name: str | Target) -> Target:
    """The core, platform or board of this name; a ``Target`` is passed through. ``ToolchainError`` lists what there
    is."""
    if isinstance(name, Target):
        return name
    for candidate in (*_CORES, *_BOARDS):
        if candidate.name == name:
            return candidate
    known, carried = (", ".join(each.name for each in group) for group in (_CORES, _BOARDS))
    raise ToolchainError(f"target {name!r} is not known. Known targets: {known}. Boards: {carried}.")


def can_count(name: str | Target) -> bool:
    """Whether instructions of a core can be counted here: unicorn knows it, and is installed (extra ``emulation``)."""
    return target(name).emulated and importlib.util.find_spec("unicorn") is not None
