"""Spectrograms as pictures, for the report and the README."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

Pixels = NDArray[np.uint8]
"""`(height, width, 3)`, red green blue."""

TOP_HZ = 22_050
"""What pictures reach up to: the working rate's whole band."""

_WINDOW_SECONDS = 0.04
RANGE_DB = 85.0
"""From black to the brightest colour."""

_FRAMES_AT_ONCE = 256
COLOURS = np.array(  # even steps of matplotlib's "inferno" (CC0), from quiet to loud
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float64,
)
"""Red, green and blue of even steps of level."""


def spectrogram_db(
    waveform: NDArray[np.floating[Any]], sample_rate: int, *, width: int, height: int
) -> NDArray[np.float64]:
    """Give the power in dB of `(C, T)` or `(T,)`, as `(height, width)` from `TOP_HZ` down to 0.

    Channels are mixed to mono. Every column is the mean power of the 40 ms Hann windows in its
    stretch of time, every row that of its band; -inf where the rate leaves nothing.
    """
    samples = waveform.mean(axis=0) if waveform.ndim == 2 else waveform
    size = fft.next_fast_len(round(_WINDOW_SECONDS * sample_rate), real=True)
    window = signal.get_window("hann", size)
    window = window / window.sum() * 2.0  # a full-scale sine reads 0 dB
    hop = max(1, min(len(samples) // width, size // 2))
    padded = np.pad(samples, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: max(len(samples), 1) : hop]
    bands = _band_means(size, sample_rate, height)
    sums, counts = np.zeros((width, height)), np.zeros(width)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        spectrum = fft.rfft(frames[start : start + _FRAMES_AT_ONCE] * window, axis=1)
        power = np.square(np.abs(spectrum)) @ bands
        centres = (start + np.arange(len(power))) * hop
        columns = np.minimum(centres * width // max(len(samples), 1), width - 1)
        np.add.at(sums, columns, power)
        np.add.at(counts, columns, 1.0)
    filled = np.maximum.accumulate(np.where(counts > 0, np.arange(width), 0))
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(sums[filled] / counts[filled, None]).T[::-1])


def coloured(level_db: NDArray[np.float64], top_db: float) -> Pixels:
    """Turn levels into colours: black 85 dB and more below `top_db`, pale yellow from there up."""
    share = np.clip((level_db - top_db) / RANGE_DB + 1.0, 0.0, 1.0)
    steps = np.linspace(0.0, 1.0, len(COLOURS))
    colours = [np.interp(share, steps, channel) for channel in COLOURS.T]
    return np.stack(colours, axis=-1).round().astype(np.uint8)


def png(pixels: Pixels) -> bytes:
    """Code pixels as a PNG file."""
    height, width, _ = pixels.shape
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.width, encoder.height = width, height
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _band_means(size: int, sample_rate: int, height: int) -> NDArray[np.float64]:
    """Give the weights `(F, height)` that average the bins of each row, the lowest row first."""
    bins = size // 2 + 1
    edges = np.arange(height + 1) * (TOP_HZ / height) * size / sample_rate
    weights = np.zeros((bins, height))
    for row, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        first, last = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        if last <= bins:
            weights[first:last, row] = 1.0 / (last - first)
    return weights
