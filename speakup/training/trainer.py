"""The training loop, straight from top to bottom: phase after phase, regression first, then a GAN.

Every step draws its batch from a generator seeded by (seed, step), so a resumed run sees what
an unbroken one would have seen.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speakup.errors import ConfigError, ModelError
from speakup.networks import ARCHITECTURES
from speakup.networks.compute import pick_device
from speakup.training.checkpoint import load_part, read_checkpoint, read_start, start_from
from speakup.training.discriminators import Discriminators
from speakup.training.losses import adversarial_loss, discriminator_loss, feature_loss
from speakup.training.muon import Muon
from speakup.training.objective import COSTLY, Objective
from speakup.training.recipe import AdversaryRecipe, OptimiserRecipe, Phase, Recipe
from speakup.training.tasks import build_simulator

CHECKPOINT = "checkpoint.pt"
_SAVE_SECONDS = 600.0


class Simulator(Protocol):
    """What a task's examples come from."""

    def draw(self, batch: int, samples: int, seed: int, device: torch.device) -> tuple[Tensor, ...]:
        """Draw a batch: degraded (B, T), clean (B, T), and what else the generator hears."""


@dataclass(frozen=True)
class TrainingLog:
    """What one report of a run says: means since the last report.

    `hours` are those of audio heard since the run began from nothing or from given weights.
    """

    phase: str
    step: int
    hours: float
    losses: dict[str, float]
    audio_seconds_per_second: float


@dataclass
class _State:
    """All that resumes a run; `renewed` is the step at which the optimisers were new."""

    phase: Phase
    generator: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    discriminators: Discriminators | None
    discriminator_optimiser: torch.optim.Optimizer | None
    objective: Objective
    step: int = 0
    hours: float = 0.0
    renewed: int = 0

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
    only: str | None = None,
    start: Path | None = None,
    device: str = "cpu",
    on_log: Callable[[TrainingLog], None] = lambda log: None,
    log_every: int = 50,
    save_seconds: float = _SAVE_SECONDS,
) -> Path:
    """Run a recipe's phases, going on from where the run folder says that it was left.

    Args:
        recipe: What to train, on what, how.
        data_root: Folder the recipe's patterns are relative to.
        run_folder: Where checkpoint.pt lies, and under phases/ what each finished phase left; the
            decoded cache lies in the folder above. Made if missing.
        only: Run one phase instead of all.
        start: A checkpoint or model folder for a run folder without one. With `only` it stands in
            for what the phase before has left: a branch from a longer run, for weights at any of
            its moments. Else the run goes on from where it was made; of a model folder with new
            optimisers.
        device: "auto", or a torch device.
        on_log: Called every `log_every` steps.
        log_every: Steps between reports.
        save_seconds: At most so long between checkpoints.

    Returns:
        The checkpoint's path.

    Raises:
        ConfigError: the recipe's data cannot be found, or it names an architecture or losses that
            there are not.
        ModelError: what to resume or to start from cannot be read or belongs to another recipe.
    """
    target = pick_device(device)
    for phase in recipe.phases:
        Objective(phase)  # What is wrong with a later phase is said before the first begins.
    if only is not None and only not in [phase.name for phase in recipe.phases]:
        raise ConfigError(f"has no phase {only!r}", recipe.name)
    run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = run_folder / CHECKPOINT
    place = checkpoint if checkpoint.exists() else start
    left = read_start(place) if place is not None else None
    if left is not None and place is not None:
        _check_network(recipe, left, place)
    names = [phase.name for phase in recipe.phases]
    reached = names.index(left["phase"]) if left is not None and left["phase"] in names else 0
    for index, phase in enumerate(recipe.phases):
        passed = index < reached if only is None else phase.name != only
        if passed or _is_done(run_folder, phase):
            continue
        torch.manual_seed(phase.seed)
        state = _begin(recipe, index, run_folder, left, target)
        left = None
        simulator = build_simulator(recipe, phase, data_root, run_folder.parent / "cache")
        _run_phase(recipe, state, simulator, run_folder, on_log, log_every, save_seconds)
        _keep(run_folder, phase)
    return checkpoint


def _run_phase(
    recipe: Recipe,
    state: _State,
    simulator: Simulator,
    run_folder: Path,
    on_log: Callable[[TrainingLog], None],
    log_every: int,
    save_seconds: float,
) -> None:
    phase, rates = state.phase, state.phase.optimiser
    device = next(state.generator.parameters()).device
    samples = int(rates.segment_seconds * recipe.data.sample_rate)
    sums: dict[str, float] = {}
    started, logged, saved = time.monotonic(), state.step, time.monotonic()
    while state.step < phase.steps:
        seed = draw_seed(phase.seed, state.step)
        torch.manual_seed(seed)  # For what networks draw by themselves.
        batch = simulator.draw(rates.batch, samples, seed, device)
        for name, value in _train_step(state, batch).items():
            sums[name] = sums.get(name, 0.0) + value
        state.step += 1
        state.hours += phase.step_hours
        if state.step % log_every == 0:
            steps = state.step - logged
            speed = steps * rates.batch * rates.segment_seconds / (time.monotonic() - started)
            means = {name: value / steps for name, value in sums.items()}
            on_log(TrainingLog(phase.name, state.step, state.hours, means, speed))
            sums, started, logged = {}, time.monotonic(), state.step
        if time.monotonic() - saved >= save_seconds:
            _save(state, recipe, run_folder / CHECKPOINT)
            saved = time.monotonic()
    _save(state, recipe, run_folder / CHECKPOINT)


