"""Short-time spectra, levels and resampling as pure tensor functions.

Letters in shapes: B batch, C channels, T samples, F frequency bins, N frames.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

_STOP_DB = 70.0


@functools.lru_cache(maxsize=32)
def _window(n_fft: int, device: torch.device, root: bool) -> Tensor:
    # Kept for training too, which cannot use a tensor made in inference mode.
    with torch.inference_mode(False):
        hann = torch.hann_window(n_fft, device=device)
        return hann.sqrt() if root else hann


def stft(waveform: Tensor, n_fft: int, hop_length: int, *, root_window: bool = True) -> Tensor:
    """Analyse a waveform into complex frames, centred on multiples of the hop.

    Args:
        waveform: (B, T) float32.
        n_fft: Window and transform length in samples.
        hop_length: Samples between frames.
        root_window: Square-root Hann, whose square overlaps to a constant at hop n_fft/2, for
            analysis and synthesis in one model; plain Hann for measuring.

    Returns:
        (B, F, N) complex64 with F = n_fft // 2 + 1 and N = T // hop_length + 1.
    """
    return torch.stft(
        waveform,
        n_fft,
        hop_length,
        window=_window(n_fft, waveform.device, root_window),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )


def whole_hops(waveform: Tensor, hop_length: int) -> Tensor:
    """Pad (..., T) with zeros to a multiple of the hop, so that frames at n_fft/2 cover it twice.

    Where only one frame reaches, synthesis divides by the end of its window, and what a network
    has put there comes out as a click.
    """
    return functional.pad(waveform, (0, -waveform.shape[-1] % hop_length))


def istft(spectrum: Tensor, length: int) -> Tensor:
    """Synthesise the waveform of square-root-Hann frames made by `stft` at a hop of n_fft/2.

    The squares of two neighbouring windows add up to one, so adding their halves is all.

    Args:
        spectrum: (B, F, N) complex.
        length: T, the number of samples wanted, at most (N - 1) * hop_length.

    Returns:
        (B, T) float32; the least-squares inverse (Griffin & Lim 1984, eq. 6).
    """
    n_fft = 2 * (spectrum.shape[1] - 1)
    frames = torch.fft.irfft(spectrum.transpose(1, 2), n_fft)
    frames = frames * _window(n_fft, spectrum.device, True)
    before, after = frames.chunk(2, dim=-1)
    return (after[:, :-1] + before[:, 1:]).flatten(1)[:, :length]


def highpass(waveform: Tensor, edge_hz: float, width_hz: float, sample_rate: int) -> Tensor:
    """Take what lies above an edge, with linear phase and no delay.

    A Kaiser-windowed sinc: 70 dB down up to the edge, flat within 0.003 dB from the edge and the
    transition's width on. The ends are continued by their last sample, so that a signal that
    begins or ends abruptly gives no click.

    Args:
        waveform: (B, T) float32, T from 1 on.
        edge_hz: Up to where nothing passes.
        width_hz: Width of the transition above it.
        sample_rate: Hz.

    Returns:
        (B, T). A sample depends on `highpass_reach` samples on either side.

    Reference: Oppenheim & Schafer, Discrete-Time Signal Processing, 3rd ed., section 7.6.1.
    """
    reach = highpass_reach(width_hz, sample_rate)
    middle = min((edge_hz + width_hz / 2.0) / (sample_rate / 2.0), 1.0)
    place = torch.arange(-reach, reach + 1, device=waveform.device, dtype=torch.float32)
    window = torch.kaiser_window(
        2 * reach + 1, False, 0.1102 * (_STOP_DB - 8.7), device=waveform.device
    )
    taps = -middle * torch.sinc(middle * place) * window
    taps[reach] += 1.0
    padded = functional.pad(waveform[:, None], (reach, reach), mode="replicate")[:, 0]
    # Circular, over so many samples that what wraps round is cut off.
    size = 1 << (padded.shape[1] - 1).bit_length()
    product = torch.fft.rfft(padded, size) * torch.fft.rfft(taps, size)
    return torch.fft.irfft(product, size)[:, 2 * reach : 2 * reach + waveform.shape[1]]


def highpass_reach(width_hz: float, sample_rate: int) -> int:
    """Give the samples on either side that `highpass` sees: Kaiser's estimate of the length."""
    return math.ceil((_STOP_DB - 7.95) / (4.57 * 2.0 * math.pi * width_hz / sample_rate))


def mel_filters(
    bins: int,
    sample_rate: int,
    bands: int,
    low_hz: float,
    high_hz: float,
    *,
    scale: str = "slaney",
    norm: str | None = "slaney",
) -> Tensor:
    """Give the triangular filters, (F, D), that take a spectrum's F bins to D mel bands.

    Args:
        bins: F, from 0 Hz to half the sample rate.
        sample_rate: Hz.
        bands: D.
        low_hz: Where the first band begins.
        high_hz: Where the last band ends.
        scale: "slaney" is linear up to 1 kHz, "htk" logarithmic all over.
        norm: "slaney" gives every band the same area, None the same height.
    """
    # Of data, not of shapes alone: also where a network is laid out on the meta device.
    with torch.device("cpu"):
        frequencies = torch.linspace(0.0, sample_rate / 2, bins)
        corners = _mel_to_hz(
            torch.linspace(_hz_to_mel(low_hz, scale), _hz_to_mel(high_hz, scale), bands + 2), scale
        )
        widths = corners.diff()
        slopes = corners - frequencies[:, None]
        rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
        filters = torch.minimum(rising, falling).clamp_min(0.0)
        if norm == "slaney":
            filters *= 2.0 / (corners[2:] - corners[:-2])
        return filters


_MEL_BREAK_HZ, _MEL_STEP_HZ = 1_000.0, 200.0 / 3.0
_MEL_LOG_STEP = math.log(6.4) / 27.0


def _hz_to_mel(frequency_hz: float, scale: str) -> float:
    """Convert by Slaney's Auditory Toolbox (linear, then logarithmic) or by HTK's formula."""
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + frequency_hz / 700.0)
    if frequency_hz < _MEL_BREAK_HZ:
        return frequency_hz / _MEL_STEP_HZ
    return _MEL_BREAK_HZ / _MEL_STEP_HZ + math.log(frequency_hz / _MEL_BREAK_HZ) / _MEL_LOG_STEP


def _mel_to_hz(mels: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = mels - _MEL_BREAK_HZ / _MEL_STEP_HZ
    return torch.where(
        above < 0.0, mels * _MEL_STEP_HZ, _MEL_BREAK_HZ * (above * _MEL_LOG_STEP).exp()
    )


def rms(waveform: Tensor) -> Tensor:
    """Give the root mean square over the last axis, (..., T) -> (..., 1)."""
    return waveform.square().mean(-1, keepdim=True).sqrt()
