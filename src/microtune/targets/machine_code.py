"""The machine code of a function, whatever core it is for: its frame, and the addresses it builds."""

from microtune.targets import frames_riscv, frames_thumb
from microtune.targets.frames import Frame
from microtune.targets.image import Image, Symbol


def analyse(image: Image, function: Symbol) -> Frame:
    """The frame of one function; ``EmulationError`` where its stack cannot be bounded."""
    if image.machine == "arm":
        return frames_thumb.analyse(image, function)
    return frames_riscv.analyse(image, function)


def addresses_built(image: Image, function: Symbol) -> frozenset[int]:
    """Functions whose address this one builds by instructions, whatever it does with it."""
    if image.machine == "arm":
        return frames_thumb.addresses_built(image, function)
    return frames_riscv.addresses_built(image, function)
