"""What is usual for each input: the constants of ``runtime/mt_sensors.h``, learnt from the factory's samples.

docs/sensors.md says how a device decides with them, and what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtune.errors import PlanError
from microtune.tuning.learner import Input

LEAST_SAMPLES = 100
"""Samples needed: with fewer the lowest and highest of them say too little of what is still to come."""
MOST_VALUES = 16
"""An input with at most so many different values, evenly spaced, takes no other values ..."""
SAMPLES_PER_VALUE = 10
"""... when the samples hold, on average, each so many times."""
ROOM = 0.5
"""One value may lie so many times the range of the samples outside of it."""
OUTERMOST = 0.0005
"""Share of the samples on each side that the running mean's range leaves out."""
MEAN_ROOM = 0.125
"""The running mean may lie so many times its range outside of it."""
MANY_SAMPLES = 1000
"""With fewer, both rooms grow by the root of what is missing: the samples' own ends are the less certain."""
WINDOW = 16
"""Uses that the running mean is taken over."""
CHANCE = 1e-6
"""A value kept for as many uses as a sane sensor keeps it with this probability is stuck."""
REGULARITY = 4.0
"""A person's uses agree with the root of this order of the chance with which the factory's samples do."""
COMMONEST = 0.05
"""No value but the commonest has a larger share than this in an input that can be told to be stuck."""

TESTS = ("range", "stuck", "drift")

