"""The trained part of DPDFNet: its sizes, layers, encoder and decoders.

Letters in shapes: B batch, C channels of the maps, N frames, F frequencies, E ERB bands, K bins
that are deep-filtered, O order of that filter, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

_DF_GRU_GROUPS = 8
_ONE_CHOICE: dict[str, object] = {
    "erb_to_db": True,
    "emb_gru_skip_enc": "none",
    "df_gru_skip": "groupedlinear",
    "stateful": False,
    "mask_method": "before_df",
    "erb_dynamic_var": False,
    "norm_stateful": False,
    "upsample_conv_type": "subpixel",
    "group_linear_type": "loop",
    "point_wise_type": "cnn",
    "group_gru": 1,
    "separable_first_conv": True,
}
"""Options of the published configurations that all published models leave as they are here."""


@dataclass(frozen=True)
class Size:
    """Hyperparameters under their published names; the defaults are DPDFNet-2's.

    Attributes:
        n_fft: Transform length in samples.
        win_length: Window in seconds.
        hop_length: Time between frames in seconds.
        samplerate: Hz.
        freq_df: Hz below which bins are deep-filtered.
        nb_erb: E, a multiple of 4.
        min_nb_freqs: Fewest bins in a band.
        alpha_norm: How much of the running means stays from frame to frame.
        conv_ch: C, even.
        conv_kernel_inp: Frames and bins of the first convolutions.
        conv_kernel: Frames and bins of the others.
        convt_kernel: Frames and bins of those that double the bins.
        enc_gru_dim: Width of the encoder's GRU.
        erb_dec_gru_dim: Width of the mask decoder's GRU.
        df_dec_gru_dim: Width of the filter decoder's GRU.
        enc_lin_groups: Groups of the dense layer that embeds the spectrum.
        lin_groups: Groups of the other dense layers.
        enc_concat: Whether the two embeddings are joined, or else added.
        emb_num_layers: GRU layers of the mask decoder.
        df_num_layers: GRU layers of the filter decoder.
        df_order: O.
        df_pathway_kernel_size_t: Frames that the filter decoder's convolution sees.
        df_lookahead: Frames to come that the deep filter uses.
        conv_lookahead: Frames to come that the network sees.
        lsnr_min: Least local SNR in dB.
        lsnr_max: Highest local SNR in dB.
        dprnn_num_blocks: Dual-path blocks: 0 for the baseline, 2, 4 or 8.
    """

    n_fft: int = 320
    win_length: float = 0.02
    hop_length: float = 0.01
    samplerate: int = 16_000
    freq_df: float = 4_800.0
    nb_erb: int = 32
    min_nb_freqs: int = 1
    alpha_norm: float = 0.98
    conv_ch: int = 64
    conv_kernel_inp: tuple[int, int] = (3, 3)
    conv_kernel: tuple[int, int] = (1, 3)
    convt_kernel: tuple[int, int] = (1, 3)
    enc_gru_dim: int = 256
    erb_dec_gru_dim: int = 256
    df_dec_gru_dim: int = 256
    enc_lin_groups: int = 32
    lin_groups: int = 16
    enc_concat: bool = True
    emb_num_layers: int = 2
    df_num_layers: int = 2
    df_order: int = 5
    df_pathway_kernel_size_t: int = 5
    df_lookahead: int = 2
    conv_lookahead: int = 2
    lsnr_min: float = -15.0
    lsnr_max: float = 35.0
    dprnn_num_blocks: int = 2

    @property
    def df_bins(self) -> int:
        """K."""
        return int(self.freq_df / (self.samplerate / 2) * (self.n_fft // 2 + 1))

    @property
    def embedding(self) -> int:
        """Features of the embedding: the bands halved twice, with all channels."""
        return self.nb_erb // 4 * self.conv_ch

    @classmethod
    def read(cls, hyperparameters: dict[str, Any]) -> Size:
        """Check a configuration and take from it what may vary.

        Raises:
            ValueError: unknown names, options other than the published models', or sizes that do
                not fit each other.
        """
        for name, choice in _ONE_CHOICE.items():
            if hyperparameters.get(name, choice) != choice:
                raise ValueError(f"{name} can only be {choice!r}, not {hyperparameters[name]!r}")
        known = {field.name for field in fields(cls)}
        if strangers := sorted(set(hyperparameters) - known - set(_ONE_CHOICE)):
            raise ValueError(f"there is no hyperparameter {', '.join(strangers)}")
        chosen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in hyperparameters.items()
            if name in known
        }
        size = cls(**chosen)
        if size.nb_erb % 4 or size.df_bins % 2 or size.conv_ch % 2:
            raise ValueError("nb_erb must be a multiple of 4; conv_ch and the filtered bins even")
        return size


class SplitConv(nn.Module):
    """A grouped convolution kept as one convolution per group of channels."""

    def __init__(self, channels: int, out_channels: int, groups: int, **shape: Any) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels // groups, out_channels // groups, bias=False, **shape)
            for _ in range(groups)
        )

    def forward(self, maps: Tensor) -> Tensor:
        parts = maps.chunk(len(self.convs), dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)


class SubPixelConv(nn.Module):
    """Double the frequencies: (B, C, N, F) -> (B, C, N, 2 F), even and odd ones by two filters."""

    def __init__(self, channels: int, **shape: Any) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, groups=channels, bias=False, **shape) for _ in range(2)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.stack([conv(maps) for conv in self.convs], dim=-1).flatten(-2)


def conv_block(
    channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    double: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Make a convolution that is causal in time and as grouped as the channels allow.

    Args:
        channels: Channels that come in.
        out_channels: Channels that go out.
        kernel: Frames, all in the past but the last, and frequencies.
        stride: Step in frequency.
        double: Double the frequencies instead.
        activation: What ends it.
    """
    frames, width = kernel
    groups = math.gcd(channels, out_channels)
    shape: dict[str, Any] = {"kernel_size": kernel, "padding": (0, width // 2)}
    layers: list[nn.Module] = [nn.ZeroPad2d((0, 0, frames - 1, 0))] if frames > 1 else []
    if double:
        layers.append(SubPixelConv(channels, **shape))
    elif 1 < groups < out_channels:  # The checkpoints keep these groups apart, and no others.
        layers.append(SplitConv(channels, out_channels, groups, stride=(1, stride), **shape))
    else:
        layers.append(
            nn.Conv2d(
                channels, out_channels, groups=groups, stride=(1, stride), bias=False, **shape
            )
        )
    if groups > 1 and max(kernel) > 1:  # Only so do the groups learn of each other.
        layers.append(nn.Conv2d(out_channels, out_channels, 1, bias=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(out_channels), activation())


class GroupedLinear(nn.Module):
    """One small dense layer per consecutive slice of the features: (..., D) -> (..., D')."""

    def __init__(self, features: int, out_features: int, groups: int) -> None:
        super().__init__()
        if features % groups or out_features % groups:
            raise ValueError(f"{groups} groups must divide {features} and {out_features} features")
        self.layers = nn.ModuleList(
            nn.Linear(features // groups, out_features // groups) for _ in range(groups)
        )

    def forward(self, features: Tensor) -> Tensor:
        parts = features.chunk(len(self.layers), dim=-1)
        return torch.cat([layer(x) for layer, x in zip(self.layers, parts, strict=True)], dim=-1)


class SqueezedGRU(nn.Module):
    """A GRU over time between grouped dense layers: (B, N, D) -> (B, N, D')."""

    def __init__(
        self,
        features: int,
        hidden: int,
        layers: int,
        groups: int,
        out_features: int | None = None,
        out_groups: int = 1,
    ) -> None:
        super().__init__()
        self.linear_in = nn.Sequential(GroupedLinear(features, hidden, groups), nn.ReLU())
        self.gru = nn.GRU(hidden, hidden, layers, batch_first=True)
        self.linear_out = nn.Sequential()
        if out_features is not None:
            self.linear_out.append(GroupedLinear(hidden, out_features, out_groups))
            self.linear_out.append(nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_out(self.gru(self.linear_in(features))[0])


class DualPathBlock(nn.Module):
    """Run a GRU along frequency in both directions, then one along time: (B, C, N, F) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.intra_gru = nn.GRU(channels, channels, batch_first=True, bidirectional=True)
        self.fc_intra = nn.Linear(2 * channels, channels)
        self.ln_intra = nn.LayerNorm(channels)
        self.inter_gru = nn.GRU(channels, channels, batch_first=True)
        self.fc_inter = nn.Linear(channels, channels)
        self.ln_inter = nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        frames = maps.permute(0, 2, 3, 1)
        along = self.intra_gru(frames.flatten(0, 1))[0]
        frames = frames + self.ln_intra(self.fc_intra(along)).view(frames.shape)
        bins = frames.transpose(1, 2)
        along = self.inter_gru(bins.flatten(0, 1))[0]
        bins = bins + self.ln_inter(self.fc_inter(along)).view(bins.shape)
        return bins.permute(0, 3, 2, 1)


class DualPath(nn.Module):
    """Any number of dual-path blocks, none included."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DualPathBlock(channels) for _ in range(blocks)))

    def forward(self, maps: Tensor) -> Tensor:
        return self.blocks(maps)


def _flat(maps: Tensor) -> Tensor:
    """Lay out maps as features, frequency by frequency: (B, C, N, F) -> (B, N, F * C)."""
    return maps.permute(0, 2, 3, 1).flatten(2)


class Encoder(nn.Module):
    """Embed the levels of the ERB bands (B, 1, N, E) and the lower spectrum (B, 2, N, K).

    Returns the embedding (B, N, D), the local SNR in dB (B, N), and the maps to which the
    decoders return: four of the bands, and the first of the spectrum.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, kernel = size.conv_ch, size.conv_kernel
        self.erb_conv0 = conv_block(1, channels, size.conv_kernel_inp)
        self.erb_conv1 = conv_block(channels, channels, kernel, stride=2)
        self.erb_conv2 = conv_block(channels, channels, kernel, stride=2)
        self.erb_conv3 = conv_block(channels, channels, kernel)
        self.df_conv0 = conv_block(2, channels, size.conv_kernel_inp)
        self.df_conv1 = conv_block(channels, channels, kernel, stride=2)
        self.dprnn_erb = DualPath(channels, size.dprnn_num_blocks)
        self.dprnn_df = DualPath(channels, size.dprnn_num_blocks)
        width = size.embedding
        self.df_fc_emb = nn.Sequential(
            GroupedLinear(size.df_bins // 2 * channels, width, size.enc_lin_groups), nn.ReLU()
        )
        self.concat = size.enc_concat
        self.emb_gru = SqueezedGRU(
            2 * width if self.concat else width,
            size.enc_gru_dim,
            1,
            size.lin_groups,
            width,
            size.lin_groups,
        )
        self.lsnr_fc = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())
        self.lsnr_db = (size.lsnr_min, size.lsnr_max)

    def forward(self, bands: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        e0 = self.erb_conv0(bands)
        e1 = self.erb_conv1(e0)
        e2 = self.erb_conv2(e1)
        e3 = self.erb_conv3(e2)
        c0 = self.df_conv0(spectrum)
        of_bands = _flat(self.dprnn_erb(e3))
        of_spectrum = self.df_fc_emb(_flat(self.dprnn_df(self.df_conv1(c0))))
        both = [of_bands, of_spectrum]
        embedding = self.emb_gru(torch.cat(both, dim=-1) if self.concat else sum(both))
        least, most = self.lsnr_db
        snr_db = self.lsnr_fc(embedding)[..., 0] * (most - least) + least
        return embedding, snr_db, [e0, e1, e2, e3, c0]


class MaskDecoder(nn.Module):
    """Read the bands' gains from the embedding and the encoder's maps: -> (B, N, E)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, kernel = size.conv_ch, size.convt_kernel
        self.emb_gru = SqueezedGRU(
            size.embedding,
            size.erb_dec_gru_dim,
            size.emb_num_layers,
            size.lin_groups,
            size.embedding,
            size.lin_groups,
        )
        self.conv3p = conv_block(channels, channels, (1, 1))
        self.convt3 = conv_block(channels, channels, size.conv_kernel)
        self.conv2p = conv_block(channels, channels, (1, 1))
        self.convt2 = conv_block(channels, channels, kernel, double=True)
        self.conv1p = conv_block(channels, channels, (1, 1))
        self.convt1 = conv_block(channels, channels, kernel, double=True)
        self.conv0p = conv_block(channels, channels, (1, 1))
        self.conv0_out = conv_block(channels, 1, size.conv_kernel, activation=nn.Sigmoid)

    def forward(self, embedding: Tensor, maps: list[Tensor]) -> Tensor:
        e0, e1, e2, e3 = maps
        batch, channels, frames, bands = e3.shape
        state = self.emb_gru(embedding).view(batch, frames, bands, channels).permute(0, 3, 1, 2)
        state = self.convt3(self.conv3p(e3) + state)
        state = self.convt2(self.conv2p(e2) + state)
        state = self.convt1(self.conv1p(e1) + state)
        return self.conv0_out(self.conv0p(e0) + state)[:, 0]


class FilterDecoder(nn.Module):
    """Read the deep filter from the embedding and the encoder's map: -> (B, O, N, K, 2)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        hidden, self.order, self.bins = size.df_dec_gru_dim, size.df_order, size.df_bins
        taps = 2 * self.order
        self.df_convp = conv_block(size.conv_ch, taps, (size.df_pathway_kernel_size_t, 1))
        self.df_gru = SqueezedGRU(size.embedding, hidden, size.df_num_layers, _DF_GRU_GROUPS)
        self.df_skip = GroupedLinear(size.embedding, hidden, size.lin_groups)
        self.df_out = nn.Sequential(
            GroupedLinear(hidden, self.bins * taps, size.lin_groups), nn.Tanh()
        )

    def forward(self, embedding: Tensor, c0: Tensor) -> Tensor:
        taps = self.df_out(self.df_gru(embedding) + self.df_skip(embedding))
        taps = taps.unflatten(-1, (self.bins, -1)) + self.df_convp(c0).permute(0, 2, 3, 1)
        return taps.unflatten(-1, (self.order, 2)).permute(0, 3, 1, 2, 4)
