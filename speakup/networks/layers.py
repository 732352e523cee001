"""Layers shared by the generators: all work on (B, N, ...) frames, channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDE_FRAMES = 1024


class TimeConv(nn.Module):
    """Mix each band's frame with the frames `dilation` before and after it, by one dense layer.

    A two-dimensional convolution of kernel (3, 1) over (frames, bands). With channels last in
    memory it is one large matrix product without copies, which processors do many times faster
    than depthwise convolutions.

    Shape: (B, N, K, D) -> (B, N, K, E). Frames beyond the ends count as zero.
    """

    def __init__(self, features: int, out_features: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv2d(
            features, out_features, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
        )
        self.conv.weight.data = self.conv.weight.contiguous(memory_format=torch.channels_last)

    def forward(self, bands: Tensor) -> Tensor:
        mixed: Tensor = self.conv(bands.permute(0, 3, 1, 2))
        return mixed.permute(0, 2, 3, 1)


class FrameBlock(nn.Module):
    """Refine frames with a residual block: depthwise time convolution, then a wide dense pair.

    ConvNeXt's block (Liu et al. 2022, arXiv 2201.03545) in one dimension, as in Vocos
    (arXiv 2306.00814).

    Shape: (B, N, D) -> (B, N, D).
    """

    def __init__(self, features: int, expansion: int, kernel: int = 7) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(features, features, kernel, padding=kernel // 2, groups=features)
        self.norm = nn.LayerNorm(features)
        self.widen = nn.Linear(features, expansion * features)
        self.narrow = nn.Linear(expansion * features, features)
        self.scale = nn.Parameter(torch.full((features,), 0.1))

    def forward(self, frames: Tensor) -> Tensor:
        # Seven products a value gain nothing by a shorter format, and lose 5 dB of accuracy.
        with torch.autocast(frames.device.type, enabled=False):
            mixed = self.depthwise(frames.float().transpose(1, 2)).transpose(1, 2)
        wide = functional.gelu(self.widen(self.norm(mixed)), approximate="tanh")
        return torch.addcmul(frames, self.scale, self.narrow(wide).float())


class ConvNeXtBlock(nn.Module):
    """Refine frames as published networks of Vocos' family do, under the names they gave.

    `FrameBlock` is the same idea with a cheaper non-linearity.

    Shape: (B, D, N) -> (B, D, N). A frame sees three frames on either side.

    Reference: Siuzdak 2023 (arXiv 2306.00814), section 3.3.
    """

    def __init__(self, dim: int, intermediate_dim: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, frames: Tensor) -> Tensor:
        mixed = self.norm(self.dwconv(frames).transpose(1, 2))
        # In parts, as each frame is on its own here and the hidden layer is what takes memory.
        parts = mixed.split(_WIDE_FRAMES, dim=1)
        wide = [self.pwconv2(functional.gelu(self.pwconv1(part))) for part in parts]
        return frames + (self.gamma * torch.cat(wide, dim=1)).transpose(1, 2)
