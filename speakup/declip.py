"""Rebuild peaks that were cut off: samples on flat tops are drawn anew, no other is touched.

What overload has cut off is known to lie beyond the ceiling, and voices are predictable over a few
milliseconds: so each stretch of 46 ms is fitted with a linear predictor, the missing samples are
those that the predictor finds least surprising, and the fit is repeated on the result.

Reference:
    Janssen, Veldhuis and Vries 1986, Adaptive interpolation of discrete-time signals that can be
    modeled as autoregressive processes, IEEE Trans. ASSP 34(2); that a clipped sample lies beyond
    the ceiling is the consistency of Záviška et al. 2021, A survey and an extensive evaluation of
    popular audio declipping methods, arXiv 2007.07663, section II.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solve_toeplitz, solveh_banded

Block = NDArray[np.float32]
Signal = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FRAME_SECONDS = 0.046
_ITERATIONS = 6
_EQUAL = 1e-4
"""Share of the level within which samples are equal: about two steps of 16 bits at full scale."""
_ON_CEILING = 2e-4
"""Share of a ceiling within which samples stand on it, and the step in which levels are counted."""
_FLAT = 3
"""Equal samples in a row that make a plateau."""
_CORNER = 0.01
"""Share of the level that the wave falls, at both ends together, right beside a plateau."""
_QUIETEST = 0.01
"""Full scale's share under which plateaus are rounding, not overload."""
_COARSE = 1e-3
"""Share of the peak that the finest step of a recording of few levels exceeds."""
_PLATEAUS = 5
_PLATEAU_SHARE = 0.1
"""How many of the plateaus, and what share of them, stand on a ceiling."""
_MOST_MISSING = 0.8
_LONGEST_SHARE = 1 / 3
"""Share of a stretch that may be missing, in all and in one piece."""
_HIGHEST = 4.0
"""How many times as high as the ceiling a sample may be drawn."""

Ceilings = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
"""For each channel: the levels, as positive numbers, at which it is cut off above, and below."""


