"""The limiter that holds true peaks under a ceiling, and how loud it leaves a recording."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from speakup.blocks import Float32, Float64, Reframer, checked_block, db_to_gain, power_to_db
from speakup.measure.loudness import HOPS_PER_SECOND, HopWindows, channel_weights, k_weighting
from speakup.measure.true_peak import StepPeaks
from speakup.spool import Spool

_HALF_LOOKAHEAD = 4


_RELEASE_SECONDS = 0.1


_MARGIN_DB = 0.05


_MARGIN = 10.0 ** (-_MARGIN_DB / 20.0)


class Limiter:
    """Hold the true peak of a stream under a ceiling: look-ahead, one gain for all channels.

    The joined output of `push` and `flush` has exactly the input's length at lag 0, and is the
    input bit for bit wherever no peak comes near enough to need a gain. Input must be finite.

    Of every half millisecond, the step, `StepPeaks` gives the true peak, `GainCurve` makes of it
    a reduction at the step's borders, and between the borders the reduction moves in a line. A
    peak is thus multiplied by gains of which neither is above what it needs.

    Args:
        sample_rate: In Hz.
        channels: Channels of every block.
        ceiling_dbtp: Peaks above it are brought 0.05 dB below it, which leaves room for what the
            gain's own movement adds between samples.

    Reference: ITU-R BS.1770-5 Annex 2 for the detection.
    """

    def __init__(self, sample_rate: int, channels: int, ceiling_dbtp: float) -> None:
        self._ceiling = 10.0 ** (ceiling_dbtp / 20.0)
        self._peaks = StepPeaks(sample_rate, channels)
        self._curve = GainCurve(self._peaks.steps_per_second)
        self._reframer = Reframer(channels, self._peaks.frame)
        self._channels = channels
        # A step's line ends at the reduction of the next one.
        wait = (GainCurve.latency + 1) * self._peaks.step
        self._delay = StepPeaks.latency + wait
        self._delayed = np.zeros((channels, wait), np.float32)
        self._border = 0.0
        self._slope = (np.arange(self._peaks.step) / self._peaks.step).astype(np.float32)
        self._taken = 0
        self._given = -self._delay

    @property
    def latency(self) -> int:
        """Most samples that `push` holds back; `flush` gives them."""
        return self._delay + self._peaks.frame - 1

    def push(self, block: Float32) -> Float32:
        """Take a block `(C, T)` and give `(C, T')` of what is ready, T' from 0 on."""
        block = checked_block(block, self._channels)
        self._taken += block.shape[1]
        return self._joined([self._limit(frame) for frame in self._reframer.push(block)])

    def flush(self) -> Float32:
        """Give the rest, so that as many samples have come out as went in."""
        frame = self._peaks.frame
        silence = np.zeros((self._channels, frame), np.float32)
        frames: list[Float32] = []
        while self._given + frame * len(frames) < self._taken:
            frames += [self._limit(piece) for piece in self._reframer.push(silence)]
        return self._joined(frames)

    def _joined(self, frames: list[Float32]) -> Float32:
        signal = np.concatenate([np.zeros((self._channels, 0), np.float32), *frames], axis=1)
        start, stop = max(0, -self._given), self._taken - self._given
        self._given += signal.shape[1]
        return signal[:, start : min(stop, signal.shape[1])]

    def _limit(self, frame: Float32) -> Float32:
        """Give the signal `self._delay` samples before this frame `(C, F)`, limited."""
        heard, peaks = self._peaks.push(frame, self._ceiling)
        delayed = np.concatenate([self._delayed, heard], axis=1)
        self._delayed = delayed[:, frame.shape[1] :].copy()
        signal = delayed[:, : frame.shape[1]]
        reduction = self._curve.push(reduction_needed(peaks, self._ceiling))
        if self._border == 0.0 and not reduction.any():
            return signal
        borders = np.concatenate([[self._border], reduction]).astype(np.float32)
        self._border = float(reduction[-1])
        lines = borders[:-1, None] + np.diff(borders)[:, None] * self._slope
        return signal * (np.float32(1.0) - lines.reshape(-1))


