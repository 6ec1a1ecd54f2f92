"""The little devices of little_device.c in Python: their memory field by field, one face for tests."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import microtune.toolchain

HERE = Path(__file__).parent
RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
TARGETS = RUNTIME.parent / "targets"
INCLUDE = [RUNTIME, TARGETS]
SOURCES = [
    *(RUNTIME / f"mt_{name}.c" for name in ("store", "gradient", "learner")),
    TARGETS / "memory_port.c",
]
OK, INVALID, NOT_FINITE, OUT_OF_RANGE, BAD_TARGET, NO_PREDICTION, STORAGE_FAILED = range(7)
CORRUPT, FOREIGN = 7, 8
REGRESSION, BINARY, MULTICLASS = range(3)
OUTPUTS = {REGRESSION: 1, BINARY: 2, MULTICLASS: 3}


def structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


U8, U16, U32, F32, POINTER = (
    ctypes.c_uint8,
    ctypes.c_uint16,
    ctypes.c_uint32,
    ctypes.c_float,
    ctypes.c_void_p,
)
COUNTS = (
    "predictions fallbacks observations overrides refused accepted rolled_back "
    "forgets resets saves recoveries"
)
Metrics = structure("Metrics", **dict.fromkeys(COUNTS.split(), U32), mean_error=F32)
State = structure(
    "State", random=U32, **dict.fromkeys(["count", "next", "fresh", "undo", "since", "reserved"], U16),
    uses=U32, hits=U32, recent=U32, confidence=F32, error=F32, metrics=Metrics,
)  # fmt: skip
Saved = structure(
    "Saved", state=State, parameters=F32 * 12, previous=F32 * 12, optimizer=F32 * 12, samples=F32 * 100
)
Ram = structure(
    "Ram", saved=Saved, sequence=U32, pending_cut=F32 * 3, pending_output=F32 * 3, candidate=F32 * 12,
    candidate_optimizer=F32 * 12, output=F32 * 3, pending=U8,
)  # fmt: skip
Model = structure(
    "Model", rule=POINTER, identity=U32, task=ctypes.c_int,
    inputs=U32, cut=U32, outputs=U16, targets=U16, parameters=U32, floats=U32, optimizer=U32,
    **dict.fromkeys(["base", "low", "high", "target_low", "target_high"], POINTER),
    **dict.fromkeys(["backbone", "head", "loss", "step", "begin"], POINTER),
)  # fmt: skip
Settings = structure(
    "Settings", **dict.fromkeys(["buffer", "every", "epochs", "folds"], U16), restart=U8, sequential=U8,
    pull=F32, tolerance=F32, threshold=F32, fallback=POINTER,
)  # fmt: skip
Port = structure("Port", context=POINTER, read=POINTER, write=POINTER, erase=POINTER, size=U32, sector=U32, log=U32, now=POINTER, may_learn=POINTER)
Little = structure(
    "Little", ram=Ram, model=Model, settings=Settings, port=Port, has_port=U32, broken=U32,
    fallback=F32 * 3, storage=U8 * 8192,
)  # fmt: skip
Prediction = structure("Prediction", confidence=F32, fallback=U8, best=U16)
Update = structure("Update", ran=U8, accepted=U8, loss_before=F32, loss_after=F32, steps=U32)
Report = structure("Report", learnt=F32, sure=F32, uses=U32, samples=U16, waiting=U16)


class Device:
    """A little device with a port over memory."""

    def __init__(self, library: ctypes.CDLL, task: int = REGRESSION, **chosen: float) -> None:
        self.library, self.task, self.little = library, task, Little()
        library.little_create(ctypes.byref(self.little), task, 1)
        for name, value in chosen.items():
            setattr(self.little.settings, name, value)
        assert self.call("init") == OK

    def call(self, name: str, *arguments: Any) -> int:
        return int(self.library[f"little_{name}"](ctypes.byref(self.little), *arguments))

    def predict(self, x: Sequence[float]) -> tuple[int, list[float], Any]:
        output, prediction = (F32 * 3)(), Prediction()
        status = self.call("predict", (F32 * 3)(*x), output, ctypes.byref(prediction))
        return status, list(output)[: OUTPUTS[self.task]], prediction

    def observe(self, *y: float) -> int:
        return self.call("observe", (F32 * 3)(*y))

    def idle(self, expected: int = OK) -> Any:
        update = Update()
        assert self.call("idle", ctypes.byref(update)) == expected
        return update

    def use(self, x: Sequence[float], *y: float) -> Any:
        assert self.predict(x)[0] == OK
        assert self.observe(*y) == OK
        return self.idle()

    @property
    def state(self) -> Any:
        return self.little.ram.saved.state

    @property
    def metrics(self) -> Any:
        return self.state.metrics

    @property
    def parameters(self) -> list[float]:
        return list(self.little.ram.saved.parameters)[: self.little.model.parameters]

    def memory(self) -> bytes:
        """All RAM but the count of refusals."""
        kept = Ram.from_buffer_copy(self.little.ram)
        kept.saved.state.metrics.refused = 0
        return bytes(kept)

    def report(self) -> Any:
        report = Report()
        self.call("report", ctypes.byref(report))
        return report


def life(seed: int, uses: int, offset: float = 1.0, noise: float = 0.05) -> list[tuple[list[float], float]]:
    """Contexts and what a person sets: the base plus an offset that depends on the first input."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1, 1, (uses, 3))
    y = (
        x @ [0.5, -0.25, 0.125]
        + 0.25
        + offset * (1 + 0.5 * x[:, 0])
        + noise * generator.standard_normal(uses)
    )
    return [(list(map(float, row)), float(value)) for row, value in zip(x, y, strict=True)]
