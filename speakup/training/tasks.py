"""What a recipe's task draws its examples from."""

from __future__ import annotations

from pathlib import Path

from speakup.stages import DENOISER_RATE
from speakup.training.bandlimits import ROOM_AND_NOISE, UpsampleRecipe, UpsampleSimulator
from speakup.training.data import Corpus
from speakup.training.mixtures import Material, MixtureRecipe, MixtureSimulator
from speakup.training.recipe import Phase, Recipe, build
from speakup.training.simulate import DenoiseSimulator


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
    full = corpus(data.speech, data.sample_rate, data.floor_db)
    heard = [corpus(patterns) for patterns in (data.noise, data.rooms, data.music)]
    damage = DenoiseSimulator(corpus({}), heard[0], heard[1], heard[2], ROOM_AND_NOISE)
    return UpsampleSimulator(full, damage, limits)
