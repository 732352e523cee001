"""Whole-signal functions made to work on streams: overlap-add round networks, and resampling.

Blocks are float32 arrays (C, T) of any length; joined, the outputs are what the whole signal
would have given.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from speakup.blocks import Block

_FADE = 1024
"""Samples over which neighbouring chunks are crossfaded."""


class ChunkedModel:
    """Run a function of whole signals on overlapping chunks of a stream and crossfade the results.

    Chunk k covers [k * hop, k * hop + chunk). Neighbours overlap by two contexts and a fade
    between them, throughout which both results have seen a context of the signal beyond: there
    they are crossfaded. The first chunk starts at the signal's first sample, and the last one is
    as short as the signal leaves it, but longer than the overlap unless the whole signal is
    shorter. The joined output has the input's length and no delay. Memory is one chunk and its
    overlap.

    Channels that are all zero within a chunk bypass the function and stay zero. Where the
    function gives NaN or infinity, the chunk passes unprocessed and `fallbacks` counts it.

    Args:
        function: Maps (B, T) to (B, T), float32 at one rate, for any T from 1 on.
        channels: C, of every block.
        chunk: Samples per chunk; brought to a multiple of `grid` of more than two overlaps.
        context: Samples the function sees on either side of what is kept of a chunk.
        grid: Chunks start at multiples of this, the frame grid of the function.
        ahead: Compute so many chunks at a time, in threads, where they can share a batch; 0
            computes one after the other.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        channels: int,
        chunk: int,
        context: int,
        grid: int = 1,
        ahead: int = 0,
    ) -> None:
        overlap = -(-(2 * context + _FADE) // grid) * grid
        chunk = max(chunk // grid * grid, 2 * overlap + grid)
        self.function = function
        self.chunk, self.hop, self.context = chunk, chunk - overlap, context
        self.fallbacks = 0
        self._counting = threading.Lock()
        self._pending = np.zeros((channels, 0), np.float32)
        self._overlap: Block | None = None
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(ahead, "speakup-chunk") if ahead else None
        self._running: deque[Future[Block]] = deque()

    @property
    def latency(self) -> int:
        """Most samples that `push` holds back; `flush` gives them."""
        return 2 * self.chunk - self.hop + self._ahead * self.hop

    def push(self, block: Block) -> Block:
        """Take (C, T) and give the (C, T') that is ready, T' from 0 on."""
        self._pending = np.concatenate([self._pending, block], axis=1)
        ready = [self._pending[:, :0]]
        # A chunk is due only once the signal goes on for more than an overlap behind it: what is
        # left is then long enough to be the last chunk.
        while self._pending.shape[1] > 2 * self.chunk - self.hop:
            ready += self._computed(self._pending[:, : self.chunk])
            self._pending = self._pending[:, self.hop :]
        return np.concatenate(ready, axis=1)

    def flush(self) -> Block:
        """Give the rest, so that as many samples have come out as went in."""
        if self._pending.shape[1] == 0:
            return self._pending
        ready = [self._emit(running.result(), last=False) for running in self._running]
        ready.append(self._emit(self._run(self._pending), last=True))
        self._pending = self._pending[:, :0]
        self._running.clear()
        self._overlap = None
        return np.concatenate(ready, axis=1)

    def close(self) -> None:
        """End the threads, if there are any; what they compute is not wanted any more."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _computed(self, chunk: Block) -> Iterator[Block]:
        """Compute one more chunk, and yield what is thereby ready."""
        if self._pool is None:
            yield self._emit(self._run(chunk), last=False)
            return
        self._running.append(self._pool.submit(self._run, chunk))
        if len(self._running) > self._ahead:
            yield self._emit(self._running.popleft().result(), last=False)

    def _run(self, chunk: Block) -> Block:
        result = chunk.copy()
        sounding = chunk.any(axis=1)
        if not sounding.any():
            return result
        with torch.inference_mode():
            computed = self.function(torch.from_numpy(result[sounding])).float().cpu().numpy()
        sane = np.isfinite(computed).all(axis=1)
        with self._counting:
            self.fallbacks += int((~sane).any())
        rows = np.flatnonzero(sounding)[sane]
        result[rows] = computed[sane]
        return result

    def _emit(self, result: Block, *, last: bool) -> Block:
        """Crossfade a chunk's result into the one before; keep back what the next one overlaps.

        The overlap begins with `context` samples of the earlier result, then the fade, then the
        later result alone.
        """
        if self._overlap is not None:
            start, end = self.context, self.context + _FADE
            weight = np.linspace(0.0, 1.0, _FADE, dtype=np.float32)
            result = result.copy()
            result[:, :start] = self._overlap[:, :start]
            earlier, later = self._overlap[:, start:end], result[:, start:end]
            result[:, start:end] = earlier + (later - earlier) * weight
        if last:
            return result
        self._overlap = result[:, self.hop :].copy()
        return result[:, : self.hop]
