"""The stage that removes noise and reverberation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from speakup.blocks import db_to_gain
from speakup.config import WORKING_RATE
from speakup.networks import spectra
from speakup.networks.compute import Compute
from speakup.networks.contract import Denoiser, StatefulDenoiser
from speakup.networks.resampling import resample
from speakup.stages.neural import NeuralStage, StatefulStage, levelling_gain

DENOISER_RATE = 16_000
"""Sample rate in Hz of denoisers that work on a part of the band."""

_CARRY_BAND_HZ = (4_500.0, 7_500.0)
_CARRY_HOP = 256
_CARRY_FLOOR = 1e-12


def denoise(
    network: Denoiser | StatefulDenoiser,
    model: str,
    revision: str,
    *,
    channels: int,
    lufs: float,
    strength: float = 1.0,
    max_attenuation_db: float | None = None,
    compute: Compute | None = None,
) -> NeuralStage | StatefulStage:
    """Make the stage that removes noise and reverberation.

    A network that remembers works on the full band at its own rate. Another one works at 16 kHz:
    what the recording holds above that band is kept and follows the gain that the network gave to
    the band's own top, so that hiss goes and sibilants stay.

    Args:
        network: What denoises; one without a state, at `DENOISER_RATE`.
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
    wet = wet_part(strength, max_attenuation_db)
    level = levelling_gain(lufs)
    if isinstance(network, StatefulDenoiser):
        return StatefulStage(
            "denoise",
            model,
            revision,
            network,
            shared,
            channels=channels,
            level=level,
            wet=wet,
        )

    def function(full: Tensor) -> Tensor:
        low = resample(full, WORKING_RATE, DENOISER_RATE)
        clean = shared(low * level) / level
        both = resample(torch.cat([low, clean]), DENOISER_RATE, WORKING_RATE)
        low_full, clean_full = both[:, : full.shape[1]].chunk(2)
        top = (full - low_full) * _carried_gain(low, clean, full.shape[1])
        return full + wet * (clean_full + top - full)

    # Samples at 16 kHz after which they, the frames and 44.1 kHz (441 to 160) agree.
    grid = math.lcm(160, _CARRY_HOP, network.hop_length)
    return NeuralStage(
        "denoise",
        model,
        revision,
        function if wet > 0.0 else lambda chunk: chunk,
        shared,
        channels=channels,
        context=int(network.context_samples * WORKING_RATE / DENOISER_RATE) + 2_048,
        grid=grid * WORKING_RATE // DENOISER_RATE,
    )


def wet_part(strength: float, max_attenuation_db: float | None) -> float:
    """Give how much of a denoiser's output to keep beside the input, 0 to 1."""
    floor = 0.0 if max_attenuation_db is None else db_to_gain(-max_attenuation_db)
    return strength * (1.0 - floor)


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
    powers = spectra.stft(torch.cat([low, clean]), n_fft, _CARRY_HOP)[:, first:last].abs().square()
    before, after = powers.mean(1).chunk(2)
    # With the floor on both sides, what is empty before and after is carried unchanged.
    gain = ((after + _CARRY_FLOOR) / (before + _CARRY_FLOOR)).sqrt().clamp(max=1.0)
    gain = functional.pad(gain, (0, 1), mode="replicate")
    # Frame k is centred on sample k * hop at 16 kHz, in whole numbers so that no chunk is off.
    step = _CARRY_HOP * WORKING_RATE
    place = torch.arange(samples, device=low.device) * DENOISER_RATE
    frame = place // step
    return torch.lerp(gain[:, frame], gain[:, frame + 1], (place % step) / step)
