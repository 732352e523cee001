"""MP-SENet: a GAN-trained 16 kHz denoiser that estimates magnitude and phase side by side.

Reference: Lu, Ai & Ling 2023, "MP-SENet: A speech enhancement model with parallel denoising of
    magnitude and phase spectra" (arXiv 2305.13686; long version arXiv 2308.08926). Parameter
    names and shapes are those of the published checkpoints.

Letters in shapes: B batch, C channels of the maps, T samples, F frequency bins, N frames; K is
the F // 2 + 1 positions along frequency between encoder and decoders.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.blocks import db_to_gain
from speakup.networks import spectra

INPUT_LEVEL_DB = -25.0
"""RMS in dBFS of the recordings that `MPSENet.forward` expects, which it brings to an RMS of 1."""

_DENSE_DEPTH = 4
_CPU_SEQUENCES = 64
"""Sequences worked on at a time where caches are small: 1.5 times as fast, in less memory."""
_MAGNITUDE_OFFSET = 1e-9  # These three are part of the input on which the network was trained.
_REAL_OFFSET = 1e-5
_IMAG_OFFSET = 1e-10


def _norm_act(channels: int) -> tuple[nn.Module, nn.Module]:
    """Give the normalisation over (N, F) of one signal's channels, and their activation."""
    return nn.InstanceNorm2d(channels, affine=True), nn.PReLU(channels)


class CausalConv(nn.Conv2d):
    """Convolve each frame with the one `dilation` before it: (B, C, N, K) -> (B, D, N, K)."""

    def __init__(self, channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(
            channels, out_channels, (2, 3), padding=(dilation, 1), dilation=(dilation, 1)
        )

    def forward(self, input: Tensor) -> Tensor:
        # Padded in the convolution, at both ends, which saves a copy of the widest maps.
        return super().forward(input)[:, :, : input.shape[2]]


class DenseBlock(nn.Module):
    """Four causal dilated convolutions, each of which sees the results of all before it.

    Shape: (B, C, N, K) -> (B, C, N, K).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense_block = nn.ModuleList(
            nn.Sequential(
                nn.Identity(),  # The published layers begin with a padding, which has no weights.
                CausalConv((i + 1) * channels, channels, dilation=2**i),
                *_norm_act(channels),
            )
            for i in range(_DENSE_DEPTH)
        )

    def forward(self, maps: Tensor) -> Tensor:
        latest, seen = maps, maps
        for index, layer in enumerate(self.dense_block):
            latest = layer(seen)
            if index < _DENSE_DEPTH - 1:  # The last result alone is given: nothing sees the rest.
                seen = torch.cat([latest, seen], dim=1)
        return latest


class DenseEncoder(nn.Module):
    """Turn magnitude and phase into maps of half the bins: (B, 2, N, F) -> (B, C, N, K)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense_conv_1 = nn.Sequential(nn.Conv2d(2, channels, 1), *_norm_act(channels))
        self.dense_block = DenseBlock(channels)
        self.dense_conv_2 = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), stride=(1, 2), padding=(0, 1)),
            *_norm_act(channels),
        )

    def forward(self, planes: Tensor) -> Tensor:
        maps: Tensor = self.dense_conv_2(self.dense_block(self.dense_conv_1(planes)))
        return maps


class SelfAttention(nn.Module):
    """Multi-head self-attention along sequences (S, L, C) whose memory is linear in L."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, sequences: Tensor) -> Tensor:
        packed = functional.linear(sequences, self.in_proj_weight, self.in_proj_bias)
        count, length, _ = packed.shape
        query, key, value = packed.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(sequences.shape))


class RecurrentFeedForward(nn.Module):
    """The transformer's feed-forward part with a bidirectional GRU: (S, L, C) -> (S, L, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, 2 * channels, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(4 * channels, channels)

    def forward(self, sequences: Tensor) -> Tensor:
        both, _ = self.gru(sequences)
        return self.linear(functional.leaky_relu(both))


