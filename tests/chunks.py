"""What chunks of a signal make of it, against the whole, for networks of unbounded reach."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from speakup.networks.chunks import ChunkedModel

RATE = 16_000


def voice(samples: int, seed: int = 0) -> Tensor:
    """Give syllables of a gliding voice with pauses, in noise 14 dB below, at -25 dBFS: (1, T)."""
    time = np.arange(samples) / RATE
    glide = 2.0 * np.pi * (120.0 * time + 8.0 * np.sin(2.0 * np.pi * 0.7 * time))
    tone = sum(np.sin(harmonic * glide) / harmonic for harmonic in range(1, 40))
    syllables = np.maximum(
        0.0, np.sin(3.8 * np.pi * time) + 0.4 * np.sin(0.62 * np.pi * time + 1.0)
    )
    speech = tone * syllables
    noise = np.random.default_rng(seed).standard_normal(samples)
    mixed = speech / speech.std() + 0.2 * noise
    return torch.from_numpy(mixed * (10.0 ** (-25.0 / 20.0) / mixed.std())).float()[None]


def chunked(network: nn.Module, waveform: Tensor, seconds: float) -> Tensor:
    """Run a network on a stream of (C, T), in chunks of about so many seconds."""
    model = ChunkedModel(
        network,
        channels=len(waveform),
        chunk=int(seconds * RATE),
        context=network.context_samples,
        grid=network.hop_length,
    )
    blocks = waveform.numpy()
    parts = [model.push(blocks[:, at : at + 5_000]) for at in range(0, blocks.shape[1], 5_000)]
    return torch.from_numpy(np.concatenate([*parts, model.flush()], axis=1))


def away_db(estimate: Tensor, reference: Tensor) -> float:
    """Give the level of the difference against that of the reference."""
    assert estimate.shape == reference.shape
    ratio = (estimate - reference).double().square().mean() / reference.double().square().mean()
    return 10.0 * math.log10(float(ratio) + 1e-30)
