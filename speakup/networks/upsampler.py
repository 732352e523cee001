"""The super-resolution generator: a frame-rate network that writes the missing top of a voice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speakup.networks import spectra
from speakup.networks.layers import FrameBlock

SAMPLE_RATE = 44_100
_LOG_FLOOR = 1e-5
_FADE_HZ = 100.0
_LOWEST_CUTOFF_HZ = 3_400.0
"""It has been trained on no narrower bands, and writes nothing good into them."""
_ROLL_OFF = 0.07
_WIDEST_ROLL_OFF_HZ = 600.0


def log_magnitude(spectrum: Tensor) -> Tensor:
    """Give the natural logarithm of a complex spectrum's magnitude, floored at 1e-5 (-100 dB)."""
    power = spectrum.real.square() + spectrum.imag.square()  # abs() takes five times as long
    return 0.5 * power.clamp_min(_LOG_FLOOR**2).log()


class BandExtender(nn.Module):
    """Synthesise what a 44.1 kHz recording lacks above its bandwidth; leave the rest untouched.

    A backbone of ConvNeXt blocks at frame rate (Vocos, arXiv 2306.00814) sees the log magnitudes
    under the cutoff and predicts log magnitude and phase of every bin, as AP-BWE does (arXiv
    2401.06387). Bins up to the cutoff stay the recording's own; in the last 7 % (at most
    600 Hz), where band limits roll off, the synthesised top comes in beside them, and from 100 Hz
    above the cutoff it stands alone.

    Args:
        n_fft: STFT length in samples at 44.1 kHz; hop is half of it.
        features: D, width of the backbone.
        expansion: Width of the blocks' hidden layer in units of D.
        blocks: Number of blocks.

    Shape: waveform (B, T) and cutoff_hz (B,) -> (B, T), float32.
    """

    input_rate = SAMPLE_RATE
    output_rate = SAMPLE_RATE

    def __init__(
        self, *, n_fft: int = 1024, features: int = 384, expansion: int = 3, blocks: int = 6
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, n_fft // 2
        bins = n_fft // 2 + 1
        self._context_frames = 3 * blocks + 2
        self.register_buffer(
            "frequencies", torch.linspace(0, SAMPLE_RATE / 2, bins), persistent=False
        )
        self.embed = nn.Linear(2 * bins, features)
        self.embed_norm = nn.LayerNorm(features)
        self.blocks = nn.ModuleList(FrameBlock(features, expansion) for _ in range(blocks))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, 3 * bins)
        nn.init.normal_(self.head.weight, std=0.02)

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that its output depends on."""
        return self._context_frames * self.hop_length

    def forward(self, waveform: Tensor, cutoff_hz: Tensor) -> Tensor:
        cutoff_hz = cutoff_hz.clamp(min=_LOWEST_CUTOFF_HZ)
        padded = spectra.whole_hops(waveform.float(), self.hop_length)
        spectrum = spectra.stft(padded, self.n_fft, self.hop_length)
        frequencies = self.get_buffer("frequencies")
        known = (frequencies < cutoff_hz[:, None]).float()[:, None]
        level = (log_magnitude(spectrum).transpose(1, 2) + 4.0) / 4.0
        seen = torch.cat([level * known, known.expand_as(level)], dim=-1)
        # First and last layer stay in float32: rounded there, logarithms and phases cost 10 dB of
        # agreement with float32, and they are a sixth of the work.
        with torch.autocast(waveform.device.type, enabled=False):
            hidden = self.embed_norm(self.embed(seen))
        for block in self.blocks:
            hidden = block(hidden)
        with torch.autocast(waveform.device.type, enabled=False):
            planes = self.head(self.norm(hidden)).transpose(1, 2).chunk(3, dim=1)
        magnitude = (4.0 * planes[0] - 4.0).clamp(max=5.0).exp()
        # The direction of a pair of numbers is a phase, without arctangent, sine and cosine.
        scale = magnitude * (planes[1].square() + planes[2].square() + 1e-12).rsqrt()
        top = torch.complex(planes[2] * scale, planes[1] * scale)
        above = (frequencies - cutoff_hz[:, None])[:, :, None]
        kept = 1.0 - (above / _FADE_HZ).clamp(0.0, 1.0)
        roll_off = (_ROLL_OFF * cutoff_hz).clamp(max=_WIDEST_ROLL_OFF_HZ)[:, None, None]
        added = (above / roll_off + 1.0).clamp(0.0, 1.0)
        joined = spectrum * kept + top * added
        return spectra.istft(joined, waveform.shape[-1])