class Transformer(nn.Module):
    """One transformer layer along sequences (S, L, C), normalised at its end too."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = RecurrentFeedForward(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, sequences: Tensor) -> Tensor:
        count = _CPU_SEQUENCES if sequences.device.type == "cpu" else len(sequences)
        return torch.cat([self._mix(part) for part in sequences.split(count)])

    def _mix(self, sequences: Tensor) -> Tensor:
        sequences = sequences + self.attention(self.norm1(sequences))
        sequences = sequences + self.ffn(self.norm2(sequences))
        return self.norm3(sequences)


class TwoStageBlock(nn.Module):
    """Mix along frequency within each frame, then along time within each frequency.

    The published names say it the other way round: `time_transformer` has the frames as its
    batch and runs along frequency. Shape: (B, C, N, K) -> (B, C, N, K).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.time_transformer = Transformer(channels, heads)
        self.freq_transformer = Transformer(channels, heads)

    def forward(self, maps: Tensor) -> Tensor:
        batch, channels, frames, bins = maps.shape
        rows = maps.permute(0, 2, 3, 1)
        rows = rows + self.time_transformer(rows.flatten(0, 1)).view(rows.shape)
        columns = rows.transpose(1, 2)
        mixed = self.freq_transformer(columns.reshape(batch * bins, frames, channels))
        columns = columns + mixed.view(batch, bins, frames, channels)
        return columns.permute(0, 3, 2, 1)


class SubPixelConv(nn.Module):
    """Double the positions along frequency: (B, C, N, K) -> (B, C, N, 2 K)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, (1, 3), padding=(0, 1))

    def forward(self, maps: Tensor) -> Tensor:
        even, odd = self.conv(maps).chunk(2, dim=1)
        return torch.stack([even, odd], dim=-1).flatten(-2)


class LearnableSigmoid(nn.Module):
    """A sigmoid up to `beta` with a slope per bin: (B, F, N) -> (B, F, N).

    Reference: Fu et al. 2021, MetricGAN+ (arXiv 2104.03538).
    """

    def __init__(self, bins: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.slope = nn.Parameter(torch.ones(bins, 1))

    def forward(self, value: Tensor) -> Tensor:
        return self.beta * torch.sigmoid(self.slope * value)


class MaskDecoder(nn.Module):
    """Read a mask of the compressed magnitude from the maps: (B, C, N, K) -> (B, F, N)."""

    def __init__(self, channels: int, bins: int, beta: float) -> None:
        super().__init__()
        self.dense_block = DenseBlock(channels)
        self.mask_conv = nn.Sequential(
            SubPixelConv(channels), *_norm_act(channels), nn.Conv2d(channels, 1, (1, 2))
        )
        self.lsigmoid = LearnableSigmoid(bins, beta)

    def forward(self, maps: Tensor) -> Tensor:
        mask = self.mask_conv(self.dense_block(maps))[:, 0].transpose(1, 2)
        return self.lsigmoid(mask)


class PhaseDecoder(nn.Module):
    """Read the phase from the maps as the angle of two planes: (B, C, N, K) -> (B, F, N)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense_block = DenseBlock(channels)
        self.phase_conv = nn.Sequential(SubPixelConv(channels), *_norm_act(channels))
        self.phase_conv_r = nn.Conv2d(channels, 1, (1, 2))
        self.phase_conv_i = nn.Conv2d(channels, 1, (1, 2))

    def forward(self, maps: Tensor) -> Tensor:
        planes = self.phase_conv(self.dense_block(maps))
        phase = torch.atan2(self.phase_conv_i(planes), self.phase_conv_r(planes))
        return phase[:, 0].transpose(1, 2)


