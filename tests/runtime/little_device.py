"""The little devices of little_device.c in Python: their memory field by field, one face for tests."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import microtune.toolchain
from microtune.compiler.sources import runtime_sources

HERE = Path(__file__).parent
RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
TARGETS = RUNTIME.parent / "targets"
INCLUDE = [RUNTIME, TARGETS]
SOURCES = [
    *(
        path
        for path in runtime_sources('#include "mt_gradient.h" mt_gradient_change mt_gradient_remember').values()
        if path.suffix == ".c"
    ),
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
    "forgets resets saves recoveries suspect changes"
)
SETS, STORAGE = 4, 16384
Metrics = structure("Metrics", **dict.fromkeys(COUNTS.split(), U32), mean_error=F32)
State = structure(
    "State", **dict.fromkeys(["version", "profiles", "contexts", "reserved"], U16),
    **dict.fromkeys(["people_at", "person_bytes", "parameters_at", "parameters", "structure"], U32),
    profile=U16, last=U16, teaching=U32, metrics=Metrics,
)  # fmt: skip
Samples = structure("Samples", **dict.fromkeys(["count", "next", "kept", "reserved"], U16), seen=U32)
Counted = structure(
    "Counted", random=U32, samples=Samples, **dict.fromkeys(["fresh", "undo", "since", "eager"], U16),
    **dict.fromkeys(["uses", "hits", "recent", "seen"], U32), returned=U16, reserved=U16, confidence=F32, error=F32,
)  # fmt: skip
Person = structure(
    "Person", person=Counted, **dict.fromkeys(["parameters", "previous", "optimizer", "importance"], F32 * 12),
    seen=U32 * 3, change=U32 * 4, changing=U32 * 8, samples=F32 * (26 * 6),
)  # fmt: skip
Saved = structure("Saved", state=State, people=Person * SETS)
Work = structure(
    "Work", begun=U8, phase=U8, set=U16, random=U32,
    **dict.fromkeys(["fold", "epoch", "position", "measured", "steps"], U32),
    **dict.fromkeys(["mask", "half", "add", "factor"], U32), scores=F32 * 8,
)  # fmt: skip
Ram = structure(
    "Ram", saved=Saved, sequence=U32, pending_cut=F32 * 3, pending_output=F32 * 3, work=Work, candidate=F32 * 12,
    candidate_optimizer=F32 * 12, output=F32 * 3, pending=U8 * 4,
)  # fmt: skip
Model = structure(
    "Model", rule=POINTER, identity=U32, structure=U32, task=ctypes.c_int,
    inputs=U32, cut=U32, outputs=U16, targets=U16, parameters=U32, floats=U32, optimizer=U32,
    profiles=U16, contexts=U16, people_at=U32, person_bytes=U32, parameters_at=U32,
    **dict.fromkeys(["base", "pulls", "low", "high", "target_low", "target_high"], POINTER),
    **dict.fromkeys(["backbone", "head", "activate", "loss", "step", "begin", "person"], POINTER),
    **dict.fromkeys(["context", "recognise"], POINTER),
    **dict.fromkeys(["suspect", "begin_shared", "change", "remember", "log", "migrate"], POINTER),
)  # fmt: skip
Settings = structure(
    "Settings", **dict.fromkeys(["every", "epochs", "folds", "slice"], U16), restart=U8, sequential=U8,
    **dict.fromkeys(["caution", "pull", "rate", "memory", "recency", "disuse", "tolerance", "threshold"], F32),
    fallback=POINTER,
)  # fmt: skip
Port = structure(
    "Port", **dict.fromkeys(["context", "read", "write", "erase"], POINTER), size=U32, sector=U32, log=U32,
    now=POINTER, may_learn=POINTER,
)  # fmt: skip
SWITCHES = ("clock", "mood", "contexts", "reservoir", "in_place", "remembers", "changes")
Little = structure(
    "Little", ram=Ram, model=Model, settings=Settings, port=Port, has_port=U32, broken=U32,
    **dict.fromkeys(SWITCHES, U32), fallback=F32 * 3, pulls=F32 * 12, storage=U8 * STORAGE,
)  # fmt: skip
Prediction = structure("Prediction", confidence=F32, fallback=U8, suspect=U8, best=U16, profile=U16)
Update = structure("Update", ran=U8, accepted=U8, more=U8, loss_before=F32, loss_after=F32, steps=U32)
Report = structure(
    "Report", learnt=F32, sure=F32, uses=U32, samples=U16, waiting=U16, profile=U16, stage=U16, teaching=U32,
    suspect=U32,
)  # fmt: skip


class Device:
    """A little device with a port over memory; ``chosen``: its settings and switches."""

    def __init__(self, library: ctypes.CDLL, task: int = REGRESSION, **chosen: float) -> None:
        self.library, self.task, self.little = library, task, Little()
        library.little_create(ctypes.byref(self.little), task, 1)
        for name, value in chosen.items():
            setattr(self.little if name in SWITCHES else self.little.settings, name, value)
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

    def finish(self) -> list[Any]:
        """Idle until there is nothing more to learn; the updates finished."""
        updates, more = [], True
        while more:
            update = self.idle()
            more = update.more
            updates += [update] if update.ran else []
        return updates

    def use(self, x: Sequence[float], *y: float) -> Any:
        assert self.predict(x)[0] == OK
        assert self.observe(*y) == OK
        return self.idle()

    @property
    def state(self) -> Any:
        """What its people have in common."""
        return self.little.ram.saved.state

    @property
    def saved(self) -> bytes:
        return bytes(self.little.ram.saved)

    def person(self, index: int = 0) -> Any:
        """All that is kept of one of its people."""
        return self.little.ram.saved.people[index]

    @property
    def counted(self) -> Any:
        """The first person's counters."""
        return self.person().person

    @property
    def metrics(self) -> Any:
        return self.state.metrics

    @property
    def parameters(self) -> list[float]:
        return list(self.person().parameters)[: self.little.model.parameters]

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
    y = x @ [0.5, -0.25, 0.125] + 0.25 + offset * (1 + 0.5 * x[:, 0]) + noise * generator.standard_normal(uses)
    return [(list(map(float, row)), float(value)) for row, value in zip(x, y, strict=True)]
