"""The loudness foretold for a gain and the limiter, against gain, limiter and meter themselves."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.signal import lfilter

from speakup.measure.loudness import LoudnessMeter
from speakup.stages.limiter import LimitedLoudness, Limiter

CEILING_DBTP = -1.0


def measured(signal: np.ndarray, rate: int) -> LoudnessMeter:
    meter = LoudnessMeter(rate, len(signal))
    meter.push(signal)
    return meter


def swelling(rate: int, channels: int = 1, seconds: float = 9.07) -> np.ndarray:
    """Coloured noise in syllables, with clicks: it asks for much and for little limiting."""
    random = np.random.default_rng(11)
    time = np.arange(round(seconds * rate)) / rate
    noise = lfilter([1.0], [1.0, -0.9], random.standard_normal((channels, len(time))))
    signal = 0.1 * noise * np.clip(np.sin(2 * np.pi * 2.3 * time), 0.0, None) ** 2
    signal[:, random.integers(0, len(time), 9)] += 0.7
    return signal.astype(np.float32)


def quarter_sine(rate: int) -> np.ndarray:
    """A sine at a quarter of the rate, whose true peak is 3 dB above its samples."""
    phase = np.pi / 2 * np.arange(5 * rate) + np.pi / 4
    return (0.3 * np.sin(phase)).astype(np.float32)[None]


SOUNDS = {
    "8 kHz": (swelling(8_000), 8_000),
    "11.025 kHz": (swelling(11_025), 11_025),
    "stereo": (swelling(44_100, 2), 44_100),
    "96 kHz": (swelling(96_000, seconds=4.0), 96_000),
    "between samples": (quarter_sine(44_100), 44_100),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_the_loudness_is_that_behind_gain_and_limiter(name: str) -> None:
    signal, rate = SOUNDS[name]
    least = CEILING_DBTP - measured(signal, rate).true_peak_dbtp()
    blocks = np.array_split(signal, 7, axis=1)
    with contextlib.closing(
        LimitedLoudness(rate, len(signal), CEILING_DBTP, least + 12.0, blocks)
    ) as limited:
        for gain_db in (least - 6.0, least + 3.0, least + 12.0):
            limiter = Limiter(rate, len(signal), CEILING_DBTP)
            louder = signal * np.float32(10.0 ** (gain_db / 20.0))
            real = measured(np.concatenate([limiter.push(louder), limiter.flush()], axis=1), rate)
            lufs, rms_dbfs = limited.after(gain_db)
            assert lufs == pytest.approx(real.integrated_lufs(), abs=0.02)
            assert rms_dbfs == pytest.approx(real.rms_dbfs(), abs=0.01)


@pytest.mark.parametrize("samples", [0, 1, 10, 3_000])
def test_too_short_or_silent_has_no_loudness(samples: int) -> None:
    short = np.full((1, samples), 0.5, np.float32)
    with contextlib.closing(LimitedLoudness(8_000, 1, CEILING_DBTP, 6.0, [short])) as limited:
        lufs, rms_dbfs = limited.after(3.0)
    assert lufs == -np.inf
    assert rms_dbfs == pytest.approx(-3.02 if samples else -np.inf, abs=0.01)
