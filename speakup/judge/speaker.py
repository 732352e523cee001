"""Whether an enhanced voice is still the same person's: what a network for speakers makes of it.

A network trained to tell speakers apart turns speech into a vector that depends on who speaks and
hardly on what is said. The angle between two such vectors tells how alike two voices are.

The network is the GE2E d-vector of Wan et al. 2018, arXiv 1710.10467. Its weights come with the
package Resemblyzer 0.1.4 (Apache-2.0). That package is found, not imported: it asks for a voice
detector that has to be compiled, and nothing but its numbers is needed here.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from speakup.blocks import db_to_gain
from speakup.errors import ConfigError, ModelError
from speakup.judge import metrics
from speakup.judge.scores import Scores
from speakup.models import weights
from speakup.networks import spectra

__all__ = ["available", "embed", "score", "similarity"]

_PACKAGE = "resemblyzer"
_BANDS = 40
_N_FFT = 400  # 25 ms
_HOP_LENGTH = 160  # 10 ms
_SIZE = 256

_PART_FRAMES = 160  # 1.6 s, what the network was trained on
_STEP_FRAMES = 77  # 1.3 parts a second
_LEAST_COVERAGE = 0.75  # of a part that reaches beyond the end
_PARTS_AT_ONCE = 64  # bounds the memory that long recordings take

_FRAME = 480  # 30 ms, by which pauses are told from speech
_SAID_RANGE_DB = 30.0
_SAID_MARGIN = 3  # frames on either side of speech

_LEVEL_DB = -30.0  # the mel powers are taken as they are, without a logarithm


class _Encoder(nn.Module):
    """Three LSTM layers of which the last state counts; names as in the published weights.

    Shape: mel powers (B, N, 40) -> vectors of length 1, no entry below 0, (B, 256).
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_BANDS, _SIZE, num_layers=3, batch_first=True)
        self.linear = nn.Linear(_SIZE, _SIZE)

    def forward(self, mel: Tensor) -> Tensor:
        _, (state, _) = self.lstm(mel)
        return nn.functional.normalize(self.linear(state[-1]).relu(), dim=1)


def available() -> bool:
    """Tell whether the package that holds the weights is installed."""
    return _weights_file() is not None


def score(estimate: metrics.Signal, reference: metrics.Signal, sample_rate: int) -> Scores:
    """Give `similarity` as `speaker`."""
    return {"speaker": similarity(estimate, reference, sample_rate)}


def similarity(estimate: metrics.Signal, reference: metrics.Signal, sample_rate: int) -> float:
    """Give the cosine of the angle between two voices' vectors, 0 to 1 (the same voice).

    Only what is said is compared: pauses of the reference are cut out of both, for else a quieter
    background would pass for a truer voice. Noise and rooms move the vector all the same, so
    compare before with after rather than with 1. Level does not count. NaN where less than 1.2 s
    is said, or the estimate is silent. For scale: clean recordings of different people are at
    0.57 on average, other sentences by the same person in the same place at 0.88.

    Args:
        estimate: `(T,)` or `(C, T)`.
        reference: As the estimate, and clean; the longer of the two is cut.
        sample_rate: Of both, in Hz.

    Raises:
        ConfigError: the package Resemblyzer is not installed.
        ModelError: its weights cannot be read or are others.
    """
    est, ref = (
        metrics.resample(metrics.mono(one), sample_rate, metrics.SPEECH_RATE)
        for one in (estimate, reference)
    )
    said = _said(ref[: min(len(est), len(ref))])
    est, ref = (one[: len(said)][said] for one in (est, ref))
    cosine = embed(est, metrics.SPEECH_RATE) @ embed(ref, metrics.SPEECH_RATE)
    return float(np.clip(cosine, 0.0, 1.0))  # it may round to more than 1; NaN stays


