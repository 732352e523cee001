"""What an estimate is judged by: the named losses of a phase, added up by its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from speakup.errors import ConfigError
from speakup.training import perception
from speakup.training.losses import (
    SPECTRAL_LOSSES,
    compressed_losses,
    scale_invariant_distortion,
    spectral_losses,
)
from speakup.training.recipe import Phase

_COMPRESSED = ("spectrum", "pauses")
COSTLY = (*perception.LOSSES, "discriminator", "adversarial", "feature")
ADVERSARIAL = ("adversarial", "feature")
REGRESSION = (*SPECTRAL_LOSSES, *_COMPRESSED, "distortion")
LOSSES = (*REGRESSION, *perception.LOSSES, *ADVERSARIAL)


class Objective(nn.Module):
    """Compute those losses that a phase weighs; the adversary's are added by the trainer.

    Args:
        phase: Weights, resolutions, and how many signals of a batch the costly losses hear.

    Shape: estimate, clean and degraded (B, T) -> loss name -> scalar; `costly` losses only where
    they are asked for.

    Raises:
        ConfigError: the phase names a loss that there is not, has none for regression, or a
            package that a loss needs is not installed.
    """

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        check_losses(phase.losses, phase.name)
        self.weights = dict(phase.losses)
        self.resolutions = list(phase.resolutions)
        heard = set(self.weights) & set(perception.LOSSES)
        self.listeners = perception.Listeners(heard, phase.optimiser.judged)

    def forward(
        self, estimate: Tensor, clean: Tensor, degraded: Tensor, *, costly: bool = True
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self._weighs(SPECTRAL_LOSSES):
            losses |= spectral_losses(estimate, clean, self.resolutions, self.weights)
        if self._weighs(_COMPRESSED):
            losses |= compressed_losses(estimate, clean, degraded, self.resolutions)
        if "distortion" in self.weights:
            losses["distortion"] = scale_invariant_distortion(estimate, clean)
        return losses | self.listeners(estimate, clean) if costly else losses

    def total(self, losses: Mapping[str, Tensor], shares: Mapping[str, float]) -> Tensor:
        """Add up those losses that have a weight, each times its share of a step's mean."""
        terms = [
            weight * shares[name] * losses[name]
            for name, weight in self.weights.items()
            if name in losses
        ]
        return torch.stack(terms).sum()

    def _weighs(self, names: tuple[str, ...]) -> bool:
        return not set(names).isdisjoint(self.weights)


def check_losses(weights: Mapping[str, float], where: str) -> None:
    """Raise a ConfigError where a loss is unknown, or none is for steps without an adversary."""
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown:
        known = ", ".join(LOSSES)
        raise ConfigError(f"unknown loss {', '.join(unknown)}", where, f"Known: {known}")
    if set(weights).isdisjoint(REGRESSION):
        raise ConfigError(
            "has no loss for the steps before the discriminators",
            where,
            f"Weigh at least one of {', '.join(REGRESSION)}",
        )
