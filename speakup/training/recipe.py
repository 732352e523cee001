"""One file per run: a recipe is TOML, read into frozen dataclasses with strict keys."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speakup.errors import ConfigError


@dataclass(frozen=True)
class DataRecipe:
    """Where the material lies: patterns relative to the data folder -> weight."""

    speech: dict[str, float]
    noise: dict[str, float] = field(default_factory=dict)
    rooms: dict[str, float] = field(default_factory=dict)
    sample_rate: int = 16_000
    music: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimiserRecipe:
    """The generator's and discriminators' AdamW, and the schedule counted in steps.

    `judged` is how many signals of a micro-batch the quality predictor hears: each costs as much
    as four of all the rest.
    """

    steps: int
    batch: int = 8
    micro_batch: int = 4
    segment_seconds: float = 3.0
    learning_rate: float = 1e-3
    discriminator_learning_rate: float = 4e-4
    warmup_steps: int = 200
    decay_steps: int = 2_000
    final_share: float = 0.03
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average: float = 0.999
    judged: int = 1
    seed: int = 0


@dataclass(frozen=True)
class AdversaryRecipe:
    """The discriminators: their views, and the step from which they take part."""

    from_step: int
    bands: tuple[tuple[int, int], ...] = ()
    spectral: tuple[tuple[int, int], ...] = ()
    periods: tuple[int, ...] = ()
    channels: int = 16


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run.

    Attributes:
        name: The model id that comes out.
        task: "denoise" or "upsample".
        architecture: A key of `speakup.networks.ARCHITECTURES`.
        hyperparameters: The architecture's keyword arguments.
        losses: Loss name -> weight.
        resolutions: (n_fft, hop_length) of the spectral losses.
        simulation: Fields of the task's simulation recipe that differ from its defaults.
        start_from: Weights to begin with: a model folder or checkpoint, whose network may have
            fewer blocks, or several to average; None for random ones.
    """

    name: str
    task: str
    architecture: str
    hyperparameters: dict[str, Any]
    data: DataRecipe
    optimiser: OptimiserRecipe
    losses: dict[str, float]
    resolutions: tuple[tuple[int, int], ...]
    simulation: dict[str, Any] = field(default_factory=dict)
    adversary: AdversaryRecipe | None = None
    start_from: str | tuple[str, ...] | None = None
    description: str = ""


_SECTIONS = {"data": DataRecipe, "optimiser": OptimiserRecipe, "adversary": AdversaryRecipe}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: the file is missing, is no TOML, or has unknown or missing keys.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe ({error.strerror})", path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not a TOML recipe ({error})", path) from error
    for section, kind in _SECTIONS.items():
        if section in values:
            values[section] = build(kind, values[section], f"{path} [{section}]")
    recipe: Recipe = build(Recipe, values, str(path))
    if recipe.task not in ("denoise", "upsample"):
        raise ConfigError(f"task is {recipe.task!r}", path, "Choose denoise or upsample")
    if not recipe.data.speech:
        raise ConfigError("names no speech to train on", path)
    return recipe


def build(kind: type[Any], values: Any, where: str) -> Any:
    """Build a dataclass from TOML values; lists become tuples; unknown keys are fatal."""
    if not isinstance(values, dict):
        raise ConfigError("is no table of keys and values", where)
    known = {item.name for item in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"unknown key {', '.join(unknown)}", where, f"Known: {', '.join(sorted(known))}"
        )
    try:
        return kind(**{name: _freeze(value) for name, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"a key is missing ({error})", where) from error


def _freeze(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    return value
