"""A compiled network on an emulated core: what it answers there, and what a prediction takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from microtune.errors import BuildError, EmulationError
from microtune.network import Network
from microtune.targets.catalogue import Target, target
from microtune.targets.emulator import Emulator, Measurement
from microtune.targets.size import image_size

RANDOM_INPUTS = 10


def answers_of_core(
    network: Network, core: str | Target, x: npt.ArrayLike, image: Path | None = None
) -> tuple[np.ndarray, list[Measurement]]:
    """Outputs (samples, *output shape) of inputs (samples, *input shape) on a core, and what each prediction took.

    image: the network linked for the core in another way than it was built. Raises EmulationError for what is no
    emulated core.
    """
    core, output, given = target(core), network.description["output"], network.stored_input(x)
    machine = Emulator(image or image_of(network, core), core)
    empty = np.zeros(output["shape"], output["dtype"])
    sizes = (given[0].nbytes, empty.nbytes, max(4, int(network.description["arena"])))
    source, result, arena = (machine.allocate(size) for size in sizes)
    answers, taken = [], []
    for sample in given:
        machine.write(source, sample.tobytes())
        taken.append(machine.measure(f"{network.name}_run", source, result, arena))
        answers.append(np.frombuffer(machine.read(result, empty.nbytes), empty.dtype).reshape(empty.shape))
    return np.stack(answers), taken


def prediction_instructions(network: Network, core: str | Target, x: npt.ArrayLike) -> int:
    """Instructions of a prediction, the mean over inputs (samples, *input shape).

    Raises EmulationError where an output is not that of the host to the last bit.
    """
    answers, taken = answers_of_core(network, core, x)
    if answers.tobytes() != network.run(x).tobytes():
        raise EmulationError(f"{network.name} answers otherwise on {target(core).name} than on this machine")
    return round(float(np.mean([each.instructions for each in taken])))


def image_of(network: Network, core: Target) -> Path:
    """The network linked for a core. Raises BuildError where it was not compiled for it."""
    built = network.description["targets_built"]
    if core.name not in built:
        there = ", ".join(built) or "no target"
        raise BuildError(
            f"{network.directory} is compiled for {there}, not for {core.name}: compile it again with that target"
        )
    return network.directory / str(built[core.name])


def prediction_figures(network: Network, core: str | Target) -> dict[str, int]:
    """What a prediction takes of a core, over ten random inputs: of a net much the same for all, of trees not.

    ``instructions`` is their mean, ``most`` the most of one; ``arena`` and ``stack``, the most that was measured, are
    bytes of RAM beside input and output; ``flash`` has code and weights. Raises EmulationError for what is no emulated
    core, BuildError where the network was not compiled for it.
    """
    core, source = target(core), network.description["input"]
    random, shape = np.random.default_rng(0), (RANDOM_INPUTS, *source["shape"])
    if source["dtype"] == "float32":
        x = random.normal(size=shape).astype(np.float32)
    else:
        limits = np.iinfo(source["dtype"])
        x = random.integers(limits.min, limits.max, shape, source["dtype"], endpoint=True)
    _, taken = answers_of_core(network, core, x)
    counts = [each.instructions for each in taken]
    return {
        "instructions": round(float(np.mean(counts))),
        "most": max(counts),
        "arena": int(network.description["arena"]),
        "stack": max(each.stack for each in taken),
        "flash": image_size(image_of(network, core)).flash,
        "weights": int(network.description["weights"]),
    }
