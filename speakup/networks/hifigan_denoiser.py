"""HiFi-GAN's generator for denoising and dereverberation: a WaveNet, and a network to follow it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_PART = 32_768
_OUTPUT_PART = 8_192


class HiFiGANDenoiser(nn.Module):
    """Rewrite 16 kHz speech sample by sample without noise and room, as Su et al. do.

    No weights are published: it is here to be trained. There is no normalisation, so the level
    must be near that of training; the last layer's tanh bounds what comes out.

    Names of weights and arguments are those of the public re-implementation.

    Args:
        n_stacks: Times the dilations 1, 2, 4 ... are gone through.
        n_layers_per_stack: Number of these dilations.
        n_channels_dilated: C, width of the WaveNet.
        kernel_size_dilated: Of its dilated convolutions.
        n_channels_out_1: Width of the first layer after the skips' sum.
        kernel_size_out_1: Of that.
        n_channels_out_2: Width of the second.
        kernel_size_out_2: Of that.
        postnet_layers: Number of the postnet's convolutions.
        postnet_channels: Their width.
        postnet_kernel_size: Of each.

    Shape: (B, T) at 16 kHz -> (B, T), float32.

    Reference: Su et al. 2020 (arXiv 2006.05694), section 3.1.
    """

    sample_rate = 16_000
    hop_length = 1

    def __init__(
        self,
        *,
        n_stacks: int = 2,
        n_layers_per_stack: int = 10,
        n_channels_dilated: int = 128,
        kernel_size_dilated: int = 3,
        n_channels_out_1: int = 2048,
        kernel_size_out_1: int = 3,
        n_channels_out_2: int = 256,
        kernel_size_out_2: int = 3,
        postnet_layers: int = 12,
        postnet_channels: int = 128,
        postnet_kernel_size: int = 31,
    ) -> None:
        super().__init__()
        kernels = (kernel_size_dilated, kernel_size_out_1, kernel_size_out_2, postnet_kernel_size)
        if any(size % 2 == 0 for size in kernels):
            raise ValueError(f"kernels must have a middle, and so odd sizes, not {kernels}")
        dilations = [2**layer for layer in range(n_layers_per_stack)] * n_stacks
        self.wavenet = _WaveNet(
            dilations,
            n_channels_dilated,
            kernel_size_dilated,
            (n_channels_out_1, n_channels_out_2),
            (kernel_size_out_1, kernel_size_out_2),
        )
        self.postnet = _Postnet(postnet_layers, postnet_channels, postnet_kernel_size)
        self.context_samples = (
            sum(dilations) * (kernel_size_dilated // 2)
            + self.wavenet.output_reach
            + postnet_layers * (postnet_kernel_size // 2)
        )
        """Samples on either side of a sample that its output depends on."""

    def forward(self, waveform: Tensor) -> Tensor:
        def rewritten(part: Tensor) -> Tensor:
            return self.both(part)[1]

        return _in_parts(rewritten, waveform[:, None].float(), _PART, self.context_samples)[:, 0]

    def both(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 1, T) to the WaveNet's waveform and the postnet's, (B, 1, T) each."""
        first: Tensor = self.wavenet(waveform)
        return first, self.postnet(first)


class _WaveNet(nn.Module):
    """Map (B, 1, T) to (B, 1, T), looking as far ahead as back."""

    def __init__(
        self,
        dilations: list[int],
        channels: int,
        kernel: int,
        out_channels: tuple[int, int],
        out_kernels: tuple[int, int],
    ) -> None:
        super().__init__()
        self.in_conv = nn.Conv1d(1, channels, 1)
        self.stacks = _Stacks(dilations, channels, kernel)
        self.out_conv_1 = _conv(channels, out_channels[0], out_kernels[0])
        self.out_conv_2 = _conv(out_channels[0], out_channels[1], out_kernels[1])
        self.out_1x1 = nn.Conv1d(out_channels[1], 1, 1)
        self.output_reach = out_kernels[0] // 2 + out_kernels[1] // 2

    def forward(self, waveform: Tensor) -> Tensor:
        summed = functional.relu(self.stacks(self.in_conv(waveform)))
        return _in_parts(self._read_out, summed, _OUTPUT_PART, self.output_reach)

    def _read_out(self, summed: Tensor) -> Tensor:
        hidden = self.out_conv_2(functional.relu(self.out_conv_1(summed)))
        with torch.autocast(summed.device.type, enabled=False):
            waveform: Tensor = self.out_1x1(hidden.float())
        return waveform


class _Stacks(nn.Module):
    """Sum the skips of the dilated layers, (B, C, T) -> (B, C, T)."""

    def __init__(self, dilations: list[int], channels: int, kernel: int) -> None:
        super().__init__()
        self.dilation_layers = nn.ModuleList(
            DilatedLayer(channels, kernel, dilation) for dilation in dilations
        )

    def forward(self, hidden: Tensor) -> Tensor:
        summed = torch.zeros_like(hidden)
        for layer in self.dilation_layers:
            hidden, skip = layer(hidden)
            summed = summed + skip
        return summed


class DilatedLayer(nn.Module):
    """One gated layer of a WaveNet: (B, C, T) -> the next layer's input and the skip."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv_dilated = _conv(channels, 2 * channels, kernel, dilation)
        self.conv_1x1 = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        signal, gate = self.conv_dilated(hidden).chunk(2, dim=1)
        residual, skip = self.conv_1x1(signal.tanh() * gate.sigmoid()).chunk(2, dim=1)
        return hidden + residual, skip


class _Postnet(nn.Module):
    """Polish a waveform, (B, 1, T) -> (B, 1, T) within [-1, 1]."""

    def __init__(self, layers: int, channels: int, kernel: int) -> None:
        super().__init__()
        widths = [1, *[channels] * (layers - 1), 1]
        self.layers = nn.ModuleList(
            _conv(width, wider, kernel) for width, wider in zip(widths, widths[1:], strict=False)
        )

    def forward(self, waveform: Tensor) -> Tensor:
        *inner, last = self.layers
        hidden = waveform
        for layer in inner:
            hidden = layer(hidden).tanh()
        # Of bfloat16's eight bits one would hear the rounding.
        with torch.autocast(waveform.device.type, enabled=False):
            polished: Tensor = last(hidden.float()).tanh()
        return polished


def _conv(channels: int, wanted: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """Make a convolution that keeps the length, with zeros beyond the ends."""
    padding = kernel // 2 * dilation
    return nn.Conv1d(channels, wanted, kernel, padding=padding, dilation=dilation)


def _in_parts(
    function: Callable[[Tensor], Tensor], signal: Tensor, samples: int, reach: int
) -> Tensor:
    """Apply a function of (B, C, T) with a finite reach part by part, to the same result.

    At 16 kHz a layer of 2048 channels takes 130 MB for a second.
    """
    parts = []
    for start in range(0, signal.shape[-1], samples):
        before, end = max(start - reach, 0), start + samples
        result = function(signal[..., before : end + reach])
        parts.append(result[..., start - before : end - before])
    return torch.cat(parts, dim=-1)
