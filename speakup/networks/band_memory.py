"""The denoise/dereverb generator: bands of the spectrum that know what noise was before and after.

Three things tell noise from a voice: its spectrum, how it moves, and what is left of it in pauses.
The first two are seen by layers over bands and over neighbouring frames; for the third each bin
comes with its own floor and mean over a second on either side, and frames attend to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks import spectra
from speakup.networks.denoiser import BandJoin, BandSplit, compress, expand
from speakup.networks.layers import TimeConv

_SMOOTH_REACH = 2
_AT_ONCE = 320
"""Frames up to which attention to all and a mask take less time than blocks do."""


class FrameAttention(nn.Module):
    """Let each frame look at those around it: attention with a bias that grows with distance.

    Args:
        width: Features of a frame.
        heads: Each with its own slope of the bias, from one that looks far to one that does not.
        reach: Frames on either side that can be seen.

    Shape: (B, N, W) -> (B, N, W).

    Reference:
        Press et al. 2022, arXiv 2108.12409 (the bias); here it falls on both sides.
    """

    HEAD = 32

    def __init__(self, width: int, heads: int, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * heads * self.HEAD)
        self.tell = nn.Linear(heads * self.HEAD, width)
        nn.init.normal_(self.tell.weight, std=0.3 / (heads * self.HEAD) ** 0.5)

    def forward(self, frames: Tensor) -> Tensor:
        batch, count, _ = frames.shape
        asked = self.ask(self.norm(frames.float()))
        query, key, value = asked.view(batch, count, 3, self.heads, self.HEAD).permute(
            2, 0, 3, 1, 4
        )
        if count <= max(_AT_ONCE, 4 * self.reach):
            bias = self._bias(torch.arange(count), torch.arange(count)).to(asked)
            seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            seen = self._in_blocks(query, key, value)
        told: Tensor = self.tell(seen.transpose(1, 2).flatten(2))
        return frames + told

    def _in_blocks(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute the same for long recordings: no block of frames sees more than it may."""
        parts, count, block = [], query.shape[2], 2 * self.reach
        for start in range(0, count, block):
            low, high = max(0, start - self.reach), min(count, start + block + self.reach)
            stop = min(count, start + block)
            bias = self._bias(torch.arange(start, stop), torch.arange(low, high)).to(query)
            parts.append(
                functional.scaled_dot_product_attention(
                    query[:, :, start:stop],
                    key[:, :, low:high],
                    value[:, :, low:high],
                    attn_mask=bias,
                )
            )
        return torch.cat(parts, dim=2)

    def _bias(self, asking: Tensor, asked: Tensor) -> Tensor:
        """Give (H, N, M): minus a slope times the distance in frames, and nothing beyond."""
        distance = (asking[:, None] - asked).abs().float()
        slopes = 2.0 ** -(2.0 + 1.5 * torch.arange(self.heads).float())
        bias = -slopes[:, None, None] * distance
        return bias.masked_fill(distance > self.reach, float("-inf"))


class _SquaredReLU(torch.autograd.Function):
    """max(x, 0)^2, whose derivative 2 max(x, 0) takes one product where autograd takes four."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        above = value.clamp_min(0.0)
        ctx.save_for_backward(above)
        return above * above

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (above,) = ctx.saved_tensors
        return (gradients[0] * above).mul_(2.0)


def squared_relu(value: Tensor) -> Tensor:
    """Give max(x, 0)^2 (So et al. 2021, arXiv 2109.08668)."""
    if torch.is_grad_enabled():
        return _SquaredReLU.apply(value)  # type: ignore[no-untyped-call]
    return value.clamp_min_(0.0).square_()


class MemoryBlock(nn.Module):
    """Mix over time within each band, then over all bands within each frame, perhaps with memory.

    Shape: (B, N, K, D) -> (B, N, K, D).
    """

    def __init__(
        self,
        bands: int,
        features: int,
        bottleneck: int,
        dilation: int,
        *,
        heads: int = 0,
        reach: int = 0,
    ) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(features)
        self.time_conv = TimeConv(features, 2 * features, dilation)
        self.time_out = nn.Linear(2 * features, features)
        self.band_norm = nn.LayerNorm(features)
        self.band_in = nn.Linear(bands * features, bottleneck)
        self.memory = FrameAttention(bottleneck, heads, reach) if heads else None
        self.band_out = nn.Linear(bottleneck, bands * features)
        nn.init.normal_(self.time_out.weight, std=0.3 / (2 * features) ** 0.5)
        nn.init.normal_(self.band_out.weight, std=0.3 / bottleneck**0.5)

    def forward(self, bands: Tensor) -> Tensor:
        # Sums of two formats are many times slower than a conversion and a sum of one.
        hidden = squared_relu(self.time_conv(self.time_norm(bands)))
        bands = self.time_out(hidden).float().add_(bands)
        frame = functional.relu(self.band_in(self.band_norm(bands).flatten(2)), inplace=True)
        if self.memory is not None:
            frame = self.memory(frame)
        return self.band_out(frame).float().view_as(bands).add_(bands)


def history(magnitude: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Give each bin's floor and mean over `reach` frames on either side, (B, N, F) each.

    The floor is the smallest of means over five frames (minimum statistics: Martin 2001, IEEE TSAP
    9(5)). Frames beyond the ends do not count.
    """
    window = 2 * reach + 1
    ends = (0, 0, reach, reach)
    floor, span = functional.pad(_box(magnitude, _SMOOTH_REACH), ends, value=float("inf")), 1
    while span < window:  # The minimum over a window is that of two shorter ones in it.
        step = min(span, window - span)
        floor, span = torch.minimum(floor[:, :-step], floor[:, step:]), span + step
    return floor, _box(magnitude, reach)