class MPSENet(nn.Module):
    """Remove noise from 16 kHz speech by a mask on its magnitude and an estimate of its phase.

    It runs in float32, whatever number format surrounds it: its phases do not bear less.

    Its instance norms and its attention see all of what they are given, so a result in chunks is
    never exactly that of the whole signal; see `context_samples`.

    Args:
        dense_channel: C.
        num_tsblocks: Two-stage blocks.
        n_heads: Attention heads; divides `dense_channel`.
        n_fft: Transform length in samples, a multiple of 4.
        hop_size: Samples between frames.
        win_size: Length of the Hann window, at most `n_fft`.
        compress_factor: Exponent of the magnitudes.
        beta: Upper limit of the mask on compressed magnitudes.
        segment_size: Samples per segment in `denoise_clip`.
        sampling_rate: Hz.
        num_tsconformers: In the published configurations, and read by nothing there or here:
            the number of blocks is `num_tsblocks`.

    Shape: (B, T) -> (B, T), float32, T from 1 on.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        dense_channel: int = 64,
        num_tsblocks: int = 4,
        n_heads: int = 4,
        n_fft: int = 400,
        hop_size: int = 100,
        win_size: int = 400,
        compress_factor: float = 0.3,
        beta: float = 2.0,
        segment_size: int = 32_000,
        sampling_rate: int = 16_000,
        num_tsconformers: int | None = None,
    ) -> None:
        super().__init__()
        if n_fft % 4 or dense_channel % n_heads or not hop_size <= win_size <= n_fft:
            raise ValueError(
                "n_fft must be a multiple of 4 and no shorter than win_size, nor that than "
                "hop_size; n_heads must divide dense_channel"
            )
        self.n_fft, self.hop_length, self.win_length = n_fft, hop_size, win_size
        self.compress_factor = compress_factor
        self.segment_size, self.sample_rate = segment_size, sampling_rate
        self.dense_encoder = DenseEncoder(dense_channel)
        self.TSTransformer = nn.ModuleList(
            TwoStageBlock(dense_channel, n_heads) for _ in range(num_tsblocks)
        )
        self.mask_decoder = MaskDecoder(dense_channel, n_fft // 2 + 1, beta)
        self.phase_decoder = PhaseDecoder(dense_channel)
        self.register_buffer("window", torch.hann_window(win_size), persistent=False)
        self.window: Tensor

    @property
    def context_samples(self) -> int:
        """Samples on either side that shape an output by more than its chunk as a whole does.

        Half a second. More brings chunks no nearer to the whole signal: what is left, about
        -30 dB of it with random weights, are the statistics and the attention of all they see.
        """
        return self.sample_rate // 2

    def forward(self, waveform: Tensor) -> Tensor:
        gain = 1.0 / db_to_gain(INPUT_LEVEL_DB)
        samples = waveform.shape[-1]
        padding = max(self.n_fft - samples, -samples % self.hop_length)
        with torch.autocast(waveform.device.type, enabled=False):
            levelled = functional.pad(waveform.float() * gain, (0, padding))
            # Memory grows with the batch, and the CPU gains nothing by it.
            rows = levelled.split(1 if levelled.device.type == "cpu" else len(levelled))
            clean = torch.cat([self._denoise_segment(row) for row in rows])
        return clean[:, :samples] / gain

    def denoise_clip(self, waveform: Tensor, segment_size: int | None = None) -> Tensor:
        """Denoise whole recordings as the published package does: at unit RMS, in segments.

        Segments follow each other without overlap, the last one is up to half of one longer, and
        each loses what is beyond its last whole hop. Needed to reproduce published results;
        `forward` keeps the length and leaves level and chunks to the caller.

        Args:
            waveform: (B, T).
            segment_size: Samples per segment; None for the configured number.

        Returns:
            (B, T'), with T' the whole hops of all segments, each of at least `n_fft` samples.
        """
        size = segment_size or self.segment_size
        samples = waveform.shape[-1]
        level = spectra.rms(waveform)
        level = torch.where(level > 0.0, level, 1.0)  # Digital silence has no gain to unit RMS.
        starts = [0]
        while samples - (starts[-1] + size) >= max(1, size // 2):
            starts.append(starts[-1] + size)
        segments = (waveform / level).tensor_split(starts[1:], dim=-1)
        padded = [
            functional.pad(part, (0, max(0, self.n_fft - part.shape[-1]))) for part in segments
        ]
        return level * torch.cat([self._denoise_segment(part) for part in padded], dim=-1)

    def features(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Give the network's input of a waveform (B, T) at unit RMS, T > n_fft // 2.

        The frame centred on sample 0 is symmetric, so its spectrum is real but for rounding, and
        its phases are +pi or -pi as that falls.

        Returns:
            Compressed magnitude and phase, each (B, F, N) with N = T // hop + 1.
        """
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        real, imag = spectrum.real, spectrum.imag
        power = real.square() + imag.square() + _MAGNITUDE_OFFSET
        phase = torch.atan2(imag + _IMAG_OFFSET, real + _REAL_OFFSET)
        return power.sqrt().pow(self.compress_factor), phase

    def denoise_spectrum(self, magnitude: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Map `features`, each (B, F, N), to those of the clean signal, of the same shape."""
        maps = self.dense_encoder(torch.stack([magnitude, phase], dim=1).transpose(2, 3))
        for block in self.TSTransformer:
            maps = block(maps)
        return magnitude * self.mask_decoder(maps), self.phase_decoder(maps)

    def synthesise(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """Undo `features`: (B, F, N) each -> (B, (N - 1) * hop)."""
        spectrum = torch.polar(magnitude.pow(1.0 / self.compress_factor), phase)
        return torch.istft(
            spectrum, self.n_fft, self.hop_length, self.win_length, self.window, center=True
        )

    def _denoise_segment(self, waveform: Tensor) -> Tensor:
        return self.synthesise(*self.denoise_spectrum(*self.features(waveform)))