def reduction_needed(peaks: Float32, ceiling: float) -> Float64:
    """Give 1 - gain that brings each peak above the ceiling, both linear, 0.05 dB below it."""
    wide = peaks.astype(np.float64)
    needed = 1.0 - ceiling * _MARGIN / np.maximum(wide, ceiling)
    return np.where(wide > ceiling, needed, 0.0)


class GainCurve:
    """Make of the reductions that steps need one that moves smoothly and is never smaller.

    With A = 4 steps, which is 2 ms: a reduction needed is held for 2A + 2 steps (sliding
    maximum), let go exponentially, and smoothed by two boxes of A + 1 steps, which together span
    2A + 1. So each smoothed value is a mean of values that all contain what the step 2A before
    needs, and what the one before that needs: it is meant for the border between the two.

    `push` gives for each step the reduction at the beginning of the step `latency` before it.
    """

    latency = 2 * _HALF_LOOKAHEAD

    def __init__(self, steps_per_second: float) -> None:
        self._wanted = np.zeros(2 * _HALF_LOOKAHEAD + 1)
        self._level = 0.0
        self._boxes = [np.zeros(_HALF_LOOKAHEAD), np.zeros(_HALF_LOOKAHEAD)]
        self._keep = math.exp(-1.0 / (steps_per_second * _RELEASE_SECONDS))

    def push(self, wanted: Float64) -> Float64:
        """Take what the next steps `(N,)` need, N up to 10,000, and give `(N,)` reductions."""
        states = (wanted, self._wanted, *self._boxes)
        if self._level == 0.0 and not any(state.any() for state in states):
            return np.zeros(len(wanted))
        level = self._released(self._held(wanted))
        for index, past in enumerate(self._boxes):
            history = np.concatenate([past, level])
            self._boxes[index] = history[len(level) :]
            level = _box_mean(history, _HALF_LOOKAHEAD + 1)
        return level

    def _held(self, wanted: Float64) -> Float64:
        from scipy.ndimage import maximum_filter1d  # it takes a while to load

        history = np.concatenate([self._wanted, wanted])
        self._wanted = history[len(wanted) :]
        width = len(self._wanted) + 1
        # A window that ends at each step: shift scipy's centred one by half its (even) width.
        return np.asarray(maximum_filter1d(history, width)[width // 2 :][: len(wanted)])

    def _released(self, held: Float64) -> Float64:
        """Let go exponentially: d[n] = max(held[n], keep * d[n-1]).

        Divided by keep^n the recursion is a running maximum, which needs no loop.
        """
        decay = self._keep ** np.arange(1, len(held) + 1)
        level = np.maximum(np.maximum.accumulate(held / decay), self._level) * decay
        level[level < 1e-6] = 0.0
        self._level = float(level[-1])
        return level


def _box_mean(values: Float64, width: int) -> Float64:
    """Average every `width` neighbours, by one running sum: (N,) -> (N - width + 1,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[width:] - sums[:-width]) / width)


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
        self._ceiling = db_to_gain(ceiling_dbtp)
        self._peaks = StepPeaks(sample_rate, channels)
        self._samples = 0
        self._spool = Spool(3)
        try:
            for steps in self._measured(blocks, self._ceiling / db_to_gain(most_gain_db)):
                self._spool.write(steps)
        except BaseException:
            self.close()
            raise

    def after(self, gain_db: float) -> tuple[float, float]:
        """Give the integrated loudness in LUFS and the RMS in dBFS after a gain and the limiter."""
        windows = HopWindows()
        hops = _HopMeans(self._sample_rate, self._peaks.step)
        total = 0.0
        for weighted, squares in self._limited(db_to_gain(gain_db)):
            windows.add(hops.push(weighted))
            total += float(squares.sum())
        power = total / max(1, self._samples * self._channels)
        return windows.integrated_lufs(), power_to_db(power)

    def close(self) -> None:
        """Drop what was kept."""
        self._spool.close()

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
