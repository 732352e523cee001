"""True peaks: what lies between the samples, and the limiter that holds it under a ceiling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_TAPS = 32
_ROW = 32
_BATCH = 16
_KAISER_BETA = 4.0
_FRAME = 8192
_LOOKAHEAD_SECONDS = 0.005
_RELEASE_SECONDS = 0.1
_MARGIN_DB = 0.05


class Limiter:
    """Hold the true peak of a stream under a ceiling: look-ahead, one gain for all channels.

    The joined output of `push` and `flush` has exactly the input's length at lag 0, and is the
    input bit for bit wherever no peak comes near enough to need a gain. Input must be finite.

    At every sample the oversampled signal asks for a reduction d = 1 - ceiling / peak, or 0.
    (Oversampled twice as finely as the meter, 8x at 44.1 kHz, so that meters with another grid
    or another filter read no more.)
    That is held for the look-ahead (sliding maximum over 2A + 1 samples), let go exponentially,
    and smoothed by two boxes of A + 1 samples, which together span 2A + 1: each smoothed value
    is a mean of values that all contain the peak in the middle, so it never reduces less than
    the peak needs, and the gain has no steps and no kinks.

    Args:
        sample_rate: In Hz.
        channels: Channels of every block.
        ceiling_dbtp: Peaks above it are brought 0.05 dB below it, which leaves room for what the
            gain's own movement adds between samples.

    Reference: ITU-R BS.1770-5 Annex 2 for the detection.
    """

    def __init__(self, sample_rate: int, channels: int, ceiling_dbtp: float) -> None:
        self._ceiling = 10.0 ** (ceiling_dbtp / 20.0)
        self._goal = 10.0 ** ((ceiling_dbtp - _MARGIN_DB) / 20.0)
        self._oversampler = Oversampler(2 * annex_factor(sample_rate))
        half = max(1, round(sample_rate * _LOOKAHEAD_SECONDS / 2))
        self._box = half + 1
        self._delay = Oversampler.reach + 2 * half
        self._decay = np.exp(-np.arange(1, _FRAME + 1) / (sample_rate * _RELEASE_SECONDS))
        self._reframer = Reframer(channels, _FRAME)
        self._recent = np.zeros((channels, Oversampler.history), np.float32)
        self._delayed = np.zeros((channels, self._delay), np.float32)
        self._last_between = 0.0
        self._wanted = np.zeros(2 * half)
        self._level = 0.0
        self._smooth = [np.zeros(half), np.zeros(half)]
        self._taken = 0
        self._given = -self._delay

    @property
    def latency(self) -> int:
        """Most samples that `push` holds back; `flush` gives them."""
        return self._delay + _FRAME - 1

    def push(self, block: Float32) -> Float32:
        """Take a block `(C, T)` and give `(C, T')` of what is ready, T' from 0 on."""
        block = checked_block(block, len(self._recent))
        self._taken += block.shape[1]
        return self._joined([self._limit(frame) for frame in self._reframer.push(block)])

    def flush(self) -> Float32:
        """Give the rest, so that as many samples have come out as went in."""
        silence = np.zeros((len(self._recent), _FRAME), np.float32)
        frames: list[Float32] = []
        while self._given + _FRAME * len(frames) < self._taken:
            frames += [self._limit(frame) for frame in self._reframer.push(silence)]
        return self._joined(frames)

    def _joined(self, frames: list[Float32]) -> Float32:
        signal = np.concatenate([np.zeros((len(self._recent), 0), np.float32), *frames], axis=1)
        start, stop = max(0, -self._given), self._taken - self._given
        self._given += signal.shape[1]
        return signal[:, start : min(stop, signal.shape[1])]

    def _limit(self, frame: Float32) -> Float32:
        """Give the signal `self._delay` samples before this frame `(C, F)`, limited."""
        wanted = self._reduction_wanted(frame)
        delayed = np.concatenate([self._delayed, frame], axis=1)
        self._delayed = delayed[:, frame.shape[1] :].copy()
        signal = delayed[:, : frame.shape[1]]
        states = (wanted, self._wanted, *self._smooth)
        if self._level == 0.0 and not any(state.any() for state in states):
            return signal
        reduction = self._smoothed(self._released(self._held(wanted)))
        return (signal * (1.0 - reduction)).astype(np.float32)

    def _reduction_wanted(self, frame: Float32) -> Float64:
        """Give 1 - gain that each sample needs, half an interpolation filter ago."""
        signal = np.concatenate([self._recent, frame], axis=1)
        self._recent = signal[:, frame.shape[1] :].copy()
        after = self._oversampler.between(signal, self._ceiling).max(axis=0)
        before = np.concatenate([[self._last_between], after[:-1]])
        self._last_between = float(after[-1])
        # between()[i] lies after sample i + TAPS/2 - 1 of `signal`.
        here = np.abs(signal[:, Oversampler.reach - 1 :][:, : frame.shape[1]]).max(axis=0)
        peak = np.maximum(here, np.maximum(before, after)).astype(np.float64)
        over = peak > self._ceiling
        return np.where(over, 1.0 - self._goal / np.maximum(peak, self._ceiling), 0.0)

    def _held(self, wanted: Float64) -> Float64:
        history = np.concatenate([self._wanted, wanted])
        width = len(self._wanted) + 1
        self._wanted = history[len(wanted) :]
        # A window that ends at each sample: shift scipy's centred one by half its (odd) width.
        return np.asarray(maximum_filter1d(history, width)[width // 2 :][: len(wanted)])

    def _released(self, held: Float64) -> Float64:
        """Let go exponentially: d[n] = max(held[n], decay * d[n-1]).

        Divided by decay^n the recursion is a running maximum, which needs no loop.
        """
        level = np.maximum(np.maximum.accumulate(held / self._decay), self._level) * self._decay
        level[level < 1e-6] = 0.0
        self._level = float(level[-1])
        return level

    def _smoothed(self, level: Float64) -> Float64:
        for index, past in enumerate(self._smooth):
            history = np.concatenate([past, level])
            self._smooth[index] = history[len(level) :]
            level = _box_mean(history, self._box)
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
            largest = np.abs(padded).reshape(channels, rows + 1, _ROW).max(axis=-1)
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
