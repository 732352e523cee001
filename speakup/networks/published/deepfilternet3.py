"""DeepFilterNet 3: a causal 48 kHz denoiser that works on the full band, frame by frame.

A mask on ERB bands shapes the whole spectrum; in the lowest bins a short complex filter along
time, one per bin, takes its place and restores the harmonics.

Reference: Schroeter et al. 2022, "DeepFilterNet: a low complexity speech enhancement framework
    for full-band audio based on deep filtering" (arXiv 2110.05588), and 2023, "DeepFilterNet:
    perceptually motivated real-time speech enhancement" (arXiv 2305.08227); the sizes are those
    of the published archive's config.ini.

Letters in shapes: B batch, C channels of the maps, T samples, F frequency bins, N frames, E ERB
bands, K bins that are deep-filtered, O order of that filter, D features, S numbers of state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks.published.dpdfnet import erb_widths

_LEVEL_START_DB = (-60.0, -90.0)
"""Band levels, lowest to highest band, from which the running mean of each begins."""
_MAGNITUDE_START = (1e-3, 1e-4)
"""Magnitudes, lowest to highest bin, from which the running mean of each begins."""
_LEVEL_SCALE_DB = 40.0
_KERNEL = 3
"""Frames that the first convolutions see, and frequencies that all of them see."""
_SNR_RANGE_DB = (-15.0, 35.0)
_NO_GATES_DB = (-15.0, 35.0, 35.0)
_WHOLE_FRAMES = 500
"""Frames that `denoise` takes at a time."""


@dataclass(frozen=True)
class Size:
    """Hyperparameters under their published names; the defaults are the published model's.

    Attributes:
        sr: Hz.
        fft_size: Transform and window length in samples, two hops.
        hop_size: Samples between frames.
        nb_erb: E, a multiple of 4.
        min_nb_erb_freqs: Fewest bins in a band.
        nb_df: K, even.
        df_order: O.
        lookahead: Frames to come that an output frame depends on: `df_lookahead` and
            `conv_lookahead`, which are the same.
        norm_tau: Time constant of the running means in seconds.
        conv_ch: C, even.
        emb_hidden_dim: Width of the encoder's and the mask decoder's GRU.
        emb_num_layers: GRU layers of the two together; the encoder has one.
        df_hidden_dim: Width of the filter decoder's GRU.
        df_num_layers: GRU layers of the filter decoder.
        df_pathway_kernel_size_t: Frames that the filter decoder's convolution sees.
        enc_linear_groups: Groups of the dense layer that embeds the spectrum.
        linear_groups: Groups of the other dense layers.
        df_linear_groups: Groups of the dense layer before the filter decoder's GRU.
    """

    sr: int = 48_000
    fft_size: int = 960
    hop_size: int = 480
    nb_erb: int = 32
    min_nb_erb_freqs: int = 2
    nb_df: int = 96
    df_order: int = 5
    lookahead: int = 2
    norm_tau: float = 1.0
    conv_ch: int = 64
    emb_hidden_dim: int = 256
    emb_num_layers: int = 3
    df_hidden_dim: int = 256
    df_num_layers: int = 2
    df_pathway_kernel_size_t: int = 5
    enc_linear_groups: int = 32
    linear_groups: int = 16
    df_linear_groups: int = 8

    def __post_init__(self) -> None:
        if self.nb_erb % 4 or self.nb_df % 2:
            raise ValueError("nb_erb must be a multiple of 4, and nb_df even")
        if self.fft_size != 2 * self.hop_size or not 0 <= self.lookahead < self.df_order:
            raise ValueError("a frame must be two hops, and the look-ahead shorter than the filter")

    @property
    def bins(self) -> int:
        """F."""
        return self.fft_size // 2 + 1

    @property
    def embedding(self) -> int:
        """Features of the embedding: the bands halved twice, with all channels."""
        return self.nb_erb // 4 * self.conv_ch

    @property
    def decay(self) -> float:
        """What stays of a running mean from frame to frame, to the digit that is below 1."""
        exact = math.exp(-self.hop_size / self.sr / self.norm_tau)
        return next(a for digits in range(3, 10) if (a := round(exact, digits)) < 1.0)


class Estimate(NamedTuple):
    """What the network says of each frame, about the frame `lookahead` earlier.

    Attributes:
        snr_db: (B, N) local signal-to-noise ratio.
        mask: (B, N, E) gains of the ERB bands, 0 to 1.
        filters: (B, N, K, O) complex filter taps, from the oldest frame on.
    """

    snr_db: Tensor
    mask: Tensor
    filters: Tensor


class _State(NamedTuple):
    """All that a stream's past means for its future.

    Attributes:
        waveform: (B, hop) input samples of the last hop.
        levels: (B, E) running mean of the bands' levels in dB.
        magnitudes: (B, K) running mean of the bins' magnitudes.
        bands: (B, 2, E) last features of the bands.
        bins: (B, 2, K, 2) last features of the bins.
        spectrum: (B, O - 1, F, 2) last input frames.
        maps: (B, frames - 1, K, C) last maps of the spectrum, for the filter decoder.
        encoder: (B, 1, D) its GRU's.
        mask: (B, layers, D) the mask decoder's GRU's.
        filter: (B, layers, D) the filter decoder's GRU's.
        overlap: (B, hop) second half of the last output frame.
    """

    waveform: Tensor
    levels: Tensor
    magnitudes: Tensor
    bands: Tensor
    bins: Tensor
    spectrum: Tensor
    maps: Tensor
    encoder: Tensor
    mask: Tensor
    filter: Tensor
    overlap: Tensor


class DeepFilterNet3(nn.Module):
    """Remove noise from 48 kHz speech, causally but for two frames and a window of look-ahead.

    A stateful denoiser: the result and the new state come joined, so that rows of several channels
    and recordings can share a batch. The network runs in float32, whatever number format surrounds
    it.

    Args:
        settled: Whether stages are to keep it from all that it takes a while to get used to; or
            else it is run as its authors' own runtime runs it.
        post_filter_beta: How far the post-filter lowers further what has been lowered much; 0 is
            none, and 0.02 what the authors advise.
        snr_gates_db: Local SNR under which a frame is silenced, over which it is only masked, and
            over which it is left as it is. By default those of the official runtime's C interface,
            the ends of the scale: no frame is gated. The decoders hear gated frames, too.
        hyperparameters: The fields of `Size`.

    Shape: (B, T), (B, S) -> (B, T + S), float32, T whole hops; what comes out is `latency`
        samples late.

    Raises:
        ValueError: hyperparameters that do not fit each other.
    """

    def __init__(
        self,
        *,
        settled: bool = False,
        post_filter_beta: float = 0.0,
        snr_gates_db: tuple[float, float, float] = _NO_GATES_DB,
        **hyperparameters: Any,
    ) -> None:
        super().__init__()
        try:
            self.size = size = Size(**hyperparameters)
        except TypeError as error:
            raise ValueError(str(error).replace("Size.__init__() got an ", "")) from error
        self.sample_rate, self.hop_length = size.sr, size.hop_size
        self.settled = settled
        self.post_filter_beta, self.snr_gates_db = post_filter_beta, snr_gates_db
        widths = erb_widths(size.sr, size.fft_size, size.nb_erb, size.min_nb_erb_freqs)
        member = torch.block_diag(*(torch.ones(width, 1) for width in widths))
        place = (torch.arange(size.fft_size, dtype=torch.float64) + 0.5) / size.fft_size
        window = torch.sin(0.5 * math.pi * torch.sin(math.pi * place).square())
        self.window: Tensor
        self.band_means: Tensor
        self.band_members: Tensor
        # What follows from the sizes is no part of the weights.
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("band_means", member / member.sum(0), persistent=False)
        self.register_buffer("band_members", member.T.contiguous(), persistent=False)
        self.encoder = Encoder(size)
        self.mask_decoder = MaskDecoder(size)
        self.filter_decoder = FilterDecoder(size)

    @property
    def latency(self) -> int:
        """Samples by which the output comes late: the look-ahead, and half a window."""
        return (self.size.lookahead + 1) * self.hop_length

    def start(self, rows: int) -> Tensor:
        """Give the state of so many streams before their first sample, (B, S)."""
        size, device = self.size, self.window.device
        levels = torch.linspace(*_LEVEL_START_DB, size.nb_erb, device=device)
        magnitudes = torch.linspace(*_MAGNITUDE_START, size.nb_df, device=device)
        empty = {
            name: torch.zeros(rows, *shape, device=device) for name, shape in self._shapes.items()
        }
        return self._packed(
            _State(**empty)._replace(
                levels=levels.expand(rows, -1), magnitudes=magnitudes.expand(rows, -1)
            )
        )

    def forward(self, waveform: Tensor, state: Tensor) -> Tensor:
        past = self._unpacked(state.float())
        with torch.autocast(waveform.device.type, enabled=False):
            samples = torch.cat([past.waveform, waveform.float()], dim=1)
            spectrum = self.analyse(samples)
            bands, bins, levels, magnitudes = self.features(spectrum, past)
            estimate, memory = self.estimate(bands, bins, past)
            noisy = torch.cat([torch.view_as_complex(past.spectrum), spectrum], dim=1)
            enhanced, overlap = self.synthesise(self.filter(noisy, estimate), past.overlap)
        new = memory._replace(
            waveform=samples[:, -self.hop_length :],
            levels=levels,
            magnitudes=magnitudes,
            spectrum=torch.view_as_real(noisy[:, noisy.shape[1] - self.size.df_order + 1 :]),
            overlap=overlap,
        )
        return torch.cat([enhanced, self._packed(new)], dim=1)

    def denoise(self, waveform: Tensor) -> Tensor:
        """Denoise whole recordings, the delay taken out: (B, T) -> (B, T), T from 1 on."""
        samples, hop = waveform.shape[-1], self.hop_length
        hops = -(-samples // hop) + self.latency // hop
        padded = functional.pad(waveform, (0, hops * hop - samples))
        state, parts = self.start(len(waveform)), []
        for piece in padded.split(_WHOLE_FRAMES * hop, dim=1):
            part, state = self(piece, state).tensor_split([piece.shape[1]], dim=1)
            parts.append(part)
        return torch.cat(parts, dim=1)[:, self.latency : self.latency + samples]

    def analyse(self, samples: Tensor) -> Tensor:
        """Give the spectrum, (B, (N + 1) * hop) -> (B, N, F) complex, scaled by 1 / fft_size."""
        frames = samples.unfold(-1, self.size.fft_size, self.hop_length)
        return torch.fft.rfft(frames * self.window, norm="forward")

    def synthesise(self, spectrum: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `analyse`: (B, N, F), (B, hop) -> (B, N * hop), and what overlaps the next frame."""
        frames = torch.fft.irfft(spectrum, self.size.fft_size, norm="forward") * self.window
        first, second = frames.chunk(2, dim=-1)
        before = torch.cat([overlap[:, None], second[:, :-1]], dim=1)
        return (first + before).flatten(1), second[:, -1]

    def features(self, spectrum: Tensor, past: _State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise levels and spectrum by their running means, (B, N, F) complex.

        Returns:
            Levels of the bands (B, N, E), the lower spectrum (B, N, K) complex, and the two
            running means at the end, (B, E) and (B, K).
        """
        low = spectrum[..., : self.size.nb_df]
        power = spectrum.real.square() + spectrum.imag.square()
        levels = 10.0 * torch.log10(power @ self.band_means + 1e-10)
        values = torch.cat([levels, low.abs()], dim=-1)
        start = torch.cat([past.levels, past.magnitudes], dim=-1)
        means = _running_means(values, start, self.size.decay)
        usual, magnitudes = means.split([self.size.nb_erb, self.size.nb_df], dim=-1)
        # What is silent for a minute and more has no magnitude left to be divided by.
        scale = magnitudes.clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
        return (levels - usual) / _LEVEL_SCALE_DB, low * scale, usual[:, -1], magnitudes[:, -1]

    def estimate(self, bands: Tensor, bins: Tensor, past: _State) -> tuple[Estimate, _State]:
        """Run the network on features of (B, N, E) and (B, N, K); the state is its own part."""
        bands = torch.cat([past.bands, bands], dim=1)
        planes = torch.cat([past.bins, torch.view_as_real(bins)], dim=1)
        embedding, snr_db, (*maps, c0), encoder = self.encoder(bands, planes, past.encoder)
        mask, mask_state = self.mask_decoder(embedding, maps, past.mask)
        filters, seen, filter_state = self.filter_decoder(embedding, c0, past.maps, past.filter)
        memory = past._replace(
            bands=bands[:, 1 - _KERNEL :],
            bins=planes[:, 1 - _KERNEL :],
            maps=seen,
            encoder=encoder,
            mask=mask_state,
            filter=filter_state,
        )
        return Estimate(snr_db, mask, filters), memory

    def filter(self, noisy: Tensor, estimate: Estimate) -> Tensor:
        """Apply an estimate to the frames that it is about.

        Args:
            noisy: (B, O - 1 + N, F) complex.
            estimate: Of N frames.

        Returns:
            (B, N, F) complex: of each frame the one `lookahead` earlier.
        """
        size, frames = self.size, estimate.mask.shape[1]
        first = size.df_order - 1 - size.lookahead
        middle = noisy[:, first : first + frames]
        masked = middle[..., size.nb_df :] * (estimate.mask @ self.band_members[:, size.nb_df :])
        low = noisy[..., : size.nb_df]
        filtered = low[:, :frames] * estimate.filters[..., 0]
        for k in range(1, size.df_order):
            filtered = torch.addcmul(filtered, low[:, k : k + frames], estimate.filters[..., k])
        enhanced = torch.cat([filtered, masked], dim=-1)
        if self.snr_gates_db != _NO_GATES_DB:
            enhanced = self._gated(middle, enhanced, estimate)
        if self.post_filter_beta > 0.0:
            # The runtime goes by fours, and so past the last bin.
            whole = size.bins // 4 * 4
            factor = post_filter(middle[..., :whole], enhanced[..., :whole], self.post_filter_beta)
            enhanced = enhanced * functional.pad(factor, (0, size.bins - whole), value=1.0)
        return enhanced

    def _gated(self, noisy: Tensor, enhanced: Tensor, estimate: Estimate) -> Tensor:
        silent, masked_only, untouched = self.snr_gates_db
        snr_db = estimate.snr_db[..., None]
        masked = noisy * (estimate.mask @ self.band_members)
        enhanced = torch.where(snr_db > masked_only, masked, enhanced)
        enhanced = torch.where(snr_db > untouched, noisy, enhanced)
        return torch.where(snr_db < silent, torch.zeros_like(enhanced), enhanced)

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of a row of `_State`, by its fields, in their order."""
        size = self.size
        return {
            "waveform": (size.hop_size,),
            "levels": (size.nb_erb,),
            "magnitudes": (size.nb_df,),
            "bands": (_KERNEL - 1, size.nb_erb),
            "bins": (_KERNEL - 1, size.nb_df, 2),
            "spectrum": (size.df_order - 1, size.bins, 2),
            "maps": (size.df_pathway_kernel_size_t - 1, size.nb_df, size.conv_ch),
            "encoder": (1, size.emb_hidden_dim),
            "mask": (size.emb_num_layers - 1, size.emb_hidden_dim),
            "filter": (size.df_num_layers, size.df_hidden_dim),
            "overlap": (size.hop_size,),
        }

    def _packed(self, state: _State) -> Tensor:
        return torch.cat([part.flatten(1) for part in state], dim=1)

    def _unpacked(self, state: Tensor) -> _State:
        shapes = self._shapes
        parts = state.split([math.prod(shape) for shape in shapes.values()], dim=1)
        named = zip(shapes.items(), parts, strict=True)
        return _State(**{name: part.view(-1, *shape) for (name, shape), part in named})


def post_filter(noisy: Tensor, enhanced: Tensor, beta: float) -> Tensor:
    """Give the factor that lowers further what has been lowered much, of the input's shape.

    Reference: Valin et al. 2020, PercepNet (arXiv 2008.04259), section 3.4, on the gain g of
        each bin: (1 + beta) / (1 + beta / sin(pi g / 2)^2).
    """
    gain = (enhanced.abs() / (noisy.abs() + 1e-12)).clamp(1e-12, 1.0)
    return (1.0 + beta) / (1.0 + beta / torch.sin(0.5 * math.pi * gain).square())


class GroupedLinear(nn.Module):
    """One small dense layer per consecutive slice of the features: (..., D) -> (..., D')."""

    def __init__(self, features: int, out_features: int, groups: int) -> None:
        super().__init__()
        if features % groups or out_features % groups:
            raise ValueError(f"{groups} groups must divide {features} and {out_features} features")
        self.weight = nn.Parameter(torch.empty(groups, features // groups, out_features // groups))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        groups = features.flatten(0, -2).unflatten(-1, (len(self.weight), -1)).transpose(0, 1)
        return (
            torch.bmm(groups, self.weight).transpose(0, 1).flatten(1).view(*features.shape[:-1], -1)
        )


class SqueezedGRU(nn.Module):
    """A GRU over time after a grouped dense layer: (B, N, D), (B, L, D') -> (B, N, D'), state."""

    def __init__(self, features: int, hidden: int, layers: int, groups: int) -> None:
        super().__init__()
        self.dense = GroupedLinear(features, hidden, groups)
        self.gru = nn.GRU(hidden, hidden, layers, batch_first=True)

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        squeezed = functional.relu(self.dense(features))
        values, after = self.gru(squeezed, state.transpose(0, 1).contiguous())
        return values, after.transpose(0, 1)


class SeparableConv(nn.Module):
    """A convolution along frequency per channel, then a dense layer: (B, C, N, F) -> same or F/2.

    Args:
        channels: C.
        stride: Step in frequency.
        double: Double the frequencies instead.
    """

    def __init__(self, channels: int, *, stride: int = 1, double: bool = False) -> None:
        super().__init__()
        shape: dict[str, Any] = {"groups": channels, "bias": False, "padding": (0, _KERNEL // 2)}
        self.along: nn.Module = (
            nn.ConvTranspose2d(
                channels, channels, (1, _KERNEL), (1, 2), output_padding=(0, 1), **shape
            )
            if double
            else nn.Conv2d(channels, channels, (1, _KERNEL), (1, stride), **shape)
        )
        self.across = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.across(self.along(maps)))


class Encoder(nn.Module):
    """Embed the levels of the bands (B, 2 + N, E) and the lower spectrum (B, 2 + N, K, 2).

    Returns the embedding (B, N, D), the local SNR in dB (B, N), the maps to which the decoders
    return (four of the bands, and the first of the spectrum), and the GRU's state.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, width = size.conv_ch, size.embedding
        shape: dict[str, Any] = {"kernel_size": _KERNEL, "padding": (0, _KERNEL // 2)}
        self.bands0 = nn.Conv2d(1, channels, **shape)
        self.bands1 = SeparableConv(channels, stride=2)
        self.bands2 = SeparableConv(channels, stride=2)
        self.bands3 = SeparableConv(channels)
        self.spectrum0 = nn.Conv2d(2, channels, **shape)
        self.spectrum1 = SeparableConv(channels, stride=2)
        self.embed = GroupedLinear(size.nb_df // 2 * channels, width, size.enc_linear_groups)
        self.gru = SqueezedGRU(width, size.emb_hidden_dim, 1, size.linear_groups)
        self.dense = GroupedLinear(size.emb_hidden_dim, width, size.linear_groups)
        self.snr = nn.Linear(width, 1)

    def forward(
        self, bands: Tensor, spectrum: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        e0 = functional.relu(self.bands0(_maps(bands[..., None])))
        e1 = self.bands1(e0)
        e2 = self.bands2(e1)
        e3 = self.bands3(e2)
        c0 = functional.relu(self.spectrum0(_maps(spectrum)))
        of_spectrum = functional.relu(self.embed(_flat(self.spectrum1(c0))))
        values, after = self.gru(_flat(e3) + of_spectrum, state)
        embedding = functional.relu(self.dense(values))
        least, most = _SNR_RANGE_DB
        snr_db = torch.sigmoid(self.snr(embedding)[..., 0]) * (most - least) + least
        return embedding, snr_db, [e0, e1, e2, e3, c0], after


class MaskDecoder(nn.Module):
    """Read the bands' gains (B, N, E) from the embedding and the encoder's maps."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, width = size.conv_ch, size.embedding
        layers = size.emb_num_layers - 1
        self.gru = SqueezedGRU(width, size.emb_hidden_dim, layers, size.linear_groups)
        self.dense = GroupedLinear(size.emb_hidden_dim, width, size.linear_groups)
        self.path3, self.path2, self.path1, self.path0 = (
            nn.Conv2d(channels, channels, 1, groups=channels) for _ in range(4)
        )
        self.up3 = SeparableConv(channels)
        self.up2 = SeparableConv(channels, double=True)
        self.up1 = SeparableConv(channels, double=True)
        self.out = nn.Conv2d(channels, 1, (1, _KERNEL), padding=(0, _KERNEL // 2))

    def forward(
        self, embedding: Tensor, maps: list[Tensor], state: Tensor
    ) -> tuple[Tensor, Tensor]:
        e0, e1, e2, e3 = maps
        values, after = self.gru(embedding, state)
        wide = functional.relu(self.dense(values)).unflatten(-1, (e3.shape[-1], -1))
        up = self.up3(functional.relu(self.path3(e3)) + wide.permute(0, 3, 1, 2))
        up = self.up2(functional.relu(self.path2(e2)) + up)
        up = self.up1(functional.relu(self.path1(e1)) + up)
        mask = torch.sigmoid(self.out(functional.relu(self.path0(e0)) + up))
        return mask[:, 0], after


class FilterDecoder(nn.Module):
    """Read the deep filter (B, N, K, O) from the embedding and the encoder's map."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        hidden, self.bins = size.df_hidden_dim, size.nb_df
        taps, frames = 2 * size.df_order, size.df_pathway_kernel_size_t
        self.path = nn.Conv2d(size.conv_ch, taps, (frames, 1))
        self.gru = SqueezedGRU(size.embedding, hidden, size.df_num_layers, size.df_linear_groups)
        self.skip = GroupedLinear(size.embedding, hidden, size.linear_groups)
        self.out = GroupedLinear(hidden, size.nb_df * taps, size.linear_groups)

    def forward(
        self, embedding: Tensor, c0: Tensor, past: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        values, after = self.gru(embedding, state)
        taps = torch.tanh(self.out(values + self.skip(embedding))).unflatten(-1, (self.bins, -1))
        maps = torch.cat([_maps(past), c0], dim=2)
        taps = taps + functional.relu(self.path(maps)).permute(0, 2, 3, 1)
        seen = maps[:, :, maps.shape[2] - past.shape[1] :].permute(0, 2, 3, 1)
        return torch.view_as_complex(taps.unflatten(-1, (-1, 2)).contiguous()), seen, after


def _maps(frames: Tensor) -> Tensor:
    """Turn (B, N, F, C) into (B, C, N, F), which lies in memory as it did."""
    return frames.permute(0, 3, 1, 2)


def _flat(maps: Tensor) -> Tensor:
    """Lay out maps as features, frequency by frequency: (B, C, N, F) -> (B, N, F * C)."""
    return maps.permute(0, 2, 3, 1).flatten(2)


def _running_means(values: Tensor, start: Tensor, decay: float) -> Tensor:
    """Follow (B, N, D) by a mean that forgets, each frame's own value included.

    m[n] = a m[n - 1] + (1 - a) x[n] is a product with a triangle of (1 - a) a^(n - k), and
    a^(n + 1) of the start.
    """
    triangle, fading = _weights(values.shape[1], decay)
    triangle, fading = triangle.to(values.device), fading.to(values.device)
    return triangle @ values + fading[:, None] * start[:, None]


@lru_cache(maxsize=8)
def _weights(frames: int, decay: float) -> tuple[Tensor, Tensor]:
    place = torch.arange(frames, dtype=torch.float64)
    apart = place[:, None] - place
    triangle = torch.where(apart >= 0.0, (1.0 - decay) * decay ** apart.clamp(min=0.0), 0.0)
    return triangle.float(), (decay ** (place + 1.0)).float()
