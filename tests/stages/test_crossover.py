"""What is kept of a recording, and what is taken of an estimate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speakup.networks import spectra
from speakup.stages import crossover
from speakup.stages.crossover import end_at, keep_own_band

RATE = 44_100


def white(samples: int, seed: int = 1, batch: int = 1) -> Tensor:
    return 0.05 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def level_db(waveform: Tensor, low_hz: float, high_hz: float) -> float:
    spectrum = spectra.stft(waveform, 8_192, 2_048, root_window=False)[:, :, 2:-2]  # all within
    levels = spectrum.abs().square().mean((0, 2))
    hertz = torch.arange(len(levels)) * RATE / 8_192
    return float(10.0 * levels[(hertz >= low_hz) & (hertz <= high_hz)].mean().log10())


@pytest.mark.parametrize("cutoff_hz", [3_400.0, 7_950.0, 12_000.0, 21_000.0])
def test_a_strangers_band_is_taken_above_and_nowhere_else(cutoff_hz: float) -> None:
    own, stranger = white(RATE), white(RATE, 2)
    result = keep_own_band(own, stranger, cutoff_hz)
    # Windows of 8192 samples smear by about 30 Hz; the rest is the crossover's.
    under = level_db(result - own, 0.0, cutoff_hz - 30.0)
    assert under < level_db(own, 0.0, cutoff_hz) - 60.0
    top = (cutoff_hz + 200.0, RATE / 2)
    assert level_db(result, *top) == pytest.approx(level_db(stranger, *top), abs=1.0)


def test_what_agrees_is_not_changed() -> None:
    own = white(20_000, batch=2)
    assert torch.allclose(keep_own_band(own, own, 8_000.0), own, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 440, 441, 442, 3_000])
def test_any_length_is_kept(samples: int) -> None:
    own = white(samples, batch=2)
    result = keep_own_band(own, 0.5 * own, 8_000.0)
    assert result.shape == own.shape and result.isfinite().all()


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_an_estimate_at_another_level_is_brought_to_the_recordings(factor: float) -> None:
    own = white(RATE)
    assert torch.allclose(keep_own_band(own, factor * own, 8_000.0), own, atol=2e-3)


@pytest.mark.parametrize(("factor", "left"), [(0.1, 0.2), (10.0, 5.0)])
def test_by_6_db_at_most(factor: float, left: float) -> None:
    own = white(RATE)
    result = keep_own_band(own, factor * own, 8_000.0)
    change = level_db(result, 9_000, 20_000) - level_db(left * own, 9_000, 20_000)
    assert change == pytest.approx(0.0, abs=0.1)


def test_silence_stays_silence() -> None:
    nothing = torch.zeros(1, 10_000)
    assert not keep_own_band(nothing, nothing, 8_000.0).any()


def test_a_click_of_the_estimate_comes_through_in_its_place() -> None:
    own, click = torch.zeros(1, 20_000), torch.zeros(1, 20_000)
    click[0, 9_876] = 0.5
    assert int(keep_own_band(own, click, 6_000.0).abs().argmax()) == 9_876


def test_an_end_amid_a_sound_gives_no_click() -> None:
    """The networks' low band differs from the recording's; that it stops is no top of a voice."""
    time = torch.arange(20_000) / RATE
    own = 0.3 * torch.cos(2 * torch.pi * 300.0 * time)[None]
    result = keep_own_band(own, 0.5 * own, 8_000.0)
    assert float((result - own).abs().max()) < 2e-3


def test_parts_are_as_the_whole() -> None:
    own = white(60_000)
    syllables = 1.0 + torch.sin(torch.arange(60_000) / 2_000.0)
    estimate = syllables * own + 0.01 * white(60_000, 2)
    whole = keep_own_band(own, estimate, 8_000.0)
    start, end = 20 * crossover.GRID, 48_000
    part = keep_own_band(own[:, start:end], estimate[:, start:end], 8_000.0)
    middle = slice(crossover.REACH, end - start - crossover.REACH)
    assert torch.allclose(part[:, middle], whole[:, start:end][:, middle], atol=1e-6)


@pytest.mark.parametrize("ceiling_hz", [9_000.0, 16_000.0])
def test_what_was_added_above_a_ceiling_goes_and_the_recording_stays(ceiling_hz: float) -> None:
    own, added = white(RATE), white(RATE, 2)
    result = end_at(own, own + added, ceiling_hz)
    above = (ceiling_hz + 330.0, RATE / 2)
    assert level_db(result - own, *above) < level_db(added, *above) - 60.0
    under = level_db(result - own - added, 0.0, ceiling_hz - 30.0)
    assert under < level_db(added, 0.0, ceiling_hz) - 60.0
