"""How loud a recording becomes by a gain and the limiter: for any gain, from one reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np

from speakup.meter import HOPS_PER_SECOND, HopWindows, channel_weights, k_weighting
from speakup.spool import Spool
from speakup.truepeak import (
    Float32,
    Float64,
    GainCurve,
    Reframer,
    StepPeaks,
    reduction_needed,
)


class LimitedLoudness:
    """Predict the loudness of a recording after a gain and the limiter, without running either.

    One reading keeps, on disk, the true peak and two energies of each of the limiter's steps of
    half a millisecond. From the peaks, scaled by a gain, follows the very curve that the limiter
    would take; the energies times its square give the loudness. The one thing left out is that
    the K-weighting comes behind the limiter's gain: the gain moves so slowly beside what the
    weighting tells apart that it makes hundredths of a dB.

    Args:
        sample_rate: In Hz.
        channels: C.
        ceiling_dbtp: The limiter's.
        most_gain_db: No larger gain will be asked about: peaks it leaves alone are not sought.
        blocks: The recording, as blocks `(C, T)`.

    Raises:
        OutputError: the temporary folder is full or cannot be written.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        ceiling_dbtp: float,
        most_gain_db: float,
        blocks: Iterable[Float32],
    ) -> None:
        self._sample_rate, self._channels = sample_rate, channels
        self._ceiling = _linear(ceiling_dbtp)
        self._peaks = StepPeaks(sample_rate, channels)
        self._samples = 0
        self._spool = Spool(3)
        try:
            for steps in self._measured(blocks, self._ceiling / _linear(most_gain_db)):
                self._spool.write(steps)
        except BaseException:
            self.close()
            raise

    def after(self, gain_db: float) -> tuple[float, float]:
        """Give the integrated loudness in LUFS and the RMS in dBFS after a gain and the limiter."""
        windows = HopWindows()
        hops = _HopMeans(self._sample_rate, self._peaks.step)
        total = 0.0
        for weighted, squares in self._limited(_linear(gain_db)):
            windows.add(hops.push(weighted))
            total += float(squares.sum())
        power = total / max(1, self._samples * self._channels)
        rms_dbfs = 10.0 * math.log10(power) if power > 0.0 else -math.inf
        return windows.integrated_lufs(), rms_dbfs

    def close(self) -> None:
        """Drop what was kept."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _measured(self, blocks: Iterable[Float32], threshold: float) -> Iterator[Float32]:
        """Yield (peak, weighted energy, energy) of the steps, `(3, N)`, frame by frame."""
        from scipy.signal import sosfilt  # it takes half a second to load

        step, weights = self._peaks.step, channel_weights(self._channels)
        sections = k_weighting(self._sample_rate)
        state = np.zeros((len(sections), self._channels, 2))
        reframer = Reframer(self._channels, self._peaks.frame)
        starts = np.arange(0, self._peaks.frame, step)

        def measured(frame: Float32) -> Float32:
            nonlocal state
            heard, peaks = self._peaks.push(frame, threshold)
            wide = heard.astype(np.float64)
            heavy, state = sosfilt(sections, wide, axis=-1, zi=state)
            weighted = weights @ np.add.reduceat(heavy * heavy, starts, axis=-1)
            squares = np.add.reduceat(wide * wide, starts, axis=-1).sum(axis=0)
            return np.stack([peaks, weighted, squares]).astype(np.float32)

        given = 0
        for block in blocks:
            self._samples += block.shape[1]
            for frame in reframer.push(block):
                yield (steps := measured(frame))
                given += steps.shape[1]
        last = -(-(self._samples + self._peaks.latency) // step)
        silence = np.zeros((self._channels, self._peaks.frame), np.float32)
        while given < last:
            for frame in reframer.push(silence):
                yield (steps := measured(frame)[:, : last - given])
                given += steps.shape[1]

    def _limited(self, gain: float) -> Iterator[tuple[Float64, Float64]]:
        """Yield the steps' weighted energies and energies `(N,)` after gain and limiter."""
        curve = GainCurve(self._peaks.steps_per_second)
        energies, borders = np.zeros((2, 0)), np.zeros(0)
        early = curve.latency  # that many reductions are for steps before the first
        rest = np.zeros((3, curve.latency + 1), np.float32)
        for block in _followed(self._spool.read(), rest):
            reduction = curve.push(reduction_needed(block[0] * np.float32(gain), self._ceiling))
            borders = np.concatenate([borders, reduction[early:]])
            early = max(0, early - len(reduction))
            energies = np.concatenate([energies, block[1:]], axis=1)
            count = max(0, len(borders) - 1)
            factor = gain * (1.0 - (borders[:-1] + borders[1:]) / 2.0)
            weighted, squares = energies[:, :count] * (factor * factor)
            yield weighted, squares
            borders, energies = borders[count:], energies[:, count:]


class _HopMeans:
    """Average steps' energies over the 100 ms hops that they begin in."""

    def __init__(self, sample_rate: int, step: int) -> None:
        self._steps_per_hop = sample_rate / (HOPS_PER_SECOND * step)
        self._step = step
        self._hop = 0
        self._rest: Float64 = np.zeros(0)

    def push(self, energies: Float64) -> Float64:
        """Take the next steps' energies `(N,)` and give the means of the hops that are whole."""
        pending = np.concatenate([self._rest, energies])
        first = math.ceil(self._hop * self._steps_per_hop)
        hops = int((first + len(pending)) / self._steps_per_hop) - self._hop
        hop_numbers = self._hop + np.arange(hops + 1)
        edges = np.ceil(hop_numbers * self._steps_per_hop).astype(np.int64) - first
        self._hop += hops
        self._rest = pending[edges[-1] :]
        if hops == 0:
            return np.zeros(0)
        sums = np.add.reduceat(pending[: edges[-1]], edges[:-1])
        return np.asarray(sums / (np.diff(edges) * self._step))


def _followed(blocks: Iterator[Float32], last: Float32) -> Iterator[Float32]:
    yield from blocks
    yield last


def _linear(level_db: float) -> float:
    return math.pow(10.0, level_db / 20.0)
