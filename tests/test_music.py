"""Music in a recording is no voice: the bundled networks leave it what it is."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from speakup import Config, Pipeline
from speakup.judge import metrics

RATE = 44_100


@pytest.fixture(scope="module")
def music() -> NDArray[np.float64]:
    """Give five seconds of chords with harmonics up to 20 kHz, over a beat of wide noise."""
    random = np.random.default_rng(0)
    time = np.arange(5 * RATE) / RATE
    sound = np.zeros(len(time))
    for beat in range(10):
        since = time - beat / 2
        playing = np.where((since >= 0) & (since < 0.5), np.exp(-4.0 * since.clip(0)), 0.0)
        for interval in (1.0, 1.26, 1.5):
            note = [220.0, 277.2, 329.6, 246.9][beat % 4] * interval
            for harmonic in range(1, int(20_000 / note)):
                phase = 2 * np.pi * note * harmonic * time + harmonic
                sound += 0.05 * playing * np.sin(phase) / harmonic**1.1
        struck = np.where((since >= 0) & (since < 0.25), np.exp(-40.0 * since.clip(0)), 0.0)
        sound += 0.05 * struck * np.diff(random.standard_normal(len(time)), prepend=0.0)
    return 0.2 * sound / np.std(sound)


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("denoise", [True, False])
def test_limited_music_comes_out_nearer_to_what_it_was(
    music: NDArray[np.float64], rate: int, denoise: bool
) -> None:
    limited = soxr.resample(music, RATE, rate).astype(np.float32)
    result = Pipeline(Config(loudness="off", denoise=denoise)).process(limited[None], rate)[0]
    resampled = soxr.resample(limited, rate, RATE)
    length = min(len(result), len(resampled))
    distances = [metrics.lsd(one[:length], music[:length], RATE) for one in (result, resampled)]
    assert distances[0] < 0.8 * distances[1]


def test_music_loses_little_to_the_denoiser(music: NDArray[np.float64]) -> None:
    result = Pipeline(Config(loudness="off", upsample="off")).process(music[None], RATE)[0]
    assert metrics.si_sdr(result, music, RATE) > 5.0
