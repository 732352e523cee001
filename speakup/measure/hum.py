"""Mains hum: lines at 50 or 60 Hz and its multiples, which stand still while a voice moves.

Sound is looked at in frames of 0.2 s at every multiple of the mains frequency. There, hum keeps its
level and turns evenly; a voice comes and goes and its partials glide. So in a window of some
seconds the mains frequency, how fast it drifts, and level and phase of every line are fitted to
most frames, and frames that do not fit, as they hold a voice, count little.

Reference:
    Holland and Welsch 1977, Robust regression using iteratively reweighted least squares,
    Communications in Statistics 6(9): the weights are Cauchy's, 1 / (1 + (error / scale)^2).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from speakup.blocks import Block, Float64, Reframer

MAINS_HZ = (50.0, 60.0)
HIGHEST_HZ = 2_000.0
"""No line is looked for above: a voice's consonants and the denoiser have that to themselves."""
WINDOW_SECONDS = 6.0
"""So short that the mains drifts evenly meanwhile, so long that every voice pauses."""

_RATE = 5_000
_FRAME, _HOP = _RATE // 5, _RATE // 20
_FRAMES = (round(WINDOW_SECONDS * _RATE) - _FRAME) // _HOP + 1
_LEAST_FRAMES = 55
"""Of 2.9 s together: fewer agree by chance."""
_SPREAD = 0.0327
"""A Hann window's variance in time, over its length squared: 1 / 12 - 1 / (2 pi^2)."""
_LOW = 6
"""Lines of so low a number tell hum from tones, and come first in the fit."""
_DRIFTS = np.linspace(-0.004, 0.004, 49)
_SLOPES = np.linspace(-0.0004, 0.0004, 9)
"""The mains' frequency off its nominal one, as a share, and the change of it in a second."""
_USUAL = np.array([3e-4, 5e-5])
"""Shares of the frequency by which it may usually change in a second, and that in another."""
_STEPS = 4
_QUIET_SHARE = 0.12
_STANDING, _BESIDE, _SURE = 0.5, 0.35, 0.8
"""Coherence at the median window from which a low line stands, one beside such, and one alone:
noise and voices have 0.1 to 0.4."""
_LINES, _MANY = 2, 6

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Hum:
    """Hum of a channel.

    Attributes:
        mains_hz: 50 or 60, nominally; 0 where there is none.
        lines: Which multiples of it stand out.
    """

    mains_hz: float = 0.0
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Hum as fitted to a window: the sum over lines k of Re(amplitude_k exp(i k phase)).

    Attributes:
        middle: Seconds from the window's beginning to where the phase is 0.
        turns: (3,) in Hz, Hz per second and Hz per second squared: t seconds from the middle, the
            phase is 2 pi (turns[0] t + turns[1] t^2 / 2 + turns[2] t^3 / 6).
        amplitudes: (K,) of the lines 1 to K.
        coherence: (K,) from 0, chance, to 1: whether most frames agree on them.
    """

    middle: float
    turns: Float64
    amplitudes: Complex
    coherence: Float64

    def sound(self, samples: int, sample_rate: int) -> Float64:
        """Give the hum (T,) from the window's beginning on."""
        turn = np.exp(1j * self.turns @ _powers(np.arange(samples) / sample_rate - self.middle))
        total = np.zeros(samples, complex)
        for amplitude in self.amplitudes[::-1]:  # Horner's rule
            total += amplitude
            total *= turn
        return total.real


