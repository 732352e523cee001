"""Band limits drawn on the fly: what the upsampler hears, and what it is to make of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from speakup import dsp
from speakup.catalogue import load_model
from speakup.stages import DENOISER_RATE, SPEECH_LEVEL_DB
from speakup.training.data import Corpus
from speakup.training.simulate import (
    DenoiseRecipe,
    DenoiseSimulator,
    between,
    chance,
    coloured,
    low_pass,
    stretched,
)

ROOM_AND_NOISE = DenoiseRecipe(reverb=0.3, equaliser=0.0, band_limit=0.0, clipping=0.05)
"""What happens to voices before they are restored: nothing that would recolour them for good, as
the top that is to be written has the old colour."""


@dataclass(frozen=True)
class UpsampleRecipe:
    """Which band limits the upsampler trains on; frequencies in Hz, probabilities in [0, 1].

    Edges are `simulate.low_pass`'s, their width a share of the cutoff.
    `restored` voices have been noisy, and the model `denoiser` has cleaned them: theirs is the
    band that the upsampler hears after the denoiser. `speed` is how many voices are played up to a
    fifth faster, which makes other speakers of them, with a top to the end; `equaliser` how many
    are coloured as by another microphone.
    """

    cutoff_hz: tuple[float, float] = (3_400.0, 16_000.0)
    common_cutoffs_hz: tuple[float, ...] = (3_900.0, 5_400.0, 7_900.0, 11_000.0)
    common: float = 0.6
    edge_width: tuple[float, float] = (0.005, 0.06)
    edge_exponent: tuple[float, float] = (1.0, 1.0)
    cutoff_error: float = 0.02
    level_spread_db: float = 8.0
    speed: float = 0.0
    equaliser: float = 0.0
    restored: float = 0.0
    denoiser: str = ""


class UpsampleSimulator:
    """Make (band-limited, full-band, cutoff) triples at 44.1 kHz from a speech corpus.

    Args:
        speech: Full-band voices.
        damage: Makes voices noisy at the denoiser's rate, for those that are restored.
        recipe: How often what happens.

    Raises:
        ModelError: the recipe's denoiser cannot be had.
    """

    def __init__(self, speech: Corpus, damage: DenoiseSimulator, recipe: UpsampleRecipe) -> None:
        self.speech, self.damage, self.recipe = speech, damage, recipe
        self.sample_rate = speech.sample_rate
        self.denoiser = load_model(recipe.denoiser).network if recipe.restored > 0.0 else None

    def draw(
        self, batch: int, samples: int, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a batch: band-limited (B, T), full-band (B, T) and cutoff in Hz (B,)."""
        generator = torch.Generator().manual_seed(seed)
        full = torch.stack([self._voice(samples, generator) for _ in range(batch)]).to(device)
        spread = self.recipe.level_spread_db
        wanted = SPEECH_LEVEL_DB + spread * (2.0 * torch.rand(batch, 1, generator=generator) - 1.0)
        gain = (10.0 ** (wanted / 20.0)).to(device) / dsp.rms(full).clamp_min(1e-3)
        full = full * gain
        cutoffs = torch.tensor([self._cutoff(generator) for _ in range(batch)])
        width = torch.empty(batch).uniform_(*self.recipe.edge_width, generator=generator)
        exponent = torch.empty(batch).uniform_(*self.recipe.edge_exponent, generator=generator)
        heard = self._restored(full, generator)
        edge = (cutoffs.to(device), width.to(device), self.sample_rate, exponent.to(device))
        limited = low_pass(heard, *edge)
        error = 1.0 + self.recipe.cutoff_error * torch.randn(batch, generator=generator)
        return limited, full, (cutoffs * error.clamp(0.95, 1.05)).to(device)

    def _voice(self, samples: int, generator: torch.Generator) -> Tensor:
        """Draw a full-band voice (T,), perhaps faster or through another microphone."""
        faster = 1.0
        if chance(self.recipe.speed, generator):
            faster = between(1.0, 1.2, generator)
        voice = self.speech.draw(int(samples * faster), generator)
        if len(voice) != samples:
            voice = stretched(voice, samples)
        if chance(self.recipe.equaliser, generator):
            voice = coloured(voice, self.sample_rate, generator)
        return voice

    @torch.no_grad()
    def _restored(self, full: Tensor, generator: torch.Generator) -> Tensor:
        """Replace some voices' band under 8 kHz by what the denoiser makes of it amid noise."""
        rows = []
        for voice in full:
            if self.denoiser is not None and chance(self.recipe.restored, generator):
                low = dsp.resample(voice[None], self.sample_rate, DENOISER_RATE)
                noisy, _ = self.damage.degrade(low, generator)
                denoiser = self.denoiser.to(voice.device)
                with torch.autocast(voice.device.type, torch.bfloat16):
                    clean = denoiser(noisy).float()
                both = dsp.resample(torch.cat([low, clean]), DENOISER_RATE, self.sample_rate)
                before, after = both[:, : len(voice)]
                voice = voice - before + after
            rows.append(voice)
        return torch.stack(rows)

    def _cutoff(self, generator: torch.Generator) -> float:
        if chance(self.recipe.common, generator):
            choices = self.recipe.common_cutoffs_hz
            return choices[int(torch.randint(len(choices), (1,), generator=generator))]
        low, high = self.recipe.cutoff_hz
        return math.exp(between(math.log(low), math.log(high), generator))
