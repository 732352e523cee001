"""True peaks: what lies between the samples, and the limiter that holds it under a ceiling."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_TAPS = 32
_ROW = 32
_BATCH = 16
_KAISER_BETA = 4.0
_FRAME = 8192
_STEPS_PER_SECOND = 2_000
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


class StepPeaks:
    """Give the true peak of every step, about half a millisecond, of a stream.

    Oversampled twice as finely as the meter, 8x at 44.1 kHz, so that meters with another grid
    or another filter read no more.

    Args:
        sample_rate: In Hz.
        channels: C of every frame.
    """

    latency = _TAPS // 2
    """Samples by which what `push` gives lies behind what it takes."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.step = max(1, round(sample_rate / _STEPS_PER_SECOND))
        self.steps_per_second = sample_rate / self.step
        self.frame = self.step * max(1, _FRAME // self.step)
        """Samples of every frame that `push` takes."""
        self._oversampler = Oversampler(2 * annex_factor(sample_rate))
        self._recent = np.zeros((channels, Oversampler.history), np.float32)
        self._last_between = np.float32(0.0)

    def push(self, frame: Float32, threshold: float) -> tuple[Float32, Float32]:
        """Take the next frame and measure the steps of the one that `latency` makes of it.

        Args:
            frame: `(C, F)`.
            threshold: Linear. Steps that cannot exceed it are measured at their samples only.

        Returns:
            The frame `(C, F)` that was measured, and the largest magnitude `(F / step,)` of any
            channel in each of its steps and up to the samples next to them.
        """
        signal = np.concatenate([self._recent, frame], axis=1)
        self._recent = signal[:, frame.shape[1] :].copy()
        # between()[i] lies after sample i + reach - 1 of `signal`.
        start = Oversampler.reach - 1
        heard = signal[:, start : start + frame.shape[1]]
        after = self._oversampler.between(signal, threshold).max(axis=0)
        largest = np.maximum(np.abs(heard).max(axis=0), after)
        peaks = np.maximum.reduceat(largest, np.arange(0, len(largest), self.step))
        before = np.concatenate([[self._last_between], after[self.step - 1 : -1 : self.step]])
        self._last_between = after[-1]
        return heard, np.maximum(peaks, before)


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


class Oversampler:
    """Find the largest magnitude between each pair of neighbouring samples.

    Each of the points at n + p / factor is a sum over 32 samples with sinc(t) under a Kaiser
    window (beta 4), scaled to unit gain at DC: within 0.11 dB of the true value up to 0.4535 of
    the rate, which is 20 kHz at 44.1 kHz. Point p = 0 is the sample itself.

    What remains is that a peak may lie between two points of the grid: it is read too low by at
    most -20 log10 cos(pi f / (factor * rate)), 0.1 dB at f = 0.2 rate and 0.6 dB at 0.45 rate
    for 4x, a quarter of that for 8x.

    Args:
        factor: Points per sample; `annex_factor` gives the meter's.

    Reference: ITU-R BS.1770-5 Annex 2; its Attachment 1 for the under-reading.
    """

    reach = _TAPS // 2
    history = _TAPS - 1

    def __init__(self, factor: int) -> None:
        self._points = factor - 1
        offsets = np.arange(1 - self.reach, self.reach + 1)
        distance = offsets - np.arange(1, factor)[:, None] / factor
        window = np.i0(_KAISER_BETA * np.sqrt(1.0 - (distance / self.reach) ** 2))
        taps = np.sinc(distance) * window
        taps /= taps.sum(axis=1, keepdims=True)
        # No point can exceed the largest of its samples times this.
        self._bound = float(np.abs(taps).sum(axis=1).max(initial=0.0))
        # One matrix product gives all points of a row of samples: column (p, j) holds the taps
        # of phase p, moved down by j.
        matrix = np.zeros((_ROW + self.history, self._points, _ROW))
        for shift in range(_ROW):
            matrix[shift : shift + _TAPS, :, shift] = taps.T
        self._matrix = matrix.reshape(len(matrix), -1).astype(np.float32)

    def between(self, signal: Float32, threshold: float) -> Float32:
        """Give the largest magnitude strictly between samples, where it may exceed the threshold.

        Args:
            signal: `(C, T)`.
            threshold: Linear. Stretches that cannot exceed it are not computed.

        Returns:
            `(C, T - history)`; value i lies between samples i + reach - 1 and i + reach, and is
            0 where nothing was computed.
        """
        channels, length = signal.shape
        count = max(0, length - self.history)
        rows = -(-count // _ROW)
        found = np.zeros((channels, rows, _ROW), np.float32)
        if self._points and count:
            padded = np.zeros((channels, (rows + 1) * _ROW), np.float32)
            padded[:, :length] = signal
            starts = np.arange(0, (rows + 1) * _ROW, _ROW)
            largest = np.maximum.reduceat(np.abs(padded), starts, axis=-1)
            # A row needs its own 32 samples and 31 of the next row's.
            largest = np.maximum(largest[:, :-1], largest[:, 1:])
            chosen = largest * self._bound > threshold
            windows = sliding_window_view(padded, len(self._matrix), axis=1)[:, ::_ROW]
            points = np.abs(self._product(windows[chosen]))
            found[chosen] = points.reshape(-1, self._points, _ROW).max(axis=1)
        return found.reshape(channels, -1)[:, :count]

    def _product(self, rows: Float32) -> Float32:
        """Give rows `(N, K)` times the matrix, in products too small for BLAS to use threads.

        Threads would gain nothing here, and their spinning costs the networks' threads dearly.
        """
        batches = np.zeros((-(-len(rows) // _BATCH), _BATCH, rows.shape[1]), np.float32)
        batches.reshape(-1, rows.shape[1])[: len(rows)] = rows
        return (batches @ self._matrix).reshape(-1, self._matrix.shape[1])[: len(rows)]


def annex_factor(sample_rate: int) -> int:
    """Give the least oversampling BS.1770-5 Annex 2 accepts: 4x, 2x from 96 kHz, 1x from 192."""
    return 4 if sample_rate < 96_000 else 2 if sample_rate < 192_000 else 1


class Reframer:
    """Cut a stream into pieces of one length, so that block borders leave no trace."""

    def __init__(self, channels: int, length: int) -> None:
        self.rest: Float32 = np.zeros((channels, 0), np.float32)
        self._length = length

    def push(self, block: Float32) -> Iterator[Float32]:
        """Take a block `(C, T)` and yield every whole piece `(C, length)`."""
        start = 0
        if self.rest.shape[1]:
            start = min(self._length - self.rest.shape[1], block.shape[1])
            self.rest = np.concatenate([self.rest, block[:, :start]], axis=1)
            if self.rest.shape[1] == self._length:
                full, self.rest = self.rest, self.rest[:, :0]
                yield full
        if self.rest.shape[1]:
            return
        whole = start + (block.shape[1] - start) // self._length * self._length
        self.rest = block[:, whole:].copy()
        for piece in range(start, whole, self._length):
            yield block[:, piece : piece + self._length]


def _box_mean(values: Float64, width: int) -> Float64:
    """Average every `width` neighbours, by one running sum: (N,) -> (N - width + 1,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[width:] - sums[:-width]) / width)


def checked_block(block: Float32, channels: int | None = None) -> Float32:
    """Give the block as float32, or say that its shape is not `(C, T)` with that many channels."""
    block = np.asarray(block, dtype=np.float32)
    if block.ndim != 2 or block.shape[0] != (channels or block.shape[0]):
        raise ValueError(f"expected a block ({channels or 'C'}, T), got shape {block.shape}")
    return block
