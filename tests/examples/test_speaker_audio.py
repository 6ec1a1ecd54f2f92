"""The audio front end of the keyword net: against the definition written out, and on real clips with the real net."""

from __future__ import annotations

import math

import numpy as np
import pytest
from examples.speaker import audio
from hypothesis import given, settings
from hypothesis import strategies as st

KEYWORD_NET = audio.PROJECT.parent / "shared" / "data" / "models" / "mlperf_tiny" / "kws_ref_model_float32.tflite"


def by_definition(sound: np.ndarray, frame: int) -> list[float]:
    """One frame's coefficients, sum by sum as the papers write them."""
    start = frame * 320
    samples = [
        float(sound[start + n]) / float(sound.max()) * (0.5 - 0.5 * math.cos(2 * math.pi * n / 480)) for n in range(480)
    ]
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(480)) / 512)
    magnitude = np.abs(turns @ np.array(samples))

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    width = (mel(4000) - mel(20)) / 41
    bands = []
    for band in range(40):
        centre = mel(20) + (band + 1) * width
        weights = [max(0.0, 1 - abs(mel(16000 / 512 * k) - centre) / width) for k in range(257)]
        bands.append(math.log(float(np.dot(weights, magnitude)) + 1e-6))
    return [
        sum(2 * bands[n] * math.cos(math.pi * k * (2 * n + 1) / 80) for n in range(40)) / math.sqrt(80)
        for k in range(10)
    ]


@pytest.mark.parametrize("frame", [0, 17, 48])
def test_agrees_with_the_definition(frame: int) -> None:
    sound = np.random.default_rng(frame).integers(-3000, 3000, 16000).astype(np.int16)
    found = audio.features(sound)
    assert found.shape == (49, 10)
    assert found.dtype == np.float32
    # 1127 ln and 2595 log10 differ by 1e-5 of their value, which moves a band's edge by as much: 1e-4 of 30 numbers
    np.testing.assert_allclose(found[frame], by_definition(sound, frame), atol=5e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gain=st.sampled_from([2, 3, 7]))
def test_gain_does_not_matter(seed: int, gain: int) -> None:
    sound = np.random.default_rng(seed).integers(-4000, 4000, 16000).astype(np.int16)
    np.testing.assert_allclose(audio.features(sound * gain), audio.features(sound), atol=1e-4)


@pytest.mark.parametrize("value", [0, -32768, 32767])
def test_silence_and_constants_are_finite(value: int) -> None:
    found = audio.features(np.full(16000, value, np.int16))
    assert np.isfinite(found).all()
    if value == 0:  # every band is the floor: the first coefficient alone says how quiet it is
        assert found[0, 0] == pytest.approx(2 * 40 * math.log(1e-6) / math.sqrt(80), rel=1e-6)
        assert np.abs(found[:, 1:]).max() < 1e-4


def test_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(15999,\).*one second at 16 kHz, \(16000,\)"):
        audio.features(np.zeros(15999, np.int16))


@pytest.mark.skipif(not (KEYWORD_NET.exists() and audio.CLIPS_PATH.exists()), reason="needs ../shared/data")
def test_the_published_net_hears_the_words() -> None:
    """94 of the 100 real clips of its ten words, in the float network as LiteRT runs it."""
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    clips, labels, _ = audio.keyword_clips()
    assert len(clips) == 100
    net = interpreters.Interpreter(str(KEYWORD_NET))
    net.allocate_tensors()
    right = 0
    for clip, label in zip(clips, labels, strict=True):
        net.set_tensor(net.get_input_details()[0]["index"], audio.features(clip).reshape(1, 49, 10, 1))
        net.invoke()
        right += int(net.get_tensor(net.get_output_details()[0]["index"])[0].argmax() == label)
    assert right == 94
