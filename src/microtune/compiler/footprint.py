"""What a plan costs: RAM from its layout, flash and stack measured on the compiled C."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from microtune import toolchain
from microtune.compiler.layout import WORD, lay_out, words
from microtune.compiler.planned import Memory, Plan, Span
from microtune.compiler.sources import write_sources
from microtune.package import verbs_of
from microtune.targets.catalogue import Target
from microtune.targets.size import image_size
from microtune.targets.stack import stack_bounds

REFERENCE = "cortex-m4"
POINTER = 4  # bytes of an address on the 32-bit cores that figures are given for


def entries(plan: Plan, name: str) -> list[str]:
    """The C functions of a plan's device."""
    return [f"{name}_{verb}" for verb in verbs_of(plan.learner.profiles, bool(plan.sensors))]


def image_footprint(
    plan: Plan, name: str, sources: Sequence[Path], include: Path, image: Path, core: str | Target
) -> tuple[int, int]:
    """Link all of a device's functions for a core and return its bytes of flash and its worst-case stack."""
    kept = entries(plan, name)
    toolchain.compile_image(sources, [include], image, core, keep=kept)
    return image_size(image).flash, max(each.size for each in stack_bounds(image, kept).values())


def measure(plan: Plan) -> Memory:
    """The memory of a plan; compiles it once for the reference core (Cortex-M4)."""
    layout = lay_out(plan)
    programs = [program for program in (plan.programs.backbone, plan.programs.head, plan.programs.step) if program]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "device"
        sources = write_sources(plan, "device_", folder)
        flash, stack = image_footprint(plan, "device_", sources, folder, folder / "device.elf", REFERENCE)
    timeline = tuple(
        Span(buffer.program, " = ".join(buffer.tensors), buffer.offset, buffer.bytes, buffer.first, buffer.last)
        for program in programs
        for buffer in program.arena.buffers
    )
    arena = max(program.arena.bytes for program in programs)
    return Memory(
        ram=POINTER + layout.bytes + stack,
        flash=flash,
        stack=stack,
        arena=arena,
        bound=max(program.arena.bound for program in programs),
        parameters=sum(WORD * words(each.tensor) for each in layout.parameters),
        optimizer=WORD * layout.optimizer_size,
        buffers=layout.sets * layout.field("samples").bytes,
        timeline=timeline,
        packed=plan.programs.packing.weights,
        saved=plan.programs.packing.saved,
    )
