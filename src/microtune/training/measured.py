"""What a net costs on a core and how often its C is right: one row of the table that a recipe prints."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune.compiler.inference import compile_inference
from microtune.errors import TrainingError
from microtune.interface import quantized
from microtune.ir import Graph
from microtune.network import Network
from microtune.samples import Samples
from microtune.targets.catalogue import target, targets
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
    with tempfile.TemporaryDirectory() as scratch:
        network = compile_inference(graph, Path(scratch) / NAME, ["host", core])
        image = network.directory / network.description["targets_built"][core]
        size, stack = image_size(image), stack_bound(image, f"{NAME}_run").size
        return Measured(
            flash=size.flash,
            weights=network.description["weights"],
            ram=network.description["arena"] + stack + size.ram,
            instructions=_instructions(network, image, core, validation.x[0]),
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


def _instructions(network: Network, image: Path, core: str, x: np.ndarray) -> int | None:
    """Of one prediction, whose output must be that of the host; None without an emulator of the core."""
    if not target(core).emulated or importlib.util.find_spec("unicorn") is None:
        return None
    from microtune.targets.emulator import Emulator

    source = network.description["input"]
    given = np.ascontiguousarray(x, np.float32)
    if source["dtype"] != "float32":
        given = quantized(given, source["scale"], source["zero_point"])
    expected = network.run(given)
    machine = Emulator(image, core)
    places = [machine.allocate(size) for size in (given.nbytes, expected.nbytes, network.description["arena"])]
    machine.write(places[0], given.tobytes())
    found = machine.measure(f"{network.name}_run", *places)
    if machine.read(places[1], expected.nbytes) != expected.tobytes():
        raise TrainingError(f"the net answers otherwise on {core} than on this machine; please report it")
    return int(found.instructions)
