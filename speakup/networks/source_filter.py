"""The super-resolution generator: sounds made of the voice itself, shaped into its missing top."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks import spectra
from speakup.networks.layers import FrameBlock

SAMPLE_RATE = 44_100
_FLOOR_POWER = 1e-10
_TINY = 1e-12
_FADE_HZ = 100.0
_ROLL_OFF = 0.3
_WIDEST_ROLL_OFF_HZ = 1_500.0
_HEARD_FROM_HZ = 60.0
_LEARNED_HZ = 19_550.0
_LAST_BINS = 12
_LAST_END_HZ = 20_400.0
_END_WIDTH_HZ = 400.0
_WHITENED_BINS = 13
_MIX_BANDS = 24
_MIX_HZ = (500.0, 20_500.0)
_SOURCES = 4
_COPIED_FROM_BIN = 24
_NOISE_FRAMES = 64
_ENVELOPE_SAMPLES = 45
_MEAN_SAMPLES = 65


class SourceFilterExtender(nn.Module):
    """Synthesise what a 44.1 kHz recording lacks above its bandwidth; leave the rest untouched.

    Phases that a network writes itself do not agree from frame to frame, which is heard as a
    hash of clicks. So none are written here. Four sources are made of the recording's own band,
    flat in level over frequency and time:

    - its spectrum, moved upwards: a top as fine in its structure as the voice is;
    - its rectified waveform, whose harmonics are multiples of the voice's;
    - noise that swells with its waveform, as breath does within each period of the voice;
    - steady noise.

    A backbone of ConvNeXt blocks at frame rate (Vocos, arXiv 2306.00814) sees the log magnitudes
    under the cutoff and gives the level of every bin above it, and in what parts the sources are
    mixed there, in 24 bands. What comes out is as smooth as speech and noise are.

    Bins up to the cutoff stay the recording's own; in the last 30 % (at most 1.5 kHz), where band
    limits roll off, the synthesised top comes in beside them, and from 100 Hz above the cutoff
    it stands alone. It ends at 20 kHz, where recordings do, or where it is told to.

    Args:
        n_fft: STFT length in samples at 44.1 kHz; the frames are half of it apart.
        features: D, width of the backbone.
        expansion: Width of the blocks' hidden layer in units of D.
        blocks: Number of blocks.

    Shape: waveform (B, T), cutoff_hz (B,) and end_hz (B,), by default infinite -> (B, T), float32.

    Reference: source and filter: Fant 1960, Acoustic Theory of Speech Production; spectra moved
        upwards and rectified waveforms as sources: Makhoul & Berouti 1979, ICASSP, "High-frequency
        regeneration in speech coding systems".
    """

    input_rate = SAMPLE_RATE
    output_rate = SAMPLE_RATE

    def __init__(
        self, *, n_fft: int = 1024, features: int = 320, expansion: int = 3, blocks: int = 6
    ) -> None:
        super().__init__()
        self.n_fft, self._hop = n_fft, n_fft // 2
        bins = self._hop + 1
        self._context_frames = 3 * blocks + 2
        # Of data, not of shapes alone: also where a network is laid out on the meta device.
        with torch.device("cpu"):
            frequencies = torch.linspace(0, SAMPLE_RATE / 2, bins)
            self.register_buffer("frequencies", frequencies, persistent=False)
            self.register_buffer("neighbours", _neighbours(bins), persistent=False)
            self.register_buffer("bands", _triangles(frequencies), persistent=False)
            generator = torch.Generator().manual_seed(1)
            noise = torch.randn(_NOISE_FRAMES * self._hop, generator=generator)
            self.register_buffer("noise", noise, persistent=False)
            self._learned = int((frequencies < _LEARNED_HZ).sum())
        self.embed = nn.Linear(2 * bins, features)
        self.embed_norm = nn.LayerNorm(features)
        self.blocks = nn.ModuleList(FrameBlock(features, expansion) for _ in range(blocks))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, bins + _SOURCES * _MIX_BANDS)
        nn.init.normal_(self.head.weight, std=0.02)

    @property
    def hop_length(self) -> int:
        """Samples after which the noise begins again: the grid on which chunks agree."""
        return _NOISE_FRAMES * self._hop

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""
        return (self._context_frames + 2) * self._hop

    def forward(self, waveform: Tensor, cutoff_hz: Tensor, end_hz: Tensor | None = None) -> Tensor:
        padded = spectra.whole_hops(waveform.float(), self._hop)
        # (B, N, F) as all over frequency is done over the last axis.
        spectrum = spectra.stft(padded, self.n_fft, self._hop).transpose(1, 2)
        power = spectrum.real.square() + spectrum.imag.square()  # abs() takes five times as long
        level, shares = self._filter(power, cutoff_hz)
        level = level * self._added(cutoff_hz, end_hz)[:, None]
        with torch.no_grad():
            sources = self._sources(spectrum, power, cutoff_hz, padded.shape[1])
        real = torch.zeros_like(power)
        imaginary = torch.zeros_like(power)
        for source, share in zip(sources, shares, strict=True):
            gain = share * level
            real = torch.addcmul(real, source.real, gain)
            imaginary = torch.addcmul(imaginary, source.imag, gain)
        above = self.get_buffer("frequencies") - cutoff_hz[:, None]
        kept = 1.0 - (above / _FADE_HZ).clamp(0.0, 1.0)
        joined = spectrum * kept[:, None] + torch.complex(real, imaginary)
        return spectra.istft(joined.transpose(1, 2), waveform.shape[-1])

    def _filter(self, power: Tensor, cutoff_hz: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Give the level (B, N, F) of every bin, and each source's share of it."""
        frequencies = self.get_buffer("frequencies")
        known = (frequencies < cutoff_hz[:, None]).float()[:, None]
        seen = 0.125 * power.clamp_min(_FLOOR_POWER).log() + 1.0
        seen = torch.cat([seen * known, known.expand_as(seen)], dim=-1)
        # First and last layer stay in float32: rounded there, logarithms cost 10 dB of agreement
        # with float32, and they are a sixth of the work.
        with torch.autocast(power.device.type, enabled=False):
            hidden = self.embed_norm(self.embed(seen))
        for block in self.blocks:
            hidden = block(hidden)
        with torch.autocast(power.device.type, enabled=False):
            bins, mix = self.head(self.norm(hidden)).split(
                [len(frequencies), _SOURCES * _MIX_BANDS], dim=-1
            )
            mix = (2.0 * mix.unflatten(-1, (_SOURCES, _MIX_BANDS))).softmax(dim=-2)
            shares = (mix @ self.get_buffer("bands")).sqrt().unbind(dim=-2)
        learned = bins[..., : self._learned]
        beyond = learned[..., -_LAST_BINS:].mean(-1, keepdim=True)
        beyond = beyond.expand(*bins.shape[:-1], len(frequencies) - self._learned)
        level = (4.0 * torch.cat([learned, beyond], dim=-1) - 4.0).clamp(max=5.0).exp()
        return level, list(shares)

    def _added(self, cutoff_hz: Tensor, end_hz: Tensor | None) -> Tensor:
        """Give how much of what is synthesised comes in, (B, F), 0 to 1."""
        frequencies = self.get_buffer("frequencies")
        roll_off = (_ROLL_OFF * cutoff_hz).clamp(max=_WIDEST_ROLL_OFF_HZ)[:, None]
        added = ((frequencies - cutoff_hz[:, None]) / roll_off + 1.0).clamp(0.0, 1.0)
        end_hz = cutoff_hz.new_tensor([math.inf]) if end_hz is None else end_hz
        return added * below_end(frequencies, end_hz.clamp(max=_LAST_END_HZ))

    def _sources(
        self, spectrum: Tensor, power: Tensor, cutoff_hz: Tensor, samples: int
    ) -> list[Tensor]:
        """Make spectra (B, N, F) of about one in every bin."""
        frequencies, near = self.get_buffer("frequencies"), self.get_buffer("neighbours")
        known = (frequencies > _HEARD_FROM_HZ) & (frequencies < cutoff_hz[:, None] - _HEARD_FROM_HZ)
        heard = known.float()[:, None]
        share = (heard @ near).clamp_min(1e-3)
        level = (power * heard) @ near / share
        flat = spectrum * ((level + _TINY).rsqrt() * heard)
        residual = spectra.istft(flat.transpose(1, 2), samples)
        size = residual.abs()
        swelling = self._noise(samples) * _moving_mean(size, _ENVELOPE_SAMPLES)
        rectified = size - _moving_mean(size, _MEAN_SAMPLES)
        steady = self._noise(samples).expand_as(size)
        both = torch.cat([rectified, swelling, steady])
        both = spectra.stft(both, self.n_fft, self._hop).transpose(1, 2)
        harmonic, breath, hiss = both.chunk(3)
        harmonic = harmonic * (_power(harmonic) @ near + _TINY).rsqrt()
        breath = breath * (_power(breath).mean(-1, keepdim=True) + _TINY).rsqrt()
        return [self._moved(flat, cutoff_hz), harmonic, breath, hiss * self._hop**-0.5]

    def _moved(self, flat: Tensor, cutoff_hz: Tensor) -> Tensor:
        """Fill a flat spectrum (B, N, F) above its cutoff with copies of what lies under it.

        A bin moved by m bins turns by m pi more from each frame to the next.
        """
        bins, frames = flat.shape[-1], flat.shape[-2]
        edge = ((cutoff_hz - _HEARD_FROM_HZ) * (bins - 1) / (SAMPLE_RATE / 2)).long()
        edge = edge.clamp(16, bins - 1)[:, None]
        # The lowest harmonics stand out by far, and would be heard again as lines.
        width = edge - (edge // 2).clamp(max=_COPIED_FROM_BIN)
        place = torch.arange(bins, device=flat.device)
        copies = ((place - edge).clamp(min=0) // width + 1) * (place >= edge)
        source = (place - copies * width).clamp(0, bins - 1)
        moved = torch.gather(flat, 2, source[:, None].expand(-1, frames, -1))
        odd = (copies * width % 2)[:, None] * (torch.arange(frames, device=flat.device) % 2)[
            :, None
        ]
        return moved * (1.0 - 2.0 * odd)

    def _noise(self, samples: int) -> Tensor:
        noise: Tensor = self.get_buffer("noise")
        if self.training:
            noise = noise.roll(int(torch.randint(len(noise), ())))
        return noise.repeat(-(-samples // len(noise)))[:samples]


def below_end(frequencies: Tensor, end_hz: Tensor) -> Tensor:
    """Give the gain (B, F) with which a top fades out over the 400 Hz before its end (B,)."""
    return ((end_hz[:, None] - frequencies) / _END_WIDTH_HZ).clamp(0.0, 1.0)


def target(
    heard: Tensor, full: Tensor, cutoff_hz: Tensor, end_hz: Tensor, n_fft: int = 1024
) -> tuple[Tensor, Tensor]:
    """Make what a network may hear and what it is to make of it, from a band-limited recording.

    Both end where it is told to end, in just the way that it ends. What it leaves untouched is
    the heard recording's own in the target as well, be it coded or without its lows, so that
    nothing is asked for that it cannot give.

    Args:
        heard: (B, T).
        full: (B, T), the recording with its top.
        cutoff_hz: (B,) what the network will be told.
        end_hz: (B,) likewise.
        n_fft: The network's.

    Returns:
        Two of (B, T).
    """
    hop = n_fft // 2
    samples = heard.shape[-1]
    both = spectra.stft(spectra.whole_hops(torch.cat([heard, full]), hop), n_fft, hop)
    own, whole = both.chunk(2)
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, hop + 1, device=heard.device)
    end = below_end(frequencies, end_hz.clamp(max=_LAST_END_HZ))[:, :, None]
    first = cutoff_hz - (_ROLL_OFF * cutoff_hz).clamp(max=_WIDEST_ROLL_OFF_HZ)
    rise = ((frequencies - first[:, None]) / _FADE_HZ).clamp(0.0, 1.0)[:, :, None]
    own, whole = own * end, torch.lerp(own, whole, rise.to(own.dtype)) * end
    return spectra.istft(own, samples), spectra.istft(whole, samples)


def _triangles(frequencies: Tensor) -> Tensor:
    """Give the weight of each band at each bin, (bands, F); a bin's weights add up to one.

    The bands' centres are evenly spaced on the mel scale.
    """
    low, high = (math.log10(1.0 + hz / 700.0) for hz in _MIX_HZ)
    step = (high - low) / (_MIX_BANDS - 1)
    place = ((frequencies / 700.0 + 1.0).log10() - low) / step
    distance = place.clamp(0, _MIX_BANDS - 1) - torch.arange(_MIX_BANDS)[:, None]
    return (1.0 - distance.abs()).clamp_min(0.0)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _neighbours(bins: int) -> Tensor:
    """Give the matrix (F, F) whose product with spectra is the mean of 13 bins round each.

    A product of matrices is many times faster here than a pooling layer.
    """
    place = torch.arange(bins)
    near = ((place - place[:, None]).abs() <= _WHITENED_BINS // 2).float()
    return near / near.sum(0)


def _moving_mean(signal: Tensor, samples: int) -> Tensor:
    """Give the mean of so many samples round each, (B, T); beyond the ends there are zeros."""
    reach, length = samples // 2, signal.shape[-1]
    total = functional.pad(signal.double().cumsum(-1), (reach + 1, 0))
    total = functional.pad(total, (0, reach), mode="replicate")
    return ((total[:, samples:] - total[:, :length]) / samples).float()