def embed(speech: metrics.Signal, sample_rate: int) -> NDArray[np.float64]:
    """Give a voice's vector, `(256,)`, of length 1; NaN for silence and for less than 1.2 s.

    It is the mean over parts of 1.6 s, every 0.77 s, normalised; a last part counts if the
    recording covers three quarters of it.

    Args:
        speech: `(T,)` or `(C, T)`, at any level: it is brought to an RMS of -30 dBFS.
        sample_rate: Hz.

    Raises:
        ConfigError: the package Resemblyzer is not installed.
        ModelError: its weights cannot be read or are others.

    Reference:
        Wan et al. 2018, section 3.2; the settings are the package's, which raises quiet speech to
        this level and leaves loud speech as it is.
    """
    path = _weights_file()
    if path is None:
        raise ConfigError(
            "Speaker similarity needs the package Resemblyzer",
            None,
            "Install it with: pip install --no-deps resemblyzer",
        )
    samples = metrics.resample(metrics.mono(speech), sample_rate, metrics.SPEECH_RATE)
    if len(samples) < _LEAST_COVERAGE * _PART_FRAMES * _HOP_LENGTH or not samples.any():
        return np.full(_SIZE, math.nan)
    samples = samples * (db_to_gain(_LEVEL_DB) / math.sqrt(np.mean(np.square(samples))))
    encoder = _encoder(path)
    with torch.inference_mode():
        parts = _parts(torch.from_numpy(samples).float())
        mean = torch.cat([encoder(some) for some in parts.split(_PARTS_AT_ONCE)]).mean(0)
        return nn.functional.normalize(mean.double(), dim=0).numpy()


def _said(speech: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the samples, (T,) at 16 kHz, that are speech or within 90 ms of it.

    The package has a trained detector here, at whose cuts a level of 30 dB below the loudest
    aims: on clean recordings the vectors after either have a cosine of 0.98.
    """
    count = len(speech) // _FRAME
    if count == 0:
        return np.zeros(0, dtype=bool)
    power = np.square(speech[: count * _FRAME].reshape(count, _FRAME)).mean(axis=1)
    loud = power > power.max() * 10.0 ** (-_SAID_RANGE_DB / 10.0)
    return np.repeat(ndimage.binary_dilation(loud, np.ones(1 + 2 * _SAID_MARGIN)), _FRAME)


def _parts(samples: Tensor) -> Tensor:
    """Cut 16 kHz samples (T,) into the mel powers of overlapping parts, (B, N, 40)."""
    count = 1 + max(0, math.ceil((len(samples) // _HOP_LENGTH + 2 - _PART_FRAMES) / _STEP_FRAMES))
    last = (count - 1) * _STEP_FRAMES
    if count > 1 and len(samples) / _HOP_LENGTH - last < _LEAST_COVERAGE * _PART_FRAMES:
        last -= _STEP_FRAMES
    missing = (last + _PART_FRAMES) * _HOP_LENGTH - len(samples)
    padded = nn.functional.pad(samples, (0, max(0, missing)))
    power = spectra.stft(padded[None], _N_FFT, _HOP_LENGTH, root_window=False).abs().square()[0]
    rate = metrics.SPEECH_RATE
    mel = power.T @ spectra.mel_filters(len(power), rate, _BANDS, 0.0, rate / 2)
    return mel[: last + _PART_FRAMES].unfold(0, _PART_FRAMES, _STEP_FRAMES).transpose(1, 2)


def _weights_file() -> Path | None:
    found = importlib.util.find_spec(_PACKAGE)
    folders = (found.submodule_search_locations if found is not None else None) or []
    files = (Path(folder) / "pretrained.pt" for folder in folders)
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _encoder(path: Path) -> _Encoder:
    """Build the network once per process."""
    network = _Encoder()
    weights.load_strict(network, _read(path), path)
    return network.eval()


def _read(path: Path) -> dict[str, Tensor]:
    """Read the network's tensors; what else the checkpoint holds served its training."""
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
        return {
            name: value
            for name, value in found["model_state"].items()
            if not name.startswith("similarity_")
        }
    except Exception as error:  # Of the many ways to be no such checkpoint.
        raise ModelError(
            f"the weights cannot be read ({type(error).__name__})",
            path,
            "Reinstall it with: pip install --force-reinstall --no-deps resemblyzer",
        ) from error
