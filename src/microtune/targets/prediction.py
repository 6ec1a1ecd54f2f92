"""A compiled network on an emulated core: what it answers there, and what a prediction takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from microtune.errors import EmulationError
from microtune.network import Network
from microtune.targets.catalogue import Target, target
from microtune.targets.emulator import Emulator, Measurement


def answers_of_core(
    network: Network, core: str | Target, x: npt.ArrayLike, image: Path | None = None
) -> tuple[np.ndarray, list[Measurement]]:
    """Outputs (samples, *output shape) of inputs (samples, *input shape) on a core, and what each prediction took.

    image: the network linked for the core in another way than it was built. Raises EmulationError for what is no
    emulated core.
    """
    core, output, given = target(core), network.description["output"], network.stored_input(x)
    machine = Emulator(image or network.directory / network.description["targets_built"][core.name], core)
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
