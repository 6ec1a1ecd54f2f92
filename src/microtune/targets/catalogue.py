"""Every target microtune compiles for, declared once. Tables, command-line help and tests are drawn from
here.
"""

import platform
import sys
from dataclasses import dataclass
from typing import Literal

from microtune.errors import ToolchainError
from microtune.targets.power import Power

Kind = Literal["host", "wasm", "elf-thumb", "library"]


@dataclass(frozen=True)
class Target:
    """One core or platform.

    ``kind`` says what is built and how it is run: ``host`` a shared library through ctypes, ``wasm`` a module
    under wasmtime, ``elf-thumb`` a linked Cortex-M image under unicorn, ``library`` a shared library for
    another Linux, which is compiled but not run here.
    """

    name: str
    kind: Kind
    description: str
    triple: str
    cpu: str = ""  # the compiler's name of the CPU and its features; empty: the baseline of the triple
    flags: tuple[str, ...] = ()  # further compiler flags
    emulated_cpu: str = ""  # unicorn's constant for this core, without its UC_CPU_ARM_ prefix
    fpu: bool = False  # single-precision floating-point unit
    power: Power | None = None  # of a chip with this core, for estimates; None: nothing is estimated

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
        if self.kind == "elf-thumb":
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
    system = {"linux": f"linux-gnu.{_GLIBC}", "darwin": "macos", "win32": "windows-gnu"}.get(
        sys.platform, sys.platform
    )
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
_NRF52840 = Power("nRF52840", 3.3, 3.0, 64, 1.4, "Nordic Semiconductor, product specification, CPU running, DC/DC")
_PIC32CZ = Power("PIC32CZ CA70", 90, 3.3, 300, 1.0, "Microchip, data sheet PIC32CZ CA70/MC70, active current, APWR_1")
_NRF5340 = Power("nRF5340", 2.7, 3.0, 64, 1.4, "Nordic Semiconductor, product specification, application CPU, DC/DC")

_TARGETS = (
    _host(),
    Target(
        "wasm32", "wasm", "WebAssembly: browsers, and the playground", "wasm32-freestanding", "mvp", fpu=True
    ),
    _cortex("cortex-m0", "cortex_m0", "Cortex-M0 and M0+: no floating-point unit, no hardware division", _MSPM0),
    _cortex("cortex-m3", "cortex_m3", "Cortex-M3: no floating-point unit", _CC1350),
    _cortex(
        "cortex-m4", "cortex_m4+vfp4d16sp", "Cortex-M4F: single-precision floating-point unit", _NRF52840, fpu=True
    ),
    _cortex(
        "cortex-m7", "cortex_m7+fp_armv8d16sp", "Cortex-M7: single-precision floating-point unit", _PIC32CZ, fpu=True
    ),
    _cortex(
        "cortex-m33", "cortex_m33+fp_armv8d16sp", "Cortex-M33: single-precision floating-point unit", _NRF5340, fpu=True
    ),
    Target("linux-x86-64", "library", "Linux on x86-64", f"x86_64-linux-gnu.{_GLIBC}", "x86_64", fpu=True),
    Target(
        "linux-aarch64", "library", "Linux on 64-bit Arm", f"aarch64-linux-gnu.{_GLIBC}", "generic", fpu=True
    ),
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


def targets() -> tuple[Target, ...]:
    """All targets, the host first."""
    return _TARGETS


def target(name: str | Target) -> Target:
    """The target of this name; a ``Target`` is passed through. ``ToolchainError`` lists the known names."""
    if isinstance(name, Target):
        return name
    for candidate in _TARGETS:
        if candidate.name == name:
            return candidate
    known = ", ".join(candidate.name for candidate in _TARGETS)
    raise ToolchainError(f"target {name!r} is not known. Known targets: {known}.")
