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
from textwrap import fill
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


TABLES = """\
| area under the curve after so many songs | {counts} |
|{rule}|
| floats: as delivered | {float_base} |
| learning | {float_learnt} |
| **gained** | {float_gain} |
| people it harmed by more than 0.01, % | {float_harmed} |
| integers: as delivered | {integers_base} |
| learning | {integers_learnt} |
| **gained** | {integers_gain} |
| people it harmed by more than 0.01, % | {integers_harmed} |

Standard error of what is gained after 20 songs: {float_error:.3f} in floats, {integers_error:.3f} in integers.
Where the player takes the best of three songs, {before:.0f} % are heard to the end as delivered, and after 20 songs
{after:.0f} % (in integers {after_integers:.0f} %).

| | floats, Cortex-M4F | integers, Cortex-M0 |
|---|---|---|
| parameters that learn | {float[parameters]} | {integers[parameters]} |
| RAM of the whole device, bytes | {float[ram]:,} | {integers[ram]:,} |
| stack besides, bytes | {float[stack]:,} | {integers[stack]:,} |
| flash: code, runtime, base, bytes | {float[flash]:,} | {integers[flash]:,} |
| a prediction, instructions | {float[predict]:,} | {integers[predict]:,} |
| a micro-update (`playlist_step`) | {float[step]:,} | {integers[step]:,} |
| the same in the whole loop (`observe` and `idle`) | {float[update]:,} | {integers[update]:,} |

The morning run: {morning[float][first]:.2f}, after the skip {morning[float][learnt]:.2f} by the 42 numbers alone and
{morning[float][now]:.2f} with that skip in the session; in integers {morning[integers][first]:.2f},
{morning[integers][learnt]:.2f} and {morning[integers][now]:.2f}.

| plays that the student sees | {plays} |
|{plays_rule}|
| area: distilled | {distilled} |
| alone, on hard answers | {alone} |
| **better by** (standard error) | {better} |
| better in so many of {seeds} populations | {populations} |

{compared}
"""


def playlist_tables(results: dict[str, Any]) -> str:
    """What examples/playlist/README.md shows of it."""
    found = results["playlist"]
    counts = sorted(found["float"]["gain"], key=int)
    plays = {count: found["distillation"]["plays"][count] for count in sorted(found["distillation"]["plays"], key=int)}
    cells = {
        f"{kind}_{name}": " | ".join(text(found[kind][name][count]) for count in counts)
        for kind in ("float", "integers")
        for name, text in (
            ("base", lambda each: f"{each['area']:.3f}"),
            ("learnt", lambda each: f"{each['area']:.3f}"),
            ("gain", lambda each: f"**{each:+.3f}**"),
            ("harmed", lambda each: f"{100 * each:.0f}"),
        )
    }
    alone = [each["better"]["alone"] for each in plays.values()]
    row = next(each for each in plays.values() if "alone, stopped" in each)
    stopped = row["better"]["alone, stopped"]
    compared = (
        f"At {next(count for count, each in plays.items() if each is row)} plays, against one alone that is stopped in "
        f"time (area {row['alone, stopped']['area']:.3f}): better by {stopped['area']['mean']:.3f} "
        f"({stopped['area']['error']:.3f}), in {stopped['populations']} of {found['distillation']['seeds']}."
    )
    if "mt.distill" in row:
        compared += (
            f" `mt.distill`, in PyTorch, reaches {row['mt.distill']['area']:.3f} and alone "
            f"{row['mt.distill, alone']['area']:.3f}."
        )
    return TABLES.format(
        **cells,
        counts=" | ".join(counts),
        rule="---|" * len(counts) + "---",
        float_error=found["float"]["error"]["20"],
        integers_error=found["integers"]["error"]["20"],
        before=100 * found["float"]["base"]["20"]["heard"],
        after=100 * found["float"]["learnt"]["20"]["heard"],
        after_integers=100 * found["integers"]["learnt"]["20"]["heard"],
        float=found["float"]["cost"],
        integers=found["integers"]["cost"],
        morning=found["morning"],
        plays=" | ".join(f"{int(count):,}" for count in plays),
        plays_rule="---|" * len(plays) + "---",
        distilled=" | ".join(f"{each['distilled']['area']:.3f}" for each in plays.values()),
        alone=" | ".join(f"{each['alone']['area']:.3f}" for each in plays.values()),
        better=" | ".join(f"{each['area']['mean']:+.3f} ({each['area']['error']:.3f})" for each in alone),
        seeds=found["distillation"]["seeds"],
        populations=" | ".join(str(each["populations"]) for each in alone),
        compared=fill(compared, 118),
    )


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
        ("micro-update on Cortex-M4F, floats", found["float"]["cost"]["update"], "<=", FLOAT_UPDATE),
        ("micro-update on Cortex-M0, integers", found["integers"]["cost"]["update"], "<=", INTEGER_UPDATE),
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
