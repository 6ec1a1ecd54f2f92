"""The whole idea that the player has of its listener: 42 numbers.

    term  = [mood * song, history * likeness, skip * skips]         10 + 4 + 4 = 18 terms
    logit = (1 + time . slot) * scoring . term                      how likely it is that the song is played to its end

What is multiplied by a parameter comes in from outside and is frozen: ten features of the song, four numbers of what
was heard before, four of what was skipped, and the time of day as six slots that sum up to 1. There is no bias: the
logit of a song that says nothing is 0, a chance of one half.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import microtune as mt
from microtune.ir import Graph, Node, Tensor, constant, verify

SONG, HISTORY, SKIPS, SLOTS = 10, 4, 4, 6
"""Inputs, in this order. Those of songs, history and skips are centred, about -1 to 1; slots are 0 to 1."""
INPUTS = SONG + HISTORY + SKIPS + SLOTS
SIZES: Mapping[str, int] = {
    "mood": SONG, "history": HISTORY, "skip": SKIPS, "time": SLOTS, "scoring": SONG + HISTORY + SKIPS,
}  # fmt: skip
"""{what learns: its parameters}, 42 in all."""
TERMS = ("mood", "history", "skip")
LEARN = mt.Sparse(dict.fromkeys(SIZES, 1.0))
"""What learns of the int8 form, whose layers have biases of their own; of the float form ``mt.Full()``."""


def ones() -> dict[str, np.ndarray]:
    """Parameters that know nothing: each term counts as it is, nothing is scored, every time of day is the same."""
    found = {name: np.ones(size, np.float32) for name, size in SIZES.items()}
    return {**found, "time": np.zeros(SLOTS, np.float32), "scoring": np.zeros(SIZES["scoring"], np.float32)}


def checked(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each as a float32 vector. Raises ValueError for a name or a size that the network does not have."""
    found = {name: np.asarray(values, np.float32).reshape(-1) for name, values in parameters.items()}
    if {name: values.size for name, values in found.items()} != dict(SIZES):
        sizes = ", ".join(f"{name} {values.size}" for name, values in found.items())
        raise ValueError(f"the network has {', '.join(f'{n} {s}' for n, s in SIZES.items())} parameters, not {sizes}")
    return found


def logits(parameters: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network in numpy: x (n, 24) to (n,), in the precision of the parameters."""
    weights = np.concatenate([np.ravel(parameters[name]) for name in TERMS])
    scores = x[..., :-SLOTS] @ (weights * np.ravel(parameters["scoring"]))
    return np.asarray((1 + x[..., -SLOTS:] @ np.ravel(parameters["time"])) * scores)


def graph(parameters: Mapping[str, np.ndarray], name: str = "playlist") -> Graph:
    """The network as mt.plan takes it: input (24,), output the chance (1,)."""
    known = checked(parameters)
    tensors: dict[str, Tensor] = {"input": Tensor("input", (INPUTS,))}
    nodes: list[Node] = []

    def emit(op: str, output: str, size: int, *inputs: str, **given: int) -> str:
        tensors[output] = Tensor(output, (size,))
        nodes.append(Node(op, output, inputs, (output,), given))
        return output

    for each, values in known.items():
        shape = (1, values.size) if each in ("time", "scoring") else (values.size,)
        tensors[each] = constant(each, values.reshape(shape))
    tensors["one"] = constant("one", np.ones(1, np.float32))
    start, weighted = 0, []
    for each in TERMS:
        stop = start + SIZES[each]
        part = emit("slice", f"{each}.input", stop - start, "input", axis=0, start=start, stop=stop)
        weighted.append(emit("channel_scale", f"{each}.terms", stop - start, part, each))
        start = stop
    terms = emit("concat", "terms", start, *weighted, axis=0)
    score = emit("dense", "score", 1, terms, "scoring")
    slot = emit("slice", "slot", SLOTS, "input", axis=0, start=start, stop=INPUTS)
    modulation = emit("dense", "modulation", 1, slot, "time")
    gate = emit("add", "gate", 1, modulation, "one")
    logit = emit("multiply", "logit", 1, score, gate)
    chance = emit("sigmoid", "chance", 1, logit)
    return verify(Graph(name, tensors, tuple(nodes), ("input",), (chance,)))
