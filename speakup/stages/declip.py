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

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solve_toeplitz, solveh_banded

from speakup.blocks import Block
from speakup.measure.clipping import Ceilings, cut_off, half_frame
from speakup.stages.base import Stage

Signal = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ITERATIONS = 6
_HIGHEST = 4.0
"""How many times as high as the ceiling a sample may be drawn."""


class Declip(Stage):
    """The stage that rebuilds cut-off peaks; what has none comes out bit for bit as it was.

    Where the highest level of a stretch is a ceiling, all samples on it are cut off. Left alone are
    plateaus longer than 15 ms, and stretches that are nearly all plateau: those are drawn so. What
    is rebuilt may rise 12 dB above the ceiling, and so beyond full scale.

    Args:
        sample_rate: Hz.
        ceilings: Where each of the C channels is cut off, as `ClippingMeter` finds it.
    """

    name = "declip"
    exceeds_full_scale = True

    def __init__(self, sample_rate: int, ceilings: Ceilings) -> None:
        self.warnings: list[str] = []
        self._ceilings = ceilings
        self._hop = half_frame(sample_rate)
        self._order = min(64, max(16, sample_rate // 1000 + 4))
        phase = np.arange(2 * self._hop) / (2 * self._hop)
        self._window = np.sin(np.pi * phase) ** 2  # adds up to one at half its length
        # Before the beginning lies half a frame of silence, which does not come out.
        self._held = np.zeros((len(ceilings), self._hop), np.float32)
        self._carried = np.zeros((len(ceilings), self._hop))
        self._surplus = self._hop
        self.latency = 3 * self._hop - 1

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
                missing = cut_off(frame, ceilings)
                if missing.any():
                    drawn = rebuild(frame, missing, self._order)
                    change[channel, start : start + 2 * hop] += self._window * (drawn - frame)
        self._carried = change[:, frames * hop :].copy()
        return change[:, : frames * hop]


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


def _predictor(signal: Signal, order: int) -> Signal:
    """Give the coefficients (P + 1,) whose filter leaves least of a signal, the first being 1."""
    padded = 1 << (len(signal) + order).bit_length()
    power = np.abs(np.fft.rfft(signal, padded)) ** 2
    correlation = np.fft.irfft(power, padded)[: order + 1]
    correlation[0] = correlation[0] * (1.0 + 1e-9) + 1e-12
    solved = solve_toeplitz(correlation[:-1], -correlation[1:])
    return np.concatenate([[1.0], solved])