def draw_seed(seed: int, step: int) -> int:
    """Give the seed of a step's batch, far from those of other runs and of other steps.

    Generators on the CPU look at its lowest 32 bits alone, so these are mixed from both.
    """
    state = np.random.SeedSequence([seed, step]).generate_state(1)
    return int(state[0])


def learning_rate_share(
    step: int, steps: int, optimiser: OptimiserRecipe, *, renewed: int = 0
) -> float:
    """Warm up linearly, stay at one, and decay linearly to the final share at the end."""
    warm = min(1.0, (step - renewed + 1) / max(1, optimiser.warmup_steps))
    left = (steps - step) / max(1, min(steps, optimiser.decay_steps))
    return min(warm, max(optimiser.final_share, min(1.0, left)))


def _kept(run_folder: Path, phase: Phase) -> Path:
    return run_folder / "phases" / f"{phase.name}.pt"


def _keep(run_folder: Path, phase: Phase) -> None:
    """Keep the checkpoint as what the phase has left."""
    kept = _kept(run_folder, phase)
    kept.parent.mkdir(exist_ok=True)
    temporary = kept.with_suffix(".part")
    shutil.copyfile(run_folder / CHECKPOINT, temporary)
    temporary.replace(kept)


def _is_done(run_folder: Path, phase: Phase) -> bool:
    kept = _kept(run_folder, phase)
    return kept.exists() and int(read_checkpoint(kept)["step"]) >= phase.steps


def _begin(
    recipe: Recipe,
    index: int,
    run_folder: Path,
    left: dict[str, Any] | None,
    device: torch.device,
) -> _State:
    """Build a phase's state: as it was left, or from its start, or as the phase before ended."""
    phase = recipe.phases[index]
    state = _build_state(recipe, phase, device)
    if left is not None:
        _restore(state, left, run_folder)
        if left["phase"] not in (phase.name, None):
            state.step = state.renewed = 0
    elif phase.start:
        earlier = {known.name: _kept(run_folder, known) for known in recipe.phases[:index]}
        start_from(state.generator, tuple(str(earlier.get(name, name)) for name in phase.start))
        state.average.load_state_dict(state.generator.state_dict())
    elif index:
        before = _kept(run_folder, recipe.phases[index - 1])
        _restore(state, read_checkpoint(before), before)
        state.step = state.renewed = 0
    return state


def _build_state(recipe: Recipe, phase: Phase, device: torch.device) -> _State:
    generator, average = _build_generator(recipe).to(device), _build_generator(recipe).to(device)
    average.requires_grad_(False).load_state_dict(generator.state_dict())
    judges = _build_discriminators(phase.adversary, device)
    judges_optimiser: torch.optim.Optimizer | None = None
    if judges is not None:
        judges_optimiser = _build_judges_optimiser(judges, phase.optimiser)
    optimiser = _build_optimiser(generator, phase.optimiser)
    objective = Objective(phase).to(device)
    return _State(phase, generator, average, optimiser, judges, judges_optimiser, objective)


def _build_generator(recipe: Recipe) -> nn.Module:
    if recipe.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"architecture is {recipe.architecture!r}",
            recipe.name,
            f"Choose from {', '.join(ARCHITECTURES)}",
        )
    try:
        generator: Any = ARCHITECTURES[recipe.architecture](**recipe.hyperparameters)
    except Exception as error:  # Whatever numbers from a file may lead to.
        raise ConfigError(f"the hyperparameters make no network ({error})", recipe.name) from error
    return generator


def _build_optimiser(generator: nn.Module, rates: OptimiserRecipe) -> torch.optim.Optimizer:
    if rates.kind == "adamw":
        return torch.optim.AdamW(
            generator.parameters(),
            lr=rates.learning_rate,
            betas=(0.8, 0.99),
            weight_decay=rates.weight_decay,
            fused=True,
        )
    return _muon(generator, rates, rates.learning_rate, rates.edges)


def _build_judges_optimiser(
    judges: Discriminators, rates: OptimiserRecipe
) -> torch.optim.Optimizer:
    rate = rates.discriminator_learning_rate
    if rates.discriminator_kind == "muon":
        return _muon(judges, rates, rate, ())
    return torch.optim.AdamW(judges.parameters(), lr=rate, betas=(0.5, 0.9), fused=True)


