"""What 42 numbers learn of a person in 20 songs, what that costs, and what a larger teacher is worth to them.

    python -m benchmarks.playlist

Everything of ``examples/playlist`` on people, songs and a base that were not used in tuning. Then the student beside a
network of its size that is trained alone, on the plays' hard answers, with as many steps from the same beginning; over
ten populations, and fewer and more plays. Where PyTorch is there ``mt.distill`` does the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

import microtune as mt
from benchmarks.results import record
from microtune import gallery

SEEDS = range(40, 50)
"""Populations of the comparison; settings were chosen on 1 to 3."""
EVENTS = (250, 500, 1000, 4000, 20_000)
JUDGES, PLAYS = 80, 40
"""People, and plays of each, on whom students are compared; none of those that taught them."""
STOPPED = 1000
"""Steps after which the network alone does best with as many plays as the student has, on the tuning populations: it is
given the advantage of being stopped in time as well."""
TORCH_EPOCHS, TORCH_RATE = 40, 0.02
GAIN, FLOAT_BYTES, INTEGER_BYTES, FLOAT_UPDATE, INTEGER_UPDATE = 0.10, 4_608, 512, 20_000, 4_000
"""What was promised: area gained after 20 songs; bytes of RAM of the device; instructions of a micro-update on
Cortex-M4F in floats, on Cortex-M0 in integers."""

Judge = Callable[[Any], dict[str, float]]


def measure() -> dict[str, Any]:
    """{"float", "integers", "morning"} as ``microtune demo playlist --json``; {"distillation"}: by number of plays."""
    run = gallery.load_example("playlist")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = _example(run, folder)
        found["distillation"] = _distillation(folder)
    return found


def _example(run: ModuleType, folder: Path) -> dict[str, Any]:
    made = run.factory(run.BASE_SEED, folder)
    plans = run.plans(made.parameters, made.inputs)
    packages = {kind: mt.build(plan, folder / f"playlist_{kind}", ["host"]) for kind, plan in plans.items()}
    found: dict[str, Any] = run.figures(packages, run.listeners(run.LISTENERS))
    mornings = run.plans(run.calm_mornings(), made.inputs)
    runs = {kind: run.morning_run(mt.build(plan, folder / f"m_{kind}"), plan) for kind, plan in mornings.items()}
    found["morning"] = {
        kind: {name: round(getattr(each, name), 3) for name in ("first", "learnt", "now")}
        for kind, each in runs.items()
    }
    return found


def _judge(network: ModuleType, others: Any) -> Judge:
    """Area under the curve and log loss of parameters on other people's plays."""

    def judged(parameters: Any) -> dict[str, float]:
        logits = network.logits(parameters, others.inputs)
        return {
            "area": float(roc_auc_score(others.liked, logits)),
            "loss": float(log_loss(others.liked, 1.0 / (1.0 + np.exp(-logits)))),
        }

    return judged


def _distillation(folder: Path) -> dict[str, Any]:
    """By number of plays: what each kind of training reaches on average, and how much better the student is."""
    teacher, network = (importlib.import_module(name) for name in ("teacher", "network"))
    rows: dict[int, list[dict[str, dict[str, float]]]] = {count: [] for count in EVENTS}
    for seed in SEEDS:
        listening = teacher.population(seed)
        judged = _judge(network, teacher.population(seed + 1000, JUDGES, PLAYS))
        known = teacher.train_teacher(listening, seed)
        for count in EVENTS:
            some = listening.some(np.random.default_rng((seed, 0x5EE)), count)
            soft = known.predict_proba(some.inputs)[:, 1]
            row = {
                "distilled": judged(teacher.train_student(some.inputs, soft, seed, folder)),
                "alone": judged(teacher.train_student(some.inputs, some.liked, seed, folder)),
            }
            if count == teacher.EVENTS:
                row["alone, stopped"] = judged(teacher.train_student(some.inputs, some.liked, seed, folder, STOPPED))
                row |= _with_torch(teacher, network, known, some, judged, seed)
            rows[count].append(row)
    return {"seeds": len(SEEDS), "plays": {str(count): _summary(each) for count, each in rows.items()}}


