"""AP-BWE: two coupled streams predict the amplitudes and the phases of a wider spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.networks.layers import ConvNeXtBlock
from speakup.networks.resampling import resample_alike

_LOG_FLOOR = 1e-4
_KERNEL = 7
_EPS = 1e-6
_SINC_CROSSINGS = 6


class APBWE(nn.Module):
    """Extend a voice's band by predicting amplitudes and phases in parallel.

    What comes out is the network's own spectrum from 0 Hz on: the recording's low band is the
    caller's to keep.

    The weights' names are those of the checkpoint: rsxdalv/AP-BWE, 16kto48k.

    Args:
        channels: C, width of both streams (upstream's ConvNeXt_channels).
        layers: Number of blocks in each (ConvNeXt_layers).
        n_fft: STFT length in samples at the output's rate.
        hop_size: Samples between frames.
        win_size: Length of the Hann window, in the middle of the frame.
        input_rate: Hz (lr_sampling_rate).
        output_rate: Hz (hr_sampling_rate).

    Shape: waveform (B, T) at `input_rate` and cutoff_hz (B,), which is not looked at -> (B, T')
    at `output_rate`, float32, T' = ceil(T * output_rate / input_rate), for any T from 1 on.

    Reference: Lu et al. 2024 (arXiv 2401.06387).
    """

    def __init__(
        self,
        *,
        channels: int = 512,
        layers: int = 8,
        n_fft: int = 1024,
        hop_size: int = 80,
        win_size: int = 320,
        input_rate: int = 16_000,
        output_rate: int = 48_000,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_size, self.win_size = n_fft, hop_size, win_size
        self.input_rate, self.output_rate = input_rate, output_rate
        self._frame_reach = (layers + 1) * (_KERNEL // 2)
        bins = n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(win_size), persistent=False)
        self.conv_pre_mag = nn.Conv1d(bins, channels, _KERNEL, padding=_KERNEL // 2)
        self.norm_pre_mag = nn.LayerNorm(channels, eps=_EPS)
        self.conv_pre_pha = nn.Conv1d(bins, channels, _KERNEL, padding=_KERNEL // 2)
        self.norm_pre_pha = nn.LayerNorm(channels, eps=_EPS)
        self.convnext_mag, self.convnext_pha = (
            nn.ModuleList(
                ConvNeXtBlock(channels, 3 * channels, 1.0 / layers) for _ in range(layers)
            )
            for _ in range(2)
        )
        self.norm_post_mag = nn.LayerNorm(channels, eps=_EPS)
        self.norm_post_pha = nn.LayerNorm(channels, eps=_EPS)
        self.linear_post_mag = nn.Linear(channels, bins)
        self.linear_post_pha_r = nn.Linear(channels, bins)
        self.linear_post_pha_i = nn.Linear(channels, bins)

    @property
    def hop_length(self) -> int:
        """Fewest input samples, a multiple of which is a whole number of frames."""
        common = math.gcd(self.input_rate, self.output_rate)
        hop_out = math.lcm(self.hop_size, self.output_rate // common)
        return hop_out * self.input_rate // self.output_rate

    @property
    def context_samples(self) -> int:
        """Input samples on either side of a sample that its output depends on."""
        reach = self._frame_reach * self.hop_size + self.win_size
        return math.ceil(reach * self.input_rate / self.output_rate) + _SINC_CROSSINGS + 2

    def forward(self, waveform: Tensor, cutoff_hz: Tensor) -> Tensor:
        full = self.resample(waveform.float())
        samples = full.shape[-1]
        # The ends are mirrored by half a frame, for which there must be enough.
        missing = max(self.n_fft // 2 + 1 - samples, 0)
        log_amplitude, phase = self.analyse(functional.pad(full, (0, missing)))
        return self.synthesise(*self.predict(log_amplitude, phase), samples)

    def resample(self, waveform: Tensor) -> Tensor:
        """Bring (B, T) to the output's rate by the filter the network was trained with.

        The network reacts to the very shape of the band's edge.
        """
        return resample_alike(
            waveform,
            self.input_rate,
            self.output_rate,
            zero_crossings=_SINC_CROSSINGS,
            roll_off=0.99,
        )

    def analyse(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Give the log amplitudes and phases, each (B, F, N), of (B, T), T above n_fft / 2.

        N = T // hop_size + 1.
        """
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_size,
            self.win_size,
            self.get_buffer("window"),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return (spectrum.abs() + _LOG_FLOOR).log(), spectrum.angle()

    def predict(self, log_amplitude: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Map log amplitudes and phases, each (B, F, N), to those of the wide band."""
        # The first and last layers stay in float32, which logarithms and phases need.
        device = log_amplitude.device.type
        with torch.autocast(device, enabled=False):
            amplitudes = _normed(self.norm_pre_mag, self.conv_pre_mag(log_amplitude))
            phases = _normed(self.norm_pre_pha, self.conv_pre_pha(phase))
        for refine_mag, refine_pha in zip(self.convnext_mag, self.convnext_pha, strict=True):
            # The phase stream takes in the amplitudes that have taken it in already.
            amplitudes = amplitudes + phases
            phases = phases + amplitudes
            amplitudes, phases = refine_mag(amplitudes), refine_pha(phases)
        with torch.autocast(device, enabled=False):
            added = self.linear_post_mag(self.norm_post_mag(amplitudes.transpose(1, 2)))
            turned = self.norm_post_pha(phases.transpose(1, 2))
            angle = torch.atan2(self.linear_post_pha_i(turned), self.linear_post_pha_r(turned))
        return log_amplitude + added.transpose(1, 2), angle.transpose(1, 2)

    def synthesise(
        self, log_amplitude: Tensor, phase: Tensor, samples: int | None = None
    ) -> Tensor:
        """Give the waveform (B, T) of frames (B, F, N).

        Args:
            log_amplitude: (B, F, N).
            phase: (B, F, N).
            samples: T, at most N * hop_size; None gives upstream's (N - 1) * hop_size.
        """
        return torch.istft(
            torch.polar(log_amplitude.exp(), phase),
            self.n_fft,
            self.hop_size,
            self.win_size,
            self.get_buffer("window"),
            center=True,
            length=samples,
        )


def _blocks(layers: int, channels: int) -> nn.ModuleList:
    return nn.ModuleList(ConvNeXtBlock(channels, 3 * channels, 1.0 / layers) for _ in range(layers))


def _normed(norm: nn.Module, hidden: Tensor) -> Tensor:
    """Normalise (B, C, N) over C."""
    normed: Tensor = norm(hidden.transpose(1, 2))
    return normed.transpose(1, 2)