_LARGEST = float(np.finfo(np.float32).max)
_WIDEST = 1e30
"""An input whose samples are farther apart is not tested: no difference of two values within a range overflows."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sensors:
    """Which tests are made besides that of the range. ``ignore``: names of inputs that none is made of."""

    stuck: bool = True
    drift: bool = True
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ignore: Any = self.ignore
        if isinstance(ignore, str):
            raise PlanError(f"Sensors(ignore={self.ignore!r}): a tuple of names, such as ({self.ignore!r},)")


@dataclass(frozen=True)
class SensorModel:
    """Constants of one input, floats that are exact in float32, as in ``mt_sensor_model``.

    One value lies from ``low`` to ``high`` and, with a ``step`` above 0, at most ``step`` / 64 above low plus a whole
    number of steps. ``same``: a value other than ``common`` kept for so many uses is stuck; 0: none is. The running
    mean over ``window`` uses lies from ``mean_low`` to ``mean_high``; 0: it is not taken. ``off``: for each test
    that is not made, its name and why.
    """

    name: str
    low: float = -_LARGEST
    high: float = _LARGEST
    step: float = 0.0
    mean_low: float = -_LARGEST
    mean_high: float = _LARGEST
    common: float = 0.0
    same: int = 0
    window: int = 0
    off: dict[str, str] = field(default_factory=dict)

    @property
    def constants(self) -> dict[str, float]:
        """The C constants in the order of ``mt_sensor_model``."""
        names = ("low", "high", "step", "mean_low", "mean_high", "common", "same", "window")
        return {name: getattr(self, name) for name in names}

    @property
    def comment(self) -> str:
        """One line for the generated table: what is tested, and what is not and why."""
        tests = []
        if self.high < _LARGEST:
            steps = f" in steps of {self.step:.4g}" if self.step > 0 else ""
            tests.append(f"{self.low:.4g} to {self.high:.4g}{steps}")
        if self.same:
            tests.append(f"stuck after {self.same} uses")
        if self.window:
            tests.append(f"mean of {self.window} uses {self.mean_low:.4g} to {self.mean_high:.4g}")
        tests += [f"no test '{test}': {why}" for test, why in self.off.items()]
        return f"{self.name}: {'; '.join(tests)}"


def sensor_models(
    calibration: ArrayLike, inputs: Sequence[Input], sensors: Sensors | None = None
) -> tuple[SensorModel, ...]:
    """What is usual for each input, from the factory's samples (n, inputs), of as many households as there are.

    Samples in the order they were taken help: how long a value was kept is seen from them. Raises PlanError when
    there are fewer than LEAST_SAMPLES, when one is not finite, or when the inputs are not as many.
    """
    chosen = Sensors() if sensors is None else sensors
    # float32: what the device is given
    samples = np.asarray(calibration, np.float32).astype(np.float64)
    if samples.ndim != 2 or samples.shape[1] != len(inputs):
        raise PlanError(
            f"calibration has the shape {samples.shape}; for the sensors it must be (samples, {len(inputs)}), one "
            f"column for each input"
        )
    if len(samples) < LEAST_SAMPLES:
        raise PlanError(
            f"calibration holds {len(samples)} samples; to know what is usual for the sensors at least "
            f"{LEAST_SAMPLES} are needed. Give more of the factory's samples, or set sensors=False"
        )
    if not np.isfinite(samples).all():
        row, column = np.argwhere(~np.isfinite(samples))[0]
        raise PlanError(
            f"calibration: sample {row} has {samples[row, column]} for the input '{inputs[column].name}'; all must be "
            "finite"
        )
    names = [each.name for each in inputs]
    unknown = [name for name in chosen.ignore if name not in names]
    if unknown:
        raise PlanError(f"Sensors(ignore=...): there is no input '{unknown[0]}'. There are: {', '.join(names)}")
    return tuple(_model(samples[:, i], each.name, chosen) for i, each in enumerate(inputs))


def _model(column: Floats, name: str, sensors: Sensors) -> SensorModel:
    """The model of one input from its samples (n,)."""
    values, counts = np.unique(column, return_counts=True)
    extent = float(values[-1] - values[0])
    if name in sensors.ignore:
        return SensorModel(name, off=dict.fromkeys(TESTS, "not wanted"))
    if extent == 0.0:
        return SensorModel(name, off=dict.fromkeys(TESTS, f"always {values[0]:.4g} in the samples"))
    if extent > _WIDEST:
        return SensorModel(name, off=dict.fromkeys(TESTS, f"its samples are more than {_WIDEST:g} apart"))
    rooms = max(1.0, math.sqrt(MANY_SAMPLES / len(column)))
    step = _step(values, len(column))
    if step > 0.0:
        room = math.floor(ROOM * round(extent / step)) * step if len(values) > 2 else 0.0
        # exact values lie in the middle of what is allowed
        low, high = values[0] - room - step / 128, values[-1] + room + step / 128
        why = f"takes {len(values)} values, and a person may always use one"
        return SensorModel(name, _single(low), _single(high), _single(step), off={"stuck": why, "drift": why})
    found = SensorModel(name, _single(values[0] - rooms * ROOM * extent), _single(values[-1] + rooms * ROOM * extent))
    common, same, why = _patience(column, values, counts)
    if not sensors.stuck:
        why = "not wanted"
    found = replace(found, off={"stuck": why}) if why else replace(found, common=common, same=same)
    if not sensors.drift:
        return replace(found, off=found.off | {"drift": "not wanted"})
    # not its extremes: they move out the farther, the more samples there are
    inner = np.quantile(column, (OUTERMOST, 1.0 - OUTERMOST))
    room = rooms * MEAN_ROOM * float(inner[1] - inner[0])
    return replace(found, mean_low=_single(inner[0] - room), mean_high=_single(inner[1] + room), window=WINDOW)


def _step(values: Floats, samples: int) -> float:
    """The even distance of an input's few values (sorted, different), or 0 when it takes many or uneven ones."""
    if len(values) > MOST_VALUES or samples < SAMPLES_PER_VALUE * len(values):
        return 0.0
    smallest = float(np.min(np.diff(values)))
    steps = np.rint((values - values[0]) / smallest)
    # a mean over the whole extent, so that rounding of float32 does not add up
    step = float(values[-1] - values[0]) / float(steps[-1])
    is_even = steps[-1] < MOST_VALUES and np.all(np.abs(values - values[0] - steps * step) < step / 512)
    return step if is_even and step > 1e-4 * float(np.max(np.abs(values))) else 0.0


def _patience(column: Floats, values: Floats, counts: NDArray[np.int_]) -> tuple[float, int, str]:
    """The common value, after how many uses any other one is stuck, and why there is no such test, or ""."""
    order = np.argsort(counts, kind="stable")
    common = float(values[order[-1]]) if counts[order[-1]] > 1 else float("nan")
    share = float(counts[order[-2]]) / len(column)
    if share > COMMONEST:
        return 0.0, 0, f"{share:.0%} of the samples are {values[order[-2]]:.4g}, which is not even the commonest value"
    # that a regular person's use has the value of the one before
    again = share ** (1.0 / REGULARITY)
    uses = 1 + math.ceil(math.log(CHANCE) / math.log(again))
    uses = max(uses, 2 * _longest_run(column[column != common]) + 1)
    if uses > 255:
        return 0.0, 0, f"one value was kept for {(uses - 1) // 2} samples"
    # without a value that comes twice there is none to be exempted: one that no use can have
    return _single(common) if common == common else _LARGEST, uses, ""


def _longest_run(column: Floats) -> int:
    """Samples one after the other with the same value, at most."""
    ends = np.flatnonzero(np.diff(column, append=np.nan) != 0.0)
    return int(np.max(np.diff(ends, prepend=-1)))


def _single(value: float) -> float:
    """The nearest float32, as a float."""
    return float(np.float32(value))
