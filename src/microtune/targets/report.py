"""All that a package takes of a core or board: instructions, flash, RAM, stack, energy; and whether it fits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from microtune.errors import EmulationError, ToolchainError
from microtune.package import Package, open_package
from microtune.targets.arithmetic import floating_point_in
from microtune.targets.catalogue import Target, target, targets
from microtune.targets.image import read_image
from microtune.targets.measure import Cost, cost, random_uses
from microtune.targets.painting import Stack, stacks
from microtune.targets.qemu import Boot, available, board_of, boot, lived
from microtune.targets.size import ImageSize, image_size
from microtune.targets.stack import stack_bounds
from microtune.toolchain import compile_image

POINTER = 4  # bytes of an address on these cores
REFERENCE = "cortex-m33"  # whose state a core that unicorn does not have is compared with
PAINTED = 40  # uses whose stack is painted

Uses = Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]


@dataclass(frozen=True)
class Share:
    """Bytes a package takes of what a board has."""

    what: str
    bytes: int
    limit: int

    @property
    def text(self) -> str:
        """For people: the share, or by how much it is too large."""
        if self.bytes > self.limit:
            over = self.bytes - self.limit
            return f"takes {self.bytes:,} bytes of {self.what}; the board has {self.limit:,} ({over:,} too many)"
        return f"{self.bytes:,} of {self.limit:,} bytes of {self.what} ({100 * self.bytes / self.limit:.2g} %)"


@dataclass(frozen=True)
class Report:
    """A package on a core.

    cost: None for a core that is not emulated here. sections: bytes by name. struct: of the device. floating_point:
    what of it is in the image, of a package that computes in integers only; None for others. boots: on qemu's board
    and under unicorn, where that was asked for.
    """

    target: Target
    cost: Cost | None
    sections: dict[str, int]
    size: ImageSize
    struct: int
    stack: Stack
    floating_point: tuple[str, ...] | None
    boots: tuple[Boot, ...]

    @property
    def ram(self) -> int:
        """Bytes: the struct, static data and the stack at its worst."""
        return self.struct + self.size.ram + self.stack.worst_bound

    @property
    def shares(self) -> tuple[Share, ...]:
        """Of the board's memory; nothing for a bare core."""
        board = self.target.board
        if board is None:
            return ()
        return Share("flash", self.size.flash, board.flash), Share("RAM", self.ram, board.ram)

    @property
    def fits(self) -> bool:
        """Whether the board has room for it."""
        return all(share.bytes <= share.limit for share in self.shares)

    def figures(self) -> dict[str, Any]:
        """For machines."""
        found: dict[str, Any] = {} if self.cost is None else asdict(self.cost)
        found |= {
            "core": self.target.core,
            "flash": {"bytes": self.size.flash, "sections": self.sections},
            "symbols": [asdict(each) for each in self.size.symbols],
            "ram": {"bytes": self.ram, "struct": self.struct, "static": self.size.ram},
            "stack": {
                "measured": self.stack.worst_measured if self.stack.measured else None,
                "bound": self.stack.worst_bound,
                "functions": asdict(self.stack),
            },
        }
        if self.shares:
            found["board"] = {"fits": self.fits} | {each.what.lower(): each.limit for each in self.shares}
        if self.boots:
            found["boots"] = [asdict(each) for each in self.boots]
        if self.floating_point is not None:
            found["floating_point"] = list(self.floating_point)
        return found


def report(
    package: str | os.PathLike[str] | Package,
    where: str | Target,
    uses: Uses | None = None,
    *,
    energy: str | float | None = None,
    clock: str | float | None = None,
    qemu: bool = False,
) -> Report:
    """Compile a package for a core or board, run it there, and measure.

    qemu: boot it on a board of qemu-system-arm too, and compare the states; a core that is emulated by nothing else is
    booted wherever that program is. Other arguments and errors: see ``cost``.
    """
    package, chosen = open_package(package), target(where)
    if chosen.kind == "source":
        raise EmulationError(
            f"{chosen.name} has a core that is neither compiled for nor emulated here; its vendor's tools compile the "
            "C of the package. For figures of a like core name another, such as cortex-m4"
        )
    if not chosen.image:
        known = ", ".join(each.name for each in targets() if each.image)
        raise ToolchainError(f"target {chosen.name} is not emulated here; emulated are {known}, and boards with these")
    qemu = qemu or (available() and not chosen.emulated)
    if qemu:
        board_of(chosen)
    uses = random_uses(package, 120) if uses is None else uses
    spent = cost(package, chosen, uses, energy=energy, clock=clock) if chosen.emulated else None
    verbs = {verb: f"{package.name}_{verb}" for verb in package.verbs}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "device.elf"
        image = read_image(compile_image(package.sources, [package.directory], path, chosen, keep=list(verbs.values())))
    if chosen.emulated:
        stack = stacks(package, chosen, uses[-PAINTED:])
    else:
        bounds = stack_bounds(image, list(verbs.values()))
        stack = Stack({}, {verb: bounds[name].size for verb, name in verbs.items()})
    return Report(
        target=chosen,
        cost=spent,
        sections={section.name: section.size for section in image.sections},
        size=image_size(image),
        struct=POINTER + int(package.manifest["layout"]["bytes"]),
        stack=stack,
        floating_point=floating_point_in(image) if package.fixed else None,
        boots=_boots(package, chosen, uses) if qemu else (),
    )


def _boots(package: Package, chosen: Target, uses: Uses) -> tuple[Boot, ...]:
    """On qemu's board; ``EmulationError`` when its state is not that of unicorn, which is another emulator."""
    found, here = boot(package, chosen, uses), chosen.name if chosen.emulated else REFERENCE
    same = lived(package, here, uses)
    if (found.state, found.answers) != (same.state, same.answers):
        raise EmulationError(f"{package.name}: the state on {found.machine} is not that on {here} after the same uses.")
    return (found, same) if chosen.emulated else (found,)
