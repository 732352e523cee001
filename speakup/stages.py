"""The three stages: denoise, super-resolve, normalise; each takes blocks and gives blocks.

A stage is anything that meets the `Stage` protocol; users pass their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from speakup import crossover, dsp
from speakup.batching import Compute as Compute
from speakup.batching import SharedNetwork
from speakup.config import WORKING_RATE
from speakup.crossover import end_at, keep_own_band
from speakup.loudness import (
    DeliveryTarget,
    GainPlan,
    Limiter,
    LoudnessMeter,
    plan_gain,
    settle_gain,
)
from speakup.spool import Spool
from speakup.streaming import ChunkedModel

Block = NDArray[np.float32]

SPEECH_LEVEL_DB = -25.0
"""Level to which speech is brought before a network: LUFS here, RMS in dBFS in training."""

DENOISER_RATE = 16_000
"""Sample rate in Hz at which denoisers work."""

_CHUNK_SECONDS = 10.0
_MAX_LEVELLING_DB = 40.0
_CARRY_BAND_HZ = (4_500.0, 7_500.0)
_CARRY_HOP = 256
_CARRY_FLOOR = 1e-12
_SILENCE_REACH = 441


class Stage(Protocol):
    """What `Pipeline` asks of a stage; blocks are float32 (C, T), full scale at 1.

    Each stage runs in a thread of its own, and may change the blocks it is given. Where it has a
    `close()` too, that is called at the end, however it comes.

    Attributes:
        name: What reports call it.
        model: The model it runs, or "".
        revision: The model's revision, or "".
        input_rate: Hz it needs; None takes any.
        output_rate: Hz it gives; None gives the rate it got.
        needs_whole_signal: Whether nothing comes out before `flush`.
        warnings: What the user should know after `flush`.
    """

    name: str
    model: str
    revision: str
    input_rate: int | None
    output_rate: int | None
    needs_whole_signal: bool
    warnings: list[str]

    def push(self, block: Block) -> Block:
        """Take (C, T) and give the (C, T') that is ready, T' from 0 on."""

    def flush(self) -> Iterable[Block]:
        """Give the rest, in as many blocks as need be."""


class NeuralStage:
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

    input_rate: int | None = WORKING_RATE
    output_rate: int | None = WORKING_RATE
    needs_whole_signal = False

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
            chunk=int(_CHUNK_SECONDS * WORKING_RATE),
            context=context,
            grid=grid,
            ahead=network.ahead,
        )

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


def denoise(
    network: nn.Module,
    model: str,
    revision: str,
    *,
    channels: int,
    lufs: float,
    strength: float = 1.0,
    max_attenuation_db: float | None = None,
    compute: Compute | None = None,
) -> NeuralStage:
    """Make the stage that removes noise and reverberation.

    The network works at 16 kHz. What the recording holds above that band is kept and follows the
    gain the network gave to the band's own top, so that hiss goes and sibilants stay.

    Args:
        network: Maps (B, T) to (B, T) at 16 kHz; has `context_samples` and `hop_length`.
        model: Its name.
        revision: Its revision.
        channels: C.
        lufs: Loudness of the recording; -inf for silence.
        strength: 0 gives the input, 1 the network's output, linear between.
        max_attenuation_db: Mix in the input so much under full scale that nothing is attenuated
            by more (as DeepFilterNet's attenuation limit does), or None.
        compute: Device and number format.
    """
    shared = (compute or Compute()).shared(network)
    floor = 0.0 if max_attenuation_db is None else dsp.db_to_gain(-max_attenuation_db)
    wet = strength * (1.0 - floor)
    level = _levelling(lufs)

    def function(full: Tensor) -> Tensor:
        low = dsp.resample(full, WORKING_RATE, DENOISER_RATE)
        clean = shared(low * level) / level
        both = dsp.resample(torch.cat([low, clean]), DENOISER_RATE, WORKING_RATE)
        low_full, clean_full = both[:, : full.shape[1]].chunk(2)
        top = (full - low_full) * _carried_gain(low, clean, full.shape[1])
        return full + wet * (clean_full + top - full)

    context = getattr(network, "context_samples", DENOISER_RATE)
    # Samples at 16 kHz after which they, the frames and 44.1 kHz (441 to 160) agree.
    grid = math.lcm(160, _CARRY_HOP, getattr(network, "hop_length", 1))
    return NeuralStage(
        "denoise",
        model,
        revision,
        function if wet > 0.0 else lambda chunk: chunk,
        shared,
        channels=channels,
        context=int(context * WORKING_RATE / DENOISER_RATE) + 2_048,
        grid=grid * WORKING_RATE // DENOISER_RATE,
    )


def super_resolve(
    network: nn.Module,
    model: str,
    revision: str,
    *,
    channels: int,
    lufs: float,
    cutoff_hz: float,
    ceiling_hz: float = math.inf,
    compute: Compute | None = None,
) -> NeuralStage:
    """Make the stage that synthesises what lies above a cutoff and keeps what lies under it.

    A network at 44.1 kHz joins the two by itself. One at other rates gives a voice of its own
    from 0 Hz on, of which the top alone is taken: so the recording's own band is kept up to its
    cutoff, even where that lies above all that the network hears.

    Args:
        network: Maps (B, T) at its `input_rate` and cutoffs (B,) in Hz to (B, T') at its
            `output_rate`, T' = T * output rate / input rate; has `context_samples` and
            `hop_length` in samples of its input. A rate it does not tell is 44.1 kHz.
        model: Its name.
        revision: Its revision.
        channels: C.
        lufs: Loudness of the recording; -inf for silence.
        cutoff_hz: Where the recording's own content ends.
        ceiling_hz: Above which nothing is synthesised.
        compute: Device and number format.
    """
    shared = (compute or Compute()).shared(network)
    level = _levelling(lufs)
    input_rate = getattr(network, "input_rate", WORKING_RATE)
    output_rate = getattr(network, "output_rate", WORKING_RATE)
    joins = input_rate == output_rate == WORKING_RATE

    def function(chunk: Tensor) -> Tensor:
        full = chunk * level
        cutoffs = torch.full((len(full),), cutoff_hz, device=full.device)
        heard = dsp.resample_alike(full, WORKING_RATE, input_rate, **_edge(input_rate))
        extended = shared(heard, cutoffs)
        if not joins:
            extended = dsp.resample_alike(extended, output_rate, WORKING_RATE)
            extended = keep_own_band(full, extended[:, : full.shape[1]], cutoff_hz)
        if ceiling_hz < math.inf:
            extended = end_at(full, extended, ceiling_hz)
        return extended / level

    context = getattr(network, "context_samples", input_rate) * WORKING_RATE / input_rate
    context += 0 if joins else 512 + crossover.REACH
    context += crossover.REACH if ceiling_hz < math.inf else 0
    return NeuralStage(
        "super-resolve",
        model,
        revision,
        function,
        shared,
        channels=channels,
        context=math.ceil(context),
        grid=_shared_grid(input_rate, output_rate, getattr(network, "hop_length", 1)),
    )


class Loudness:
    """Bring the whole programme to a delivery target: one gain, then a true-peak limiter.

    Loudness is known only when the last sample has come, so everything is spooled to disk first.
    Without a target the level stays, and only samples beyond full scale are limited; or, where
    cut-off peaks have been rebuilt, which need the room, everything is turned down to hold them.

    Args:
        sample_rate: Hz of the blocks.
        channels: C.
        target: What to deliver, or None.
        rebuilt: Whether cut-off peaks have been rebuilt.
    """

    name = "loudness"
    model = ""
    revision = ""
    input_rate: int | None = None
    output_rate: int | None = None
    needs_whole_signal = True

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        target: DeliveryTarget | None,
        *,
        rebuilt: bool = False,
    ) -> None:
        self.warnings: list[str] = []
        self.gain_db = 0.0
        self._target, self._rebuilt = target, rebuilt
        self._meter = LoudnessMeter(sample_rate, channels)
        self._spool = Spool(channels)

    def push(self, block: Block) -> Block:
        self._meter.push(block)
        self._spool.write(block)
        return block[:, :0]

    def flush(self) -> Iterator[Block]:
        with self._spool:
            if self._target is None:
                over_db = max(0.0, self._meter.sample_peak_dbfs()) if self._rebuilt else 0.0
                plan, ceiling = GainPlan(-over_db, []), 0.0
            else:
                plan = plan_gain(self._meter, self._target)
                plan = settle_gain(plan, self._target, self._meter, self._spool.read)
                ceiling = self._target.true_peak_dbtp
            self.gain_db = plan.gain_db
            self.warnings += plan.warnings
            factor = np.float32(dsp.db_to_gain(plan.gain_db))
            if self._target is None and self._meter.sample_peak_dbfs() <= 0.0:
                yield from self._spool.read()
                return
            limiter = Limiter(self._meter.sample_rate, self._meter.channels, ceiling)
            for block in self._spool.read():
                yield limiter.push(block * factor)
            yield limiter.flush()

    def close(self) -> None:
        """Drop the spool; `flush` does so itself."""
        self._spool.close()


def _levelling(lufs: float) -> float:
    """Give the factor that brings a recording near the level at which networks were trained."""
    gain_db = SPEECH_LEVEL_DB - lufs if np.isfinite(lufs) else 0.0
    return dsp.db_to_gain(float(np.clip(gain_db, -_MAX_LEVELLING_DB, _MAX_LEVELLING_DB)))


def _edge(input_rate: int) -> dict[str, Any]:
    """Give the band edge that a network at this rate is to hear, as `dsp.resample` has it.

    Networks for narrow bands learn the very edge of the resampler that made them narrow, which
    was torchaudio's for those published.
    """
    if input_rate < WORKING_RATE:
        return {"zero_crossings": 6, "roll_off": 0.99}
    return {"zero_crossings": 32, "roll_off": 0.97}


def _shared_grid(input_rate: int, output_rate: int, hop_length: int) -> int:
    """Give the fewest samples at 44.1 kHz that are whole hops in and whole samples out."""
    if input_rate == output_rate == WORKING_RATE:
        return hop_length
    common = math.gcd(input_rate, WORKING_RATE)
    ours, theirs = WORKING_RATE // common, input_rate // common
    hops = ours * hop_length // math.gcd(hop_length, theirs)
    return math.lcm(hops, WORKING_RATE // math.gcd(output_rate, WORKING_RATE), crossover.GRID)


def _carried_gain(low: Tensor, clean: Tensor, samples: int) -> Tensor:
    """Give the gain, at most 1, that the network gave to the top of its band over time.

    Args:
        low: (B, T) the network's input at 16 kHz.
        clean: (B, T) its output.
        samples: T', the length wanted at the working rate.

    Returns:
        (B, T').
    """
    n_fft = 2 * _CARRY_HOP
    first, last = (int(hz / DENOISER_RATE * n_fft) for hz in _CARRY_BAND_HZ)
    powers = dsp.stft(torch.cat([low, clean]), n_fft, _CARRY_HOP)[:, first:last].abs().square()
    before, after = powers.mean(1).chunk(2)
    # With the floor on both sides, what is empty before and after is carried unchanged.
    gain = ((after + _CARRY_FLOOR) / (before + _CARRY_FLOOR)).sqrt().clamp(max=1.0)
    gain = functional.pad(gain, (0, 1), mode="replicate")
    # Frame k is centred on sample k * hop at 16 kHz, in whole numbers so that no chunk is off.
    step = _CARRY_HOP * WORKING_RATE
    place = torch.arange(samples, device=low.device) * DENOISER_RATE
    frame = place // step
    return torch.lerp(gain[:, frame], gain[:, frame + 1], (place % step) / step)


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
