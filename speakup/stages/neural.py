"""Stages that run a network: on overlapping chunks of a stream, or from its past in a state."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from speakup.blocks import Block, db_to_gain
from speakup.config import WORKING_RATE
from speakup.networks.chunks import ChunkedModel
from speakup.networks.compute import SharedNetwork
from speakup.networks.contract import SPEECH_LEVEL_DB, StatefulDenoiser
from speakup.networks.stateful import StatefulStream
from speakup.stages.base import Stage

_CHUNK_SECONDS = 10.0
_LEAST_CONTEXTS = 8
"""A chunk is longer where a network looks so far that more than a quarter would be done twice."""
_BLOCK_SECONDS = 5.0
_SILENCE_MARGIN_SECONDS = 0.5
_QUIET_POWER = 1e-7
"""Mean square under which nothing is said, of a recording at the speech level: -70 dBFS."""
_MAX_LEVELLING_DB = 40.0
_SILENCE_REACH = 441


class NeuralStage(Stage):
    """Run a function of whole signals on a stream at the working rate, in overlapping chunks.

    Args:
        name: What reports call it.
        model: The model's name.
        revision: The model's revision.
        function: Maps (B, T) to (B, T) at 44.1 kHz, both on the network's device.
        network: What the function runs.
        channels: C.
        context: Samples the function depends on, on either side.
        grid: Samples between the function's frames.
    """

    input_rate = output_rate = WORKING_RATE

    def __init__(
        self,
        name: str,
        model: str,
        revision: str,
        function: Callable[[Tensor], Tensor],
        network: SharedNetwork,
        *,
        channels: int,
        context: int,
        grid: int,
    ) -> None:
        self.name, self.model, self.revision = name, model, revision
        self.warnings: list[str] = []
        self._function, self._network = function, network
        self._chunks = ChunkedModel(
            self._compute,
            channels=channels,
            chunk=max(int(_CHUNK_SECONDS * WORKING_RATE), _LEAST_CONTEXTS * context),
            context=context,
            grid=grid,
            ahead=network.ahead,
        )
        self.latency = self._chunks.latency

    def push(self, block: Block) -> Block:
        return self._chunks.push(block)

    def flush(self) -> Iterator[Block]:
        yield self._chunks.flush()
        if self._chunks.fallbacks:
            self.warnings.append(
                f"{self.name}: {self._chunks.fallbacks} chunks of about {_CHUNK_SECONDS:g} s came "
                "out of the model as no numbers and were left as they were"
            )
        if self._network.moved:
            self.warnings.append(
                f"{self.name}: the device's memory was too small even for one chunk of "
                f"{_CHUNK_SECONDS:g} s, so the CPU went on, more slowly"
            )

    def close(self) -> None:
        """End the threads that compute chunks ahead."""
        self._chunks.close()

    def _compute(self, chunk: Tensor) -> Tensor:
        try:
            return _silence_kept(self._function(chunk.to(self._network.device)), chunk)
        except torch.OutOfMemoryError:  # beside the network, which looks after itself
            if self._network.moved:
                raise
        self._network.use_cpu()
        return _silence_kept(self._function(chunk.to(self._network.device)), chunk)


class StatefulStage(Stage):
    """Run a denoiser that remembers on a stream at its own rate, block by block.

    One that is to be kept settled hears a recording at the speech level, its first block twice,
    and of silences over twice `_SILENCE_MARGIN_SECONDS` the ends alone; another one hears every
    recording as it is.

    Args:
        name: What reports call it.
        model: The model's name.
        revision: The model's revision.
        denoiser: What denoises.
        network: What runs it.
        channels: C.
        level: Factor that brings the recording to the speech level.
        wet: How much of the result to keep, 0 to 1; the rest is the input.
    """

    def __init__(
        self,
        name: str,
        model: str,
        revision: str,
        denoiser: StatefulDenoiser,
        network: SharedNetwork,
        *,
        channels: int,
        level: float,
        wet: float,
    ) -> None:
        self.name, self.model, self.revision = name, model, revision
        self.warnings: list[str] = []
        rate = self.input_rate = self.output_rate = denoiser.sample_rate
        self._network, self._wet = network, np.float32(wet)
        self._level = level if denoiser.settled else 1.0
        self._stream = StatefulStream(
            self._compute,
            denoiser.start(channels).cpu(),
            hop=denoiser.hop_length,
            latency=denoiser.latency,
            block=int(_BLOCK_SECONDS * rate),
            margin=int(_SILENCE_MARGIN_SECONDS * rate) if denoiser.settled else None,
            # What is faint as a whole is no silence.
            quiet_power=_QUIET_POWER / max(1.0, self._level) ** 2,
            warm_up=denoiser.settled,
        )
        self.latency = self._stream.latency

    def push(self, block: Block) -> Block:
        return self._mixed(*self._stream.push(block))

    def flush(self) -> Iterator[Block]:
        yield self._mixed(*self._stream.flush())
        if self._stream.fallbacks:
            self.warnings.append(
                f"{self.name}: {self._stream.fallbacks} blocks of about {_BLOCK_SECONDS:g} s came "
                "out of the model as no numbers and were left as they were"
            )
        if self._network.moved:
            self.warnings.append(
                f"{self.name}: the device's memory was too small even for one block of "
                f"{_BLOCK_SECONDS:g} s, so the CPU went on, more slowly"
            )

    def _mixed(self, dry: Block, wet: Block) -> Block:
        return wet if self._wet == 1.0 else dry + self._wet * (wet - dry)

    def _compute(self, waveform: Tensor, state: Tensor) -> Tensor:
        joined = self._network(waveform * self._level, state)
        joined[:, : waveform.shape[1]] /= self._level
        return joined


def levelling_gain(lufs: float) -> float:
    """Give the factor that brings a recording near the level at which networks were trained."""
    gain_db = SPEECH_LEVEL_DB - lufs if np.isfinite(lufs) else 0.0
    return db_to_gain(float(np.clip(gain_db, -_MAX_LEVELLING_DB, _MAX_LEVELLING_DB)))


def _silence_kept(result: Tensor, chunk: Tensor) -> Tensor:
    """Silence the result where the chunk is digital silence for 10 ms on either side."""
    batch, samples = chunk.shape
    reach = _SILENCE_REACH
    frames = functional.pad(chunk, (0, -samples % reach)).view(batch, -1, reach)
    if bool(frames.any(-1).all()):
        return result
    count = functional.pad((chunk != 0.0).cumsum(-1), (1, 0))
    place = torch.arange(samples)
    after, before = (place + reach + 1).clamp(max=samples), (place - reach).clamp(min=0)
    return result.cpu() * (count[:, after] > count[:, before])