def _box(values: Tensor, reach: int) -> Tensor:
    """Average over `reach` frames on either side, those beyond the ends left out.

    No running sum over the recording, whose rounding would carry what lies far away.
    """
    count, window = values.shape[1], 2 * reach + 1
    part, span, start = functional.pad(values, (0, 0, reach, reach)), 1, 0
    total = torch.zeros_like(values)
    while span <= window:  # The window's length in powers of two, each sum from two of half of it.
        if window & span:
            total = total + part[:, start : start + count]
            start += span
        if 2 * span <= window:
            part = part[:, :-span] + part[:, span:]
        span *= 2
    place = torch.arange(count, device=values.device)
    heard = (place + reach + 1).clamp_max(count) - (place - reach).clamp_min(0)
    return total / heard[:, None]


class BandMemory(nn.Module):
    """Remove noise and reverberation from 16 kHz speech.

    The compressed complex spectrum is multiplied by a complex mask, a complex spectrum is added,
    which fills what the recording has lost, and a gate closes what holds no voice; all come from
    the mixed bands. The network starts as nearly the identity.

    Args:
        n_fft: STFT length in samples; hop is half of it.
        groups: (count, width) of the bands from low to high; the widths add up to n_fft // 2.
        features: D, channels per band.
        bottleneck: W, width of the layer that sees all bands of a frame.
        dilations: One block each.
        memory: Which blocks' bottlenecks attend to other frames.
        heads: Of each attention.
        reach: Frames on either side that an attention sees.
        history_reach: Frames on either side of which a bin's floor and mean are taken.

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
        memory: Sequence[int],
        heads: int = 4,
        reach: int = 40,
        history_reach: int = 50,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, n_fft // 2
        self.bins = n_fft // 2 + 1
        groups = [(int(count), int(width)) for count, width in groups]
        if sum(count * width for count, width in groups) != self.bins - 1:
            raise ValueError(f"the bands must cover {self.bins - 1} bins")
        bands = sum(count for count, _ in groups)
        self.history_reach = history_reach
        self.split = BandSplit(groups, 5, features)
        self.blocks = nn.ModuleList(
            MemoryBlock(
                bands,
                features,
                bottleneck,
                dilation,
                heads=heads if index in memory else 0,
                reach=reach,
            )
            for index, dilation in enumerate(dilations)
        )
        self.norm = nn.LayerNorm(features)
        self.join = BandJoin(groups, 5, features)
        self._reach_frames = sum(dilations) + reach * len(memory) + history_reach + _SMOOTH_REACH

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""
        return (self._reach_frames + 2) * self.hop_length

    def forward(self, waveform: Tensor) -> Tensor:
        padded = spectra.whole_hops(waveform.float(), self.hop_length)
        spectrum = spectra.stft(padded, self.n_fft, self.hop_length)
        compressed = compress(spectrum)
        real, imaginary = compressed[:, :, :-1].unbind(-1)
        magnitude = (real.square() + imaginary.square() + 1e-10).sqrt()
        floor, mean = history(magnitude, self.history_reach)
        features = torch.stack([magnitude, real, imaginary, floor, mean], dim=-1)
        with torch.autocast(waveform.device.type, enabled=False):
            bands = self.split(features)
        for block in self.blocks:
            bands = block(bands)
        with torch.autocast(waveform.device.type, enabled=False):
            written = functional.pad(self.join(self.norm(bands)), (0, 0, 0, 1))
        return spectra.istft(expand(self._masked(compressed, written)), waveform.shape[-1])

    @staticmethod
    def _masked(compressed: Tensor, planes: Tensor) -> Tensor:
        mask_real, mask_imag, fill_real, fill_imag, gate = planes.unbind(-1)
        real, imag = compressed.unbind(-1)
        mask_real = mask_real + 1.0
        # Nearly open when training begins; what it lets through of a compressed spectrum is cubed.
        opening = torch.sigmoid(4.0 * gate + 4.0)
        masked_real = (real * mask_real - imag * mask_imag + fill_real) * opening
        masked_imag = (real * mask_imag + imag * mask_real + fill_imag) * opening
        return torch.stack([masked_real, masked_imag], dim=-1)
