"""Short-time spectra, levels and resampling as pure tensor functions.

Letters in shapes: B batch, C channels, T samples, F frequency bins, N frames.
"""

from __future__ import annotations

import functools
import math

import torch
import torchaudio.functional
from torch import Tensor

from speakup.errors import ConfigError


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
    return torch.nn.functional.pad(waveform, (0, -waveform.shape[-1] % hop_length))


def istft(spectrum: Tensor, n_fft: int, hop_length: int, length: int) -> Tensor:
    """Synthesise the waveform of square-root-Hann frames made by `stft`.

    Args:
        spectrum: (B, F, N) complex.
        n_fft: Window and transform length in samples.
        hop_length: Samples between frames.
        length: T, the number of samples wanted, at most N * hop_length.

    Returns:
        (B, T) float32; the least-squares inverse (Griffin & Lim 1984, eq. 6).
    """
    window = _window(n_fft, spectrum.device, True)
    return torch.istft(spectrum, n_fft, hop_length, window=window, center=True, length=length)


def resample(waveform: Tensor, from_rate: int, to_rate: int, *, zero_crossings: int = 32) -> Tensor:
    """Resample whole signals with a Hann-windowed sinc of linear phase and no delay.

    Args:
        waveform: (..., T) float32.
        from_rate: Hz of the input.
        to_rate: Hz of the result.
        zero_crossings: Half-width of the filter; more is steeper and slower.

    Returns:
        (..., ceil(T * to_rate / from_rate)) float32.
    """
    if from_rate == to_rate:
        return waveform
    return torchaudio.functional.resample(
        waveform, from_rate, to_rate, lowpass_filter_width=zero_crossings, rolloff=0.97
    )


def db_to_gain(level_db: float) -> float:
    """Convert decibels to an amplitude factor."""
    return math.pow(10.0, level_db / 20.0)


def rms(waveform: Tensor) -> Tensor:
    """Give the root mean square over the last axis, (..., T) -> (..., 1)."""
    return waveform.square().mean(-1, keepdim=True).sqrt()


def pick_device(name: str) -> torch.device:
    """Resolve "auto" to CUDA where there is one, else the CPU; check any other device.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used here", None, "Choose auto, cpu, cuda[:N] or mps"
        ) from error
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Resolve a precision; "auto" takes bfloat16 where matrix products are native in it."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = device.type == "cpu" and _cpu_has_bfloat16()
        return torch.bfloat16 if native else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
