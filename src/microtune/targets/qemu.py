"""The same firmware on an emulated board: qemu-system-arm boots it, and it prints what came of its uses."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from microtune.errors import EmulationError
from microtune.interface import interface_of
from microtune.package import Package
from microtune.targets.catalogue import Target, target
from microtune.targets.emulator import Emulator
from microtune.toolchain import compile_image, compile_objects, link_objects

PROGRAM = "qemu-system-arm"
HERE = Path(__file__).parent
SECONDS = 300  # after which a board that has not stopped is given up
LOOP = 2_000_000  # instructions of boot.c's loop, by which ticks are turned into instructions
MOST_USES, MOST_BYTES = 40, 64 * 1024  # of the uses that firmware holds
SHIFT = 5  # an instruction takes 2^SHIFT nanoseconds of the board's clock

Uses = Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]


@dataclass(frozen=True)
class EmulatedBoard:
    """A board of qemu: where its flash and RAM are, and how many bytes."""

    machine: str
    flash: tuple[int, int]
    ram: tuple[int, int]


_KB, _MB = 1024, 1024 * 1024
BOARDS = {
    "cortex-m0": EmulatedBoard("microbit", (0x00000000, 256 * _KB), (0x20000000, 16 * _KB)),
    "cortex-m3": EmulatedBoard("mps2-an385", (0x00000000, 4 * _MB), (0x20000000, 4 * _MB)),
    "cortex-m4": EmulatedBoard("mps2-an386", (0x00000000, 4 * _MB), (0x20000000, 4 * _MB)),
    "cortex-m7": EmulatedBoard("mps2-an500", (0x00000000, 4 * _MB), (0x20000000, 4 * _MB)),
    "cortex-m33": EmulatedBoard("mps2-an505", (0x10000000, 4 * _MB), (0x38000000, 4 * _MB)),
    "cortex-m55": EmulatedBoard("mps3-an547", (0x10000000, 512 * _KB), (0x30000000, 512 * _KB)),
}

_SCRIPT = """MEMORY
{{
  FLASH (rx) : ORIGIN = {flash[0]:#x}, LENGTH = {flash[1]}
  RAM (rwx) : ORIGIN = {ram[0]:#x}, LENGTH = {ram[1]}
}}
SECTIONS
{{
  .text : {{ KEEP(*(.vectors)) *(.text .text.*) }} > FLASH
  .rodata : {{ *(.rodata .rodata.*) . = ALIGN(4); }} > FLASH
  .data : {{ boot_data = .; *(.data .data.*) . = ALIGN(4); boot_data_end = .; }} > RAM AT > FLASH
  boot_data_from = LOADADDR(.data);
  .bss : {{ boot_cleared = .; *(.bss .bss.*) *(COMMON) . = ALIGN(4); boot_cleared_end = .; }} > RAM
  boot_stack_top = {top:#x};
  /DISCARD/ : {{ *(.ARM.exidx .ARM.exidx.*) *(.ARM.extab .ARM.extab.*) *(.eh_frame*) *(.debug_*) *(.comment) }}
}}
"""


@dataclass(frozen=True)
class Boot:
    """What a board printed. state, answers: CRC-32 of the saved state and of all outputs. predict, observe, idle: the
    most instructions of one, on qemu to within 20 and one in 100,000."""

    machine: str
    state: int
    answers: int
    predict: int
    observe: int
    idle: int


def available() -> bool:
    """Whether qemu-system-arm is on the PATH."""
    return shutil.which(PROGRAM) is not None


def board_of(where: str | Target) -> EmulatedBoard:
    """The board of qemu with this core; ``EmulationError`` where there is no qemu or none."""
    chosen = target(where)
    if not available():
        raise EmulationError(f"{PROGRAM} is not on the PATH; install QEMU's system emulators for Arm.")
    if chosen.core not in BOARDS:
        raise EmulationError(f"qemu has no board with the core of {chosen.name}. It has: {', '.join(BOARDS)}.")
    return BOARDS[chosen.core]


def boot(package: Package, where: str | Target, uses: Uses) -> Boot:
    """Build firmware that lives through uses (input, target) without storage, and boot it on qemu's board of that core.

    Raises EmulationError where there is no qemu, no board, no room on it, or no end.
    """
    chosen = target(where)
    board = board_of(chosen)
    uses = uses[-_kept(package, uses) :]
    if (needed := int(package.manifest["memory"]["ram"])) > board.ram[1]:
        raise EmulationError(
            f"{package.name} takes {needed} bytes of RAM; {board.machine}, the board of qemu with this core, has "
            f"{board.ram[1]} ({needed - board.ram[1]} too many)."
        )
    with tempfile.TemporaryDirectory() as scratch:
        image = _firmware(package, chosen, board, uses, Path(scratch))
        lines = _run(board, image)
    missing = {"status", "state", "answers", "loop", "empty", "predict", "observe", "idle"} - set(lines)
    if missing or lines["status"]:
        what = "a call was refused" if not missing else f"it printed no {', '.join(sorted(missing))}"
        raise EmulationError(f"{package.name} on {board.machine}: {what}.")
    tick = LOOP / (lines["loop"] - lines["empty"])
    counts = {key: round((lines[key] - lines["empty"]) * tick) for key in ("predict", "observe", "idle")}
    return Boot(board.machine, lines["state"], lines["answers"], **counts)


def lived(package: Package, where: str | Target, uses: Uses) -> Boot:
    """The same uses under unicorn, which counts exactly."""
    chosen, layout = target(where), package.manifest["layout"]
    verbs = {verb: f"{package.name}_{verb}" for verb in ("init", "predict", "observe", "idle")}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "device.elf"
        keep = list(verbs.values())
        machine = Emulator(compile_image(package.sources, [package.directory], path, chosen, keep=keep), chosen)
    device, result = machine.allocate(4 + int(layout["bytes"])), machine.allocate(4096)
    output = machine.allocate(4 * int(package.manifest["outputs"]))
    uses, most, answers = uses[-_kept(package, uses) :], dict.fromkeys(verbs, 0), 0

    def call(verb: str, *arguments: int) -> int:
        found = machine.measure(verbs[verb], device, *arguments)
        if found.result != 0:
            raise EmulationError(f"{verbs[verb]} returned status {found.result} on {chosen.name}")
        return found.instructions

    call("init", 0)
    for x, y in zip(_words(package, uses, 0), _words(package, uses, 1), strict=True):
        given, wanted = machine.allocate(x.nbytes), machine.allocate(y.nbytes)
        machine.write(given, x.tobytes())
        machine.write(wanted, y.tobytes())
        counts = {"predict": call("predict", given, output, result)}
        answers = zlib.crc32(machine.read(output, 4 * int(package.manifest["outputs"])), answers)
        counts |= {"observe": call("observe", wanted), "idle": call("idle", result)}
        while machine.read(result, 3)[2]:
            counts["idle"] += call("idle", result)
        most |= {verb: max(most[verb], count) for verb, count in counts.items()}
    state = zlib.crc32(machine.read(device + 4, int(layout["saved"])))
    return Boot("unicorn", state, answers, most["predict"], most["observe"], most["idle"])


def _kept(package: Package, uses: Uses) -> int:
    """How many uses go into the firmware's flash."""
    return max(1, min(len(uses), MOST_USES, MOST_BYTES // (4 * package.input_size + 4)))


def _firmware(package: Package, chosen: Target, board: EmulatedBoard, uses: Uses, folder: Path) -> Path:
    inputs, targets = (_words(package, uses, index) for index in (0, 1))
    sizes = {
        "USES": len(uses),
        "INPUT_WORDS": inputs.shape[1],
        "TARGET_WORDS": targets.shape[1],
        "OUTPUTS": package.manifest["outputs"],
        "SAVED": package.manifest["layout"]["saved"],
    }
    (folder / "boot_sizes.h").write_text("".join(f"#define BOOT_{key} {value}u\n" for key, value in sizes.items()))
    tables = {"boot_inputs": (inputs, "INPUT"), "boot_targets": (targets, "TARGET")}
    (folder / "boot_uses.c").write_text(
        '#include "boot.h"\n'
        + "".join(
            f"const uint32_t {name}[BOOT_USES][BOOT_{size}_WORDS] = {{\n{_rows(table)}}};\n"
            for name, (table, size) in tables.items()
        )
    )
    (folder / "boot.ld").write_text(_SCRIPT.format(flash=board.flash, ram=board.ram, top=sum(board.ram)))
    defines = [f"BOOT_DEVICE={package.name}", f'BOOT_HEADER="{package.name}.h"']
    objects = [
        *compile_objects(package.sources, [package.directory], chosen),
        *compile_objects(
            [HERE / "boot.c", folder / "boot_uses.c"], [package.directory, HERE, folder], chosen, defines=defines
        ),
    ]
    return link_objects(objects, folder / "boot.elf", chosen, folder / "boot.ld", ["boot_vectors"])


def _words(package: Package, uses: Uses, index: int) -> np.ndarray:
    """Inputs or targets as the C takes them, each filled up to whole words: (uses, words)."""
    if index == 0:
        stored = "<f4" if package.manifest["input"]["dtype"] == "float32" else "i1"
        rows = [np.asarray(use[0], stored).tobytes() for use in uses]
    else:
        written = interface_of(package.fixed).written
        rows = [written(np.asarray(use[1], "<f4")).tobytes() for use in uses]
    return np.array([np.frombuffer(row + bytes(-len(row) % 4), "<u4") for row in rows])


def _rows(table: np.ndarray) -> str:
    return "".join(f"    {{{', '.join(f'{word:#x}u' for word in row)}}},\n" for row in table.tolist())


def _run(board: EmulatedBoard, image: Path) -> dict[str, int]:
    """Boot it; the lines it printed, NAME and a hexadecimal number each."""
    command = [
        PROGRAM, "-M", board.machine, "-kernel", str(image), "-nographic", "-monitor", "none", "-serial", "none",
        "-semihosting-config", "enable=on,target=native", "-icount", f"shift={SHIFT}",
    ]  # fmt: skip
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"{board.machine} has not stopped within {SECONDS} seconds.") from error
    said = f"{found.stdout}{found.stderr}"
    if found.returncode != 0 or "fault" in said:
        raise EmulationError(f"{board.machine} stopped with an error: {said.strip()[-300:] or found.returncode}")
    pairs = (line.split() for line in said.splitlines())
    return {pair[0]: int(pair[1], 16) for pair in pairs if len(pair) == 2}
