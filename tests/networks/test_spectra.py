"""Facts about spectra, levels and resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from speakup.blocks import db_to_gain
from speakup.errors import ConfigError
from speakup.networks import spectra
from speakup.networks.compute import pick_device, pick_dtype
from speakup.networks.resampling import resample, resample_alike


def white(batch: int, samples: int) -> Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("samples", [1, 255, 256, 5_000])
@pytest.mark.parametrize("root_window", [True, False])
def test_stft_is_the_transform_of_each_windowed_frame(samples: int, root_window: bool) -> None:
    n_fft, hop = 512, 256
    waveform = white(2, samples)
    result = spectra.stft(waveform, n_fft, hop, root_window=root_window)
    assert result.shape == (2, n_fft // 2 + 1, samples // hop + 1)
    assert result.dtype == torch.complex64
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    window = np.sqrt(window) if root_window else window
    padded = np.pad(waveform.numpy(), ((0, 0), (n_fft // 2, n_fft)))
    for frame in range(result.shape[2]):
        part = padded[:, frame * hop : frame * hop + n_fft] * window
        assert np.allclose(result[:, :, frame].numpy(), np.fft.rfft(part), atol=1e-3)


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 5_000])
def test_istft_undoes_stft(samples: int) -> None:
    waveform = white(2, samples)
    spectrum = spectra.stft(spectra.whole_hops(waveform, 256), 512, 256)
    assert torch.allclose(spectra.istft(spectrum, samples), waveform, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 1_000])
def test_whole_hops_adds_zeros_up_to_the_next_hop(samples: int) -> None:
    padded = spectra.whole_hops(white(2, samples), 512)
    assert padded.shape == (2, math.ceil(samples / 512) * 512)
    assert torch.equal(padded[:, :samples], white(2, samples))
    assert not padded[:, samples:].any()


def test_training_can_use_a_window_that_inference_has_made() -> None:
    n_fft = 346  # that no other test has asked for
    with torch.inference_mode():
        spectra.stft(white(1, 1_000), n_fft, n_fft // 2)
    waveform = white(1, 1_000).requires_grad_()
    spectra.stft(waveform, n_fft, n_fft // 2).abs().sum().backward()
    assert waveform.grad is not None


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44_100, 16_000), (16_000, 44_100), (8_000, 16_000), (7, 7)]
)
def test_resampled_signals_have_the_length_and_no_delay(from_rate: int, to_rate: int) -> None:
    samples = 4_410
    click = torch.zeros(2, samples)
    place = 2_205 - 2_205 % 441
    click[:, place] = 1.0
    result = resample(click, from_rate, to_rate)
    assert result.shape == (2, math.ceil(samples * to_rate / from_rate))
    assert result.abs().argmax(1).tolist() == [round(place * to_rate / from_rate)] * 2


def test_resampling_keeps_the_band_and_cuts_what_lies_above() -> None:
    time = torch.arange(44_100) / 44_100
    for hertz, kept in [(440.0, True), (7_000.0, True), (9_000.0, False), (12_000.0, False)]:
        tone = torch.sin(2 * math.pi * hertz * time)[None]
        level_db = 20.0 * math.log10(
            float(spectra.rms(resample(tone, 44_100, 16_000)[:, 1_000:-1_000])) * math.sqrt(2.0)
        )
        assert abs(level_db) < 0.05 if kept else level_db < -55.0


def test_decibels_are_twenty_times_the_logarithm() -> None:
    assert db_to_gain(0.0) == 1.0
    assert db_to_gain(20.0) == pytest.approx(10.0)
    assert db_to_gain(-6.0) == pytest.approx(0.501187, rel=1e-5)


def test_rms_is_that_of_each_signal() -> None:
    levels = spectra.rms(torch.tensor([[3.0, -3.0, 3.0, -3.0], [1.0, 0.0, 0.0, 0.0]]))
    assert levels.tolist() == [[3.0], [0.5]]


def test_a_device_is_one_that_is_there() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99", "", "toaster:1"):
        with pytest.raises(ConfigError, match="cannot be used here"):
            pick_device(name)


def test_a_precision_is_the_one_asked_for() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("fp32", cpu) is torch.float32
    assert pick_dtype("bf16", cpu) is torch.bfloat16
    assert pick_dtype("fp16", cpu) is torch.float16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    assert pick_dtype("auto", torch.device("mps")) is torch.float32


@pytest.mark.parametrize(
    ("edge_hz", "width_hz"), [(3_400.0, 150.0), (8_000.0, 150.0), (500.0, 40.0)]
)
def test_a_highpass_stops_up_to_its_edge_and_passes_above_its_width(
    edge_hz: float, width_hz: float
) -> None:
    rate = 44_100
    click = torch.zeros(1, 4 * rate)
    click[0, 2 * rate] = 1.0
    response = np.abs(np.fft.rfft(spectra.highpass(click, edge_hz, width_hz, rate)[0].double()))
    hertz = np.fft.rfftfreq(4 * rate, 1 / rate)
    assert 20 * np.log10(response[hertz <= edge_hz].max()) < -69.0
    passed = 20 * np.log10(response[hertz >= edge_hz + width_hz])
    assert np.abs(passed).max() < 0.004


def test_a_highpass_delays_nothing_and_sees_no_further_than_it_says() -> None:
    rate, place = 44_100, 3_000
    click = torch.zeros(1, 6_001)
    click[0, place] = 1.0
    result = spectra.highpass(click, 5_000.0, 300.0, rate)[0]
    assert torch.allclose(result, result.flip(0), atol=1e-6)
    assert int(result.abs().argmax()) == place
    reach = spectra.highpass_reach(300.0, rate)
    beyond = torch.cat([result[: place - reach], result[place + reach + 1 :]])
    assert float(beyond.abs().max()) < 1e-6


@pytest.mark.parametrize("samples", [1, 2, 1_000])
def test_a_highpass_takes_any_length_and_no_constant(samples: int) -> None:
    result = spectra.highpass(torch.ones(2, samples), 100.0, 100.0, 44_100)
    assert result.shape == (2, samples)
    assert float(result.abs().max()) < 1e-3


def test_a_highpass_at_half_the_rate_leaves_nothing() -> None:
    assert float(spectra.highpass(white(1, 5_000), 23_000.0, 150.0, 44_100).abs().max()) < 1e-5


def test_resampling_alike_gives_the_same_numbers_wherever_it_begins() -> None:
    waveform = white(1, 44_100)
    whole = resample_alike(waveform, 44_100, 16_000)
    part = resample_alike(waveform[:, 441 * 20 :], 44_100, 16_000)
    assert torch.equal(part[:, 100:], whole[:, 160 * 20 + 100 :])
    assert torch.allclose(whole, resample(waveform, 44_100, 16_000), atol=1e-4)
    assert whole.dtype == torch.float32


@pytest.mark.parametrize("norm", ["slaney", None])
def test_mel_filters_are_triangles_between_mel_points(norm: str | None) -> None:
    """Slaney's scale: 200/3 Hz a mel up to 1 kHz, then ln(6.4)/27 a mel."""
    bins, rate, bands = 1_025, 44_100, 80
    filters = spectra.mel_filters(bins, rate, bands, 0.0, 8_000.0, norm=norm).numpy()
    mels = np.linspace(0.0, 15.0 + np.log(8.0) * 27.0 / np.log(6.4), bands + 2)
    bent = 1_000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0))
    points = np.where(mels < 15.0, mels * 200.0 / 3.0, bent)
    hertz = np.linspace(0.0, rate / 2, bins)
    for band in range(bands):
        low, middle, high = points[band : band + 3]
        triangle = np.interp(hertz, [low, middle, high], [0.0, 1.0, 0.0])
        area = 2.0 / (high - low) if norm else 1.0
        assert np.allclose(filters[:, band], area * triangle, atol=3e-5 * area)
