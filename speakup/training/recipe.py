"""One file per model: a recipe is TOML, read into frozen dataclasses with strict keys.

What stands above the first `[[phase]]` holds for all phases; a phase's own tables change single
keys of it. A recipe without phases has one, of its own name.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speakup.errors import ConfigError


@dataclass(frozen=True)
class DataRecipe:
    """Where the material lies: patterns relative to the data folder -> weight.

    Speech whose own noise lies less than `floor_db` under the voice is left out. In mixtures for
    the denoiser the weight of a folder grows with its length to the power `balance`: at 0 folders
    are heard alike, at 1 recordings are.
    """

    speech: dict[str, float]
    noise: dict[str, float] = field(default_factory=dict)
    rooms: dict[str, float] = field(default_factory=dict)
    sample_rate: int = 16_000
    music: dict[str, float] = field(default_factory=dict)
    floor_db: float = 0.0
    balance: float = 0.0


@dataclass(frozen=True)
class OptimiserRecipe:
    """The optimisers of generator and discriminators, and the schedule counted in steps.

    Attributes:
        steps: How many; 0 where the phase says `hours`.
        kind: "adamw", or "muon": its orthogonal steps for matrices, AdamW's for the rest.
        discriminator_kind: Likewise of the discriminators.
        edges: Under Muon the parts of the generator, by the beginnings of their parameters'
            names, whose matrices AdamW steps as well: its first and last layers.
        edge_rate: AdamW's rate under Muon, as a share of `learning_rate`.
        decay_steps: Over the last of which, or over all, the rate falls linearly to `final_share`.
        average: Decay of the moving average of the weights.
        costly_every: Listeners and adversary hear every so many micro-batches, the first of a step
            among them; what they say then stands for the others.
        judged: How many signals of a micro-batch the quality predictor hears.
    """

    steps: int = 0
    batch: int = 8
    micro_batch: int = 4
    segment_seconds: float = 3.0
    kind: str = "adamw"
    discriminator_kind: str = "adamw"
    edges: tuple[str, ...] = ()
    edge_rate: float = 0.5
    learning_rate: float = 1e-3
    discriminator_learning_rate: float = 4e-4
    warmup_steps: int = 200
    decay_steps: int = 2_000
    final_share: float = 0.03
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average: float = 0.999
    costly_every: int = 1
    judged: int = 1


@dataclass(frozen=True)
class AdversaryRecipe:
    """The discriminators: their views, and the step of the phase from which they take part.

    Attributes:
        from_step: The step.
        bands: (n_fft, hop_length) of each judge of bands.
        spectral: Likewise of spectra.
        patches: Likewise of patches of magnitudes.
        periods: In samples.
        channels: Width of the first layers.
        in_turn: One judge a step hears the voices, and then the next, instead of all.
        judged: How many signals of a micro-batch they hear; 0 for all.
    """

    from_step: int
    bands: tuple[tuple[int, int], ...] = ()
    spectral: tuple[tuple[int, int], ...] = ()
    patches: tuple[tuple[int, int], ...] = ()
    periods: tuple[int, ...] = ()
    channels: int = 16
    in_turn: bool = False
    judged: int = 0


@dataclass(frozen=True)
class Phase:
    """A stretch of a run under one set of rules.

    Attributes:
        name: Of the checkpoint that it leaves in the run folder.
        steps: How many optimiser steps it takes.
        seed: Of all that is drawn.
        start: Empty to go on from the phase before, or from nothing; else earlier phases, model
            folders or checkpoints, whose averaged weights' mean it begins with.
        losses: Loss name -> weight.
        resolutions: (n_fft, hop_length) of the spectral losses.
        simulation: Fields of the task's simulation recipe that differ from its defaults.
    """

    name: str
    steps: int
    seed: int
    start: tuple[str, ...]
    optimiser: OptimiserRecipe
    losses: dict[str, float]
    resolutions: tuple[tuple[int, int], ...]
    simulation: dict[str, Any] = field(default_factory=dict)
    adversary: AdversaryRecipe | None = None

    @property
    def step_hours(self) -> float:
        """Hours of audio heard in a step."""
        return self.optimiser.batch * self.optimiser.segment_seconds / 3_600.0


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run.

    Attributes:
        name: The model id that comes out.
        task: "denoise" or "upsample".
        architecture: A key of `speakup.networks.ARCHITECTURES`.
        hyperparameters: The architecture's keyword arguments.
        phases: In the order in which they are run.
    """

    name: str
    task: str
    architecture: str
    hyperparameters: dict[str, Any]
    data: DataRecipe
    phases: tuple[Phase, ...]
    description: str = ""


_OF_PHASES = ("optimiser", "losses", "resolutions", "simulation", "adversary", "seed", "start")
_TABLES = ("optimiser", "losses", "simulation", "adversary")


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
    return build_recipe(values, str(path))


def build_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Build a recipe from the values of a TOML file.

    Raises:
        ConfigError: a key is unknown or missing, or two phases have one name.
    """
    common = {key: values[key] for key in _OF_PHASES if key in values}
    rest = {key: value for key, value in values.items() if key not in (*_OF_PHASES, "phase")}
    named = values.get("phase") or [{"name": values.get("name", "")}]
    rest["phases"] = [_phase(common, own, where) for own in named]
    rest["data"] = build(DataRecipe, values.get("data"), f"{where} [data]")
    recipe: Recipe = build(Recipe, rest, where)
    if recipe.task not in ("denoise", "upsample"):
        raise ConfigError(f"task is {recipe.task!r}", where, "Choose denoise or upsample")
    if not recipe.data.speech:
        raise ConfigError("names no speech to train on", where)
    names = [phase.name for phase in recipe.phases]
    if len(set(names)) < len(names):
        raise ConfigError("has two phases of one name", where)
    return recipe


def _phase(common: Mapping[str, Any], own: Mapping[str, Any], where: str) -> Phase:
    values = {"seed": 0, "start": [], "simulation": {}, **common, **own}
    for table in _TABLES:
        if table in common and isinstance(own.get(table), dict):
            values[table] = {**common[table], **own[table]}
    # A loss that a phase weighs at 0 is not computed, and an adversary of no views takes no part.
    values["losses"] = {key: one for key, one in values.get("losses", {}).items() if one}
    values["start"] = [values["start"]] if isinstance(values["start"], str) else values["start"]
    optimiser = build(OptimiserRecipe, values.get("optimiser"), f"{where} [optimiser]")
    for kind in (optimiser.kind, optimiser.discriminator_kind):
        if kind not in ("adamw", "muon"):
            raise ConfigError(f"optimiser is {kind!r}", where, "Choose adamw or muon")
    values["optimiser"] = optimiser
    if values.get("adversary") is not None:
        values["adversary"] = build(AdversaryRecipe, values["adversary"], f"{where} [adversary]")
    hours, values["steps"] = values.pop("hours", 0.0), values.get("steps", optimiser.steps)
    if bool(hours) == bool(values["steps"]):
        raise ConfigError("says not how long it is", where, "Give either steps or hours")
    phase: Phase = build(Phase, values, where)
    if hours:
        phase = dataclasses.replace(phase, steps=math.ceil(hours / phase.step_hours))
    return phase


def build(kind: type[Any], values: Any, where: str) -> Any:
    """Build a dataclass from TOML values; lists become tuples; unknown keys are fatal."""
    if not isinstance(values, Mapping):
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
