"""Something like speech for the metrics, and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
RATE = 16_000


def noise(seconds: float, rms: float = 0.1, seed: int = 0, rate: int = RATE) -> Float:
    return np.random.default_rng(seed).standard_normal(round(seconds * rate)) * rms


def voice(seconds: float = 3.0, f0_hz: float = 120.0, rate: int = RATE) -> Float:
    """Imitate speech: a buzz through three moving resonances, in syllables with pauses."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(f0_hz * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * time))) / rate
    sound = np.zeros_like(time)
    for harmonic in range(1, int(0.45 * rate / f0_hz)):
        hertz = harmonic * f0_hz
        formants = (600 + 200 * np.sin(5 * time), 1500 + 500 * np.sin(3 * time), 2600, 5500)
        gain = sum(1 / (1 + ((hertz - formant) / 150) ** 2) for formant in formants)
        sound += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * time), 0, None) ** 0.5
    sound = sound * syllables
    return sound * 0.05 / np.sqrt(np.mean(np.square(sound))) + noise(seconds, 1e-5, 9, rate)
