"""Flash and static RAM of a linked image, by section and by symbol."""

from dataclasses import dataclass
from pathlib import Path

from microtune.targets.image import Image, read_image


@dataclass(frozen=True)
class SymbolSize:
    """One function or object with its size in bytes; literal pools belong to the function before them."""

    name: str
    section: str
    size: int


@dataclass(frozen=True)
class ImageSize:
    """Bytes of a linked image. ``data`` counts twice: its start values lie in flash, the variables in RAM."""

    code: int
    constants: int
    data: int
    cleared: int
    symbols: tuple[SymbolSize, ...]  # the largest first

    @property
    def flash(self) -> int:
        """Bytes of flash: code, constants and the start values of data."""
        return self.code + self.constants + self.data

    @property
    def ram(self) -> int:
        """Bytes of static RAM; the caller's buffers and the stack come on top."""
        return self.data + self.cleared


def image_size(image: Image | str | Path) -> ImageSize:
    """Measure an image. Its sections sum to the totals; symbols may leave padding between them uncounted."""
    loaded = image if isinstance(image, Image) else read_image(image)
    totals = {"code": 0, "constants": 0, "data": 0, "cleared": 0}
    for section in loaded.sections:
        if section.code:
            totals["code"] += section.size
        elif not section.writable:
            totals["constants"] += section.size
        else:
            totals["cleared" if section.cleared else "data"] += section.size
    symbols = [
        SymbolSize(symbol.name, section.name, symbol.size)
        for symbol in loaded.symbols
        if symbol.size
        for section in loaded.sections
        if section.address <= symbol.address < section.address + section.size
    ]
    return ImageSize(**totals, symbols=tuple(sorted(symbols, key=lambda item: (-item.size, item.name))))
