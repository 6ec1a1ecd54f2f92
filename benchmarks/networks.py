"""Published networks: inference of the four MLPerf Tiny nets beside LiteRT and on an emulated core, and the memory of
sparse training. Without the models (``../shared/data/models``) it says so and measures nothing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from examples.speaker.audio import CLIPS_PATH, features, keyword_clips

import microtune as mt
from benchmarks import mcunet
from benchmarks.results import record
from microtune.targets.prediction import prediction_instructions

MODELS = Path(__file__).parents[2] / "shared" / "data" / "models"
NETS = {"keywords": "kws_ref_model", "images": "pretrainedResnet_quant", "person": "vww_96_int8", "sounds": "ad01_int8"}
REPETITIONS = 15
WORDS_RIGHT, PARITY, REACHED, LARGEST = 92, mcunet.RELEASED, 165_000, 262_144
NEAR_BOUND = 1.03


def _interpreter(model: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_path=str(model), num_threads=1)
    found.allocate_tensors()
    return found


def _median(run: Callable[[], None], other: Callable[[], None]) -> tuple[float, float]:
    """Median milliseconds of two calls made in turn, so that a busy moment hits both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPETITIONS):
        for call, kept in zip((run, other), times, strict=True):
            start = time.perf_counter()
            call()
            kept.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def run(network: mt.Network, x: np.ndarray) -> None:
    network.run(x)


def _inference(name: str, file: str, folder: Path) -> dict[str, Any]:
    model = MODELS / "mlperf_tiny" / f"{file}.tflite"
    graph = mt.load(model)
    # its weights as they are, as LiteRT and CMSIS-NN have them; and without their zeros, where that is smaller
    network = mt.compile_inference(graph, folder / name, ["host", "cortex-m4"], sparse=False)
    small = mt.compile_inference(graph, folder / f"{name}_small", ["host", "cortex-m4"])
    shape = network.description["input"]["shape"]
    x = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    interpreter = _interpreter(model)
    slot = interpreter.get_input_details()[0]
    interpreter.set_tensor(slot["index"], x.reshape(slot["shape"]))
    network.run(x)
    ours, theirs = _median(lambda: run(network, x), interpreter.invoke)
    packed = {
        "instructions": prediction_instructions(small, "cortex-m4", x[None]),
        "weights": small.description["weights"],
    }
    return {
        "packed": packed if small.packed else None,
        "instructions": prediction_instructions(network, "cortex-m4", x[None]),
        "arena": network.description["arena"],
        "weights": network.description["weights"],
        "milliseconds": round(ours, 3),
        "litert_over_ours": round(theirs / ours, 2),
    }


def keyword_accuracy(folder: Path) -> float | None:
    """Per cent of the real clips of the keyword net's ten words that the int8 net in C names right."""
    if not CLIPS_PATH.is_file():
        return None
    audio, labels, _ = keyword_clips()
    network = mt.compile_inference(mt.load(MODELS / "mlperf_tiny" / "kws_ref_model.tflite"), folder / "words")
    shape = network.description["input"]["shape"]
    heard = network.run(np.stack([features(clip) for clip in audio]).reshape(-1, *shape))
    return float(100 * (heard.argmax(1) == labels).mean())


def inference(folder: Path) -> bool:
    print("\nint8 inference of the MLPerf Tiny nets: Cortex-M4F, and this machine beside LiteRT (XNNPACK, one thread)")
    print(f"  {'net':12}{'instructions':>14}{'arena':>9}{'weights':>9}{'ms here':>9}{'LiteRT / ours':>15}")
    found = {name: _inference(name, file, folder) for name, file in NETS.items()}
    for name, row in found.items():
        print(
            f"  {name:12}{row['instructions']:>14,}{row['arena']:>9,}{row['weights']:>9,}{row['milliseconds']:>9.2f}"
            f"{row['litert_over_ours']:>15.2f}"
        )
        if row["packed"]:
            print(f"    without its zeros{row['packed']['instructions']:>9,}{row['packed']['weights']:>18,}")
    right = keyword_accuracy(folder)
    if right is not None:
        print(f"  keywords named right of the 100 real clips: {right:.0f} (at least {WORDS_RIGHT})")
    record("inference", {"nets": found, "keywords_right": right})
    return right is None or right >= WORDS_RIGHT


def training_memory() -> bool:
    rows, parts = mcunet.table(), mcunet.ablation()
    print("\nall RAM of a training step, bytes: image, activations, gradients, workspaces and what learns")
    print(
        f"  {'net':16}{'scheme':8}{'arena':>9}{'learns':>9}{'total':>9}{'lower bound':>13}{'published extra, KiB':>22}"
    )
    for row in rows:
        print(
            f"  {row['net']:16}{row['scheme']:8}{row['arena']:>9,}{row['trainables']:>9,}{row['total']:>9,}"
            f"{row['total_bound']:>13,}{row['published_kib']:>22}"
        )
    anchor = next(row for row in rows if (row["net"], row["scheme"]) == ("mcunet-5fps", "49kb"))
    print(f"  mcunet-5fps 49kb, the published generator's own plan: {PARITY:,}")
    for name, size in parts.items():
        print(f"    {name:34}{size:>9,}")
    record("training memory", {"schemes": rows, "ablation": parts, "published": PARITY})
    fits = all(row["total"] <= min(LARGEST, NEAR_BOUND * row["total_bound"]) for row in rows)
    print(f"  every scheme within {LARGEST:,} bytes and 3 % of its lower bound: {'yes' if fits else 'NO'}")
    return fits and anchor["total"] <= REACHED


def run_networks() -> bool:
    """False when a limit is missed."""
    if not (MODELS / "mlperf_tiny").is_dir():
        print(f"\npublished networks: not run, no models in {MODELS}")
        return True
    with tempfile.TemporaryDirectory() as scratch:
        held = inference(Path(scratch))
    return training_memory() and held