def _muon(network: nn.Module, rates: OptimiserRecipe, rate: float, edges: tuple[str, ...]) -> Muon:
    """Give matrices to Muon's own steps; vectors, rows, columns and edges to AdamW's."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in network.named_parameters():
        shape = weight.flatten(1).shape if weight.ndim == 4 else weight.shape[-2:]
        plain = weight.ndim < 2 or min(shape) == 1 or name.startswith(edges)
        (others if plain else matrices).append(weight)
    return Muon(
        matrices, others, lr=rate, others_lr=rates.edge_rate, weight_decay=rates.weight_decay
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
            patches=list(adversary.patches),
            periods=list(adversary.periods),
            channels=adversary.channels,
        )
    except ValueError as error:
        raise ConfigError(f"the adversary makes no network ({error})", "[adversary]") from error
    return judges.to(device)


def _train_step(state: _State, batch: tuple[Tensor, ...]) -> dict[str, float]:
    phase, rates = state.phase, state.phase.optimiser
    share = learning_rate_share(state.step, phase.steps, rates, renewed=state.renewed)
    _set_rate(state.optimiser, rates.learning_rate * share)
    adversarial = phase.adversary is not None and state.step >= phase.adversary.from_step
    logs: dict[str, float] = {}
    micro = list(_micro_batches(batch, rates.micro_batch))

    state.optimiser.zero_grad(set_to_none=True)
    for index, (degraded, clean, *condition) in enumerate(micro):
        costly = index % rates.costly_every == 0
        with torch.autocast(degraded.device.type, torch.bfloat16):
            estimate = state.generator(degraded, *condition)
        losses = state.objective(estimate, clean, degraded, costly=costly)
        if adversarial and costly:
            losses |= _adversarial_step(state, estimate, clean, share)
        heard = -(-len(micro) // rates.costly_every)
        shares = {name: 1.0 / (heard if name in COSTLY else len(micro)) for name in losses}
        state.objective.total(losses, shares).backward()
        for name, value in losses.items():
            logs[name] = logs.get(name, 0.0) + float(value.detach()) * shares[name]
    norm = nn.utils.clip_grad_norm_(state.generator.parameters(), rates.clip_norm)
    if bool(torch.isfinite(norm)):
        state.optimiser.step()
    logs["gradient_norm"] = float(norm)
    _update_average(state, rates.average)
    return logs


def _adversarial_step(
    state: _State, estimate: Tensor, clean: Tensor, share: float
) -> dict[str, Tensor]:
    """Train the discriminators on this micro-batch, then judge the estimate for the generator."""
    judges, optimiser = state.discriminators, state.discriminator_optimiser
    adversary = state.phase.adversary
    if judges is None or optimiser is None or adversary is None:
        raise AssertionError("an adversarial step without discriminators")
    _set_rate(optimiser, state.phase.optimiser.discriminator_learning_rate * share)
    judges.requires_grad_(True)
    optimiser.zero_grad(set_to_none=True)
    turn = state.step if adversary.in_turn else None
    if adversary.judged:
        # Another part of the batch each time, so that all are heard.
        heard = torch.arange(adversary.judged) + state.step * adversary.judged
        estimate, clean = estimate[heard % len(clean)], clean[heard % len(clean)]
    with torch.autocast(clean.device.type, torch.bfloat16):
        real, _ = judges(clean, turn)
        fake, _ = judges(estimate.detach(), turn)
    judged = discriminator_loss(real, fake)
    judged.backward()
    norm = nn.utils.clip_grad_norm_(judges.parameters(), 5.0)
    if bool(torch.isfinite(norm)):
        optimiser.step()

    judges.requires_grad_(False)
    with torch.autocast(clean.device.type, torch.bfloat16):
        with torch.no_grad():
            _, real_features = judges(clean, turn)
        scores, features = judges(estimate, turn)
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
    young = state.step - state.renewed
    decay = min(decay, (1.0 + young) / (10.0 + young))
    pairs = zip(state.average.parameters(), state.generator.parameters(), strict=True)
    for average, weight in pairs:
        average.lerp_(weight, 1.0 - decay)


def _save(state: _State, recipe: Recipe, checkpoint: Path) -> None:
    stored: dict[str, Any] = {name: part.state_dict() for name, part in state.parts().items()}
    stored |= {
        "phase": state.phase.name,
        "step": state.step,
        "hours": state.hours,
        "renewed": state.renewed,
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


def _check_network(recipe: Recipe, stored: dict[str, Any], checkpoint: Path) -> None:
    """Raise a ModelError where a checkpoint is of another network than the recipe's."""
    wanted = (recipe.architecture, _plain(recipe.hyperparameters))
    if (stored.get("architecture"), stored.get("hyperparameters")) != wanted:
        raise ModelError("belongs to another recipe", checkpoint, "Name another run folder")


def _restore(state: _State, stored: dict[str, Any], checkpoint: Path) -> None:
    for name, part in state.parts().items():
        if name in stored:
            settings = [dict(group) for group in getattr(part, "param_groups", ())]
            load_part(part, stored[name], checkpoint)
            for group, wanted in zip(getattr(part, "param_groups", ()), settings, strict=True):
                group.update({key: wanted[key] for key in wanted if key != "params"})
    state.step, state.hours = int(stored["step"]), float(stored["hours"])
    state.renewed = int(stored.get("renewed", 0 if "optimiser" in stored else state.step))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
