"""What a recipe's task draws its examples from."""

from __future__ import annotations

from pathlib import Path

from speakup.stages.denoise import DENOISER_RATE
from speakup.training.bandlimits import UpsampleRecipe, UpsampleSimulator
from speakup.training.data import Corpus
from speakup.training.mixtures import Material, MixtureRecipe, MixtureSimulator
from speakup.training.recipe import Phase, Recipe, build
from speakup.training.restored import Restorer
from speakup.training.voices import Voices


def build_simulator(
    recipe: Recipe, phase: Phase, data_root: Path, cache: Path
) -> MixtureSimulator | UpsampleSimulator:
    """Load the recipe's material and wrap it in the task's degradations.

    Raises:
        ConfigError: the material cannot be found, or the phase's simulation has unknown keys.
    """
    data, where = recipe.data, f"{phase.name} simulation"

    def corpus(patterns: dict[str, float], rate: int = DENOISER_RATE, floor: float = 0.0) -> Corpus:
        return Corpus(data_root, patterns, rate, cache, floor_db=floor)

    if recipe.task == "denoise":
        settings = build(MixtureRecipe, phase.simulation, where)
        voices = corpus(data.speech, data.sample_rate, data.floor_db)
        speech = Material.of(voices, balance=data.balance)
        noise = Material.of(corpus(data.noise), balance=data.balance)
        music = Material.of(corpus(data.music), balance=data.balance)
        rooms = Material.of(corpus(data.rooms), by_length=False)
        return MixtureSimulator(speech, noise, rooms, music, settings)
    limits = build(UpsampleRecipe, phase.simulation, where)

    def restorer() -> Restorer:
        noise, rooms = Material.of(corpus(data.noise)), Material.of(corpus(data.rooms))
        return Restorer(limits.denoiser, noise, rooms)

    full = Voices(
        data_root,
        dict(data.speech),
        cache,
        denoiser=limits.denoiser,
        restorer=restorer if limits.denoiser else None,
    )
    return UpsampleSimulator(full, limits)
