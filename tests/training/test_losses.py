"""Facts about the losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speakup.networks import spectra
from speakup.training.losses import (
    adversarial_loss,
    compressed_losses,
    discriminator_loss,
    feature_loss,
    scale_invariant_distortion,
    spectral_losses,
)

RESOLUTIONS = [(512, 128), (1_024, 256)]


def white(seed: int, samples: int = 8_000) -> Tensor:
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


def test_equal_signals_are_at_no_distance() -> None:
    losses = spectral_losses(white(1), white(1), RESOLUTIONS)
    assert set(losses) == {"complex", "magnitude", "log_spectral", "envelope"}
    assert float(losses["complex"]) == float(losses["magnitude"]) == 0.0
    assert float(losses["envelope"]) == 0.0
    assert float(losses["log_spectral"]) == pytest.approx(1e-3)  # the root's floor


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_scaled_signal_is_at_the_distance_of_its_level(factor: float) -> None:
    losses = spectral_losses(factor * white(1), white(1), RESOLUTIONS)
    assert float(losses["log_spectral"]) == pytest.approx(2.0, abs=1e-3)
    # |X|^0.3 and |k X|^0.3 differ by |X|^0.3 (1 - k^0.3), and so do the compressed spectra.
    doubled = spectral_losses(2.0 * white(1), white(1), RESOLUTIONS)
    share = ((1.0 - factor**0.3) / (1.0 - 2.0**0.3)) ** 2
    for name in ("magnitude", "complex"):
        assert float(losses[name]) == pytest.approx(share * float(doubled[name]), rel=0.01)


def test_a_flipped_sign_is_seen_by_the_complex_distance_alone() -> None:
    losses = spectral_losses(-white(1), white(1), RESOLUTIONS)
    assert float(losses["magnitude"]) == 0.0
    assert float(losses["log_spectral"]) == pytest.approx(1e-3)
    assert float(losses["complex"]) > 0.1


def test_noise_is_near_to_other_noise_by_its_envelope() -> None:
    """Bins of two noises differ by 7.9 dB (0.79), their patches by far less; a level by itself."""
    losses = spectral_losses(white(1), white(2), [(1_024, 256)])
    assert float(losses["log_spectral"]) == pytest.approx(0.79, abs=0.03)
    assert float(losses["envelope"]) < 0.25
    louder = spectral_losses(10.0 * white(1), white(1), RESOLUTIONS)
    assert float(louder["envelope"]) == pytest.approx(2.0, abs=1e-3)


def test_what_is_not_wanted_is_not_computed() -> None:
    assert set(spectral_losses(white(1), white(2), RESOLUTIONS, {"envelope"})) == {"envelope"}


def test_several_resolutions_count_alike() -> None:
    apart = [spectral_losses(white(1), white(2), [one])["complex"] for one in RESOLUTIONS]
    together = spectral_losses(white(1), white(2), RESOLUTIONS)["complex"]
    assert float(together) == pytest.approx(float(sum(apart)) / 2, rel=1e-5)


def test_silence_has_gradients() -> None:
    estimate = torch.zeros(2, 4_000, requires_grad=True)
    losses = spectral_losses(estimate, torch.zeros(2, 4_000), RESOLUTIONS)
    (sum(losses.values()) + scale_invariant_distortion(estimate, torch.zeros(2, 4_000))).backward()
    assert estimate.grad is not None and torch.isfinite(estimate.grad).all()


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("ratio_db", [0.0, 10.0, 20.0])
def test_distortion_is_the_noise_whatever_the_level(factor: float, ratio_db: float) -> None:
    reference = white(1, 40_000)
    noise = white(2, 40_000) * 10.0 ** (-ratio_db / 20.0)
    distortion = float(scale_invariant_distortion(factor * (reference + noise), reference))
    assert distortion == pytest.approx(-ratio_db, abs=0.6)


def test_distortion_stops_at_thirty_decibels() -> None:
    assert float(scale_invariant_distortion(white(1), white(1))) == pytest.approx(-30.0, abs=0.1)


def test_judges_that_are_right_lose_nothing() -> None:
    right, wrong = [torch.ones(2, 3), torch.ones(2, 5)], [torch.zeros(2, 3), torch.zeros(2, 5)]
    assert float(discriminator_loss(right, wrong)) == 0.0
    assert float(discriminator_loss(wrong, right)) == 2.0
    half = [torch.full((2, 3), 0.5), torch.full((2, 5), 0.5)]
    assert float(discriminator_loss(half, half)) == 0.5


def test_a_generator_that_is_believed_loses_nothing() -> None:
    assert float(adversarial_loss([torch.ones(2, 3), torch.ones(2, 7)])) == 0.0
    assert float(adversarial_loss([torch.zeros(2, 3)])) == 1.0


def test_equal_features_are_at_no_distance_and_scale_does_not_count() -> None:
    features = [[white(1), white(2)], [white(3)]]
    assert float(feature_loss(features, features)) == 0.0
    doubled = [[2.0 * one for one in judge] for judge in features]
    assert float(feature_loss(features, doubled)) == pytest.approx(1.0)
    assert float(feature_loss(doubled, [[2.0 * one for one in j] for j in doubled])) == (
        pytest.approx(1.0)
    )


def test_features_of_real_speech_are_no_one_to_learn_from() -> None:
    real, fake = white(1).requires_grad_(), white(2).requires_grad_()
    feature_loss([[real]], [[fake]]).backward()
    assert real.grad is None
    assert fake.grad is not None


def test_compressed_losses_have_the_derivatives_of_their_formulas() -> None:
    """Written out by autograd from section 2 of arXiv 2009.12286 and from the definition."""
    torch.manual_seed(1)
    estimate = (0.05 * torch.randn(2, 4_000)).requires_grad_()
    reference = 0.03 * torch.randn(2, 4_000)
    degraded = reference + estimate.detach()
    found = compressed_losses(estimate, reference, degraded, [(512, 128)])
    level = torch.maximum(spectra.rms(reference), 0.35 * spectra.rms(degraded))
    heard = [
        spectra.stft(signal * (10.0**-1.25 / level), 512, 128, root_window=False)
        for signal in (estimate, reference)
    ]
    powers = [spectrum.abs().square() + 1e-5 for spectrum in heard]
    shaped = [one * power**-0.35 for one, power in zip(heard, powers, strict=True)]
    size = (powers[0] ** 0.15 - powers[1] ** 0.15).square().mean()
    expected = {
        "spectrum": (shaped[0] - shaped[1]).abs().square().mean() + 2.0 * size,
        "pauses": (powers[0].log10() - powers[1].log10()).abs().mean(),
    }
    for name, loss in expected.items():
        assert float(found[name].detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
        slopes = [
            torch.autograd.grad(one, estimate, retain_graph=True)[0] for one in (found[name], loss)
        ]
        assert torch.allclose(*slopes, rtol=1e-3, atol=1e-3 * float(slopes[1].abs().max()))


def test_what_is_left_in_a_pause_is_heard_by_its_own_loss() -> None:
    """A veil 35 dB under the voice, in its pauses alone: spectrum hardly sees it, pauses does."""
    torch.manual_seed(2)
    said = (torch.arange(32_000) % 16_000 < 8_000).float()
    voice = 0.056 * torch.randn(1, 32_000) * said
    veil = 0.001 * torch.randn(1, 32_000) * (1.0 - said)
    with_veil = compressed_losses(voice + veil, voice, voice, [(512, 128)])
    muffled = compressed_losses(0.9 * voice, voice, voice, [(512, 128)])
    assert float(with_veil["pauses"]) > 5.0 * float(muffled["pauses"])
    assert float(with_veil["spectrum"]) < 0.1


def test_silence_has_no_distortion_ratio() -> None:
    noise = 0.1 * torch.randn(2, 8_000)
    reference = noise.clone()
    reference[1] = 0.0
    both = scale_invariant_distortion(noise, reference)
    alone = scale_invariant_distortion(noise[:1], noise[:1])
    assert float(both) == pytest.approx(0.5 * float(alone))
