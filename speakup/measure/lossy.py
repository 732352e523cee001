"""Whether a recording was once coded at a low rate, told by the holes that leaves."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import next_fast_len, rfft

from speakup.blocks import Float32, Reframer, checked_block, finite

CODED_TOP_HZ = 16_000.0
"""Where a voice coded at a low rate ends, as a rule: MP3's last band, which has no scale factor of
its own and is saved first, begins there (ISO/IEC 11172-3, table B.8)."""

_FRAME_SECONDS = 0.032
_BATCH_FRAMES = 64
_BAND_HZ = (5_000.0, 7_300.0)
_HOLE_DB, _WHOLE_DB = -25.0, -10.0
_MOST_HOLES = 0.0015
_LOUD = 0.99
_FAINT_DB = 40
_LOWEST_DB, _STEPS_PER_DB, _LEVELS = -170, 8, 2_000
_TINY = 1e-18

Counts = NDArray[np.int64]


class CodingMeter:
    """Count the holes that a lossy coder leaves in a voice's spectrum, over a whole stream.

    At a low rate a coder rounds faint stretches of the spectrum to nothing for a moment, and what
    is left there is far less than noise or a voice would leave. A hole opens where three
    neighbouring bins of 31 Hz, which were not all 10 dB under the median of their frame in the
    frame before, are all 25 dB or more under it. So gaps between harmonics, which stay, are none.
    Frames last 32 ms; looked at is the band from 5 to 7.3 kHz, where narrow recordings still reach
    and coders already save. Frames in which the voice is faint there, 40 dB under its loudest
    moments (99th percentile over time), do not count.

    Measured on 67 clips of speech, kept as Opus of 46 kbit/s, which fills holes up: at most 0.04 %
    of the places are holes. Coded as MP3 or Vorbis so that they end under 17 kHz, half of the clips
    have 0.33 % and more; coded so that they reach further, one in twenty has more than 0.2 %. From
    0.15 % on a recording counts as coded. Memory is constant.
    """

    def __init__(self, sample_rate: int) -> None:
        if sample_rate <= 0:
            raise ValueError(f"need a sample rate, got {sample_rate} Hz")
        self._size = next_fast_len(max(4, round(sample_rate * _FRAME_SECONDS)), real=True)
        bin_hz = sample_rate / self._size
        self._band = slice(*(round(hz / bin_hz) for hz in _BAND_HZ))
        self._reaches = sample_rate / 2 >= _BAND_HZ[1]
        window = np.hanning(self._size + 1)[:-1]
        # Scaled so that the powers of a frame's bins add up to its mean square.
        scale = math.sqrt(self._size * np.square(window).sum() / 2.0)
        self._window = (window / scale).astype(np.float32)
        self._frames = np.zeros(_LEVELS, np.int64)
        self._holes = np.zeros(_LEVELS, np.int64)
        self._reframer: Reframer | None = None

    def push(self, block: Float32) -> None:
        """Take in a block `(C, T)`; channels count by their mean power."""
        channels = None if self._reframer is None else len(self._reframer.rest)
        block = finite(checked_block(block, channels))
        if not self._reaches:
            return
        if self._reframer is None:
            self._reframer = Reframer(len(block), _BATCH_FRAMES * self._size)
        for piece in self._reframer.push(block):
            self._count(piece, self._frames, self._holes)

    def holes(self) -> float:
        """Give the share of places that are holes, 0 to 1; 0 where nothing can be told."""
        if self._reframer is None:
            return 0.0
        frames, holes = self._frames.copy(), self._holes.copy()
        self._count(self._reframer.rest, frames, holes)
        if not frames.any():
            return 0.0
        loud = int((np.cumsum(frames) >= _LOUD * frames.sum()).argmax())
        lowest = max(0, loud - _FAINT_DB * _STEPS_PER_DB)
        places = self._band.stop - self._band.start - 2
        return float(holes[lowest:].sum() / (frames[lowest:].sum() * places))

    def coded(self, bandwidth_hz: float | None) -> bool:
        """Tell whether a recording of this bandwidth was coded at a low rate, as far as is known.

        One that does not reach 7.3 kHz, or is silent, tells nothing.
        """
        return (bandwidth_hz or 0.0) >= _BAND_HZ[1] and self.holes() > _MOST_HOLES

    def _count(self, signal: Float32, frames: Counts, holes: Counts) -> None:
        """Count frames, and the holes in them, by the level of the band in steps."""
        if signal.shape[1] < 2 * self._size:
            return
        cut = sliding_window_view(signal, self._size, axis=1)[:, :: self._size]
        spectra = rfft(cut * self._window)[..., self._band]
        power = (spectra.real**2 + spectra.imag**2).mean(axis=0)
        near = np.maximum(np.maximum(power[:, :-2], power[:, 1:-1]), power[:, 2:])
        middle = np.median(power, axis=1, keepdims=True)
        deep = near < middle * np.float32(10.0 ** (_HOLE_DB / 10.0))
        whole = near > middle * np.float32(10.0 ** (_WHOLE_DB / 10.0))
        opened = (deep[1:] & whole[:-1]).sum(axis=1)
        above_db = 10.0 * np.log10(power[1:].mean(axis=1) + _TINY) - _LOWEST_DB
        sounding = above_db > 0.0
        place = (_STEPS_PER_DB * above_db[sounding]).astype(np.int64).clip(max=_LEVELS - 1)
        np.add.at(frames, place, 1)
        np.add.at(holes, place, opened[sounding])
