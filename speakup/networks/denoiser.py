"""The denoise/dereverb generator: bands of the spectrum mixed over time and over frequency."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks import spectra
from speakup.networks.layers import TimeConv

COMPRESSION = 1.0 / 3.0
"""Exponent of magnitudes at the network's border: near the ear's loudness law, and undone by a
cube instead of a power."""


def compress(spectrum: Tensor) -> Tensor:
    """Compress magnitudes to their cube root and keep the phase, (B, F, N) -> (B, N, F, 2)."""
    parts = torch.view_as_real(spectrum.transpose(1, 2))
    return parts * (_power(parts) + 1e-10).pow((COMPRESSION - 1.0) / 2.0)


def expand(compressed: Tensor) -> Tensor:
    """Undo `compress`, (B, N, F, 2) -> (B, F, N) complex."""
    return torch.view_as_complex((compressed * _power(compressed)).contiguous()).transpose(1, 2)


def _power(parts: Tensor) -> Tensor:
    """Give real part squared plus imaginary part squared, (..., 2) -> (..., 1)."""
    real, imaginary = parts.split(1, dim=-1)  # a sum over the two takes five times as long
    return real.square() + imaginary.square()


class BandSplit(nn.Module):
    """Embed each band's bins with a matrix of its own: (B, N, F, P) -> (B, N, K, D).

    Bands come in groups of equal width, so each group is one batched matrix product.
    Band-split encoding after Luo & Yu 2022 (arXiv 2209.15174).
    """

    def __init__(self, groups: list[tuple[int, int]], planes: int, features: int) -> None:
        super().__init__()
        self.groups = groups
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(count, width * planes, features) / (width * planes) ** 0.5)
            for count, width in groups
        )
        self.bias = nn.Parameter(torch.zeros(sum(count for count, _ in groups), features))

    def forward(self, bins: Tensor) -> Tensor:
        batch, frames, _, planes = bins.shape
        bands, start = [], 0
        for (count, width), weight in zip(self.groups, self.weights, strict=True):
            part = bins[:, :, start : start + count * width]
            part = part.reshape(batch, frames, count, width * planes)
            bands.append(torch.einsum("bnki,kid->bnkd", part, weight))
            start += count * width
        joined = torch.cat(bands, dim=2)
        return joined + self.bias.to(joined.dtype)


class BandJoin(nn.Module):
    """Read each band's bins out with a matrix of its own: (B, N, K, D) -> (B, N, F, P)."""

    def __init__(self, groups: list[tuple[int, int]], planes: int, features: int) -> None:
        super().__init__()
        self.groups = groups
        self.planes = planes
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(count, features, width * planes) * 0.1 / features**0.5)
            for count, width in groups
        )

    def forward(self, bands: Tensor) -> Tensor:
        batch, frames = bands.shape[:2]
        bins = []
        parts = bands.split([count for count, _ in self.groups], dim=2)
        for (count, width), part, weight in zip(self.groups, parts, self.weights, strict=True):
            written = torch.einsum("bnkd,kdo->bnko", part, weight)
            bins.append(written.reshape(batch, frames, count * width, self.planes))
        return torch.cat(bins, dim=2)


class BandBlock(nn.Module):
    """Mix over time within each band, then over all bands within each frame.

    The weights of the first half are shared by all bands; the second half sees a frame whole
    through a bottleneck. Shape: (B, N, K, D) -> (B, N, K, D).
    """

    def __init__(self, bands: int, features: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(features)
        self.time_conv = TimeConv(features, 2 * features, dilation)
        self.time_out = nn.Linear(2 * features, features)
        self.band_norm = nn.LayerNorm(features)
        self.band_in = nn.Linear(bands * features, bottleneck)
        self.band_out = nn.Linear(bottleneck, bands * features)
        nn.init.normal_(self.time_out.weight, std=0.3 / (2 * features) ** 0.5)
        nn.init.normal_(self.band_out.weight, std=0.3 / bottleneck**0.5)

    def forward(self, bands: Tensor) -> Tensor:
        # Sums of two formats are many times slower than a conversion and a sum of one.
        hidden = functional.relu(self.time_conv(self.time_norm(bands)), inplace=True)
        bands = self.time_out(hidden).float().add_(bands)
        frame = functional.relu(self.band_in(self.band_norm(bands).flatten(2)), inplace=True)
        return self.band_out(frame).float().view_as(bands).add_(bands)


class BandMixer(nn.Module):
    """Remove noise and reverberation from 16 kHz speech.

    The compressed complex spectrum is multiplied by a complex mask, and a complex spectrum is
    added, which fills what the recording has lost; both come from the mixed bands. The network
    starts as the identity.

    Args:
        n_fft: STFT length in samples; hop is half of it.
        groups: (count, width) of the bands from low to high; the widths add up to n_fft // 2 + 1.
        features: D, channels per band.
        bottleneck: Width of the layer that sees all bands of a frame.
        dilations: One block each; context is their sum in frames on either side.

    Shape: (B, T) -> (B, T), float32.
    """

    sample_rate = 16_000

    def __init__(
        self,
        *,
        n_fft: int = 512,
        groups: list[tuple[int, int]],
        features: int = 48,
        bottleneck: int = 192,
        dilations: list[int],
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, n_fft // 2
        self.bins = n_fft // 2 + 1
        groups = [(int(count), int(width)) for count, width in groups]
        if sum(count * width for count, width in groups) != self.bins - 1:
            raise ValueError(f"the bands must cover {self.bins - 1} bins (Nyquist rides along)")
        bands = sum(count for count, _ in groups)
        self.split = BandSplit(groups, 3, features)
        self.blocks = nn.ModuleList(
            BandBlock(bands, features, bottleneck, dilation) for dilation in dilations
        )
        self._reach_frames = sum(dilations)
        self.norm = nn.LayerNorm(features)
        self.join = BandJoin(groups, 4, features)

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""
        return (self._reach_frames + 2) * self.hop_length

    def forward(self, waveform: Tensor) -> Tensor:
        padded = spectra.whole_hops(waveform.float(), self.hop_length)
        spectrum = spectra.stft(padded, self.n_fft, self.hop_length)
        compressed = compress(spectrum)
        magnitude = _power(compressed).add(1e-10).sqrt()
        features = torch.cat([magnitude, compressed], dim=-1)[:, :, :-1]
        # First and last layer, and what the blocks add to, stay in float32 under autocast: for a
        # twentieth of the time, the rounding of the blocks' products is then all that is left.
        with torch.autocast(waveform.device.type, enabled=False):
            bands = self.split(features)
        for block in self.blocks:
            bands = block(bands)
        with torch.autocast(waveform.device.type, enabled=False):
            planes = functional.pad(self.join(self.norm(bands)), (0, 0, 0, 1))
        return spectra.istft(expand(self._masked(compressed, planes)), waveform.shape[-1])

    @staticmethod
    def _masked(compressed: Tensor, planes: Tensor) -> Tensor:
        mask_real, mask_imag, fill = planes[..., 0] + 1.0, planes[..., 1], planes[..., 2:]
        real, imag = compressed[..., 0], compressed[..., 1]
        masked = torch.stack(
            [real * mask_real - imag * mask_imag, real * mask_imag + imag * mask_real], dim=-1
        )
        return masked + fill
