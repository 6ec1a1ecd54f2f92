"""The MLPerf Tiny networks, float to int8: real keywords in C, and real images and sounds against the published int8.

There are no labelled images or machine sounds here. So the published int8 network, which its authors calibrated on
data of its own, is the mark on the same photographs and sounds: ours, calibrated on others of these, has less noise.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from examples.speaker import audio

import microtune as mt
from microtune.compress.batched import run
from microtune.ir import Graph

NETWORKS = audio.PROJECT.parent / "shared" / "data" / "models" / "mlperf_tiny"
pytestmark = pytest.mark.skipif(
    not (NETWORKS.exists() and audio.CLIPS_PATH.exists()), reason="needs ../shared/data: the networks and the clips"
)


def loaded(file: str) -> Graph:
    return mt.load(NETWORKS / file)


def under_litert(file: str, samples: np.ndarray) -> np.ndarray:
    """Real outputs of a published network, float or int8, for real inputs."""
    net = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(NETWORKS / file))
    net.allocate_tensors()
    (source,), (result,) = net.get_input_details(), net.get_output_details()
    found = []
    for sample in samples:
        x = sample.reshape(source["shape"])
        if source["dtype"] == np.int8:
            scale, zero = source["quantization"]
            x = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8)
        net.set_tensor(source["index"], x)
        net.invoke()
        y = net.get_tensor(result["index"])[0].astype(np.float64)
        if result["dtype"] == np.int8:
            scale, zero = result["quantization"]
            y = (y - zero) * scale
        found.append(y)
    return np.array(found)


def noise_ratio(exact: np.ndarray, found: np.ndarray) -> float:
    """Signal to noise in dB."""
    return float(10 * np.log10((exact.astype(np.float64) ** 2).sum() / ((exact - found) ** 2).sum()))


@cache
def keywords() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (100, 49, 10, 1), labels (100,), and which half of its word a clip belongs to (100,)."""
    clips, labels, _ = audio.keyword_clips()
    features = np.stack([audio.features(clip) for clip in clips])[..., None]
    half = np.zeros(len(labels), bool)
    for word in set(labels.tolist()):
        half[np.flatnonzero(labels == word)[::2]] = True
    return features, labels, half


def photographs(size: int, samples: int, seed: int) -> np.ndarray:
    """Squares of the two photographs that ship with scikit-learn, at four magnifications: (samples, size, size, 3)."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    r = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        image, step = images[r.integers(2)], int(r.integers(1, 5))
        top, left = (int(r.integers(0, length - size * step + 1)) for length in image.shape[:2])
        found.append(image[top : top + size * step : step, left : left + size * step : step])
    return np.stack(found).astype(np.float32)


def sound_spectra(clips: np.ndarray) -> np.ndarray:
    """Five frames of 128 log-mel bands at a time, as the anomaly network reads them: (n, 640)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    edges = np.linspace(0, 1127 * np.log1p(8000 / 700), 130)
    bins = 1127 * np.log1p(np.arange(513)[:, None] * 15.625 / 700)
    bands = np.maximum(0, np.minimum((bins - edges[:-2]) / 21.8, (edges[2:] - bins) / 21.8))
    found = []
    for clip in clips:
        frames = np.lib.stride_tricks.sliding_window_view(clip / 32768, 1024)[::512] * window
        spectrum = 10 * np.log10(np.abs(np.fft.rfft(frames)) ** 2 @ bands + 1e-10)
        found += [spectrum[start : start + 5].ravel() for start in range(0, len(spectrum) - 4, 5)]
    return np.array(found, np.float32)


@pytest.mark.parametrize("ranges", ["mse", "percentile", "minmax"])
def test_keywords_are_heard_as_well_in_int8_c(ranges: str, tmp_path: Path) -> None:
    """Within one point of float on the 100 real clips, each heard by a net that was calibrated on the other half."""
    graph = loaded("kws_ref_model_float32.tflite")
    features, labels, half = keywords()
    right = 0
    for name, mine in (("first", half), ("second", ~half)):
        int8_graph = mt.quantize(graph, features[mine], ranges=ranges)
        network = mt.compile_inference(int8_graph, tmp_path / name)
        right += int((network.run(features[~mine]).argmax(axis=1) == labels[~mine]).sum())
    exact = int((run(graph, features).argmax(axis=1) == labels).sum())
    assert exact == 94
    assert abs(right - exact) <= 1


def test_the_report_on_the_keyword_net() -> None:
    graph = loaded("kws_ref_model_float32.tflite")
    features, labels, half = keywords()
    report = mt.quantization_report(graph, mt.quantize(graph, features[half]), features[~half], labels[~half])
    assert report.agreement >= 0.98
    assert report.accuracy_after >= report.accuracy_before - 0.01
    assert min(layer.sqnr for layer in report.layers) > 17
    assert report.bytes_after < 0.35 * report.bytes_before


IMAGES = {"pretrainedResnet": ("pretrainedResnet_quant", 32, 1.0), "vww_96_float": ("vww_96_int8", 96, 255.0)}


@pytest.mark.parametrize("name", IMAGES)
def test_image_nets_have_less_noise_than_the_published_int8(name: str) -> None:
    published, size, divisor = IMAGES[name]
    graph = loaded(f"{name}.tflite")
    calibration, test = (photographs(size, 64, seed) / np.float32(divisor) for seed in (0, 1))
    report = mt.quantization_report(graph, mt.quantize(graph, calibration), test)
    exact, theirs = under_litert(f"{name}.tflite", test), under_litert(f"{published}.tflite", test)
    assert report.output_sqnr > noise_ratio(exact, theirs)
    assert report.agreement >= (exact.argmax(axis=1) == theirs.argmax(axis=1)).mean()


def test_the_anomaly_net_has_less_noise_than_the_published_int8() -> None:
    graph = loaded("ad01_fp32.tflite")
    with np.load(audio.CLIPS_PATH) as data:
        spectra = sound_spectra(data["audio"][::6])
    report = mt.quantization_report(graph, mt.quantize(graph, spectra[::2]), spectra[1::2])
    exact, theirs = (under_litert(f"ad01_{kind}.tflite", spectra[1::2]) for kind in ("fp32", "int8"))
    assert report.output_sqnr > noise_ratio(exact, theirs)