class HumMeter:
    """Find the hum of every channel, in constant memory.

    Args:
        sample_rate: Hz.
        channels: C.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._resampler = soxr.ResampleStream(
            sample_rate, _RATE, channels, dtype="float32", quality="LQ"
        )
        self._windows = Reframer(channels, round(WINDOW_SECONDS * _RATE))
        # How often a line had which coherence, in hundredths.
        most = max(_count(mains_hz, sample_rate) for mains_hz in MAINS_HZ)
        self._counts = np.zeros((len(MAINS_HZ), channels, most, 101), np.int64)
        self._rate = sample_rate

    def push(self, block: Block) -> None:
        """Look at (C, T) more."""
        low = self._resampler.resample_chunk(np.ascontiguousarray(block.T)).T
        for window in self._windows.push(low):
            self._look(window)

    def hum(self) -> tuple[Hum, ...]:
        """Give the hum of each channel; a last window counts only where it is the only one."""
        channels = self._counts.shape[1]
        if not self._counts.any():
            rest = self._resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).T
            self._look(np.concatenate([self._windows.rest, rest], axis=1))
        return tuple(self._found(channel) for channel in range(channels))

    def _look(self, window: Block) -> None:
        for channel, row in enumerate(window):
            for family, mains_hz in enumerate(MAINS_HZ):
                found = _fit(row.astype(np.float64), mains_hz, _lines(mains_hz, self._rate))
                if found is None:
                    continue
                places = np.round(100.0 * found.coherence).astype(int)
                self._counts[family, channel, np.arange(len(places)), places] += 1

    def _found(self, channel: int) -> Hum:
        found = []
        for family, mains_hz in enumerate(MAINS_HZ):
            counts = self._counts[family, channel].cumsum(axis=-1)
            middle = (2 * counts >= np.maximum(counts[:, -1:], 1)).argmax(axis=-1) / 100.0
            firm = int((middle[:_LOW] >= _STANDING).sum()) >= _LINES
            # For one window alone, a voice may stand on a line.
            lone = _SURE if counts[0, -1] > 1 else 1.1
            stands = np.flatnonzero(middle >= (_BESIDE if firm else lone)) + 1
            found.append((middle[:_LOW].sum(), Hum(mains_hz, tuple(map(int, stands)))))
        best = max(found, key=lambda one: one[0])[1]
        # A few lines may be anybody's tones; but those at the mains' own or double frequency are
        # none, and neither are many.
        low = sum(line <= _LOW for line in best.lines)
        sure = bool(set(best.lines) & {1, 2}) or low >= _LINES or len(best.lines) >= _MANY
        return best if sure else Hum()


def fit(window: Float64, sample_rate: int, hum: Hum) -> Fit | None:
    """Fit known hum to a window (T,) of about 6 s or less; None where there is too little of it."""
    low = soxr.resample(window, sample_rate, _RATE, quality="HQ")
    return _fit(low, hum.mains_hz, np.array(hum.lines))


def _fit(window: Float64, mains_hz: float, lines: NDArray[np.intp]) -> Fit | None:
    """Fit lines (K',) of the mains to a window (T,) at the low rate."""
    frames = min(_FRAMES, (len(window) - _FRAME) // _HOP + 1)
    if frames < _LEAST_FRAMES or not len(lines):
        return None
    seen = _seen(window, mains_hz, lines, frames)
    low = lines <= _LOW
    if not low.any():
        low = lines <= lines[0]
    drift, slope = _coarse(seen[low], mains_hz, lines[low])
    turns = mains_hz * np.array([1.0 + drift, slope, 0.0])
    time = _time(frames)
    for most in (_LOW, 2 * _LOW, 4 * _LOW, lines[-1]):
        chosen = (lines <= most) | low
        turns = _refined(seen[chosen], mains_hz, lines[chosen], turns, time)
    still = _stilled(seen, mains_hz, lines, turns, time)
    middles, _ = _middles(still)
    coherence = _coherence(still)
    amplitudes, agreed = np.zeros(lines[-1], complex), np.zeros(lines[-1])
    amplitudes[lines - 1], agreed[lines - 1] = middles, coherence
    return Fit((_FRAME + (frames - 1) * _HOP) / 2 / _RATE, turns, amplitudes, agreed)


def _seen(window: Float64, mains_hz: float, lines: NDArray[np.intp], frames: int) -> Complex:
    """Give what every frame holds at every line (K', N), phases counted from the middle frame."""
    cut = np.lib.stride_tricks.sliding_window_view(window, _FRAME)[::_HOP][:frames]
    spectra = np.fft.rfft(cut * _hann(), axis=1)
    # A frame of 0.2 s has a bin at every multiple of 5 Hz, and so at every line.
    bins = np.round(lines * mains_hz * _FRAME / _RATE).astype(int)
    centred = spectra[:, bins].T * (2.0 / _hann().sum())
    # The phase in the middle of the frame, half of whose periods are whole or not.
    return centred * np.exp(1j * np.pi * bins)[:, None]


def _stilled(
    seen: Complex, mains_hz: float, lines: NDArray[np.intp], turns: Float64, time: Float64
) -> Complex:
    """Turn frames back by what the hum has turned, so that it stands still."""
    phase = turns @ _powers(time)
    off_hz = np.outer(lines, turns @ np.stack([np.ones_like(time), time, time**2 / 2]) - mains_hz)
    # A frame's window passes less of what lies off its bin.
    passed = np.exp(-0.5 * _SPREAD * (2.0 * np.pi * off_hz * _FRAME / _RATE) ** 2)
    return np.asarray(seen * np.exp(-1j * np.outer(lines, phase)) / passed)


def _coherence(still: Complex) -> Float64:
    """Give (K',) from 0 to 1: whether frames agree, the loud as much as the quiet."""
    return np.asarray(np.abs(_limited(still).mean(axis=1)))


def _limited(seen: Complex) -> Complex:
    return np.asarray(seen / np.maximum(np.maximum(np.abs(seen), _quiet(seen)), 1e-12))


def _refined(
    seen: Complex, mains_hz: float, lines: NDArray[np.intp], turns: Float64, time: Float64
) -> Float64:
    """Give better turns, as long as frames agree the more."""
    still = _stilled(seen, mains_hz, lines, turns, time)
    agreed = float(np.square(_coherence(still)).sum())
    for _ in range(_STEPS):
        step = _step(still, lines, time, turns, mains_hz)
        for share in (1.0, 0.3):
            next_turns = turns + share * step
            next_still = _stilled(seen, mains_hz, lines, next_turns, time)
            next_agreed = float(np.square(_coherence(next_still)).sum())
            if next_agreed > agreed:
                break
        else:
            return turns
        turns, still, agreed = next_turns, next_still, next_agreed
    return turns


def _coarse(seen: Complex, mains_hz: float, lines: NDArray[np.intp]) -> tuple[float, float]:
    """Give the drift and the slope at which most frames agree."""
    limited = _limited(seen)
    total = np.zeros(len(_DRIFTS) * len(_SLOPES))
    for line, row in zip(lines.tolist(), limited, strict=True):
        total += np.abs(_rotations(mains_hz, line, len(row)) @ row) ** 2
    drift, slope = np.unravel_index(int(total.argmax()), (len(_DRIFTS), len(_SLOPES)))
    return float(_DRIFTS[drift]), float(_SLOPES[slope])


@functools.lru_cache(64)
def _rotations(mains_hz: float, line: int, frames: int) -> Complex:
    time = _time(frames)
    curves = (1.0 + _DRIFTS)[:, None, None] + _SLOPES[:, None] * time / 2.0
    turned = np.exp(-2j * np.pi * line * mains_hz * curves * time)
    return turned.reshape(-1, frames)


def _step(
    still: Complex, lines: NDArray[np.intp], time: Float64, turns: Float64, mains_hz: float
) -> Float64:
    """Give what to add to the turns, by a step of Gauss and Newton.

    Near its middle c a line is c (1 + i k p), where p is the phase that the turns lack: linear in
    what they lack.
    """
    middles, weights = _middles(still)
    power = np.abs(middles[:, None]) ** 2
    lacking = (still * middles[:, None].conj()).imag
    basis = _powers(time)
    # A constant is the line's own phase.
    centres = (weights @ basis.T) / weights.sum(axis=1, keepdims=True)
    away = basis[None] - centres[:, :, None]  # (K', 3, N)
    trust = weights * lines[:, None]
    right = np.einsum("kn,kan,kn->a", trust, away, lacking)
    left = np.einsum("kn,kan,kbn->ab", trust * lines[:, None] * power, away, away)
    # Mains drift slowly: what they were never seen to do must be plain to be believed.
    prior = np.array([0.0, *((_USUAL * mains_hz) ** -2.0)])
    left += np.diag(prior + 1e-9 * left.diagonal() + 1e-30)
    right -= prior * turns
    return np.asarray(np.linalg.solve(left, right))


def _middles(still: Complex) -> tuple[Complex, Float64]:
    """Give the value (K',) of every line that most frames agree on, and weights (K', N)."""
    middles = _limited(still).mean(axis=1) * _quiet(still)[:, 0]
    weights = np.ones(still.shape)
    for _ in range(12):
        error = np.abs(still - middles[:, None])
        scale = np.maximum(np.quantile(error, _QUIET_SHARE, axis=1, keepdims=True), 1e-9)
        weights = 1.0 / (scale**2 + error**2)
        middles = (weights * still).sum(axis=1) / weights.sum(axis=1)
    return middles, weights


def _quiet(seen: Complex) -> Float64:
    return np.asarray(np.quantile(np.abs(seen), _QUIET_SHARE, axis=1, keepdims=True))


def _powers(time: Float64) -> Float64:
    """Give (3, T): the phase that one unit of each of the turns makes."""
    return 2.0 * np.pi * np.stack([time, time**2 / 2.0, time**3 / 6.0])


def _time(frames: int) -> Float64:
    """Give seconds of the frames' middles, 0 in the middle of all."""
    return np.asarray((np.arange(frames) - (frames - 1) / 2.0) * _HOP / _RATE)


@functools.lru_cache(1)
def _hann() -> Float64:
    return np.asarray(np.sin(np.pi * np.arange(_FRAME) / _FRAME) ** 2)


def _count(mains_hz: float, sample_rate: int) -> int:
    return int(min(HIGHEST_HZ, 0.45 * sample_rate) / mains_hz)


def _lines(mains_hz: float, sample_rate: int) -> NDArray[np.intp]:
    return np.arange(1, _count(mains_hz, sample_rate) + 1)
