"""Distill-MOS: one opinion on speech quality, 1 to 5, by a network distilled from a large one.

The package distillmos carries the weights (MIT). It imports torchaudio, which loads beside few
builds of PyTorch; where it does not, this judge is not there.

Reference:
    Stahl and Gamper 2025, arXiv 2502.05356.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
from typing import Any

import numpy as np
import torch

from speakup.judge import metrics
from speakup.judge.scores import Scores


def available() -> bool:
    """Tell whether the package is installed and loads."""
    return _network() is not None


def score(estimate: metrics.Signal, reference: metrics.Signal, sample_rate: int) -> Scores:
    """Give the opinion on the estimate as `distillmos`; the reference is not listened to."""
    samples = metrics.resample(metrics.mono(estimate), sample_rate, metrics.SPEECH_RATE)
    if not samples.any():
        return {"distillmos": math.nan}
    network = _network()
    assert network is not None, "ask available() first"
    with torch.inference_mode():
        opinion = network(torch.from_numpy(samples.astype(np.float32))[None])
    return {"distillmos": float(opinion)}


@functools.cache
def _network() -> Any:
    """Build the network once per process; None where it cannot be had."""
    try:
        package = importlib.import_module("distillmos")
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where its weights lie
            return package.ConvTransformerSQAModel().eval()
    except (ImportError, OSError, RuntimeError):  # OSError: torchaudio's library does not load
        return None
