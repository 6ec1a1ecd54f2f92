"""A world made from nothing but a package: for a first look, before its own world is written.

What it does, of inputs scaled to -1..1 over their declared ranges (to standard deviations where no range is given):

* A context is drawn evenly from the ranges (from the standard normal where there is none), where sensors are checked
  from what they usually say; days mean nothing to it.
* Everybody begins with what the base model says. Values: a household wants that, plus an offset N(0, 3 tolerances),
  plus a taste N(0, 1 tolerance) times each of the first 8 inputs. Yes/no: it says yes where that is
  likely enough: the base's answer as -1 or 1, plus an offset N(0, 0.5), plus tastes N(0, 0.5).
  Classes: in a third of the contexts, beyond a plane through the inputs, it wants another class.
* Weekends are the highest 2/7 of the first input, evenings the upper half of the last; contexts are of the same
  kind if they are within 0.25 in the first input.
* A value is accepted within the tolerance of the package, a class or a yes/no if it is right.

So it tells how fast a device follows people who differ from its base smoothly, and nothing about real people.
"""

from __future__ import annotations

import numpy as np

from microtune.package import Package
from microtune.simulation.driver import Driver
from microtune.simulation.world import Array, Preference, World, exactly

TASTED = 8
"""Inputs that households differ in."""


def generic_world(package: Package) -> World:
    """The world that the manifest of a package suggests."""
    manifest, driver = package.manifest, Driver(package)
    names, centre, scale, bounded = _ranges(package)
    task, classes = manifest["task"], int(manifest["outputs"])
    tolerance = float(manifest["learner"]["tolerance"]) if task == "MT_REGRESSION" else 0.5

    def draw(rng: np.random.Generator, count: int) -> Array:
        even, normal = rng.uniform(-1.0, 1.0, (count, len(names))), rng.normal(size=(count, len(names)))
        return package.told(centre + scale * np.where(bounded, even, normal))

    def scaled(contexts: Array) -> Array:
        return np.asarray((contexts - centre) / scale)

    def base(contexts: Array) -> Array:
        return driver.watch(contexts).answers.astype(float)

    def of_values(rng: np.random.Generator) -> Preference:
        offset, tastes = rng.normal(0.0, 3.0 * tolerance), rng.normal(0.0, tolerance, min(TASTED, len(names)))
        return lambda contexts: base(contexts) + offset + scaled(contexts)[:, :TASTED] @ tastes

    def of_yes_no(rng: np.random.Generator) -> Preference:
        offset, tastes = rng.normal(0.0, 0.5), rng.normal(0.0, 0.5, min(TASTED, len(names)))
        return lambda contexts: 2.0 * base(contexts) - 1.0 + offset + scaled(contexts)[:, :TASTED] @ tastes

    def of_classes(rng: np.random.Generator) -> Preference:
        plane, step = rng.normal(size=len(names)), int(rng.integers(1, max(classes, 2)))
        border = float(np.quantile(scaled(draw(rng, 300)) @ plane, 2.0 / 3.0))
        return lambda contexts: (base(contexts) + step * (scaled(contexts) @ plane > border)) % classes

    def label(wishes: Array) -> Array:
        return np.asarray(wishes > 0.0 if task == "MT_BINARY" else np.clip(np.rint(wishes), 0, classes - 1), float)

    everyday = base(draw(np.random.default_rng(0), 300))
    room = 10.0 * tolerance
    limits = {
        "MT_REGRESSION": (float(everyday.min()) - room, float(everyday.max()) + room),
        "MT_BINARY": (-3.0, 3.0),
        "MT_MULTICLASS": (0.0, classes - 1.0),
    }[task]
    return World(
        name="generic",
        inputs=names,
        sample_context=lambda rng: draw(rng, 1)[0],
        make_preference={"MT_REGRESSION": of_values, "MT_BINARY": of_yes_no, "MT_MULTICLASS": of_classes}[task],
        accepts=(
            (lambda predicted, preferred: np.abs(predicted - preferred) <= tolerance)
            if task == "MT_REGRESSION"
            else exactly
        ),
        tolerance=tolerance,
        limits=limits,
        weekend=lambda contexts: scaled(contexts)[:, 0] > 3.0 / 7.0,
        evening=lambda contexts: scaled(contexts)[:, -1] > 0.0,
        same_kind=lambda contexts, anchor: np.abs(scaled(contexts)[:, 0] - scaled(anchor[None])[:, 0]) < 0.25,
        contexts_at=lambda rng, days: draw(rng, len(days)),
        label=None if task == "MT_REGRESSION" else label,
    )


def _ranges(package: Package) -> tuple[tuple[str, ...], Array, Array, Array]:
    """Names, centres, half widths of the inputs, and which of them have a range."""
    inputs, source = package.usual_inputs, package.manifest["input"]
    low = np.array([np.nan if each["low"] is None else each["low"] for each in inputs], dtype=float)
    high = np.array([np.nan if each["high"] is None else each["high"] for each in inputs], dtype=float)
    if source["dtype"] != "float32":
        # what int8 can say at all
        ends = source["scale"] * (np.array([-128.0, 127.0]) - source["zero_point"])
        low, high = np.where(np.isnan(low), ends[0], low), np.where(np.isnan(high), ends[1], high)
    bounded = np.isfinite(low) & np.isfinite(high)
    # with one end only, a standard normal beside it would often be refused: two wide from there
    low = np.where(np.isfinite(high) & ~np.isfinite(low), high - 2.0, low)
    high = np.where(np.isfinite(low) & ~np.isfinite(high), low + 2.0, high)
    bounded = np.isfinite(low) & np.isfinite(high)
    centre, scale = np.where(bounded, (low + high) / 2.0, 0.0), np.where(bounded, (high - low) / 2.0, 1.0)
    # rounded to float32 and back, the ends must stay inside
    return tuple(each["name"] for each in inputs), centre, scale * (1.0 - 1e-6), bounded
