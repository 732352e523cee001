"""The stage that synthesises what a recording lacks above its bandwidth."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from speakup.config import WORKING_RATE
from speakup.networks.compute import Compute
from speakup.networks.contract import Upsampler
from speakup.networks.resampling import resample_alike
from speakup.stages import crossover
from speakup.stages.crossover import end_at, keep_own_band
from speakup.stages.neural import NeuralStage, levelling_gain


def upsample(
    network: Upsampler,
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
        network: What synthesises.
        model: Its name.
        revision: Its revision.
        channels: C.
        lufs: Loudness of the recording; -inf for silence.
        cutoff_hz: Where the recording's own content ends.
        ceiling_hz: Above which nothing is synthesised.
        compute: Device and number format.
    """
    shared = (compute or Compute()).shared(network)
    level = levelling_gain(lufs)
    input_rate, output_rate = network.input_rate, network.output_rate
    joins = input_rate == output_rate == WORKING_RATE

    def function(chunk: Tensor) -> Tensor:
        full = chunk * level
        cutoffs = torch.full((len(full),), cutoff_hz, device=full.device)
        heard = resample_alike(full, WORKING_RATE, input_rate, **_edge(input_rate))
        extended = shared(heard, cutoffs)
        if not joins:
            extended = resample_alike(extended, output_rate, WORKING_RATE)
            extended = keep_own_band(full, extended[:, : full.shape[1]], cutoff_hz)
        if ceiling_hz < math.inf:
            extended = end_at(full, extended, ceiling_hz)
        return extended / level

    context = network.context_samples * WORKING_RATE / input_rate
    context += 0 if joins else 512 + crossover.REACH
    context += crossover.REACH if ceiling_hz < math.inf else 0
    return NeuralStage(
        "upsample",
        model,
        revision,
        function,
        shared,
        channels=channels,
        context=math.ceil(context),
        grid=_shared_grid(input_rate, output_rate, network.hop_length),
    )


def _edge(input_rate: int) -> dict[str, Any]:
    """Give the band edge that a network at this rate is to hear, as `resample` has it.

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
