"""DPDFNet: a causal 16 kHz denoiser, DeepFilterNet2 strengthened by dual-path recurrent blocks.

A mask on ERB bands shapes the whole spectrum; a short complex filter along time, one per bin,
then restores the harmonics of the lower bins.

Reference: Ceva's DPDFNet (arXiv 2512.16420), after DeepFilterNet2 (Schroeter et al. 2022, arXiv
    2205.05474) and dual-path RNNs (Luo et al. 2020, arXiv 1910.06379). Parameter names and
    shapes are those of the published checkpoints.

Letters in shapes: B batch, C channels of the maps, T samples, F frequency bins, N frames, E ERB
bands, K bins that are deep-filtered, O order of that filter, D features.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks.published.dpdfnet_layers import Encoder, FilterDecoder, MaskDecoder, Size

_ERB_START_DB = (-60.0, -90.0)
"""Band levels, lowest to highest band, from which the running mean of each begins."""
_SPECTRUM_START = (1e-3, 1e-4)
"""Magnitudes, lowest to highest bin, from which the running mean of each begins."""
_ERB_SCALE_DB = 40.0


class Estimate(NamedTuple):
    """What the network says about each frame.

    Attributes:
        embedding: (B, N, D) the encoder's.
        snr_db: (B, N) local signal-to-noise ratio.
        mask: (B, N, E) gains of the ERB bands, 0 to 1.
        filters: (B, O, N, K, 2) real and imaginary filter taps, from the oldest frame on.
    """

    embedding: Tensor
    snr_db: Tensor
    mask: Tensor
    filters: Tensor


def erb_widths(sample_rate: int, n_fft: int, bands: int, least: int = 1) -> list[int]:
    """Share out the n_fft // 2 + 1 bins to contiguous bands of about equal ERB-rate width.

    Reference: Glasberg & Moore 1990: ERB rate 9.265 ln(1 + f / (24.7 * 9.265)), f in Hz.
    """
    corner, scale = 24.7 * 9.265, 9.265
    step = scale * math.log1p(sample_rate / 2 / corner) / bands
    widths: list[int] = []
    edge, borrowed = 0, 0
    for band in range(1, bands + 1):
        upper = round(corner * math.expm1(band * step / scale) * n_fft / sample_rate)
        width = upper - edge - borrowed
        borrowed = max(0, least - width)
        widths.append(max(width, least))
        edge = upper
    widths[-1] += n_fft // 2 + 1 - sum(widths)
    return widths


class _Buffer(nn.Module):
    """Hold one tensor under the name that the checkpoints give it."""

    def __init__(self, name: str, value: Tensor) -> None:
        super().__init__()
        self.register_buffer(name, value)


class DPDFNet(nn.Module):
    """Remove noise from 16 kHz speech, causally but for four frames of look-ahead.

    `forward` gives what the streaming form gives frame by frame, with its delay taken out and
    its end flushed. The network runs in float32, whatever number format surrounds it.

    Args:
        hyperparameters: The fields of `Size`.

    Shape: (B, T) -> (B, T), float32, T from 1 on.

    Raises:
        ValueError: hyperparameters that are unknown or do not fit each other.
    """

    def __init__(self, **hyperparameters: Any) -> None:
        super().__init__()
        size = Size.read(hyperparameters)
        self.size = size
        self.sample_rate = size.samplerate
        self.hop_length = round(size.hop_length * size.samplerate)
        self.win_length = round(size.win_length * size.samplerate)
        widths = erb_widths(size.samplerate, size.n_fft, size.nb_erb, size.min_nb_freqs)
        member = torch.block_diag(*(torch.ones(width, 1) for width in widths))
        self.erb_fb: Tensor
        self.register_buffer("erb_fb", member / member.sum(0))
        self.register_buffer("erb_inv_fb", member.T.contiguous())
        place = (torch.arange(self.win_length) + 0.5) / self.win_length
        window = torch.sin(0.5 * math.pi * torch.sin(math.pi * place).square())
        self.stft = _Buffer("w", window)
        self.istft = _Buffer("w_inv", window.clone())
        self.istft_norm = _Buffer("w_inv", window.clone())
        self.mask = _Buffer("erb_inv_fb", member.T.clone())
        self.enc = Encoder(size)
        self.erb_dec = MaskDecoder(size)
        self.df_dec = FilterDecoder(size)

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that count for its output in practice: 2.5 s.

        What takes so long are the running means, which keep 0.98 from frame to frame and begin
        far from any recording's: chunks are then -40 dB and less away from the whole signal. The
        other side needs no more than the look-ahead.
        """
        return 5 * self.sample_rate // 2

    def forward(self, waveform: Tensor) -> Tensor:
        samples, ahead = waveform.shape[-1], self.size.conv_lookahead
        hops = -(-samples // self.hop_length) + ahead + self.size.df_lookahead
        padded = functional.pad(waveform.float(), (0, hops * self.hop_length - samples))
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = self.analyse(padded)
            bands, bins = (
                functional.pad(feature, (0, 0, 0, ahead)) for feature in self.features(spectrum)
            )
            estimate = self.estimate(bands, bins)
            enhanced = self.filter(
                spectrum, estimate.mask[:, ahead:], estimate.filters[:, :, ahead:]
            )
            return self.synthesise(enhanced)[:, :samples]

    def denoise_clip(self, waveform: Tensor) -> Tensor:
        """Denoise whole recordings in the form in which the network was trained.

        The features are shifted by the look-ahead, so the recurrent layers never see the first
        frames: this differs from `forward` by a transient at the start. (B, T) -> (B, T'), T'
        the whole hops of T, T > n_fft // 2.
        """
        ahead = self.size.conv_lookahead
        spectrum = self.analyse(waveform)
        bands, bins = (
            functional.pad(feature, (0, 0, -ahead, ahead)) for feature in self.features(spectrum)
        )
        estimate = self.estimate(bands, bins)
        return self.synthesise(self.filter(spectrum, estimate.mask, estimate.filters))

    def analyse(self, waveform: Tensor) -> Tensor:
        """Give the scaled spectrum, (B, T) -> (B, N, F) complex with N = T // hop + 1."""
        spectrum = torch.stft(
            waveform,
            self.size.n_fft,
            self.hop_length,
            self.win_length,
            self.stft.get_buffer("w"),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return spectrum.transpose(1, 2) * self._scale

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Undo `analyse`: (B, N, F) -> (B, (N - 1) * hop)."""
        return torch.istft(
            (spectrum / self._scale).transpose(1, 2),
            self.size.n_fft,
            self.hop_length,
            self.win_length,
            self.istft.get_buffer("w_inv"),
            center=True,
        )

    def features(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise levels and spectrum by their running means, (B, N, F) complex.

        Returns:
            Levels of the bands (B, N, E), and the lower spectrum (B, N, K) complex.
        """
        size = self.size
        power = spectrum.real.square() + spectrum.imag.square()
        levels = 10.0 * torch.log10(power @ self.erb_fb + 1e-10)
        usual = self._running_mean(levels, _ERB_START_DB)
        low = spectrum[..., : size.df_bins]
        magnitude = self._running_mean(low.abs(), _SPECTRUM_START)
        return (levels - usual) / _ERB_SCALE_DB, low / (magnitude + 1e-12).sqrt()

    def estimate(self, bands: Tensor, bins: Tensor) -> Estimate:
        """Run the network on `features` that are as far ahead as it shall see."""
        planes = torch.view_as_real(bins).permute(0, 3, 1, 2)
        embedding, snr_db, (*maps, c0) = self.enc(bands[:, None], planes)
        mask, filters = self.erb_dec(embedding, maps), self.df_dec(embedding, c0)
        return Estimate(embedding, snr_db, mask, filters)

    def filter(self, spectrum: Tensor, mask: Tensor, filters: Tensor) -> Tensor:
        """Apply an estimate to the spectrum, (B, N, F) -> (B, N, F): mask, then deep filter."""
        size, frames = self.size, spectrum.shape[1]
        masked = spectrum * (mask @ self.mask.get_buffer("erb_inv_fb"))
        past = size.df_order - 1 - size.df_lookahead
        low = functional.pad(masked[..., : size.df_bins], (0, 0, past, size.df_lookahead))
        taps = torch.view_as_complex(filters.contiguous()).unbind(1)
        filtered = torch.zeros_like(low[:, :frames])
        for k, tap in enumerate(taps):
            filtered = filtered + tap * low[:, k : k + frames]
        return torch.cat([filtered, masked[..., size.df_bins :]], dim=-1)

    @property
    def _scale(self) -> float:
        return 2.0 * self.hop_length / self.size.n_fft**2

    def _running_mean(self, values: Tensor, start: tuple[float, float]) -> Tensor:
        """Follow (B, N, D) by a mean that forgets, each frame's own value included."""
        stay = self.size.alpha_norm
        mean = torch.linspace(*start, values.shape[-1], device=values.device)
        means = []
        for frame in values.unbind(1):
            mean = stay * mean + (1.0 - stay) * frame
            means.append(mean)
        return torch.stack(means, dim=1)
