"""Losses that stand for listeners: differentiable measures of quality and intelligibility.

They compare an estimate with its reference, both (B, T) at 16 kHz, and are computed in float32
but for the convolutions of the quality predictor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speakup.errors import ConfigError, import_optional
from speakup.networks import spectra

SAMPLE_RATE = 16_000
_STOI_BANDS = 15
_STOI_LOWEST_HZ = 150.0
_STOI_FRAMES = 24
_STOI_RANGE_DB = 40.0
_SILENCE_RMS = 1e-4
_DITHER = 1e-5
"""RMS of what is added before PESQ's norms, whose derivatives are no numbers where nothing is."""


LOSSES = ("intelligibility", "disturbance", "quality", "score")
"""Names that a recipe may weigh; `quality` and `score` are the features and predictions of the
quality predictor."""


class Listeners(nn.Module):
    """Compute those perceptual losses that a recipe weighs.

    Args:
        names: Which of `LOSSES`.
        judged: How many signals of a batch the quality predictor hears; it is the costliest.

    Shape: estimate and reference (B, T) at 16 kHz -> loss name -> scalar.

    Raises:
        ConfigError: a package that a loss needs is not installed.
    """

    def __init__(self, names: set[str], judged: int) -> None:
        super().__init__()
        self.names, self.judged = names, judged
        self.disturbance = Disturbance() if "disturbance" in names else None
        self.quality = QualityPredictor() if names & {"quality", "score"} else None

    def forward(self, estimate: Tensor, reference: Tensor) -> dict[str, Tensor]:
        losses = {}
        if "intelligibility" in self.names:
            losses["intelligibility"] = intelligibility_loss(estimate, reference)
        if self.disturbance is not None:
            losses["disturbance"] = self.disturbance(estimate, reference)
        if self.quality is not None:
            heard = self.quality(estimate[: self.judged], reference[: self.judged])
            losses["quality"], losses["score"] = heard
        return losses


