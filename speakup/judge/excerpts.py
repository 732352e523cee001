"""Excerpts of two recordings to hear and see side by side, and whether they belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import signal

from speakup.blocks import Float32, db_to_gain, finite
from speakup.config import WORKING_RATE
from speakup.errors import ConfigError
from speakup.judge.analysis import Analysis
from speakup.judge.metrics import SPEECH_RATE, lag, mono, resample
from speakup.media import recording
from speakup.result import duration

MOST_SECONDS = 120.0
"""The most of a recording that a page lets hear and a picture shows."""

_FRAME_SECONDS = 0.02
_ALIKE = 0.25
_SAME_WAVE = 0.08


def read_excerpts(
    paths: Sequence[Path], start: float = 0.0, length: float | None = None
) -> list[Float32]:
    """Give the same stretch of recordings, mono or stereo `(C, T)` at 44.1 kHz, of one length.

    Args:
        paths: The recordings; what one lacks at its end is silence.
        start: Where the stretch begins, in seconds.
        length: Its seconds, at most `MOST_SECONDS`; None takes as many.

    Raises:
        InputError: a recording cannot be read.
        ConfigError: no recording reaches the start, or the stretch is empty.
    """
    seconds = MOST_SECONDS if length is None else min(length, MOST_SECONDS)
    if start < 0.0 or seconds <= 0.0:
        raise ConfigError(f"the excerpt is {seconds:g} s from {start:g} s on", None, "Give others")
    found = [_excerpt(path, start, seconds) for path in paths]
    longest = max(one.shape[1] for one in found)
    if longest == 0 and start > 0.0:
        raise ConfigError(
            f"the excerpt starts at {duration(start)}, when the recordings have ended",
            paths[0],
            "Choose an earlier start",
        )
    longest = max(1, longest)
    return [np.pad(one, ((0, 0), (0, longest - one.shape[1]))) for one in found]


def matching_gains(analyses: Sequence[Analysis]) -> tuple[float, float]:
    """Give the factors, at most 1, that make both sound equally loud."""
    louder_db = analyses[1].integrated_lufs - analyses[0].integrated_lufs
    if not math.isfinite(louder_db):
        return 1.0, 1.0
    return db_to_gain(min(0.0, louder_db)), db_to_gain(min(0.0, -louder_db))


def doubts(analyses: Sequence[Analysis], excerpts: Sequence[Float32]) -> list[str]:
    """Say what speaks against two recordings being before and after of the same.

    They are of other lengths; or neither their waves agree, within 25 ms, nor do their levels
    rise and fall together, both of which noise and rooms leave a part of.
    """
    found = []
    seconds = [one.seconds for one in analyses]
    if abs(seconds[0] - seconds[1]) > 0.5 + 0.005 * max(seconds):
        lengths = " and ".join(map(duration, seconds))
        found.append(f"the recordings are of different lengths, {lengths}")
    first, second = (resample(mono(one), WORKING_RATE, SPEECH_RATE) for one in excerpts)
    if not (first.any() and second.any()) or len(first) < SPEECH_RATE:
        return found
    if _envelopes_agree(first, second) < _ALIKE and _waves_agree(first, second) < _SAME_WAVE:
        found.append("the recordings do not seem to belong together: they sound unlike")
    return found


def _excerpt(path: Path, start: float, seconds: float) -> Float32:
    info = recording.probe(path)
    first = round(start * info.sample_rate)
    last = first + round(seconds * info.sample_rate)
    blocks: list[Float32] = []
    place = 0
    for block in recording.read_blocks(path):
        part = block[:, max(0, first - place) : max(0, last - place)]
        blocks.append(part if len(part) <= 2 else part.mean(axis=0, keepdims=True))
        place += block.shape[1]
        if place >= last:
            break
    joined = finite(np.concatenate(blocks, axis=1))
    resampled = soxr.resample(joined.T, info.sample_rate, WORKING_RATE)
    return np.ascontiguousarray(resampled.T, dtype=np.float32)


def _envelopes_agree(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlate the levels of 20 ms frames, (T,) at 16 kHz each."""
    frame = round(_FRAME_SECONDS * SPEECH_RATE)
    count = len(first) // frame
    levels = [
        np.sqrt(np.square(one[: count * frame]).reshape(count, frame).mean(axis=1))
        for one in (first, second)
    ]
    return _correlation(*levels)


def _waves_agree(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlate the waves in the band of telephones, at the best lag within 25 ms."""
    band = signal.butter(2, (300.0, 3400.0), "bandpass", fs=SPEECH_RATE, output="sos")
    heard, other = signal.sosfilt(band, first), signal.sosfilt(band, second)
    late = lag(heard, other, SPEECH_RATE)
    heard, other = heard[max(late, 0) :], other[max(-late, 0) :]
    length = min(len(heard), len(other))
    return abs(_correlation(heard[:length], other[:length]))


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    energy = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / energy if energy > 0.0 else 0.0
