"""Nets made small: the keyword and the image net of MLPerf Tiny through ``mt.shrink``, measured on samples by which
nothing was decided, neither by the recipe nor by those who chose its settings.

The published float weights are the start. The keyword net learns the ten spoken digits of fsdd, the image net
scikit-learn's digits as pictures of 32 x 32 x 3; these are the float nets that everything is compared with. Each data
set is cut in two ways: settings were chosen by the first (``python -m benchmarks.shrinking``), the second is reported.
Samples that test in one are learnt in the other; those that decide are the same.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import microtune as mt
from benchmarks.results import record
from microtune import gallery
from microtune.training.table import Shrunk, figures

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
MODELS = DATA / "models" / "mlperf_tiny"
BASES = ROOT / "build" / "shrinking"
DECIDING_TAKES = (*range(10), *range(20, 25))  # of the fifty of each digit by each person
CHOOSING_TAKES, REPORTED_TAKES = range(10, 20), range(40, 50)
TEST_PICTURES, DECIDING_PICTURES = 540, 400
ASIDE, WAYS = 3, 4  # pixels that a picture is moved by at most, so that some hundred of them are not learnt by heart
EARLIER_OR_LATER = 2  # frames of 20 ms that speech is moved by at most
SECTION = "shrinking"
LIMIT, CHANNELS = 0.5, (0.5, 0.6875, 0.75)
SMALLER, LOST = 8.0, 1.0
"""At least so many times smaller in weights, and at most so many points lost. Whole flash is shown beside it: the
code of a net so small is more than half of it, and shrinks little."""
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Net:
    """A published net, how the float net that is compared with comes of it, and how long narrow nets learn."""

    file: str
    outputs: int
    samples: Callable[[bool], dict[str, Pair]]
    epochs: int
    lr: float
    narrow_epochs: int


def spoken_digits(reported: bool) -> dict[str, Pair]:
    """Recordings of digits as the keyword net reads them: 1,500 to learn from, also a tenth longer and shorter, each
    also a little earlier or later; 900 to decide by, 600 to test by."""
    data = gallery.load_example("speaker").data
    takes = data.load(DATA)
    test, deciding = (np.isin(takes.take, part) for part in (_test_takes(reported), DECIDING_TAKES))
    rows = np.flatnonzero(~test & ~deciding)
    x = np.concatenate([data.inputs(takes, rows, length) for length in data.SPEEDS])
    found = {"data": (np.concatenate([x, _earlier_or_later(x)]), np.tile(takes.digit[rows], 2 * len(data.SPEEDS)))}
    for name, part in (("validation", deciding), ("test", test)):
        rows = np.flatnonzero(part)
        found[name] = data.inputs(takes, rows), takes.digit[rows]
    return found


def _test_takes(reported: bool) -> Sequence[int]:
    return REPORTED_TAKES if reported else CHOOSING_TAKES


def _earlier_or_later(x: np.ndarray) -> np.ndarray:
    """(n, frames, ...) moved in time, the first or last frame repeated."""
    frames = np.arange(x.shape[1])
    places = np.random.default_rng(0).integers(-EARLIER_OR_LATER, EARLIER_OR_LATER + 1, (len(x), 1))
    return x[np.arange(len(x))[:, None], np.clip(frames + places, 0, len(frames) - 1)]


def pictures(reported: bool) -> dict[str, Pair]:
    """Pictures of digits, each of 8 x 8 pixels of 0 to 16 made 4 x 4 of 0 to 255: 857 to learn from, also moved aside
    in four ways, 400 to decide by and 540 to test by."""
    from sklearn.datasets import load_digits

    small, digit = load_digits(return_X_y=True)
    grey = np.kron(small.reshape(-1, 8, 8) * 255 / 16, np.ones((4, 4))).astype(np.float32)
    rng = np.random.default_rng(0)
    order, cuts = rng.permutation(len(grey)), np.cumsum([TEST_PICTURES, DECIDING_PICTURES])
    choosing, validation, rest = np.split(order, cuts)
    test = rest[-TEST_PICTURES:] if reported else choosing
    learn = np.setdiff1d(order, np.concatenate([test, validation]))
    around = np.pad(grey[learn], ((0, 0), (ASIDE, ASIDE), (ASIDE, ASIDE)))
    x = [grey[learn]]
    for _ in range(WAYS):
        places = rng.integers(0, 2 * ASIDE + 1, (len(learn), 2))
        x.append(np.stack([each[r : r + 32, c : c + 32] for each, (r, c) in zip(around, places, strict=True)]))
    found = {
        "data": (np.concatenate(x), np.tile(digit[learn], len(x))),
        "validation": (grey[validation], digit[validation]),
        "test": (grey[test], digit[test]),
    }
    return {name: (np.repeat(x[..., None], 3, axis=3), y) for name, (x, y) in found.items()}


NETS = {
    "keywords": Net("kws_ref_model_float32", 10, spoken_digits, 6, 2e-3, 16),
    "images": Net("pretrainedResnet", 10, pictures, 5, 1e-3, 8),
}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """The order of PyTorch's sums depends on the threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def baseline(name: str, net: Net, data: Pair) -> Path:
    """The float net that learnt the digits, kept in the build folder by what it came from."""
    import onnx
    from torch import nn

    from microtune.frontends.torch import onnx_of
    from microtune.training.artefacts import key_of
    from microtune.training.bridge import to_torch
    from microtune.training.fit import fit
    from microtune.training.modules import samples_for, seeded

    path = BASES / f"{name}-{key_of(net.file, net.epochs, net.lr, *data)[:12]}.onnx"
    if not path.is_file():
        module = to_torch(mt.load(MODELS / f"{net.file}.tflite"))
        last = [key for key, each in module.named_modules() if isinstance(each, nn.Linear)][-1]
        with seeded(0):
            setattr(module, last, nn.Linear(module.get_submodule(last).in_features, net.outputs))
        fit(module, samples_for(module, data), epochs=net.epochs, lr=net.lr)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(onnx_of(module, data[0][:1]), path)
    return path


