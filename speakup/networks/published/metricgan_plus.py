"""MetricGAN+: a small 16 kHz denoiser, a recurrent mask trained against a predictor of PESQ.

Reference: Fu et al. 2021, "MetricGAN+: An improved version of MetricGAN for speech enhancement"
    (arXiv 2104.03538). Parameter names and shapes are those of the checkpoint published with
    SpeechBrain.

Letters in shapes: B batch, T samples, F frequency bins, N frames, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speakup.networks import spectra

_MASK_LIMIT = 1.2
_LEAK = 0.3


class BidirectionalLSTM(nn.Module):
    """Read frames from both ends: (B, N, F) -> (B, N, 2 D).

    Where `frames` (B,) says how many frames of each signal count, both directions begin at the
    ends of those, and the result beyond is zero.
    """

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(features, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, sequences: Tensor, frames: Tensor | None = None) -> Tensor:
        if frames is None:
            return self.rnn(sequences)[0]
        packed = pack_padded_sequence(
            sequences, frames.cpu(), batch_first=True, enforce_sorted=False
        )
        both, _ = pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=sequences.shape[1]
        )
        return both


class LearnableSigmoid(nn.Module):
    """A sigmoid up to 1.2 with a slope per bin: (..., F) -> (..., F)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(bins))

    def forward(self, value: Tensor) -> Tensor:
        return _MASK_LIMIT * torch.sigmoid(self.slope * value)


class MetricGANPlus(nn.Module):
    """Remove noise from 16 kHz speech by a mask on the logarithm of its magnitude.

    The logarithm makes it depend on the level: it was trained on recordings as they were, speech
    at about -25 dBFS. It runs in float32, whatever number format surrounds it.

    Args:
        input_size: F.
        hidden_size: Width of the LSTM per direction.
        num_layers: LSTM layers.
        linear1: Widths in and out of the first dense layer: 2 * hidden_size, any.
        linear2: Widths in and out of the second: that of the first, input_size.
        n_fft: Transform and window length in samples, 2 * (input_size - 1); None for just that.
        hop_length: Samples between frames; None for half of a window.
        sample_rate: Hz.

    Shape: (B, T) -> (B, T), float32, T from 1 on.

    Raises:
        ValueError: widths that do not fit each other.
    """

    def __init__(
        self,
        *,
        input_size: int = 257,
        hidden_size: int = 200,
        num_layers: int = 2,
        linear1: Sequence[int] = (400, 300),
        linear2: Sequence[int] = (300, 257),
        n_fft: int | None = None,
        hop_length: int | None = None,
        sample_rate: int = 16_000,
    ) -> None:
        super().__init__()
        self.n_fft = n_fft or 2 * (input_size - 1)
        self.hop_length = hop_length or self.n_fft // 2
        self.sample_rate = sample_rate
        wide, middle = linear1
        if (wide, *linear2, self.n_fft // 2 + 1) != (
            2 * hidden_size,
            middle,
            input_size,
            input_size,
        ):
            raise ValueError(
                f"linear1 {list(linear1)} and linear2 {list(linear2)} must lead from twice the "
                f"hidden_size {hidden_size} to the {input_size} bins of n_fft {self.n_fft}"
            )
        self.blstm = BidirectionalLSTM(input_size, hidden_size, num_layers)
        self.linear1 = nn.Linear(wide, middle)
        self.linear2 = nn.Linear(middle, input_size)
        self.Learnable_sigmoid = LearnableSigmoid(input_size)
        self.register_buffer("window", torch.hamming_window(self.n_fft), persistent=False)
        self.window: Tensor

    @property
    def context_samples(self) -> int:
        """Samples on either side of a sample that count for its output in practice: a second.

        An LSTM has no end to its reach; random weights forget within a quarter of that.
        """
        return self.sample_rate

    def forward(self, waveform: Tensor) -> Tensor:
        padded = spectra.whole_hops(waveform.float(), self.hop_length)
        with torch.autocast(waveform.device.type, enabled=False):
            return self.denoise_clip(padded)[:, : waveform.shape[-1]]

    def denoise_clip(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Denoise whole recordings as the published package does.

        It leaves the last samples to one end of a window, where `forward` makes whole hops of
        them, and knows recordings of several lengths.

        Args:
            waveform: (B, T).
            lengths: (B,) relative to T; None for all of it.

        Returns:
            (B, T).
        """
        spectrum = self.analyse(waveform)
        feature = self.features(spectrum)
        count = feature.shape[1]
        frames = None if lengths is None else (lengths * count).long().clamp(1, count)
        magnitude = torch.expm1(self.denoise_spectrum(feature, frames) * feature)
        return torch.istft(
            torch.polar(magnitude, spectrum.angle()).transpose(1, 2),
            self.n_fft,
            self.hop_length,
            window=self.window,
            length=waveform.shape[-1],
        )

    def analyse(self, waveform: Tensor) -> Tensor:
        """Give the spectrum, (B, T) -> (B, N, F) complex with N = T // hop + 1."""
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.transpose(1, 2)

    def features(self, spectrum: Tensor) -> Tensor:
        """Give the network's input, (B, N, F) complex -> (B, N, F): ln(1 + magnitude)."""
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log1p((power + 1e-14).sqrt())

    def denoise_spectrum(self, feature: Tensor, frames: Tensor | None = None) -> Tensor:
        """Give the mask of `features`, (B, N, F) -> (B, N, F) from 0 to 1.2.

        Args:
            feature: (B, N, F).
            frames: (B,) how many frames of each signal count; None for all.
        """
        hidden = functional.leaky_relu(self.linear1(self.blstm(feature, frames)), _LEAK)
        return self.Learnable_sigmoid(self.linear2(hidden))