class Declip:
    """The stage that rebuilds cut-off peaks; what has none comes out bit for bit as it was.

    Where the highest level of a stretch is a ceiling, all samples on it are cut off. Left alone are
    plateaus longer than 15 ms, and stretches that are nearly all plateau: those are drawn so. What
    is rebuilt may rise 12 dB above the ceiling, and so beyond full scale.

    Args:
        sample_rate: Hz.
        ceilings: Where each of the C channels is cut off, as `ClippingMeter` finds it.
    """

    name = "declip"
    model = ""
    revision = ""
    input_rate: int | None = None
    output_rate: int | None = None
    needs_whole_signal = False

    def __init__(self, sample_rate: int, ceilings: Ceilings) -> None:
        self.warnings: list[str] = []
        self._ceilings = ceilings
        self._hop = _hop(sample_rate)
        self._order = min(64, max(16, sample_rate // 1000 + 4))
        phase = np.arange(2 * self._hop) / (2 * self._hop)
        self._window = np.sin(np.pi * phase) ** 2  # adds up to one at half its length
        # Before the beginning lies half a frame of silence, which does not come out.
        self._held = np.zeros((len(ceilings), self._hop), np.float32)
        self._carried = np.zeros((len(ceilings), self._hop))
        self._surplus = self._hop

    def push(self, block: Block) -> Block:
        """Take (C, T) and give what is complete: all but the last 69 ms or less."""
        held = np.concatenate([self._held, block], axis=1)
        hop = self._hop
        frames = max(0, held.shape[1] // hop - 1)
        self._held = held[:, frames * hop :].copy()
        ready = held[:, : frames * hop]
        if frames:
            ready = (ready + self._changes(held, frames)).astype(np.float32)
        surplus = min(self._surplus, ready.shape[1])
        self._surplus -= surplus
        return ready[:, surplus:]

    def flush(self) -> Iterator[Block]:
        """Give the rest."""
        left = self._held.shape[1] - self._surplus
        rest = self.push(np.zeros((len(self._held), 3 * self._hop), np.float32))
        yield rest[:, : max(0, left)]

    def _changes(self, held: Block, frames: int) -> Signal:
        """Give what is to be added to the first `frames` hops, (C, frames * hop)."""
        hop = self._hop
        change = np.zeros((len(held), (frames + 1) * hop))
        change[:, :hop] = self._carried
        for channel, (ceilings, row) in enumerate(zip(self._ceilings, held, strict=True)):
            for start in range(0, frames * hop, hop):
                frame = row[start : start + 2 * hop].astype(np.float64)
                missing = _cut_off(frame, ceilings)
                if missing.any():
                    drawn = rebuild(frame, missing, self._order)
                    change[channel, start : start + 2 * hop] += self._window * (drawn - frame)
        self._carried = change[:, frames * hop :].copy()
        return change[:, : frames * hop]


class ClippingMeter:
    """Find the levels at which a recording is cut off.

    That is where three or more equal samples stand on the highest level for 23 ms on either side,
    the wave meets them at a corner, and it happens again and again at the same level. Recordings of
    few levels, as of 8 bits, are none of them: there, equal neighbours mean nothing.

    Args:
        sample_rate: Hz.
        channels: C.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._reach = _hop(sample_rate)
        self._held = np.zeros((channels, self._reach), np.float32)
        self._found: list[Counter[int]] = [Counter() for _ in range(2 * channels)]

    def push(self, block: Block) -> None:
        """Look at (C, T) more."""
        held = np.concatenate([self._held, block], axis=1)
        self._held = held[:, -2 * self._reach :].copy()
        for channel, row in enumerate(held):
            levels = _plateaus(row, self._reach)
            if len(levels) and not _coarse(row):
                for side, mine in enumerate((levels[levels > 0.0], -levels[levels < 0.0])):
                    steps = np.round(np.log(mine) / _ON_CEILING).astype(int)
                    self._found[2 * channel + side].update(steps.tolist())

    def ceilings(self) -> Ceilings:
        """Give the levels found so far, for each channel."""
        levels = [_common(found) for found in self._found]
        return tuple(zip(levels[::2], levels[1::2], strict=True))


def _plateaus(row: NDArray[np.float32], reach: int) -> NDArray[np.float64]:
    """Give the levels of the plateaus with corners in (T,), but for `reach` at either end."""
    equal = np.abs(np.diff(row)) <= _EQUAL * np.abs(row[1:])
    starts, ends = _runs(equal)  # of differences: sample `ends` is the last that is equal
    inside = (ends - starts >= _FLAT - 1) & (ends >= reach) & (ends < len(row) - reach)
    inside &= starts > 0
    starts, ends = starts[inside], ends[inside]
    level = row[starts].astype(np.float64)
    drops = (level - row[starts - 1], level - row[ends + 1])
    sharp = np.sign(level) * (drops[0] + drops[1]) >= _CORNER * np.abs(level)
    found = []
    for start in starts[sharp & (np.abs(level) >= _QUIETEST)]:
        around = row[max(0, start - reach) : start + reach] * np.sign(row[start])
        if around.max() <= (1.0 + _ON_CEILING) * abs(row[start]):
            found.append(float(row[start]))
    return np.array(found)


def _common(found: Counter[int]) -> tuple[float, ...]:
    """Give the levels that plateaus have in common."""
    enough = max(_PLATEAUS, _PLATEAU_SHARE * found.total())
    near = {step: found[step - 1] + found[step] + found[step + 1] for step in list(found)}
    return tuple(math.exp(step * _ON_CEILING) for step in sorted(near) if near[step] >= enough)


def _cut_off(frame: Signal, ceilings: tuple[tuple[float, ...], tuple[float, ...]]) -> Mask:
    """Tell which samples of a frame (T,) are cut off."""
    missing = np.zeros(len(frame), bool)
    for wave, levels in zip((frame, -frame), ceilings, strict=True):
        top = float(wave.max())
        if any(abs(top - level) <= 2.0 * _ON_CEILING * level for level in levels):
            missing |= wave >= top * (1.0 - _ON_CEILING)
    starts, ends = _runs(missing)
    longest = int((ends - starts).max(initial=0))
    if longest > _LONGEST_SHARE * len(frame) or missing.mean() > _MOST_MISSING:
        missing[:] = False
    return missing


def rebuild(frame: Signal, missing: Mask, order: int) -> Signal:
    """Draw a frame's missing samples as a linear predictor would have them, beyond their ceiling.

    Args:
        frame: (T,), whose missing samples stand on the ceiling.
        missing: (T,) which they are.
        order: P, of the predictor, in samples.

    Returns:
        (T,); what is not missing is as it was.

    Reference:
        Janssen et al. 1986, equations 10 to 13: the missing samples solve B z = -r, where B holds
        the autocorrelation of the predictor's coefficients, banded as they end at P.
    """
    places = np.flatnonzero(missing)
    signs, ceiling = np.sign(frame[places]), np.abs(frame[places])
    result = frame.copy()
    window = np.hanning(len(frame) + 2)[1:-1]
    lags = range(min(order + 1, len(places)))
    gaps = [places[lag:] - places[: len(places) - lag] for lag in lags]
    for _ in range(_ITERATIONS):
        try:
            coefficients = _predictor(result * window, order)
            weights = np.correlate(coefficients, coefficients, "full")[order:]
            banded = np.zeros((len(gaps), len(places)))
            reach = np.append(weights, 0.0)
            for lag, gap in enumerate(gaps):
                banded[lag, : len(gap)] = reach[np.minimum(gap, order + 1)]
            banded[0] *= 1.0 + 1e-6
            known = result.copy()
            known[places] = 0.0
            kernel = np.concatenate([weights[:0:-1], weights])
            pull = np.convolve(known, kernel)[order : order + len(frame)]
            drawn = signs * solveh_banded(banded, -pull[places], lower=True)
        except (LinAlgError, ValueError):  # a stretch too regular to have a predictor
            return result
        result[places] = signs * np.clip(drawn, ceiling, _HIGHEST * ceiling)
    return result


def _hop(sample_rate: int) -> int:
    return max(32, round(_FRAME_SECONDS / 2 * sample_rate))


def _predictor(signal: Signal, order: int) -> Signal:
    """Give the coefficients (P + 1,) whose filter leaves least of a signal, the first being 1."""
    padded = 1 << (len(signal) + order).bit_length()
    power = np.abs(np.fft.rfft(signal, padded)) ** 2
    correlation = np.fft.irfft(power, padded)[: order + 1]
    correlation[0] = correlation[0] * (1.0 + 1e-9) + 1e-12
    solved = solve_toeplitz(correlation[:-1], -correlation[1:])
    return np.concatenate([[1.0], solved])


def _coarse(row: NDArray[np.float32]) -> bool:
    """Tell whether (T,) knows few levels."""
    levels = np.unique(np.abs(row))
    levels = levels[levels > levels[-1] / 16]
    steps = np.diff(levels)
    return bool(len(steps) == 0 or steps.min() > _COARSE * levels[-1])


def _runs(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give where runs of true begin, and where they have ended."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
