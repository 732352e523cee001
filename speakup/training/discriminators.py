"""Discriminators: judges of waveforms by spectrogram and by period, used in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks import spectra
from speakup.networks.denoiser import BandBlock, BandSplit

_SLOPE = 0.2


class SpectralDiscriminator(nn.Module):
    """Judge a compressed complex spectrogram with strided two-dimensional convolutions.

    Shape: (B, T) -> score (B, F', N') and the hidden features.

    Reference:
        Multi-resolution spectral discriminators: Zeghidour et al. 2021, arXiv 2107.03312,
        section 3.4.
    """

    def __init__(self, n_fft: int, hop_length: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        widths = [3, channels, channels, 2 * channels, 2 * channels]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv2d(before, after, (5, 3), stride=(2 if index else 1, 1), padding=(2, 1))
            )
            for index, (before, after) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.score = nn.Conv2d(widths[-1], 1, (3, 3), padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = spectra.stft(waveform, self.n_fft, self.hop_length, root_window=False)
        parts = torch.view_as_real(spectrum)
        power = parts.square().sum(-1, keepdim=True) + 1e-8
        planes = torch.cat([parts * power.pow(-0.35), power.pow(0.15)], dim=-1)
        hidden = planes.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            hidden = functional.leaky_relu(layer(hidden), _SLOPE)
            features.append(hidden)
        return self.score(hidden)[:, 0], features


class PatchDiscriminator(nn.Module):
    """Judge patches of a spectrogram's magnitudes, without its phases.

    The first layer takes patches 4 frames long and steps over half of each: what follows is an
    eighth of the spectrogram's size, so that a judge costs little more than the generator.

    Shape: (B, T) -> score (B, F', N') and the hidden features.

    Reference:
        Judges of magnitudes at several resolutions: Jang et al. 2021 (UnivNet), arXiv 2106.07889,
        section 2.2.
    """

    _BINS = 4
    _LONG_WINDOW = 2_048

    def __init__(self, n_fft: int, hop_length: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        bins = self._BINS * (2 if n_fft >= self._LONG_WINDOW else 1)
        wide = 2 * channels
        shapes: list[tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int]]] = [
            (2, channels, (bins + 1, 4), (bins // 2, 2), (bins // 2, 1)),
            (channels, wide, (5, 3), (2, 1), (2, 1)),
            (wide, wide, (5, 3), (2, 1), (2, 1)),
            (wide, wide, (3, 3), (1, 1), (1, 1)),
        ]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv2d(before, after, kernel, stride=stride, padding=padding)
            )
            for before, after, kernel, stride, padding in shapes
        )
        self.score = nn.Conv2d(wide, 1, (3, 3), padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = spectra.stft(waveform, self.n_fft, self.hop_length, root_window=False)
        power = spectrum.real.square() + spectrum.imag.square()
        # 0 to 2 from -70 dB to a loud bin.
        level = ((power + 1e-7).log10() + 7.0) / 4.0
        planes = torch.stack([level, (power + 1e-8).pow(0.15)], dim=1)
        hidden = planes.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            hidden = functional.leaky_relu(layer(hidden), _SLOPE)
            features.append(hidden)
        return self.score(hidden)[:, 0], features


class PeriodDiscriminator(nn.Module):
    """Judge every `period`-th sample as one signal, by convolutions over time.

    Shape: (B, T) -> score (B, T', period) and the hidden features.

    Reference:
        Kong et al. 2020, arXiv 2010.05646, section 2.3.
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 2 * channels, 4 * channels, 4 * channels]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv2d(before, after, (5, 1), stride=(3, 1), padding=(2, 0))
            )
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.score = nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        padded = functional.pad(waveform, (0, -waveform.shape[1] % self.period))
        hidden = padded.view(len(waveform), 1, -1, self.period)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            hidden = functional.leaky_relu(layer(hidden), _SLOPE)
            features.append(hidden)
        return self.score(hidden)[:, 0], features


class BandDiscriminator(nn.Module):
    """Judge every band of every frame by what all bands around it do, with the denoiser's blocks.

    Dense layers at frame rate see far more of the signal for the same computation than
    convolutions over a spectrogram do.

    Args:
        n_fft: STFT length in samples.
        hop_length: Samples between frames.
        channels: Half the features of a band; a multiple of 8, as processors' bfloat16
            convolutions have given NaN as gradients for others.

    Shape: (B, T) -> score (B, N, K) and the hidden features.
    """

    _DILATIONS = (1, 2, 4)

    def __init__(self, n_fft: int, hop_length: int, channels: int) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"channels must be a multiple of 8, not {channels}")
        self.n_fft, self.hop_length = n_fft, hop_length
        groups = [(count, width * n_fft // 512) for count, width in ((16, 4), (8, 8), (8, 16))]
        bands = sum(count for count, _ in groups)
        self.split = BandSplit(groups, 3, 2 * channels)
        self.blocks = nn.ModuleList(
            BandBlock(bands, 2 * channels, 8 * channels, dilation) for dilation in self._DILATIONS
        )
        self.norm = nn.LayerNorm(2 * channels)
        self.score = nn.Linear(2 * channels, 1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = spectra.stft(waveform, self.n_fft, self.hop_length, root_window=False)
        parts = torch.view_as_real(spectrum.transpose(1, 2))[:, :, :-1]
        power = parts.square().sum(-1, keepdim=True) + 1e-6
        bands = self.split(torch.cat([parts * power.pow(-0.35), power.pow(0.15)], dim=-1))
        features = []
        for block in self.blocks:
            bands = block(bands)
            features.append(bands)
        return self.score(self.norm(bands))[..., 0], features


class Discriminators(nn.Module):
    """Judge a waveform in several views at once.

    Args:
        bands: (n_fft, hop_length) of each judge of bands.
        spectral: (n_fft, hop_length) of each spectral judge.
        patches: (n_fft, hop_length) of each judge of patches.
        periods: Period in samples of each waveform judge.
        channels: Width of the first layers.

    Shape: (B, T) -> list of scores, list of lists of features; of all, or of the one that a turn
    names, turn after turn.
    """

    def __init__(
        self,
        *,
        bands: list[tuple[int, int]],
        spectral: list[tuple[int, int]],
        patches: list[tuple[int, int]],
        periods: list[int],
        channels: int = 16,
    ) -> None:
        super().__init__()
        judges: list[nn.Module] = [BandDiscriminator(*view, channels) for view in bands]
        judges += [SpectralDiscriminator(*view, channels) for view in spectral]
        judges += [PatchDiscriminator(*view, channels) for view in patches]
        judges += [PeriodDiscriminator(period, channels) for period in periods]
        self.judges = nn.ModuleList(judges)

    def forward(
        self, waveform: Tensor, turn: int | None = None
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        judges = self.judges if turn is None else [self.judges[turn % len(self.judges)]]
        judged = [judge(waveform) for judge in judges]
        return [score.float() for score, _ in judged], [features for _, features in judged]