def _with_torch(
    teacher: ModuleType, network: ModuleType, known: Any, some: Any, judged: Judge, seed: int
) -> dict[str, dict[str, float]]:
    """The same by ``mt.distill``, listening to the teacher alone and to the plays alone; nothing without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    class Student(torch.nn.Module):
        """The network of ``examples/playlist/network.py`` up to its logit."""

        def __init__(self) -> None:
            super().__init__()
            for name, values in teacher.beginning().items():
                self.register_parameter(name, torch.nn.Parameter(torch.tensor(values)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            own = torch.cat([getattr(self, name) for name in network.TERMS])
            gate = 1.0 + x[:, -network.SLOTS :] @ self.time
            return (gate * (x[:, : -network.SLOTS] @ (own * self.scoring)))[:, None]

    def logits(x: Any) -> np.ndarray:
        chances = known.predict_proba(np.asarray(x))
        return np.asarray(np.log(chances[:, 1:] / chances[:, :1]), np.float32)

    torch.set_num_threads(1)
    data = some.inputs.astype(np.float32), some.liked.astype(np.float32).reshape(-1, 1)
    found = {}
    for name, weight in (("mt.distill", 1.0), ("mt.distill, alone", 0.0)):
        trained = mt.distill(
            Student(), logits, data, temperature=1.0, weight=weight, loss="binary_cross_entropy",
            epochs=TORCH_EPOCHS, lr=TORCH_RATE, seed=seed,
        )  # fmt: skip
        found[name] = judged({name: each.detach().numpy() for name, each in trained.named_parameters()})
    return found


def _summary(rows: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Means of each kind of training, and how much better the student is than those that were trained alone."""
    found: dict[str, Any] = {
        name: {what: round(float(np.mean([row[name][what] for row in rows])), 4) for what in ("area", "loss")}
        for name in rows[0]
    }
    found["better"] = {
        name: {"populations": sum(row["distilled"]["area"] > row[name]["area"] for row in rows)}
        | {
            what: _mean_and_error([sign * (row["distilled"][what] - row[name][what]) for row in rows])
            for what, sign in (("area", 1), ("loss", -1))
        }
        for name in ("alone", "alone, stopped")
        if name in rows[0]
    }
    return found


def _mean_and_error(differences: list[float]) -> dict[str, float]:
    """Mean of paired differences, and its standard error."""
    found = np.array(differences)
    error = found.std(ddof=1) / np.sqrt(len(found))
    return {"mean": round(float(found.mean()), 4), "error": round(float(error), 4)}


def run_playlist() -> bool:
    """All of it; False when a promise is not kept."""
    found = measure()
    record("playlist", found)
    better = found["distillation"]["plays"]["500"]["better"]
    promises: tuple[tuple[str, float, str, float], ...] = (
        ("parameters", found["float"]["cost"]["parameters"], "<=", 42),
        ("area gained after 20 songs, floats", found["float"]["gain"]["20"], ">=", GAIN),
        ("area gained after 20 songs, integers", found["integers"]["gain"]["20"], ">=", GAIN),
        ("RAM of the device in floats, bytes", found["float"]["cost"]["ram"], "<=", FLOAT_BYTES),
        ("RAM of the device in integers, bytes", found["integers"]["cost"]["ram"], "<=", INTEGER_BYTES),
        ("micro-update on Cortex-M4F, floats", found["float"]["cost"]["step"], "<=", FLOAT_UPDATE),
        ("micro-update on Cortex-M0, integers", found["integers"]["cost"]["step"], "<=", INTEGER_UPDATE),
        *(
            (f"student, area above {name}", each["area"]["mean"], ">=", 2 * each["area"]["error"])
            for name, each in better.items()
        ),
    )
    print("\nthe playlist: 42 numbers and a hundred people")
    held = True
    for name, value, side, limit in promises:
        good = value >= limit if side == ">=" else value <= limit
        held = held and good
        print(f"  {name:38} {value:>10,.6g}   {side} {limit:,.6g}{'' if good else '   MISSED'}")
    return held


def main() -> None:
    """Command line."""
    print(json.dumps(measure(), indent=2))


if __name__ == "__main__":
    main()