def intelligibility_loss(estimate: Tensor, reference: Tensor) -> Tensor:
    """Give one minus the extended short-time objective intelligibility, mean over the batch.

    Third-octave envelopes of 384 ms are normalised along time, then across bands, and correlated;
    frames 40 dB under the loudest do not count. Frames are 32 ms every 16 ms here.

    Reference:
        Jensen and Taal 2016, IEEE/ACM TASLP 24(11), section II.
    """
    n_fft = 512
    bands = _third_octaves(n_fft).to(estimate)
    powers = [
        spectra.stft(signal, n_fft, n_fft // 2, root_window=False).abs().square()
        for signal in (estimate, reference)
    ]
    envelopes = [torch.einsum("kf,bfn->bkn", bands, power).add(1e-7).sqrt() for power in powers]
    loudness = 10.0 * (powers[1].sum(1) + 1e-9).log10()
    sounding = loudness > loudness.amax(1, keepdim=True) - _STOI_RANGE_DB
    scores = []
    for one, two, keep in zip(*envelopes, sounding, strict=True):
        if int(keep.sum()) < _STOI_FRAMES:
            continue
        pieces = [
            _normalised(envelope[:, keep].unfold(1, _STOI_FRAMES, 4)) for envelope in (one, two)
        ]
        scores.append((pieces[0] * pieces[1]).sum((0, 2)).mean() / _STOI_FRAMES)
    if not scores:
        return estimate.new_zeros(())
    return 1.0 - torch.stack(scores).mean()


def _normalised(pieces: Tensor) -> Tensor:
    """Normalise (K, M, L) along L, then over K, to mean 0 and norm 1."""
    for axis in (2, 0):
        pieces = pieces - pieces.mean(axis, keepdim=True)
        pieces = pieces / pieces.square().sum(axis, keepdim=True).add(1e-8).sqrt()
    return pieces


def _third_octaves(n_fft: int) -> Tensor:
    """Give the (K, F) memberships of bins in third-octave bands."""
    frequencies = torch.fft.rfftfreq(n_fft, 1.0 / SAMPLE_RATE)
    centres = _STOI_LOWEST_HZ * 2.0 ** (torch.arange(_STOI_BANDS)[:, None] / 3.0)
    return (
        (frequencies >= centres * 2 ** (-1 / 6)) & (frequencies < centres * 2 ** (1 / 6))
    ).float()


class Disturbance(nn.Module):
    """Measure how a listener is disturbed, by PESQ's model of hearing without its alignment.

    Shape: estimate and reference (B, T) -> scalar, next to 0 for a perfect copy; 0.1 of it is about
    0.1 on the scale before the final map to opinion scores. A silent reference does not count.

    Raises:
        ConfigError: the package torch-pesq is not installed.

    Reference:
        ITU-T P.862, clauses 10.1 to 10.3; as a loss: Martin-Donas et al. 2018, IEEE SPL 25(11).
    """

    def __init__(self) -> None:
        super().__init__()
        package = _training_package("torch_pesq", "torch-pesq")
        self.model = package.PesqLoss(1.0, sample_rate=SAMPLE_RATE)

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        sounding = spectra.rms(reference)[:, 0] > _SILENCE_RMS
        if not bool(sounding.any()):
            return estimate.new_zeros(())
        random = torch.Generator().manual_seed(0)
        one, two = (
            signal[sounding] + _DITHER * torch.randn(signal.shape[1:], generator=random).to(signal)
            for signal in (estimate, reference)
        )
        loss: Tensor = self.model(two, one)
        return loss.mean()


class QualityPredictor(nn.Module):
    """Compare recordings by the features of a network that predicts listeners' opinions.

    The network of DNSMOS P.835 hears estimate and reference; its hidden features and its three
    predictions (voice, background, overall) for the estimate shall be those for the reference.
    Nothing is gained by sounding "better" to it than the reference does.

    Shape: estimate and reference (B, T) -> features, scores: two scalars.

    Raises:
        ConfigError: the package speechmos, which holds the network, or onnx is not installed.

    Reference:
        Reddy et al. 2022, arXiv 2110.01763; deep feature losses: Germain et al. 2018,
        arXiv 1806.10522.
    """

    _HOP = 160

    def __init__(self) -> None:
        super().__init__()
        weights = _quality_weights()
        kernel = torch.cat(
            [weights["time2freq/stft-real/kernel:0"], weights["time2freq/stft-imag/kernel:0"]]
        )
        self.register_buffer("fourier", kernel[:, :, 0])
        for name in ("pow/y", "Maximum/x", "truediv/y"):
            self.register_buffer(name.replace("/", "_"), weights[f"mos_estimator_logpow/{name}:0"])
        names = ["conv2d", *(f"conv2d_{index}" for index in range(1, 7))]
        self.convolutions = nn.ModuleList(
            _convolution(weights[f"{name}/kernel:0"], weights[f"{name}/bias:0"]) for name in names
        )
        self.layers = nn.ModuleList(
            _dense(weights, f"mos_estimator_logpow/{name}")
            for name in ("dense", "dense_1", "dense_3")
        )
        self.requires_grad_(False)

    def forward(self, estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted, wanted_scores = self.judge(reference)
        found, scores = self.judge(estimate)
        terms = [
            (one - two).abs().mean() / two.abs().mean().clamp_min(1e-3)
            for one, two in zip(found, wanted, strict=True)
        ]
        return torch.stack(terms).mean(), (wanted_scores - scores).clamp_min(0.0).mean()

    def judge(self, waveform: Tensor) -> tuple[list[Tensor], Tensor]:
        """Give the hidden features and the three raw predictions (B, 3) of a waveform (B, T)."""
        frames = waveform.float().clamp(-1.0, 1.0).unfold(1, 2 * self._HOP, self._HOP)
        real, imaginary = (frames @ self.get_buffer("fourier").T).chunk(2, dim=-1)
        magnitude = (real.square() + imaginary.square() + 1e-12).sqrt()
        power = magnitude.pow(self.get_buffer("pow_y")).clamp_min(
            float(self.get_buffer("Maximum_x"))
        )
        hidden = (power.log() / self.get_buffer("truediv_y"))[:, None]
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        features = []
        with torch.autocast(waveform.device.type, torch.bfloat16):
            for index, convolution in enumerate(self.convolutions):
                hidden = functional.relu(convolution(hidden))
                if index in (3, 5, 6):
                    features.append(hidden)
                if index in (3, 4, 5):
                    hidden = functional.max_pool2d(hidden, 2)
        pooled = hidden.float().amax((2, 3))
        features.append(pooled)
        for layer in self.layers[:-1]:
            pooled = functional.relu(layer(pooled))
        return features, self.layers[-1](pooled)


def _convolution(kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
    layer.weight.data, layer.bias.data = kernel.contiguous(memory_format=torch.channels_last), bias  # type: ignore[union-attr]
    return layer


def _dense(weights: dict[str, Tensor], name: str) -> nn.Linear:
    matrix = weights[f"{name}/MatMul/ReadVariableOp/resource:0"]
    layer = nn.Linear(*matrix.shape)
    layer.weight.data = matrix.T.contiguous()
    layer.bias.data = weights[f"{name}/BiasAdd/ReadVariableOp/resource:0"]
    return layer


def _quality_weights() -> dict[str, Tensor]:
    onnx = _training_package("onnx", "onnx")
    package = _training_package("speechmos", "speechmos")
    folder = Path(str(package.__file__)).parent / "dnsmos_models"
    graph = onnx.load(str(folder / "sig_bak_ovr.onnx")).graph
    arrays = {item.name: onnx.numpy_helper.to_array(item).copy() for item in graph.initializer}
    return {
        name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind == "f"
    }


def _training_package(module: str, package: str) -> Any:
    try:
        return import_optional(module, "this loss", "train")
    except OSError as error:  # torch-pesq imports torchaudio, whose builds load beside few torches
        raise ConfigError(
            f"the package {package} cannot be loaded: {error}",
            None,
            "Install a torch that the installed torchaudio loads beside",
        ) from error
