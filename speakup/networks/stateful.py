"""Networks that remember: run on a stream block by block, each block once.

A network that is causal but for a short look-ahead needs no overlapping chunks: its past lies in a
state that goes from block to block, and the joined stream is what the whole signal would have
given, without any seam.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speakup.blocks import Block


class StatefulStream:
    """Send a stream through a network that remembers; the output has no delay against the input.

    Where a channel is digital silence for a hop on either side, it stays so. Where the network
    gives NaN or infinity, the input passes unprocessed, the network starts anew for that channel,
    and `fallbacks` counts it.

    **Long silences are kept from the network.** While nothing is said, what a network takes for
    usual drifts away from speech, and the first words afterwards come out distorted. So with a
    margin, only that much is heard of a silence at either end, and what is between comes out
    silent.

    Args:
        network: Runs a stateful denoiser on (C, T) and a state (C, S), and gives both joined.
        start: Its state before the first sample, (C, S).
        hop: Samples that it takes at a time.
        latency: Samples by which its output comes late, whole hops.
        block: Samples that it is given at a time; brought down to whole hops.
        margin: Samples of a silence that are heard at either end; None for all of it.
        quiet_power: Mean square under which a hop is silence, if it is that in all channels.
        warm_up: Let the network hear the first block once before, so that it is settled when it
            begins.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        start: Tensor,
        *,
        hop: int,
        latency: int,
        block: int,
        margin: int | None = None,
        quiet_power: float = 0.0,
        warm_up: bool = False,
    ) -> None:
        channels = len(start)
        self.fallbacks = 0
        self._network, self._start, self._state = network, start, start
        self._hop, self._late = hop, latency // hop
        self._block = max(1, block // hop)
        self._margin = None if margin is None else -(-margin // hop)
        self._quiet_power = quiet_power
        self._to_warm_up = warm_up
        self._pending = np.zeros((channels, 0), np.float32)
        self._quiet_before = np.ones(self._margin or 0, bool)  # as before the first sample
        # What waits to come out, by hops: the input, whether the network has heard it, and what
        # the network has given that nobody has had yet.
        self._dry = np.zeros((channels, 0, hop), np.float32)
        self._heard = np.zeros(0, bool)
        self._wet = np.zeros((channels, 0, hop), np.float32)
        self._to_skip = self._late
        self._zero_before = np.ones(channels, bool)

    @property
    def latency(self) -> int:
        """Most samples that `push` holds back; `flush` gives them."""
        return (self._block + (self._margin or 0) + self._late + 1) * self._hop

    def push(self, block: Block) -> tuple[Block, Block]:
        """Take (C, T); give what is ready of the input and what has become of it, both (C, T')."""
        self._pending = np.concatenate([self._pending, block], axis=1)
        due = (self._block + (self._margin or 0)) * self._hop
        ready = [self._emit()]
        while self._pending.shape[1] >= due:
            self._advance(self._block)
            ready.append(self._emit())
        return _joined(ready)

    def flush(self) -> tuple[Block, Block]:
        """Give the rest, so that as many samples have come out as went in."""
        rest = self._pending.shape[1]
        missing = -rest % self._hop
        self._pending = np.pad(self._pending, ((0, 0), (0, missing)))
        ready = [self._emit()]
        while self._pending.shape[1]:
            self._advance(min(self._block, self._pending.shape[1] // self._hop))
            ready.append(self._emit())
        if self._heard.any():
            self._run(np.zeros((len(self._dry), self._late, self._hop), np.float32))
        ready.append(self._emit())
        dry, wet = _joined(ready)
        whole = dry.shape[1] - missing
        return dry[:, :whole], wet[:, :whole]

    def _advance(self, hops: int) -> None:
        """Send the next hops of what is pending to the network, but for long silences."""
        pending = self._pending[:, : self._pending.shape[1] // self._hop * self._hop]
        pending = pending.reshape(len(pending), -1, self._hop)
        taken = pending[:, :hops]
        heard = ~self._deep_silence(pending, hops)
        self._pending = self._pending[:, hops * self._hop :]
        self._dry = np.concatenate([self._dry, taken], axis=1)
        self._heard = np.concatenate([self._heard, heard])
        if heard.any():
            self._run(taken[:, heard])

    def _deep_silence(self, pending: Block, hops: int) -> NDArray[np.bool_]:
        """Tell which of the next hops are quiet, and all within the margin of them."""
        if self._margin is None:
            return np.zeros(hops, bool)
        seen = pending[:, : hops + self._margin]
        quiet = (np.square(seen).mean(axis=2) <= self._quiet_power).all(axis=0)
        after = np.ones(max(0, hops + self._margin - len(quiet)), bool)  # as behind the last one
        quiet = np.concatenate([self._quiet_before, quiet, after])
        loud = np.concatenate([[0], np.cumsum(~quiet)])
        reach = 2 * self._margin + 1
        self._quiet_before = quiet[hops : hops + self._margin]
        return loud[reach : reach + hops] == loud[:hops]

    def _run(self, hops: Block) -> None:
        waveform = torch.from_numpy(hops.reshape(len(hops), -1))
        samples = waveform.shape[1]
        with torch.inference_mode():
            if self._to_warm_up:
                self._to_warm_up = False
                warm = self._network(waveform, self._start)[:, samples:]
                self._state = torch.where(warm.isfinite().all(1, keepdim=True), warm, self._start)
            joined = self._network(waveform, self._state)
            computed, state = joined.tensor_split([samples], dim=1)
            sane = computed.isfinite().all(dim=1) & state.isfinite().all(dim=1)
            self.fallbacks += int(not bool(sane.all()))
            self._state = torch.where(sane[:, None], state, self._start)
        wet = computed.float().cpu().numpy().reshape(len(hops), -1, self._hop)
        skipped = min(self._to_skip, wet.shape[1])
        self._to_skip -= skipped
        self._wet = np.concatenate([self._wet, wet[:, skipped:]], axis=1)

    def _emit(self) -> tuple[Block, Block]:
        """Give the hops whose output is there, with those that were not heard between them."""
        order = np.cumsum(self._heard)
        count = int(np.searchsorted(order, self._wet.shape[1], side="right"))
        dry, heard = self._dry[:, :count], self._heard[:count]
        given = int(heard.sum())
        wet = np.zeros_like(dry)
        wet[:, heard] = self._wet[:, :given]
        sane = np.isfinite(wet).all(axis=2)
        wet[~sane] = dry[~sane]
        zero = np.asarray(~self._dry[:, : count + 1].any(axis=2))
        around = np.concatenate([self._zero_before[:, None], zero], axis=1)
        after = zero[:, 1:]
        if after.shape[1] < count:  # There is no more, or what follows is silence.
            after = np.pad(after, ((0, 0), (0, count - after.shape[1])), constant_values=True)
        wet[around[:, :count] & zero[:, :count] & after] = 0.0
        if count:
            self._zero_before = zero[:, count - 1]
        self._dry, self._heard = self._dry[:, count:], self._heard[count:]
        self._wet = self._wet[:, given:]
        channels = len(dry)
        return dry.reshape(channels, -1), wet.reshape(channels, -1)


def _joined(ready: list[tuple[Block, Block]]) -> tuple[Block, Block]:
    dry, wet = (np.concatenate(parts, axis=1) for parts in zip(*ready, strict=True))
    return dry, wet
