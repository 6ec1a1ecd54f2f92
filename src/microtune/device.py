"""``Device``: the Python face of a built package. It runs the same C as the chip, through the C interface."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from microtune.errors import BuildError, DeviceError
from microtune.interface import (
    DAY,
    LAST,
    MESSAGES,
    ORIGINS,
    RECOGNISE,
    SENSOR_FLAGS,
    SENSOR_WORDS,
    STAGES,
    STATUS,
    Metrics,
    Prediction,
    Status,
    Update,
    interface_of,
    load_library,
    quantized,
)
from microtune.ops.scaled import LARGEST_WHOLE
from microtune.package import Package, open_package
from microtune.storage import LOG, Storage, port_of


def _is_count(value: object, below: int) -> bool:
    """Whether it is a whole number from 0 to before that one."""
    return isinstance(value, Integral) and 0 <= int(value) < below


class Device:
    """A learning device in this process.

    ``state`` names the file that plays the non-volatile memory: it is created when missing and survives
    power cuts as flash does. Without it nothing is kept. Calls the C refuses raise DeviceError, with the
    device's state unchanged.

    ``clock`` tells seconds, as ``time.time`` does, and goes on while the device is off: without it absence is not
    noticed, and ``forget(days=...)`` cannot be asked for. ``may_learn`` is asked before each slice of learning. What
    they raise comes out of the call that asked them: the clock has stood still for it, and nothing more was learnt.
    """

    def __init__(
        self,
        package: str | os.PathLike[str] | Package,
        state: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] | None = None,
        may_learn: Callable[[], bool] | None = None,
    ) -> None:
        self.package = open_package(package)
        manifest = self.package.manifest
        if "host" not in manifest["targets_built"]:
            raise BuildError(
                f"{self.package.directory} has no library for this host; build it with targets=['host', ...]"
            )
        file = manifest["targets_built"]["host"]["file"]
        self._library = load_library(self.package.directory / file, manifest["files"][file])
        self._name = self.package.name
        self._inputs = self.package.input_size
        self._outputs, self._targets = int(manifest["outputs"]), int(manifest["targets"])
        pointer = ctypes.sizeof(ctypes.c_void_p)
        size = (pointer + manifest["layout"]["bytes"] + pointer - 1) // pointer * pointer
        self._memory = (ctypes.c_uint64 * (size // 8 + 1))()
        self._offsets = {each["name"]: pointer + each["offset"] for each in manifest["layout"]["fields"]}
        self._c = interface_of(self.package.fixed)
        self._output = np.zeros(self._outputs, self._c.dtype)
        log = LOG if manifest["learner"]["log"] else 0
        self._storage = None if state is None else Storage(Path(state), manifest["layout"]["saved"], log=log)
        self._raised: list[BaseException] = []
        self._port = port_of(self._storage, clock, may_learn, self._raised)
        self._functions: dict[str, Any] = {}
        self._busy = False
        status = self._call("init", None if self._port is None else ctypes.byref(self._port))
        # the number of the state that was loaded; 0 when none was
        origin = "saved state" if self._field("sequence", 0, 1).any() else "base"
        if origin == "base" and self._storage is not None and self._storage.damaged:
            origin = ORIGINS["MT_STATE_CORRUPT"]
        self._origin = ORIGINS.get(STATUS[status], origin)
        if status == 1:
            raise self._error(status)

    @property
    def address(self) -> int:
        """Where its C struct lies in this process: for C that runs the device itself, as the simulator does."""
        return ctypes.addressof(self._memory)

    def entry(self, verb: str) -> int:
        """The address of its C function ``NAME_verb``."""
        return ctypes.cast(self._library[f"{self._name}_{verb}"], ctypes.c_void_p).value or 0

    def _call(self, verb: str, *arguments: Any) -> int:
        function = self._functions.get(verb)
        if function is None:
            function = self._functions[verb] = self._library[f"{self._name}_{verb}"]
            function.restype = ctypes.c_int
        status = int(function(ctypes.byref(self._memory), *arguments))
        if self._raised:
            error = self._raised[0]
            self._raised.clear()
            raise error
        return status

    def _error(self, status: int, detail: str = "") -> DeviceError:
        name = STATUS[status] if status < len(STATUS) else f"status {status}"
        return DeviceError(f"{MESSAGES.get(name, name)}{detail} ({name})", name)

    def _vector(self, values: npt.ArrayLike, size: int, what: str) -> np.ndarray:
        try:
            vector = np.ascontiguousarray(values, dtype=np.float32).ravel()
        except (TypeError, ValueError) as error:
            raise DeviceError(f"{what} must be numbers: {error}", "MT_INVALID_ARGUMENT") from error
        if vector.size != size:
            is_class = what == "the target" and self.package.manifest["task"] == "MT_MULTICLASS"
            wanted = "one class index" if is_class else f"{size} {'value' if size == 1 else 'values'}"
            raise DeviceError(f"{what} must have {wanted}, not {vector.size}", "MT_INVALID_ARGUMENT")
        return vector

    def _target(self, y: npt.ArrayLike) -> np.ndarray:
        """A target as float32. What fixed-point numbers cannot hold is refused here, as the C refuses NaN."""
        target = self._vector(y, self._targets, "the target")
        if self.package.fixed and not (np.abs(target) <= LARGEST_WHOLE).all():
            raise self._error(STATUS.index("MT_TARGET_INVALID"), self._wrong_target(target))
        return target

    def _check(self, status: int, x: np.ndarray | None = None, target: np.ndarray | None = None) -> None:
        if status == 0:
            return
        detail = self._wrong_target(target) if target is not None and STATUS[status] == "MT_TARGET_INVALID" else ""
        if x is not None and STATUS[status] in ("MT_INPUT_NOT_FINITE", "MT_INPUT_OUT_OF_RANGE"):
            for value, each in zip(x, self.package.inputs, strict=True):
                low = -np.inf if each["low"] is None else each["low"]
                high = np.inf if each["high"] is None else each["high"]
                if not (np.isfinite(value) and np.float32(low) <= value <= np.float32(high)):
                    detail = f": {each['name']} = {value:g}, allowed {low:g} to {high:g}"
                    break
        raise self._error(status, detail)

    def _wrong_target(self, target: np.ndarray) -> str:
        """Which value of a target the C refused, and what would do."""
        task = self.package.manifest["task"]
        if task == "MT_MULTICLASS":
            return f": {target[0]:g} is no class; they are 0 to {self._outputs - 1}"
        low, high = (0.0, 1.0) if task == "MT_BINARY" else (-np.inf, np.inf)
        taken = np.isfinite(target) & (target >= low) & (target <= high)
        if taken.all():  # of the residual head, whose values have bounds of their own, and of fixed-point numbers
            return f": {target[int(np.argmax(np.abs(target)))]:g} is too large"
        index = int(np.argmin(taken))
        wanted = "0 to 1" if task == "MT_BINARY" else "finite"
        return f": value {index} is {target[index]:g}, and must be {wanted}"

    def stored_input(self, x: npt.ArrayLike) -> np.ndarray:
        """An input as the C takes it: int8 arrays as they are; numbers for an int8 model are quantised."""
        described = self.package.manifest["input"]
        if described["dtype"] == "float32":
            return self._vector(x, self._inputs, "the input")
        given = np.asarray(x)
        if given.dtype == np.int8 and given.size == self._inputs:
            return np.ascontiguousarray(given).ravel()
        return quantized(self._vector(x, self._inputs, "the input"), described["scale"], described["zero_point"])

    def predict(self, x: npt.ArrayLike) -> Prediction:
        """Predict for one input; ``observe`` may follow. Raises DeviceError for NaN, infinity, range and shape.

        Of an int8 model, x holds int8 as the device takes it, or real numbers, which are quantised here.
        """
        vector = self.stored_input(x)
        found: Any = self._c.prediction()
        self._check(
            self._call(
                "predict",
                vector.ctypes.data_as(ctypes.c_void_p),
                self._output.ctypes.data_as(ctypes.c_void_p),
                ctypes.byref(found),
            ),
            vector,
        )
        return Prediction(
            self._c.read_all(self._output), self._c.read(found.confidence), bool(found.fallback), bool(found.suspect),
            found.profile,
        )  # fmt: skip

    def observe(self, y: npt.ArrayLike) -> None:
        """What the person did after the last prediction: outputs, a class index, or 0 to 1 for each output.

        Raises DeviceError for what cannot be that, and where no prediction waits for it.
        """
        target = self._target(y)
        given = self._c.written(target)
        self._check(self._call("observe", given.ctypes.data_as(ctypes.c_void_p)), target=target)

    def idle(self) -> Update | None:
        """Learn if there is cause. None when there was not, and when an update is not finished yet: see ``busy``."""
        found: Any = self._c.update()
        status = self._call("idle", ctypes.byref(found))
        self._busy = bool(found.more)
        self._check(status)
        if not found.ran:
            return None
        losses = self._c.read(found.loss_before), self._c.read(found.loss_after)
        return Update(bool(found.accepted), *losses, found.steps, bool(found.refused))

    @property
    def busy(self) -> bool:
        """Whether the last ``idle`` left something to learn: its slices were used up, or the port forbade more."""
        return self._busy

    def step(self, x: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """One plain optimiser step on one sample, no policy; returns the loss before the step.

        A prediction that waits for its observation is given up. Raises DeviceError with ``Bayes``, which has no step.
        """
        inputs, target = self.stored_input(x), self._target(y)
        if self.package.manifest["optimizer"]["name"] == "Bayes":
            what = "Bayes() refits its head as a whole and has no plain step: use observe and idle"
            raise DeviceError(what, "MT_INVALID_ARGUMENT")
        loss, given = self._c.number(), self._c.written(target)
        self._check(
            self._call(
                "step",
                inputs.ctypes.data_as(ctypes.c_void_p),
                given.ctypes.data_as(ctypes.c_void_p),
                ctypes.byref(loss),
            ),
            inputs,
            target,
        )
        return self._c.read(loss.value)

    def _field(self, name: str, offset: int, size: int, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """A view of a member of the struct, ``offset`` bytes into it."""
        return np.frombuffer(self._memory, dtype, size, self._offsets[name] + offset)

    def _personal(self, offset: int) -> int:
        """That offset in the person and context of the last prediction."""
        last = int(np.frombuffer(self._memory, np.uint16, 1, self._offsets["state"] + LAST)[0])
        return offset + last * int(self.package.manifest["layout"]["people"]["bytes"])

    def parameters(self) -> dict[str, np.ndarray]:
        """{name: array} of what learns, for the person and context of the last prediction (copies)."""
        return {
            each["name"]: self._field(
                "parameters", self._personal(each["offset"]), math.prod(each["shape"]), each["dtype"]
            )
            .reshape(each["shape"])
            .copy()
            for each in self.package.manifest["tensors"]["trained"]
        }

    def load_parameters(self, values: Mapping[str, npt.ArrayLike]) -> None:
        """Set parameters by name; those not named stay. Nothing changes unless all of them fit."""
        known = {each["name"]: each for each in self.package.manifest["tensors"]["trained"]}
        checked = {}
        for name, value in values.items():
            if name not in known:
                raise DeviceError(
                    f"no parameter '{name}' learns here. Known: {', '.join(known)}", "MT_INVALID_ARGUMENT"
                )
            dtype = np.dtype(known[name]["dtype"])
            try:
                given = np.asarray(value)
                array = given.astype(dtype)
            except (TypeError, ValueError) as error:
                raise DeviceError(f"parameter '{name}' must be numbers: {error}", "MT_INVALID_ARGUMENT") from error
            if list(array.shape) != known[name]["shape"] or not np.isfinite(given).all():
                raise DeviceError(
                    f"parameter '{name}' takes finite values of shape {tuple(known[name]['shape'])}, not {array.shape}",
                    "MT_INVALID_ARGUMENT",
                )
            if dtype.kind == "i" and (array != given).any():
                raise DeviceError(f"parameter '{name}' takes whole numbers of type {dtype}", "MT_INVALID_ARGUMENT")
            checked[name] = array
        for name, array in checked.items():
            where = self._personal(known[name]["offset"])
            self._field("parameters", where, array.size, array.dtype)[:] = array.ravel()
        self._field("pending", 3, 1, np.uint8)[:] = 1  # what was suggested is not what the model answers by now

    def state(self) -> bytes:
        """The bytes that ``save`` writes: the same on every target after the same calls."""
        pointer = ctypes.sizeof(ctypes.c_void_p)
        return bytes(memoryview(self._memory).cast("B")[pointer : pointer + self.package.manifest["layout"]["saved"]])

    def metrics(self) -> Metrics:
        """The counters since the factory."""
        found: Any = self._c.metrics()
        self._check(self._call("metrics", ctypes.byref(found)))
        counted = {each.name: getattr(found, each.name) for each in fields(Metrics)}
        return Metrics(**counted | {"mean_error": self._c.read(found.mean_error)})

    def status(self) -> Status:
        """How well the device knows its person by now."""
        found: Any = self._c.report()
        self._check(self._call("status", ctypes.byref(found)))
        sequence = int(self._field("sequence", 0, 1, np.uint32)[0])
        storage, port = self._storage, self._port
        erases = 0 if storage is None or port is None else storage.erases(self._library, port, sequence)
        return Status(
            self._c.read(found.learnt), self._c.read(found.sure), found.uses, found.samples, found.waiting,
            self._origin, erases, STAGES[found.stage], found.profile, found.teaching, self._suspects(),
        )  # fmt: skip

    def _suspects(self) -> dict[str, tuple[str, ...]]:
        """The inputs that are not believed, and why."""
        if not self.package.manifest["sensors"]:
            return {}
        words = self._field("sensors", 0, self._inputs * SENSOR_WORDS, np.uint32)
        flags = words[SENSOR_WORDS - 1 :: SENSOR_WORDS] >> 24
        return {
            each["name"]: tuple(text for bit, text in SENSOR_FLAGS.items() if flag & bit)
            for each, flag in zip(self.package.inputs, flags.tolist(), strict=True)
            if flag
        }

    def select_profile(self, profile: int | None) -> None:
        """Who uses the device from now on; None: whoever's contexts these are, if it can recognise them."""
        learner = self.package.manifest["learner"]
        if learner["profiles"] == 1:
            raise DeviceError("this device has one profile: build it with Learner(profiles=2)", "MT_INVALID_ARGUMENT")
        if profile is None and not learner["recognise"]:
            what = "this device does not recognise people: build it with Learner(recognise=True)"
            raise DeviceError(what, "MT_INVALID_ARGUMENT")
        if profile is not None and not _is_count(profile, learner["profiles"]):
            raise DeviceError(f"there is no profile {profile!r}: 0 to {learner['profiles'] - 1}", "MT_INVALID_ARGUMENT")
        chosen = RECOGNISE if profile is None else int(profile)
        self._check(self._call("select_profile", ctypes.c_uint32(chosen)))

    def learning_mode(self, uses: int) -> None:
        """For the next ``uses`` observations learn after each one, and take a change of habits as meant; 0 ends it."""
        if not _is_count(uses, 2**32):
            raise DeviceError(f"learning_mode({uses!r}): a number of observations, 0 or more", "MT_INVALID_ARGUMENT")
        self._check(self._call("learning_mode", ctypes.c_uint32(int(uses))))

    def forget(self, last: int | None = None, days: float | None = None) -> None:
        """Of the person and context of the last prediction: undo the last update that was taken, and drop the samples
        it was the first to learn from and those since; or the ``last`` observations; or those of the last ``days``,
        which takes a clock."""
        if last is not None and days is not None:
            raise DeviceError("forget takes last=... or days=..., not both", "MT_INVALID_ARGUMENT")
        if last is not None:
            if not _is_count(last, 2**32):
                raise DeviceError(f"forget(last={last!r}): a number of observations", "MT_INVALID_ARGUMENT")
            self._check(self._call("forget_last", ctypes.c_uint32(int(last))))
        elif days is not None:
            number: Any = days
            if not (isinstance(number, Real) and 0 <= float(number) * DAY < 2**32):
                raise DeviceError(f"forget(days={days!r}): a number of days up to 49000", "MT_INVALID_ARGUMENT")
            if self._port is None or not self._port.now:
                raise DeviceError("forget(days=...) takes a clock: Device(..., clock=time.time)", "MT_INVALID_ARGUMENT")
            self._check(self._call("forget_since", ctypes.c_uint32(int(days * DAY))))
        else:
            self._check(self._call("forget"))

    def reset(self) -> None:
        """Back to the factory's model. The metrics stay, and count the reset."""
        self._check(self._call("reset"))

    def save(self) -> None:
        """Write the state to the storage now (``idle`` does it after each update)."""
        self._check(self._call("save"))
