"""Room responses: simulated by the image method, and measured ones varied."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SPEED_OF_SOUND = 343.0
_DIRECT_SECONDS = 0.0025


def simulate_room(
    sample_rate: int,
    generator: torch.Generator,
    *,
    seconds: float = 1.2,
    rt60_seconds: float | None = None,
) -> Tensor:
    """Simulate a random shoebox room's response by the image method with a diffuse tail.

    Mirror images up to fourth order give direct sound and early reflections; the later field is
    Gaussian noise under the same exponential decay, part of it dull.

    Args:
        sample_rate: Hz.
        generator: Source of randomness.
        seconds: Length of the response.
        rt60_seconds: Time in which the sound decays by 60 dB; None draws 0.15 to 1.1 s.

    Returns:
        (T,) float32, T = seconds * sample_rate; direct sound at sample 0 with amplitude 1.

    Reference:
        Allen & Berkley 1979, Image method for efficiently simulating small-room acoustics;
        Lehmann & Johansson 2010 for the diffuse tail.
    """
    room = _uniform(generator, [3.0, 2.5, 2.3], [10.0, 8.0, 4.0])
    source = room * _uniform(generator, [0.1] * 3, [0.9] * 3)
    microphone = room * _uniform(generator, [0.1] * 3, [0.9] * 3)
    drawn = float(0.15 + 0.95 * torch.rand(1, generator=generator) ** 1.3)
    rt60 = drawn if rt60_seconds is None else rt60_seconds
    decay = 3.0 * math.log(10.0) / rt60
    reflection = _wall_reflection(room, rt60)

    order = torch.arange(-4, 5).float()
    grid = torch.cartesian_prod(order, order, order)
    parity = torch.remainder(grid, 2.0)
    images = (grid + parity) * room + (1.0 - 2.0 * parity) * source
    distance = (images - microphone).norm(dim=1)
    bounces = grid.abs().sum(1)
    nearest = float((source - microphone).norm())
    direct = max(nearest, 0.2)
    delay = (distance - nearest) / _SPEED_OF_SOUND * sample_rate
    sign = torch.where(torch.rand(len(grid), generator=generator) < 0.15, -1.0, 1.0)
    amplitude = sign * reflection**bounces * direct / distance.clamp_min(direct)
    amplitude[bounces == 0] = 1.0

    length = int(seconds * sample_rate)
    response = torch.zeros(length)
    index = delay.round().long()
    inside = (index >= 0) & (index < length)
    response.index_add_(0, index[inside], amplitude[inside])

    time = torch.arange(length) / sample_rate
    onset = float(room.min()) / _SPEED_OF_SOUND
    mean_path = 4.0 * float(room.prod()) / float(2 * (room.prod() / room).sum())
    density = direct / mean_path * math.sqrt(_SPEED_OF_SOUND / mean_path / sample_rate)
    tail = torch.randn(length, generator=generator) * (-decay * time).exp()
    dull = torch.randn(length, generator=generator) * (-0.5 * decay * time).exp()
    kernel = torch.hann_window(9)[None, None] / 4.0
    dull = torch.nn.functional.conv1d(dull[None, None], kernel, padding=4)[0, 0]
    response += density * (tail + 0.3 * dull * (-0.5 * decay * time).exp()) * (time > onset)
    return response


def vary_room(
    response: Tensor, sample_rate: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Vary a response's decay time and direct-to-reverberant ratio.

    Args:
        response: (T,) with its direct sound somewhere near the start.
        sample_rate: Hz.
        generator: Source of randomness.

    Returns:
        The response (T',), its direct sound positive, with energy one, within the first 3 ms, and
        that direct sound alone (T'',): what a dry recording by the same microphone would have.

    Reference:
        Bryan 2019, arXiv 1909.03642, sections 3.1 (direct-to-reverberant ratio) and 3.2 (RT60).
    """
    peak = int(response.abs().argmax())
    start = max(0, peak - int(_DIRECT_SECONDS * sample_rate / 5))
    response = response[start:] / response[peak]
    response = response[: _decayed_after(response, sample_rate)].clone()
    direct_end = min(len(response), peak - start + int(_DIRECT_SECONDS * sample_rate))
    response /= response[:direct_end].square().sum().sqrt()

    late = response[direct_end:]
    faster = float(torch.empty(1).uniform_(-2.0, 5.0, generator=generator))
    late *= (-faster * torch.arange(len(late)) / sample_rate).exp()
    wanted_db = float(torch.empty(1).uniform_(-6.0, 12.0, generator=generator))
    late_energy = late.square().sum().clamp_min(1e-8)
    late *= (10.0 ** (-wanted_db / 10.0) / late_energy).sqrt().clamp(0.1, 3.0)
    return response, response[:direct_end]


def _decayed_after(response: Tensor, sample_rate: int) -> int:
    """Count the samples after which a response is 45 dB under its start, its noise left out."""
    frame = sample_rate // 50
    count = max(1, len(response) // frame)
    energy = torch.nn.functional.pad(response, (0, frame))[: count * frame]
    energy = energy.view(count, frame).square().mean(1)
    audible = torch.nonzero(energy > energy.max() * 10.0**-4.5)
    return (int(audible[-1]) + 1) * frame


def _wall_reflection(room: Tensor, rt60: float) -> float:
    """Give the walls' amplitude reflection factor that yields RT60 by Sabine's formula."""
    volume = float(room.prod())
    surface = float(2 * (room.prod() / room).sum())
    absorption = min(0.95, 0.161 * volume / (surface * rt60))
    return math.sqrt(1.0 - absorption)


def _uniform(generator: torch.Generator, low: list[float], high: list[float]) -> Tensor:
    lows, highs = torch.tensor(low), torch.tensor(high)
    return lows + (highs - lows) * torch.rand(len(low), generator=generator)