def shrunk(name: str, folder: Path, reported: bool, progress: Any = None) -> tuple[Shrunk, float]:
    """What the recipe makes of a net, and the seconds that the float net took to learn."""
    net = NETS[name]
    samples = net.samples(reported)
    with one_thread():
        began = time.process_time()
        path = baseline(name, net, samples["data"])
        learning = time.process_time() - began
        settings = {"limit": LIMIT, "channels": CHANNELS, "lr": net.lr, "epochs": net.narrow_epochs}
        return mt.shrink(path, **samples, folder=folder / name, **settings, progress=progress), learning


def measure(names: Sequence[str], reported: bool, progress: Any = None) -> dict[str, Any]:
    """For each net how many times smaller it is, points lost on test samples, and the row of each step."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            began = time.process_time()
            result, learning = shrunk(name, Path(scratch), reported, progress)
            first, last = result.base.cost, result.best.cost
            rows = [{key: value for key, value in row.items() if key != "file"} for row in figures(result)["table"]]
            assert first.test is not None and last.test is not None
            found[name] = {
                "steps": rows,
                "best": result.best.step,
                "weights_times_smaller": round(first.weights / last.weights, 1),
                "flash_times_smaller": round(first.flash / last.flash, 1),
                "points_lost": round(first.test - last.test, 2),
                "validation_samples": result.counts[0],
                "test_samples": result.counts[1],
                "seconds": round(time.process_time() - began - learning),
                "seconds_of_the_float_net": round(learning),
            }
    return found


def run_shrinking() -> bool:
    """False when a limit is missed."""
    if not MODELS.is_dir():
        print(f"\nnets made small: not run, no models in {MODELS}")
        return True
    print(
        "\nnets of MLPerf Tiny made small: bytes and instructions on Cortex-M4, right answers of the C on test samples"
    )
    found = measure(tuple(NETS), reported=True)
    record(SECTION, found)
    show(found)
    return all(
        net["weights_times_smaller"] >= SMALLER and net["points_lost"] <= LOST and net["test_samples"] >= 500
        for net in found.values()
    )


def show(found: dict[str, Any]) -> None:
    """Each step of each net, and what is reached."""
    for name, net in found.items():
        for row in net["steps"]:
            print(
                f"  {name:9} {row['step']:14} {row['flash']:>8,} flash {row['weights']:>8,} weights"
                f" {row['ram']:>8,} RAM {row['instructions']:>11,} instructions {row['test']:5.1f} %  {row['says']}"
            )
        print(
            f"  {name}: weights {net['weights_times_smaller']} times smaller (at least {SMALLER:g}), flash"
            f" {net['flash_times_smaller']} times; {net['points_lost']} points lost on {net['test_samples']} samples"
            f" (at most {LOST:g}); {net['seconds']} s, and {net['seconds_of_the_float_net']} s for the float net"
        )


def shrinking_tables(results: dict[str, Any]) -> str:
    """The steps of both nets, and what is reached, as the page shows them."""
    lines = []
    for name, net in results[SECTION].items():
        lines += [f"| {name}: step | flash | weights | RAM | instructions | validation, % | test, % | |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for row in net["steps"]:
            cells = [row["step"], *(f"{row[key]:,}" for key in ("flash", "weights", "ram", "instructions"))]
            cells += [f"{row['validation']:.1f}", f"{row['test']:.1f}", row["says"]]
            marks = "**" if row["step"] == net["best"] and row["kept"] else ""
            lines.append("| " + " | ".join(f"{marks}{cell}{marks}" if cell else "" for cell in cells) + " |")
        lost = net["points_lost"]
        lines += [
            "",
            f"{name}: weights {net['weights_times_smaller']} times smaller, whole flash {net['flash_times_smaller']} "
            f"times; {f'{lost} points lost' if lost > 0 else f'{-lost} points won' if lost else 'nothing lost'} on "
            f"{net['test_samples']} test samples, by which nothing was decided.",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    show(measure(sys.argv[1:] or tuple(NETS), reported=False, progress=lambda text, _: print(text, flush=True)))
