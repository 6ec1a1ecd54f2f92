"""``Network``: the Python face of a compiled network that only predicts, through its C."""

from __future__ import annotations

import ctypes
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from microtune.errors import BuildError, DeviceError
from microtune.interface import load_library, quantized

DESCRIPTION = "network.json"


class Network:
    """A directory that ``compile_inference`` wrote. ``description`` is what its network.json says."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        try:
            self.description: dict[str, Any] = json.loads((self.directory / DESCRIPTION).read_text())
        except FileNotFoundError:
            raise BuildError(
                f"{directory} is not a compiled network: it has no {DESCRIPTION}. Make one with "
                "microtune.compile_inference"
            ) from None
        except (OSError, ValueError) as error:
            raise BuildError(f"{directory}/{DESCRIPTION} cannot be read: {error}") from error
        self.name = str(self.description["name"])
        self._run: Any = None
        self._arena = np.zeros(int(self.description["arena"]) // 4 + 1, np.float32)

    @property
    def sources(self) -> list[Path]:
        """All C sources."""
        return sorted(self.directory.glob("*.c"))

    @property
    def packed(self) -> list[dict[str, Any]]:
        """Weights that are stored without their zeros or in four bits: name, form, share of zeros, bytes, and bytes of
        the dense form. ``description["packed"]`` also says how many bytes of flash that saves, its code counted."""
        return list(self.description.get("packed", {}).get("weights", []))

    def _function(self) -> Any:
        if self._run is None:
            file = self.description["targets_built"].get("host")
            if file is None:
                raise BuildError(f"{self.directory} has no library for this host; compile it with targets=['host']")
            self._run = load_library(self.directory / file)[f"{self.name}_run"]
            self._run.restype = None
        return self._run

    def run(self, x: npt.ArrayLike) -> np.ndarray:
        """Output of one input (input shape), or of a batch (samples, *input shape), in the type of the graph's output.

        Inputs are those of ``stored_input``, and so are its errors.
        """
        result, shape = self.description["output"], tuple(self.description["input"]["shape"])
        given = self.stored_input(x)
        batch = given.reshape(-1, math.prod(shape))
        found = np.zeros((len(batch), *result["shape"]), result["dtype"])
        function = self._function()
        for row, output in zip(batch, found, strict=True):
            function(*(each.ctypes.data_as(ctypes.c_void_p) for each in (row, output, self._arena)))
        return found if given.shape != shape else found[0]

    def stored_input(self, x: npt.ArrayLike) -> np.ndarray:
        """One input (input shape), or a batch (samples, *input shape), as the C takes it.

        Real numbers for an int8 input are quantised; int8 arrays are taken as they are. Raises DeviceError for
        another shape, NaN and infinity.
        """
        source, given = self.description["input"], np.asarray(x)
        shape = tuple(source["shape"])
        if given.shape != shape and given.shape[1:] != shape:
            raise DeviceError(
                f"the input has the shape {given.shape}; {shape} or (samples, ...) is needed", "MT_INVALID_ARGUMENT"
            )
        if not np.isfinite(given).all():
            raise DeviceError("the input holds NaN or infinity", "MT_INPUT_NOT_FINITE")
        if source["dtype"] == "float32":
            given = given.astype(np.float32)
        elif given.dtype != np.int8:
            given = quantized(given.astype(np.float32), source["scale"], source["zero_point"])
        return np.ascontiguousarray(given)
