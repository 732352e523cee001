"""Resampling of whole signals, as tensors; streams are resampled in `speakup.stages.flow`."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional


def resample(
    waveform: Tensor,
    from_rate: int,
    to_rate: int,
    *,
    zero_crossings: int = 32,
    roll_off: float = 0.97,
) -> Tensor:
    """Resample whole signals with a Hann-windowed sinc of linear phase and no delay.

    Args:
        waveform: (..., T) float32.
        from_rate: Hz of the input.
        to_rate: Hz of the result.
        zero_crossings: Half-width of the filter; more is steeper and slower.
        roll_off: Where the filter is 6 dB down, as a fraction of half the lower rate.

    Returns:
        (..., ceil(T * to_rate / from_rate)) float32.
    """
    if from_rate == to_rate:
        return waveform
    common = math.gcd(from_rate, to_rate)
    step, phases = from_rate // common, to_rate // common
    taps = _sinc_taps(step, phases, zero_crossings, roll_off, waveform.dtype, waveform.device)
    reach = (taps.shape[-1] - step) // 2
    samples = waveform.shape[-1]
    padded = functional.pad(waveform.reshape(-1, 1, samples), (reach, reach + step))
    # One output channel a phase: every `step` samples in, `phases` samples come out.
    resampled = functional.conv1d(padded, taps, stride=step).transpose(1, 2)
    wanted = -(-samples * phases // step)
    return resampled.reshape(*waveform.shape[:-1], -1)[..., :wanted]


@functools.lru_cache(maxsize=32)
def _sinc_taps(
    step: int,
    phases: int,
    zero_crossings: int,
    roll_off: float,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Give the (phases, 1, taps) of a polyphase low-pass, a sinc under a Hann window.

    Phase p gives the sample at p / phases of a step of input: the sum over inputs n of
    x[n] h(n - p step / phases), where h(t) = r sinc(r t) cos^2(pi r t / 2 Z), r is the cutoff in
    units of half the input's rate and Z the number of zero crossings on either side.

    Reference: Smith, Digital Audio Resampling Home Page, "Theory of ideal bandlimited
    interpolation"; the same filter as torchaudio's "sinc_interp_hann".
    """
    cutoff = min(step, phases) * roll_off / step
    reach = math.ceil(zero_crossings / cutoff)
    with torch.inference_mode(False):  # Kept for training too.
        place = torch.arange(-reach, reach + step, dtype=torch.float64)
        shift = torch.arange(phases, dtype=torch.float64) * step / phases
        crossings = ((place - shift[:, None]) * cutoff).clamp(-zero_crossings, zero_crossings)
        window = (crossings * math.pi / (2 * zero_crossings)).cos().square()
        taps = cutoff * torch.sinc(crossings) * window
        return taps[:, None].to(device, dtype)


def resample_alike(
    waveform: Tensor,
    from_rate: int,
    to_rate: int,
    *,
    zero_crossings: int = 32,
    roll_off: float = 0.97,
) -> Tensor:
    """Resample as `resample` does, to the same numbers wherever a chunk begins and on any device.

    Sums in float32 depend on their order, and so on a sample's place; what is left of that in
    an empty band is all that a network hears there that looks at phases.
    """
    if from_rate == to_rate:
        return waveform
    device = "cpu" if waveform.device.type == "mps" else waveform.device
    double = waveform.to(device, torch.float64)
    result = resample(double, from_rate, to_rate, zero_crossings=zero_crossings, roll_off=roll_off)
    return result.float().to(waveform.device)
