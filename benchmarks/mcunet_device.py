"""The nine published schemes as whole devices: planned by ``mt.plan``, with all that a device keeps beside its arena.

``benchmarks.mcunet`` counts what a training step needs, as the paper does. A device also predicts and may learn from
that later, so that it keeps the cut of the last prediction and of one sample, its counters and its stack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.camera.network import DIRECTORY, published_network

import microtune as mt
from benchmarks.mcunet import CLASSES, SCHEMES, Sparse
from benchmarks.results import record
from microtune.compiler.layout import lay_out
from microtune.compiler.picture import plan_picture

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "mcunet-49kb.svg"
ANCHOR = ("mcunet-5fps", "49kb")
POINTER = 4
LARGEST = 262_144
LEARNER = mt.Learner(buffer=1, every=1, epochs=1, folds=0, restart=False, in_place=True)
"""Each observation one step at once, on the parameters in use: as the paper trains."""


def scheme_of(net: str, scheme: Sparse) -> tuple[dict[str | int, float | slice], int]:
    """The arguments of ``mt.Sparse``: the paper counts convolutions, and trains the classifier always."""
    graph = published_network(net, classes=CLASSES)
    layers = [node.op for node in graph.nodes if node.op in ("conv2d_int8", "depthwise_conv2d_int8")]
    # a depthwise weight has no input channels to choose from: the whole of it learns
    parts: dict[str | int, float | slice] = {
        index: 1.0 if layers[index].startswith("depthwise") else part for index, part in scheme.weights.items() if part
    }
    return {**parts, len(layers): 1.0}, scheme.biases + 1


def device_plan(net: str, name: str, precision: str = "mixed") -> mt.Plan:
    """The device of one published scheme."""
    parts, biases = scheme_of(net, SCHEMES[net, name])
    return mt.plan(
        published_network(net, classes=CLASSES),
        learn=mt.Sparse(parts, biases_from=biases),
        loss="cross_entropy",
        optimizer=mt.SGD(lr=0.01),
        learner=LEARNER,
        precision=precision,
    )


def struct_bytes(plan: mt.Plan) -> int:
    """RAM of the device struct on a 32-bit core: all there is but the stack."""
    return POINTER + lay_out(plan).bytes


def measured() -> dict[str, Any]:
    """Struct bytes of every scheme; of the anchor in float32 too, and its memory as measured on its C."""
    structs = {f"{net} {name}": struct_bytes(device_plan(net, name)) for net, name in SCHEMES}
    memory = device_plan(*ANCHOR).memory
    return {
        "struct": structs,
        "anchor_float32": struct_bytes(device_plan(*ANCHOR, precision="float32")),
        "anchor": {key: getattr(memory, key) for key in ("ram", "arena", "bound", "parameters", "stack", "flash")},
    }


def run_devices() -> bool:
    """Record all of them and draw the anchor; False when one does not fit."""
    if not DIRECTORY.is_dir():
        print(f"\ndevices of the published schemes: not run, no networks in {DIRECTORY}")
        return True
    found = measured()
    record("training devices", found)
    draw()
    print("\nthe same schemes as whole devices: bytes of the device struct")
    for name, size in found["struct"].items():
        print(f"  {name:24}{size:>9,}")
    print(f"  mcunet-5fps 49kb with its stack: {found['anchor']['ram']:,}; in float32: {found['anchor_float32']:,}")
    return bool(max(found["struct"].values()) + found["anchor"]["stack"] <= LARGEST)


def draw(path: Path = PICTURE) -> None:
    """The memory of the anchor over time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan_picture(device_plan(*ANCHOR)))
