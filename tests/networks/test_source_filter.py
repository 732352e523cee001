"""The upsampler's sources and what it makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import small_source_filter
from torch import Tensor

from speakup.networks import spectra
from speakup.networks.resampling import resample
from speakup.networks.source_filter import SourceFilterExtender, target

RATE = 44_100


def harmonics(pitch_hz: float, highest_hz: float, samples: int = 44_032) -> Tensor:
    """Give a buzz of equal harmonics, (1, T), with phases as they come."""
    time = torch.arange(samples) / RATE
    phases = torch.rand(100, generator=torch.Generator().manual_seed(3)) * 6.28
    tones = [
        torch.sin(2.0 * np.pi * pitch_hz * number * time + phases[number])
        for number in range(1, int(highest_hz / pitch_hz) + 1)
    ]
    return 0.05 * torch.stack(tones).sum(0)[None]


def sources(network: SourceFilterExtender, waveform: Tensor, cutoff_hz: float) -> list[Tensor]:
    """Give the sources' waveforms, each (1, T)."""
    spectrum = spectra.stft(waveform, 1_024, 512).transpose(1, 2)
    power = spectrum.abs().square()
    made = network._sources(spectrum, power, torch.tensor([cutoff_hz]), waveform.shape[1])
    return [spectra.istft(one.transpose(1, 2), waveform.shape[1]) for one in made]


def levels_db(waveform: Tensor, places_hz: np.ndarray) -> np.ndarray:
    """Give the level of one second at frequencies in whole Hz."""
    middle = waveform[0, : RATE // 1_000 * 1_000]
    window = torch.hann_window(len(middle))
    power = torch.fft.rfft(middle * window).abs().square().numpy()
    bins = np.round(places_hz * len(middle) / RATE).astype(int)
    return 10.0 * np.log10(np.stack([power[bins + step] for step in (-1, 0, 1)]).max(0))


def test_own_band_is_kept_and_nothing_comes_above_the_end() -> None:
    network = small_source_filter()
    heard = harmonics(200.0, 3_900.0)
    with torch.inference_mode():
        made = network(heard, torch.tensor([4_000.0]), torch.tensor([12_000.0]))
    assert made.shape == heard.shape and bool(torch.isfinite(made).all())
    hertz = torch.fft.rfftfreq(heard.shape[1], 1 / RATE)
    window = torch.hann_window(heard.shape[1])
    before, after = (torch.fft.rfft(each[0] * window) for each in (heard, made))
    kept = hertz < 2_700.0
    assert float((after - before)[kept].abs().max()) < 1e-3 * float(before.abs().max())
    new = (hertz > 4_500.0) & (hertz < 11_000.0)
    beyond = hertz > 12_100.0
    assert float(after[new].abs().mean()) > 100.0 * float(after[beyond].abs().mean())


def test_the_rectified_voice_has_its_own_harmonics_far_above_it() -> None:
    made = sources(small_source_filter(), harmonics(210.0, 3_900.0), 4_000.0)[1]
    places = 210.0 * np.arange(22, 60)
    between = levels_db(made, places + 105.0)
    assert float(np.median(levels_db(made, places) - between)) > 20.0


def test_a_tone_moved_upwards_is_a_tone() -> None:
    made = sources(small_source_filter(), harmonics(1_500.0, 1_600.0), 2_000.0)[0]
    power = torch.fft.rfft(made[0] * torch.hann_window(made.shape[1])).abs().square()
    power[: int(1_900.0 * made.shape[1] / RATE)] = 0.0
    loudest = int(power.argmax())
    line = power[loudest - 4 : loudest + 5].sum()
    near = power[max(0, loudest - 60) : loudest + 60].sum()
    assert float(line / near) > 0.98


@pytest.mark.parametrize("cutoff_hz", [1_000.0, 2_000.0, 4_000.0, 8_000.0, 16_000.0])
def test_sources_are_as_loud_as_one_wherever_the_band_ends(cutoff_hz: float) -> None:
    random = torch.Generator().manual_seed(1)
    speech = resample(torch.randn(1, 40_000, generator=random), 40_000, RATE) * 1e-2
    network = small_source_filter()
    spectrum = spectra.stft(speech[:, :44_032], 1_024, 512).transpose(1, 2)
    made = network._sources(spectrum, spectrum.abs().square(), torch.tensor([cutoff_hz]), 44_032)
    above = network.get_buffer("frequencies") > cutoff_hz + 400.0
    for source in made:
        level = source.abs().square()[..., above][:, 4:-4].mean()
        assert 0.4 < float(level) < 2.5


def test_what_comes_out_does_not_depend_on_where_a_chunk_began() -> None:
    network = small_source_filter()
    start = network.hop_length
    heard = 0.05 * torch.randn(1, 3 * start, generator=torch.Generator().manual_seed(2))
    cutoff = torch.tensor([4_000.0])
    with torch.inference_mode():
        whole, rest = network(heard, cutoff), network(heard[:, start:], cutoff)
    context = network.context_samples
    assert torch.allclose(whole[:, start + context :], rest[:, context:], atol=1e-5)


def test_no_sample_depends_on_more_than_the_context() -> None:
    network = small_source_filter()
    context = network.context_samples
    heard = 0.05 * torch.randn(1, 2 * context + 20_000, generator=torch.Generator().manual_seed(2))
    changed = heard.clone()
    changed[:, :1_000] = 0.0
    with torch.inference_mode():
        one, two = (network(each, torch.tensor([6_000.0])) for each in (heard, changed))
    assert torch.allclose(one[:, 1_000 + context :], two[:, 1_000 + context :], atol=1e-6)
    assert not torch.allclose(one[:, :1_000], two[:, :1_000], atol=1e-3)


def test_a_target_asks_for_nothing_that_cannot_be_given() -> None:
    full = 0.05 * torch.randn(2, 44_032, generator=torch.Generator().manual_seed(4))
    hertz = torch.fft.rfftfreq(44_032, 1 / RATE)
    heard = torch.fft.irfft(torch.fft.rfft(full) * ((hertz < 3_900.0) & (hertz > 300.0)), 44_032)
    cutoffs, ends = torch.tensor([4_000.0, 4_000.0]), torch.tensor([9_000.0, 30_000.0])
    own, wanted = target(heard, full, cutoffs, ends)
    spectra = torch.fft.rfft(wanted).abs()
    assert float(spectra[:, hertz < 200.0].mean()) < 0.02 * float(spectra.mean())
    assert torch.allclose(own[1, 2_000:-2_000], heard[1, 2_000:-2_000], atol=1e-4)
    top = (hertz > 5_000.0) & (hertz < 8_000.0)
    known = torch.fft.rfft(full).abs()
    assert float(spectra[:, top].mean() / known[:, top].mean()) == pytest.approx(1.0, abs=0.02)
    ended = spectra[:, (hertz > 9_300.0) & (hertz < 20_000.0)].mean(1)
    assert float(ended[0]) < 0.02 * float(ended[1])
