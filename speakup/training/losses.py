"""Training losses with names; each compares an estimate with a reference, both (B, T)."""

from __future__ import annotations

import torch
from torch import Tensor

from speakup.networks import spectra

_POWER_FLOOR = 1e-8


def spectral_losses(
    estimate: Tensor, reference: Tensor, resolutions: list[tuple[int, int]]
) -> dict[str, Tensor]:
    """Compare compressed and logarithmic spectra, averaged over several STFT resolutions.

    Args:
        estimate: (B, T) float32.
        reference: (B, T) float32.
        resolutions: (n_fft, hop_length) of each STFT.

    Returns:
        complex: squared error of spectra with magnitudes compressed to the power 0.3
            (Braun & Tashev 2020, arXiv 2009.12286, eq. 5).
        magnitude: squared error of those magnitudes alone.
        log_spectral: distance of log10 power spectra, root mean square over bins, mean over
            frames: the measure LSD itself.
    """
    totals = {name: estimate.new_zeros(()) for name in ("complex", "magnitude", "log_spectral")}
    for n_fft, hop_length in resolutions:
        one = spectra.stft(estimate, n_fft, hop_length, root_window=False)
        two = spectra.stft(reference, n_fft, hop_length, root_window=False)
        first, second = torch.view_as_real(one), torch.view_as_real(two)
        power_one = first.square().sum(-1) + _POWER_FLOOR
        power_two = second.square().sum(-1) + _POWER_FLOOR
        shape_one, shape_two = power_one.pow(-0.35), power_two.pow(-0.35)
        difference = first * shape_one[..., None] - second * shape_two[..., None]
        totals["complex"] += difference.square().sum(-1).mean()
        totals["magnitude"] += (power_one.pow(0.15) - power_two.pow(0.15)).square().mean()
        distance = (power_one.log10() - power_two.log10()).square().mean(1)
        totals["log_spectral"] += (distance + 1e-6).sqrt().mean()
    return {name: total / len(resolutions) for name, total in totals.items()}


def scale_invariant_distortion(estimate: Tensor, reference: Tensor) -> Tensor:
    """Give the mean negative scale-invariant signal-to-distortion ratio in dB, at most 30 dB.

    Reference:
        Le Roux et al. 2019, arXiv 1811.02508, eq. 4.
    """
    energy = reference.square().sum(-1, keepdim=True) + 1e-5
    target = (estimate * reference).sum(-1, keepdim=True) / energy * reference
    error = (estimate - target).square().sum(-1) + 1e-5
    ratio = (target.square().sum(-1) + 1e-5) / (error + 1e-3 * target.square().sum(-1))
    return -10.0 * ratio.log10().mean()


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Give the least-squares loss of discriminators whose scores should be 1 for real, 0 for fake.

    Reference:
        Mao et al. 2017, arXiv 1611.04076, eq. 9.
    """
    terms = [
        (1.0 - one).square().mean() + two.square().mean()
        for one, two in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[Tensor]) -> Tensor:
    """Give the generator's least-squares loss against every discriminator's score."""
    return torch.stack([(1.0 - score).square().mean() for score in fake]).mean()


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Match the discriminators' hidden features, each scaled by its mean size (deep features).

    Reference:
        Su et al. 2020, arXiv 2006.05694, section 2.3; Kumar et al. 2019, arXiv 1910.06711, eq. 4.
    """
    terms = [
        (one.detach() - two).abs().mean() / one.detach().abs().mean().clamp_min(1e-3)
        for reals, fakes in zip(real, fake, strict=True)
        for one, two in zip(reals, fakes, strict=True)
    ]
    return torch.stack(terms).mean()
