"""Voices that were noisy, as the denoiser leaves them: what the upsampler hears behind it."""

from __future__ import annotations

import numpy as np
import torch

from speakup.models.catalogue import load_model
from speakup.stages.denoise import DENOISER_RATE
from speakup.training.mixtures import Material, MixtureRecipe, MixtureSimulator
from speakup.training.voices import Signal

_PIECE_SECONDS = 10
_SHORTEST_SECONDS = 1

MIXTURE = MixtureRecipe(
    joined=0.0,
    speed=0.0,
    narrow=0.0,
    coloured=0.0,
    second_voice=0.0,
    music=0.0,
    room=0.35,
    noise=1.0,
    noise_alone=0.0,
    snr_db=(-2.0, 20.0),
    clipping=0.05,
    codec=0.0,
    loss=0.0,
    device=0.0,
    level_spread_db=3.0,
)
"""What happens to voices before they are restored: nothing that would recolour them for good, as
the top that is to be written has the old colour."""


class Restorer:
    """Make voices noisy and clean again, ten seconds at a time, each with a noise of its own.

    Args:
        denoiser: A model's name or folder.
        noise: At 16 kHz.
        rooms: Likewise.

    Raises:
        ModelError: the denoiser cannot be had.
    """

    def __init__(self, denoiser: str, noise: Material, rooms: Material) -> None:
        self._network = load_model(denoiser).network.eval()
        self._noise, self._rooms = noise, rooms

    def __call__(self, voice: Signal, random: np.random.Generator) -> Signal:
        """Give a voice (T,) at 16 kHz, restored, at the level it had."""
        size = _PIECE_SECONDS * DENOISER_RATE
        restored = voice.copy()
        for start in range(0, len(voice), size):
            piece = voice[start : start + size]
            if len(piece) >= _SHORTEST_SECONDS * DENOISER_RATE and piece.any():
                restored[start : start + size] = self._restored(piece, random)
        return restored

    def _restored(self, piece: Signal, random: np.random.Generator) -> Signal:
        recorded = np.round(piece.clip(-1.0, 1.0) * 32_767.0).astype(np.int16)
        alone = Material([[recorded]], [1.0], DENOISER_RATE)
        nothing = Material([], [], DENOISER_RATE)
        simulator = MixtureSimulator(alone, self._noise, self._rooms, nothing, MIXTURE)
        mixture, clean = simulator.example(len(piece), random)
        heard = torch.from_numpy(np.ascontiguousarray(mixture))[None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            result = self._network(heard)[0].float().numpy()
        level = np.sqrt(np.mean(np.square(piece)) / max(np.mean(np.square(clean)), 1e-12))
        return result[: len(piece)] * np.float32(level)
