"""Signals of known measures, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 44_100
Signal = NDArray[np.floating[Any]]


def write(path: Path, samples: Signal, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples.T if samples.ndim == 2 else samples, rate, subtype=subtype)
    return path


def noise(seconds: float, rms: float, seed: int = 0, rate: int = RATE) -> Signal:
    return np.random.default_rng(seed).standard_normal(round(seconds * rate)) * rms


def tone(seconds: float, peak: float, hertz: float = 997.0) -> Signal:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def bursts(seconds: float, rms: float) -> Signal:
    """Imitate speech's rhythm: noise that comes and goes, silent in half of the time."""
    sound = noise(seconds, 1.0, seed=7)
    sound *= np.sin(np.pi * np.arange(len(sound)) / RATE / 0.4).clip(0, None)
    return sound * rms / np.sqrt(np.mean(sound**2))
