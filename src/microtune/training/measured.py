"""What a net costs on a core and how often its C is right: one row of the table that a recipe prints."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune.compiler.inference import compile_inference
from microtune.errors import TrainingError
from microtune.ir import Graph
from microtune.network import Network
from microtune.samples import Samples
from microtune.targets.catalogue import can_count, target, targets
from microtune.targets.size import image_size
from microtune.targets.stack import stack_bound
from microtune.tuning.losses import Loss

NAME = "net"


@dataclass(frozen=True)
class Measured:
    """Of the compiled C of a net that only predicts.

    flash: bytes of code and weights of the linked image. weights: bytes of these that are the net's constants. ram:
    bytes of arena, stack at worst and static data. instructions: of one prediction, counted in an emulator; None where
    the core is not emulated. validation, test: per cent right on the host, whose bits are those of every core; None
    without test samples. packed: bytes of flash that storing weights without their zeros, or in four bits, saves, which
    is done only where it does.
    """

    flash: int
    weights: int
    ram: int
    instructions: int | None
    validation: float
    test: float | None
    packed: int = 0

    @property
    def code(self) -> int:
        """Bytes of flash that are not the net's constants: kernels, the call of each layer, small tables."""
        return self.flash - self.weights


def core_of(name: str) -> str:
    """The core that flash, RAM and instructions are given for; of a board, its core.

    Raises TrainingError where no image is linked for it, so that there is nothing to measure.
    """
    chosen = target(name)
    core = target(chosen.core)
    if not core.image:
        known = ", ".join(each.name for each in targets() if each.image)
        raise TrainingError(f"'{name}': no image is linked for it, so its flash is not known. Cores: {known}")
    return core.name


def measure(graph: Graph, core: str, loss: Loss, validation: Samples, test: Samples | None) -> Measured:
    """Compile a net for a core and for this host, weigh it, count it, and let its C answer all samples."""
    counted = None
    with tempfile.TemporaryDirectory() as scratch:
        network = compile_inference(graph, Path(scratch) / NAME, ["host", core])
        if can_count(core):
            from microtune.targets.prediction import prediction_instructions

            counted = prediction_instructions(network, core, validation.x[:1])
        image = network.directory / network.description["targets_built"][core]
        size, stack = image_size(image), stack_bound(image, f"{NAME}_run").size
        return Measured(
            flash=size.flash,
            weights=network.description["weights"],
            ram=network.description["arena"] + stack + size.ram,
            instructions=counted,
            validation=per_cent_right(network, validation, loss),
            test=None if test is None else per_cent_right(network, test, loss),
            packed=network.description["packed"]["saved"],
        )


def flash_of(graph: Graph, core: str) -> int:
    """Bytes of flash of the C of a net that only predicts."""
    with tempfile.TemporaryDirectory() as scratch:
        network = compile_inference(graph, Path(scratch) / NAME, [core])
        return image_size(network.directory / network.description["targets_built"][core]).flash


def per_cent_right(network: Network, samples: Samples, loss: Loss) -> float:
    """Per cent of answers that are right, by the C; of values, per cent of their variance that is explained."""
    output = network.description["output"]
    found = network.run(samples.x).reshape(len(samples), -1)
    if output["dtype"] == "int8":
        found = (found.astype(np.float64) - output["zero_point"]) * output["scale"]
    if loss.task == "MT_MULTICLASS":
        return float(100 * np.mean(found.argmax(1) == samples.y))
    if loss.task == "MT_BINARY":
        return float(100 * np.mean((found > 0) == (samples.y > 0.5)))
    spread = float(((samples.y - samples.y.mean(0)) ** 2).sum())
    return 100 * (1 - float(((found - samples.y) ** 2).sum()) / spread) if spread > 0 else 0.0
