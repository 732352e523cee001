"""Test signals, and how to recognise them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from speakup.media.recording import read_blocks

RATE = 44100


def noise(channels: int, samples: int, rate: int = RATE) -> NDArray[np.float32]:
    """Give noise from 200 Hz to 3 kHz, (C, T): every codec keeps it, and its lag shows."""
    white = np.random.default_rng(7).standard_normal((channels, max(samples, 1000)))
    band = signal.butter(2, [200, 3000], "bandpass", fs=rate, output="sos")
    filtered = signal.sosfilt(band, white)
    return np.asarray(0.1 * filtered[:, :samples] / filtered.std(), dtype=np.float32)


def tones(channels: int, samples: int, rate: int = RATE) -> NDArray[np.float32]:
    """Give another tone in each channel, (C, T): 200 Hz, 300 Hz, 400 Hz ..."""
    hertz = 200 + 100 * np.arange(channels)[:, None]
    return np.asarray(0.3 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate), dtype=np.float32)


def vowels(
    pitch_hz: NDArray[np.float64], formants: tuple[tuple[float, float], ...], rate: int = RATE
) -> NDArray[np.float64]:
    """Send pulses of this pitch (T,) through resonances of (frequency, width) in Hz, (T,)."""
    wave = np.diff(np.floor(np.cumsum(pitch_hz) / rate), prepend=0.0)
    for formant, width in formants:
        radius, angle = np.exp(-np.pi * width / rate), 2 * np.pi * formant / rate
        wave = signal.lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], wave)
    return np.asarray(wave)


def synthetic_speech(seconds: float = 8.0, rate: int = RATE, seed: int = 0) -> NDArray[np.float64]:
    """Pulses through three formants, bursts of wide noise, pauses with a faint room."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    pitch = 120.0 + 25.0 * np.sin(2 * np.pi * 0.7 * time)
    voice = vowels(pitch, ((600.0, 80.0), (1_500.0, 120.0), (2_600.0, 180.0)), rate)
    voice *= 0.1 / np.std(voice) * np.clip(np.sin(2 * np.pi * 2.1 * time), 0.0, None)
    consonants = signal.lfilter([1.0, -0.7], [1.0], random.standard_normal(count))
    consonants *= 0.02 * np.clip(np.sin(2 * np.pi * 1.3 * time + 1.0) - 0.8, 0.0, None) / 0.2
    phrases = np.clip(3.0 * np.sin(2 * np.pi * 0.4 * time) + 2.0, 0.0, 1.0)
    return np.asarray(phrases * (voice + consonants) + 1e-5 * random.standard_normal(count))


def loudest_hertz(waveform: NDArray[np.float32], rate: int = RATE) -> list[int]:
    """Give the loudest frequency of each channel, to the nearest 100 Hz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(waveform.shape[1])))
    hertz = np.argmax(spectrum, axis=1) * rate / waveform.shape[1]
    return [int(100 * round(value / 100)) for value in hertz]


def lag(estimate: NDArray[np.float32], reference: NDArray[np.float32]) -> int:
    """Give by how many samples the estimate comes late."""
    correlation = signal.correlate(estimate[0], reference[0])
    lags = signal.correlation_lags(estimate.shape[1], reference.shape[1])
    return int(lags[np.argmax(correlation)])


def read(path: Path, **options: object) -> NDArray[np.float32]:
    """Read a whole file, (C, T)."""
    return np.concatenate(list(read_blocks(path, **options)), axis=1)  # type: ignore[arg-type]
