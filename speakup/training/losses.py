"""Training losses with names; each compares an estimate with a reference, both (B, T)."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speakup.networks import spectra

_POWER_FLOOR = 1e-8
_SILENCE = 1e-8
_PATCH_SAMPLES = 1_408

SPECTRAL_LOSSES = ("complex", "magnitude", "log_spectral", "envelope")


def spectral_losses(
    estimate: Tensor,
    reference: Tensor,
    resolutions: list[tuple[int, int]],
    names: Collection[str] = SPECTRAL_LOSSES,
) -> dict[str, Tensor]:
    """Compare compressed and logarithmic spectra, averaged over several STFT resolutions.

    Args:
        estimate: (B, T) float32.
        reference: (B, T) float32.
        resolutions: (n_fft, hop_length) of each STFT.
        names: Of those wanted: the others cost nothing.

    Returns:
        complex: squared error of spectra with magnitudes compressed to the power 0.3
            (Braun & Tashev 2020, arXiv 2009.12286, eq. 5).
        magnitude: squared error of those magnitudes alone.
        log_spectral: distance of log10 power spectra, root mean square over bins, mean over
            frames: the measure LSD itself.
        envelope: distance of the log10 power of patches about 9/2048 of the sample rate high and
            1400 samples long: within them noise is as good as any other.
    """
    totals = {name: estimate.new_zeros(()) for name in SPECTRAL_LOSSES if name in names}
    for n_fft, hop_length in resolutions:
        one = spectra.stft(estimate, n_fft, hop_length, root_window=False)
        two = spectra.stft(reference, n_fft, hop_length, root_window=False)
        power_one = one.real.square() + one.imag.square() + _POWER_FLOOR
        power_two = two.real.square() + two.imag.square() + _POWER_FLOOR
        if "complex" in totals:
            difference = one * power_one.pow(-0.35) - two * power_two.pow(-0.35)
            totals["complex"] += (difference.real.square() + difference.imag.square()).mean()
        if "magnitude" in totals:
            totals["magnitude"] += (power_one.pow(0.15) - power_two.pow(0.15)).square().mean()
        if "log_spectral" in totals:
            distance = (power_one.log10() - power_two.log10()).square().mean(1)
            totals["log_spectral"] += (distance + 1e-6).sqrt().mean()
        if "envelope" in totals:
            first, second = (_patches(one, n_fft, hop_length) for one in (power_one, power_two))
            totals["envelope"] += (first.log10() - second.log10()).abs().mean()
    return {name: total / len(resolutions) for name, total in totals.items()}


def _patches(power: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Give the mean of patches of a power spectrogram (B, F, N) that overlap by half."""
    bins, frames = n_fft // 228 | 1, max(1, _PATCH_SAMPLES // hop_length) | 1
    stride = (bins // 2 + 1, 2)
    return functional.avg_pool2d(power[:, None], (bins, frames), stride)


_SPEECH_RMS = 10.0 ** (-25.0 / 20.0)
_COMPRESSED_FLOOR = 1e-5


def compressed_losses(
    estimate: Tensor, reference: Tensor, degraded: Tensor, resolutions: list[tuple[int, int]]
) -> dict[str, Tensor]:
    """Compare compressed spectra, and logarithmic ones down to 43 dB under a voice's bins.

    All are brought to the level at which the reference lies at -25 dB, or, where it is more than
    9 dB under the degraded signal, that one at -16 dB: a faint voice counts like a loud one.

    Args:
        estimate: (B, T) float32.
        reference: (B, T) float32.
        degraded: (B, T) float32, what the estimate was made from.
        resolutions: (n_fft, hop_length) of each STFT.

    Returns:
        spectrum: squared error of complex spectra with magnitudes compressed to the power 0.3,
            plus twice that of these magnitudes, mean over the resolutions (Braun & Tashev 2020,
            arXiv 2009.12286, eq. 5).
        pauses: mean absolute difference of log10 powers above the floor at the first resolution:
            what is left in pauses is heard by it alone.
    """
    level = torch.maximum(spectra.rms(reference), 0.35 * spectra.rms(degraded)).clamp_min(1e-4)
    one, two = estimate * (_SPEECH_RMS / level), reference * (_SPEECH_RMS / level)
    spectrum, pauses = [], []
    for n_fft, hop_length in resolutions:
        with torch.no_grad():
            wanted = spectra.stft(two, n_fft, hop_length, root_window=False)
        found = spectra.stft(one, n_fft, hop_length, root_window=False)
        distance, level_distance = _CompressedDistance.apply(found, wanted)  # type: ignore[no-untyped-call]
        spectrum.append(distance)
        pauses.append(level_distance)
    return {"spectrum": torch.stack(spectrum).mean(), "pauses": pauses[0]}


class _CompressedDistance(torch.autograd.Function):
    """Compare two complex spectra, with the derivative written out: a fifth of autograd's time.

    With P = |X|^2 + floor, s = P^-0.35, a = P^0.15, L = log P, and y marking the reference's:
    spectrum = |X s - Y sy|^2 + 2 (a - ay)^2, level = |L - Ly| / log 10, both mean over bins;
    their derivatives by X are 2 s D - 1.4 s Re(D X*) / P X + 1.2 (a - ay) a / P X, where
    D = X s - Y sy, and 2 sign(L - Ly) / (P log 10) X.
    """

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        log, wanted_log = _log_power(found), _log_power(wanted)
        shape, size = (-0.35 * log).exp_(), (0.15 * log).exp_()
        difference = found * shape - wanted * (-0.35 * wanted_log).exp_()
        size_difference = size - (0.15 * wanted_log).exp_()
        log_difference = log - wanted_log
        real, imaginary = difference.real, difference.imag
        along = real * found.real
        along.addcmul_(imaginary, found.imag)
        count, inverse = log.numel(), (-log).exp_()
        distance = (real.square().sum() + imaginary.square().sum()) / count
        distance = distance + 2.0 * size_difference.square().sum() / count
        level_distance = log_difference.abs().sum() / (count * math.log(10.0))
        radial = (along.mul_(shape).mul_(-1.4)).add_(size_difference.mul_(size), alpha=1.2)
        ctx.by_spectrum = difference.mul_(2.0 * shape).add_(found * radial.mul_(inverse))
        ctx.by_level = log_difference.sign_().mul_(inverse).mul_(2.0 / math.log(10.0))
        ctx.found, ctx.count = found, count
        return distance, level_distance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        by_distance, by_level_distance = (gradient / ctx.count for gradient in gradients)
        change = ctx.by_spectrum * by_distance
        return change.add_(ctx.found * (ctx.by_level * by_level_distance)), None


def _log_power(spectrum: Tensor) -> Tensor:
    real, imaginary = spectrum.real, spectrum.imag
    return (real * real).addcmul_(imaginary, imaginary).add_(_COMPRESSED_FLOOR).log_()


def scale_invariant_distortion(estimate: Tensor, reference: Tensor) -> Tensor:
    """Give the mean negative scale-invariant signal-to-distortion ratio in dB, at most 30 dB.

    Where the reference is silent there is no ratio, and nothing counts.

    Reference:
        Le Roux et al. 2019, arXiv 1811.02508, eq. 4.
    """
    energy = reference.square().sum(-1, keepdim=True) + 1e-5
    target = (estimate * reference).sum(-1, keepdim=True) / energy * reference
    error = (estimate - target).square().sum(-1) + 1e-5
    ratio = (target.square().sum(-1) + 1e-5) / (error + 1e-3 * target.square().sum(-1))
    sounds = reference.square().mean(-1) > _SILENCE
    return -10.0 * (ratio.log10() * sounds).mean()


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
