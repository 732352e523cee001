"""LavaSR v2's enhancer: a vocoder that hears the low mel bands and writes the whole spectrum."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks import spectra
from speakup.networks.layers import ConvNeXtBlock
from speakup.networks.resampling import resample

SAMPLE_RATE = 48_000
_LOG_FLOOR = 1e-5
_MOST_MAGNITUDE = 1e3
_KERNEL = 7
_EPS = 1e-6


class LavaSR(nn.Module):
    """Synthesise a voice at 48 kHz from its log-mel bands below 8.7 kHz, in the Vocos layout.

    What comes out is the network's own spectrum from 0 Hz on: the recording's low band is the
    caller's to keep. `published` does so as the authors do.

    The weights' names are those of the checkpoint: YatharthS/LavaSR, enhancer_v2.

    Args:
        sample_rate: Hz for which the mel bands are built. Upstream builds them for 44.1 kHz and
            feeds 48 kHz, so that a band called f lies at f * 48000 / 44100.
        n_fft: STFT length in samples.
        hop_length: Samples between frames.
        n_mels: Number of mel bands (`input_channels` of upstream's backbone).
        f_min: Where the lowest band begins, in Hz.
        f_max: Where the highest band ends, in Hz.
        norm: "slaney" for bands of equal area, None for equal height.
        mel_scale: "slaney" or "htk".
        padding: "same" puts frame k's middle on sample (k + 1/2) * hop_length, "center" on
            k * hop_length.
        dim: D, width of the backbone.
        intermediate_dim: Width of its blocks' hidden layer.
        num_layers: Number of blocks.

    Shape: waveform (B, T) at 48 kHz and cutoff_hz (B,), which is not looked at -> (B, T) at
    48 kHz, float32, for any T from 1 on.

    Reference: LavaSR (arXiv 2603.07285); Siuzdak 2023, Vocos (arXiv 2306.00814).
    """

    input_rate = SAMPLE_RATE
    output_rate = SAMPLE_RATE

    def __init__(
        self,
        *,
        sample_rate: int = 44_100,
        n_fft: int = 2048,
        hop_length: int = 512,
        n_mels: int = 80,
        f_min: float = 0.0,
        f_max: float = 8_000.0,
        norm: str | None = "slaney",
        mel_scale: str = "slaney",
        padding: str = "same",
        dim: int = 512,
        intermediate_dim: int = 1536,
        num_layers: int = 8,
    ) -> None:
        super().__init__()
        if padding not in ("same", "center"):
            raise ValueError(f"padding is {padding!r}, not same or center")
        self.hop_length = hop_length
        self._frame_reach = (num_layers + 1) * (_KERNEL // 2)
        self._n_fft = n_fft
        edge = n_fft // 2 if padding == "center" else (n_fft - hop_length) // 2
        filters = spectra.mel_filters(
            n_fft // 2 + 1, sample_rate, n_mels, f_min, f_max, scale=mel_scale, norm=norm
        )
        self.feature_extractor = _MelFeatures(n_fft, hop_length, edge, filters)
        self.backbone = _Backbone(n_mels, dim, intermediate_dim, num_layers)
        self.head = _Head(dim, n_fft, hop_length, edge)

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""
        return self._frame_reach * self.hop_length + self._n_fft

    def forward(self, waveform: Tensor, cutoff_hz: Tensor) -> Tensor:
        samples = waveform.shape[-1]
        # Whole hops, or the last ones would have no frame; and more than the mirrored edge.
        wanted = max(samples, self.feature_extractor.edge + 1)
        padded = spectra.whole_hops(
            functional.pad(waveform.float(), (0, wanted - samples)), self.hop_length
        )
        return self.synthesise(padded)[:, :samples]

    def synthesise(self, waveform: Tensor) -> Tensor:
        """Map (B, T) at 48 kHz to (B, T // hop_length * hop_length), upstream's bare network.

        T must exceed the (n_fft - hop_length) // 2 samples by which the ends are mirrored.
        """
        return self.head(self.backbone(self.feature_extractor(waveform)))

    def published(self, waveform: Tensor, cutoff_hz: float = 8_000.0) -> Tensor:
        """Enhance a whole clip as the authors' own program does.

        Args:
            waveform: (B, T) at 16 kHz.
            cutoff_hz: Up to where the clip's own band is kept: half its file's rate.

        Returns:
            (B, 3 * T // hop_length * hop_length) at 48 kHz.
        """
        full = resample(waveform, 16_000, SAMPLE_RATE, zero_crossings=6, roll_off=0.99)
        return merge_low_band(self.synthesise(full), full, cutoff_hz)


def merge_low_band(
    estimate: Tensor, source: Tensor, cutoff_hz: float, transition_bins: int = 1024
) -> Tensor:
    """Put a clip's own band under the cutoff into an estimate, as LavaSR's authors do.

    The transition has a fixed number of bins of the whole clip's spectrum, so its width in Hz
    falls with the clip's length: for whole clips only, and for comparison with upstream.

    Args:
        estimate: (B, T) at 48 kHz.
        source: (B, T') at 48 kHz, T' at least T.
        cutoff_hz: Middle of the transition.
        transition_bins: Its width.

    Returns:
        (B, T).
    """
    samples = estimate.shape[-1]
    ours, theirs = torch.fft.rfft(source[..., :samples]), torch.fft.rfft(estimate)
    bins, half = samples // 2 + 1, transition_bins // 2
    cut = int(cutoff_hz / (SAMPLE_RATE / 2) * bins)
    start, end = max(0, cut - half), min(bins, cut + half)
    step = torch.linspace(0.0, 1.0, transition_bins, device=estimate.device)
    weight = torch.zeros(bins, device=estimate.device)
    weight[start:end] = (3.0 * step**2 - 2.0 * step**3)[: max(end - start, 0)]
    weight[end:] = 1.0
    return torch.fft.irfft(ours + (theirs - ours) * weight, samples)


class _Named(nn.Module):
    """Hold buffers and parts under the names a checkpoint gives them; computes nothing."""

    def __init__(self, **held: Tensor | nn.Module) -> None:
        super().__init__()
        for name, value in held.items():
            if isinstance(value, nn.Module):
                self.add_module(name, value)
            else:
                self.register_buffer(name, value)


class _MelFeatures(nn.Module):
    """Analyse (B, T) into log-mel bands (B, M, N); `edge` samples are mirrored at either end."""

    def __init__(self, n_fft: int, hop_length: int, edge: int, filters: Tensor) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.edge = n_fft, hop_length, edge
        self.mel_spec = _Named(
            spectrogram=_Named(window=torch.hann_window(n_fft)), mel_scale=_Named(fb=filters)
        )

    def forward(self, waveform: Tensor) -> Tensor:
        padded = functional.pad(waveform[:, None].float(), (self.edge, self.edge), mode="reflect")
        with torch.autocast(waveform.device.type, enabled=False):
            magnitude = torch.stft(
                padded[:, 0],
                self.n_fft,
                self.hop_length,
                window=self.mel_spec.get_buffer("spectrogram.window"),
                center=False,
                return_complex=True,
            ).abs()
            filters = self.mel_spec.get_buffer("mel_scale.fb")
            mel = torch.matmul(magnitude.transpose(1, 2), filters).transpose(1, 2)
        return mel.clamp_min(_LOG_FLOOR).log()


class _Backbone(nn.Module):
    """Refine bands (B, M, N) into features (B, N, D)."""

    def __init__(self, bands: int, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(bands, dim, _KERNEL, padding=_KERNEL // 2)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(dim, intermediate_dim, 1.0 / num_layers) for _ in range(num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(dim, eps=_EPS)

    def forward(self, bands: Tensor) -> Tensor:
        # Rounded to bfloat16, the logarithms of quiet bands would be off by a quarter of a decibel.
        with torch.autocast(bands.device.type, enabled=False):
            hidden = self.norm(self.embed(bands).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            hidden = block(hidden)
        return self.final_layer_norm(hidden.transpose(1, 2))


class _Head(nn.Module):
    """Read log magnitude and phase out of features (B, N, D) and synthesise (B, N' * hop)."""

    def __init__(self, dim: int, n_fft: int, hop_length: int, edge: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.edge = n_fft, hop_length, edge
        self.out = nn.Linear(dim, n_fft + 2)
        self.istft = _Named(window=torch.hann_window(n_fft))

    def forward(self, features: Tensor) -> Tensor:
        # Phases of many turns and the overlap-add need all of float32's digits.
        with torch.autocast(features.device.type, enabled=False):
            log_magnitude, phase = self.out(features.float()).chunk(2, dim=-1)
            magnitude = log_magnitude.exp().clamp(max=_MOST_MAGNITUDE)
            window = self.istft.get_buffer("window")
            frames = torch.fft.irfft(torch.polar(magnitude, phase), self.n_fft) * window
            squares = window.square().expand(1, frames.shape[1], -1)
            return self._overlap_add(frames) / self._overlap_add(squares)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Sum (B, N, n_fft) at multiples of the hop, and cut the mirrored ends off."""
        samples = (frames.shape[1] - 1) * self.hop_length + self.n_fft
        summed = functional.fold(
            frames.transpose(1, 2), (1, samples), (1, self.n_fft), stride=(1, self.hop_length)
        )
        return summed[:, 0, 0, self.edge : samples - self.edge]
