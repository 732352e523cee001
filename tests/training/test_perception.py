"""Losses that stand for listeners agree with the measures they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from speakup.judge import metrics
from speakup.training.perception import (
    LOSSES,
    Disturbance,
    Listeners,
    QualityPredictor,
    intelligibility_loss,
)

RATE = 16_000


def loadable(package: str) -> None:
    """Skip where a package is missing, or what it is built on does not load beside this torch."""
    try:
        pytest.importorskip(package)
    except OSError as error:
        pytest.skip(f"{package} does not load: {error}")


def voice(seconds: float = 4.0) -> Tensor:
    """Give (1, T): a buzz whose harmonics and loudness move as a voice's do."""
    time = torch.arange(round(seconds * RATE)) / RATE
    phase = 2.0 * torch.pi * (140.0 * time + 4.0 * torch.sin(3.0 * time))
    buzz = torch.zeros_like(time)
    for harmonic in range(1, 40):
        tilt = 1.0 + torch.sin(2.0 * torch.pi * (1.3 + 0.2 * harmonic) * time + harmonic)
        buzz = buzz + tilt / harmonic * torch.sin(harmonic * phase)
    loudness = torch.sin(2.0 * torch.pi * 1.7 * time).clamp_min(0.0)
    return (0.05 * loudness * buzz)[None]


def noisy(snr_db: float, seed: int = 1) -> Tensor:
    clean = voice()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return clean + noise * clean.square().mean().sqrt() * 10.0 ** (-snr_db / 20.0)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_intelligibility_is_that_of_the_published_measure(snr_db: float) -> None:
    pytest.importorskip("pystoi")
    measured = metrics.estoi(noisy(snr_db).numpy(), voice().numpy(), RATE)
    assert 1.0 - float(intelligibility_loss(noisy(snr_db), voice())) == pytest.approx(
        measured, abs=0.05
    )


def test_intelligibility_of_a_copy_is_whole_whatever_its_level() -> None:
    assert float(intelligibility_loss(0.5 * voice(), voice())) == pytest.approx(0.0, abs=0.01)


def test_silence_has_no_intelligibility_to_lose() -> None:
    silence = torch.zeros(1, RATE)
    assert np.isfinite(float(intelligibility_loss(silence, silence)))


def test_disturbance_grows_with_noise_and_falls_with_opinion() -> None:
    loadable("torch_pesq")
    measure = Disturbance()
    found = [float(measure(noisy(snr_db), voice())) for snr_db in (30.0, 15.0, 0.0)]
    assert 0.0 <= float(measure(voice(), voice())) < found[0] < found[1] < found[2]


def test_silence_disturbs_nobody_and_its_slope_is_a_number() -> None:
    loadable("torch_pesq")
    measure = Disturbance()
    said = voice() * (torch.arange(voice().shape[1]) % 16_000 < 8_000)
    for reference in (said, torch.zeros_like(said)):
        estimate = (0.9 * said).requires_grad_()
        loss = measure(estimate, reference)
        if reference.any():
            loss.backward()
            assert estimate.grad is not None and torch.isfinite(estimate.grad).all()
        else:
            assert float(loss) == 0.0


def test_the_quality_predictor_is_the_published_one() -> None:
    pytest.importorskip("onnx")
    sessions = pytest.importorskip("onnxruntime")
    package = pytest.importorskip("speechmos")
    waveform = noisy(10.0).repeat(1, 3)[:, :144_160]
    folder = package.__path__[0]
    session = sessions.InferenceSession(f"{folder}/dnsmos_models/sig_bak_ovr.onnx")
    wanted = session.run(None, {"input_1": waveform.numpy()})[0]
    _, scores = QualityPredictor().judge(waveform)
    assert scores.numpy() == pytest.approx(wanted, abs=0.03)


def test_nothing_is_gained_by_sounding_better_than_the_reference() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("speechmos")
    predictor = QualityPredictor()
    features, score = predictor(voice(), noisy(5.0))
    assert float(features) > 0.05
    copy = predictor(voice(), voice())
    assert float(copy[0]) == float(copy[1]) == 0.0
    worse = predictor(noisy(0.0), voice())[1]
    assert float(score) <= float(worse)


def test_every_loss_leads_back_to_the_estimate() -> None:
    for package in ("onnx", "speechmos", "torch_pesq"):
        loadable(package)
    estimate = noisy(10.0).repeat(2, 1).requires_grad_(True)
    losses = Listeners(set(LOSSES), judged=1)(estimate, voice().repeat(2, 1))
    assert set(losses) == set(LOSSES)
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, estimate, retain_graph=True)
        assert torch.isfinite(gradient).all(), name
        assert bool(gradient[0].any()), name
