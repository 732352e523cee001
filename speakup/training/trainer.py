"""The training loop, straight from top to bottom: regression first, then a GAN.

Every step draws its batch from a generator seeded by (seed, step), so a resumed run sees what
an unbroken one would have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speakup.errors import ConfigError
from speakup.networks import ARCHITECTURES
from speakup.networks.compute import pick_device
from speakup.stages.denoise import DENOISER_RATE
from speakup.training import perception
from speakup.training.bandlimits import ROOM_AND_NOISE, UpsampleRecipe, UpsampleSimulator
from speakup.training.checkpoint import load_part, read_checkpoint, start_from
from speakup.training.data import Corpus
from speakup.training.discriminators import Discriminators
from speakup.training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    scale_invariant_distortion,
    spectral_losses,
)
from speakup.training.recipe import AdversaryRecipe, OptimiserRecipe, Recipe, build
from speakup.training.simulate import DenoiseRecipe, DenoiseSimulator

Simulator = DenoiseSimulator | UpsampleSimulator

_REGRESSION_LOSSES = ("complex", "magnitude", "log_spectral", "distortion")
_ADVERSARIAL_LOSSES = ("adversarial", "feature")


@dataclass(frozen=True)
class TrainingLog:
    """What one report of a run says: means since the last report."""

    step: int
    losses: dict[str, float]
    audio_seconds_per_second: float


@dataclass
class _State:
    """All that resumes a run."""

    generator: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    discriminators: Discriminators | None
    discriminator_optimiser: torch.optim.Optimizer | None
    listeners: perception.Listeners
    step: int = 0

    def parts(self) -> dict[str, Any]:
        named = {
            "generator": self.generator,
            "average": self.average,
            "optimiser": self.optimiser,
            "discriminators": self.discriminators,
            "discriminator_optimiser": self.discriminator_optimiser,
        }
        return {name: part for name, part in named.items() if part is not None}


def train(
    recipe: Recipe,
    data_root: Path,
    run_folder: Path,
    *,
    device: str = "cpu",
    on_log: Callable[[TrainingLog], None] = lambda log: None,
    log_every: int = 50,
    save_every: int = 500,
) -> Path:
    """Train a generator by its recipe, resuming from the run folder's checkpoint if there is one.

    Args:
        recipe: What to train, on what, how.
        data_root: Folder the recipe's patterns are relative to.
        run_folder: Where checkpoint.pt and the decoded cache live; made if missing.
        device: "auto", or a torch device.
        on_log: Called every `log_every` steps.
        log_every: Steps between reports.
        save_every: Steps between checkpoints.

    Returns:
        The checkpoint's path.

    Raises:
        ConfigError: the recipe's data cannot be found, or it names an architecture or losses that
            there are not.
        ModelError: what to resume or to start from cannot be read or belongs to another recipe.
    """
    _check_losses(recipe)
    target = pick_device(device)
    torch.manual_seed(recipe.optimiser.seed)
    state = _build_state(recipe, target)
    simulator = build_simulator(recipe, data_root, run_folder.parent / "cache")
    checkpoint = run_folder / "checkpoint.pt"
    run_folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        _restore(state, checkpoint)

    optimiser = recipe.optimiser
    samples = int(optimiser.segment_seconds * recipe.data.sample_rate)
    sums: dict[str, float] = {}
    started, logged = time.monotonic(), state.step
    while state.step < optimiser.steps:
        random = torch.Generator().manual_seed(draw_seed(optimiser.seed, state.step))
        batch = simulator.draw(optimiser.batch, samples, random, target)
        for name, value in _train_step(recipe, state, batch).items():
            sums[name] = sums.get(name, 0.0) + value
        state.step += 1
        if state.step % log_every == 0:
            steps = state.step - logged
            seconds = steps * optimiser.batch * optimiser.segment_seconds
            speed = seconds / (time.monotonic() - started)
            on_log(TrainingLog(state.step, {k: v / steps for k, v in sums.items()}, speed))
            sums, started, logged = {}, time.monotonic(), state.step
        if state.step % save_every == 0 or state.step == optimiser.steps:
            _save(state, recipe, checkpoint)
    return checkpoint


def build_simulator(recipe: Recipe, data_root: Path, cache: Path) -> Simulator:
    """Load the recipe's material and wrap it in the task's degradations."""

    def corpus(patterns: dict[str, float], sample_rate: int) -> Corpus:
        return Corpus(data_root, patterns, sample_rate, cache)

    def damage(speech: Corpus, settings: DenoiseRecipe) -> DenoiseSimulator:
        noise, rooms, music = (
            corpus(patterns, DENOISER_RATE)
            for patterns in (recipe.data.noise, recipe.data.rooms, recipe.data.music)
        )
        return DenoiseSimulator(speech, noise, rooms, music, settings)

    speech = corpus(recipe.data.speech, recipe.data.sample_rate)
    if recipe.task == "denoise":
        return damage(speech, build(DenoiseRecipe, recipe.simulation, "[simulation]"))
    settings = build(UpsampleRecipe, recipe.simulation, "[simulation]")
    nobody = corpus({}, DENOISER_RATE)
    return UpsampleSimulator(speech, damage(nobody, ROOM_AND_NOISE), settings)


def draw_seed(seed: int, step: int) -> int:
    """Give the seed of a step's batch, far from those of other runs and of other steps.

    Generators on the CPU look at its lowest 32 bits alone, so these are mixed from both.
    """
    state = np.random.SeedSequence([seed, step]).generate_state(1)
    return int(state[0])


def learning_rate_share(step: int, optimiser: OptimiserRecipe) -> float:
    """Warm up linearly, stay at one, and decay linearly to the final share at the end."""
    warm = min(1.0, (step + 1) / max(1, optimiser.warmup_steps))
    left = (optimiser.steps - step) / max(1, optimiser.decay_steps)
    return min(warm, max(optimiser.final_share, min(1.0, left)))


def _build_state(recipe: Recipe, device: torch.device) -> _State:
    generator, average = _build_generator(recipe).to(device), _build_generator(recipe).to(device)
    if recipe.start_from is not None:
        start_from(generator, recipe.start_from)
    average.requires_grad_(False).load_state_dict(generator.state_dict())
    rates = recipe.optimiser
    optimiser = torch.optim.AdamW(
        generator.parameters(),
        lr=rates.learning_rate,
        betas=(0.8, 0.99),
        weight_decay=rates.weight_decay,
        fused=True,
    )
    judges = _build_discriminators(recipe.adversary, device)
    judges_optimiser: torch.optim.Optimizer | None = None
    if judges is not None:
        judges_optimiser = torch.optim.AdamW(
            judges.parameters(), lr=rates.discriminator_learning_rate, betas=(0.5, 0.9), fused=True
        )
    heard = set(recipe.losses) & set(perception.LOSSES)
    listeners = perception.Listeners(heard, rates.judged).to(device)
    return _State(generator, average, optimiser, judges, judges_optimiser, listeners)


def _build_generator(recipe: Recipe) -> nn.Module:
    if recipe.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"architecture is {recipe.architecture!r}",
            recipe.name,
            f"Choose from {', '.join(ARCHITECTURES)}",
        )
    try:
        return ARCHITECTURES[recipe.architecture](**recipe.hyperparameters)
    except Exception as error:  # Whatever numbers from a file may lead to.
        raise ConfigError(f"the hyperparameters make no network ({error})", recipe.name) from error


def _check_losses(recipe: Recipe) -> None:
    names = (*_REGRESSION_LOSSES, *perception.LOSSES, *_ADVERSARIAL_LOSSES)
    unknown = sorted(set(recipe.losses) - set(names))
    if unknown:
        known = ", ".join(names)
        raise ConfigError(f"unknown loss {', '.join(unknown)}", recipe.name, f"Known: {known}")
    if not set(recipe.losses) & set(_REGRESSION_LOSSES):
        raise ConfigError(
            "has no loss for the steps before the discriminators",
            recipe.name,
            f"Weigh at least one of {', '.join(_REGRESSION_LOSSES)}",
        )


def _build_discriminators(
    adversary: AdversaryRecipe | None, device: torch.device
) -> Discriminators | None:
    if adversary is None:
        return None
    try:
        judges = Discriminators(
            bands=list(adversary.bands),
            spectral=list(adversary.spectral),
            periods=list(adversary.periods),
            channels=adversary.channels,
        )
    except ValueError as error:
        raise ConfigError(f"the adversary makes no network ({error})", "[adversary]") from error
    return judges.to(device)


def _train_step(recipe: Recipe, state: _State, batch: tuple[Tensor, ...]) -> dict[str, float]:
    share = learning_rate_share(state.step, recipe.optimiser)
    _set_rate(state.optimiser, recipe.optimiser.learning_rate * share)
    adversary = recipe.adversary
    adversarial = adversary is not None and state.step >= adversary.from_step
    logs: dict[str, float] = {}
    micro = list(_micro_batches(batch, recipe.optimiser.micro_batch))

    state.optimiser.zero_grad(set_to_none=True)
    for degraded, clean, *condition in micro:
        with torch.autocast(degraded.device.type, torch.bfloat16):
            estimate = state.generator(degraded, *condition)
        losses = _regression_losses(recipe, estimate, clean) | state.listeners(estimate, clean)
        if adversarial:
            losses |= _adversarial_step(state, estimate, clean, share, recipe.optimiser)
        total = torch.stack(
            [weight * losses[name] for name, weight in recipe.losses.items() if name in losses]
        ).sum()
        (total / len(micro)).backward()
        for name, value in losses.items():
            logs[name] = logs.get(name, 0.0) + float(value.detach()) / len(micro)
    norm = nn.utils.clip_grad_norm_(state.generator.parameters(), recipe.optimiser.clip_norm)
    if bool(torch.isfinite(norm)):
        state.optimiser.step()
    logs["gradient_norm"] = float(norm)
    _update_average(state, recipe.optimiser.average)
    return logs


def _regression_losses(recipe: Recipe, estimate: Tensor, clean: Tensor) -> dict[str, Tensor]:
    losses = spectral_losses(estimate, clean, list(recipe.resolutions))
    if "distortion" in recipe.losses:
        losses["distortion"] = scale_invariant_distortion(estimate, clean)
    return losses


def _adversarial_step(
    state: _State, estimate: Tensor, clean: Tensor, share: float, rates: OptimiserRecipe
) -> dict[str, Tensor]:
    """Train the discriminators on this micro-batch, then judge the estimate for the generator."""
    judges, optimiser = state.discriminators, state.discriminator_optimiser
    if judges is None or optimiser is None:
        raise AssertionError("an adversarial step without discriminators")
    _set_rate(optimiser, rates.discriminator_learning_rate * share)
    judges.requires_grad_(True)
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast(clean.device.type, torch.bfloat16):
        real, _ = judges(clean)
        fake, _ = judges(estimate.detach())
    judged = discriminator_loss(real, fake)
    judged.backward()
    norm = nn.utils.clip_grad_norm_(judges.parameters(), 5.0)
    if bool(torch.isfinite(norm)):
        optimiser.step()

    judges.requires_grad_(False)
    with torch.autocast(clean.device.type, torch.bfloat16):
        with torch.no_grad():
            _, real_features = judges(clean)
        scores, features = judges(estimate)
    return {
        "discriminator": judged.detach(),
        "adversarial": adversarial_loss(scores),
        "feature": feature_loss(real_features, features),
    }


def _micro_batches(batch: tuple[Tensor, ...], size: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(part.split(size) for part in batch), strict=True)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


@torch.no_grad()
def _update_average(state: _State, decay: float) -> None:
    """Keep an exponential moving average of the weights, shorter while training is young."""
    decay = min(decay, (1.0 + state.step) / (10.0 + state.step))
    pairs = zip(state.average.parameters(), state.generator.parameters(), strict=True)
    for average, weight in pairs:
        average.lerp_(weight, 1.0 - decay)


def _save(state: _State, recipe: Recipe, checkpoint: Path) -> None:
    stored: dict[str, Any] = {name: part.state_dict() for name, part in state.parts().items()}
    stored |= {
        "step": state.step,
        "name": recipe.name,
        "task": recipe.task,
        "architecture": recipe.architecture,
        "hyperparameters": _plain(recipe.hyperparameters),
        "sample_rate": recipe.data.sample_rate,
        "description": recipe.description,
    }
    temporary = checkpoint.with_suffix(".part")
    torch.save(stored, temporary)
    temporary.replace(checkpoint)


def _restore(state: _State, checkpoint: Path) -> None:
    stored = read_checkpoint(checkpoint)
    for name, part in state.parts().items():
        if name in stored:
            load_part(part, stored[name], checkpoint)
    state.step = int(stored["step"])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
