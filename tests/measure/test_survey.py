"""What the first pass over a recording finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sounds import noise

from speakup.blocks import finite, prepared
from speakup.measure.survey import survey

RATE = 48_000


def blocks(waveform: NDArray[np.float32], length: int = 7_001) -> list[NDArray[np.float32]]:
    return [waveform[:, i : i + length] for i in range(0, waveform.shape[1], length)]


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_what_is_counted_is_what_is_there(channels: int) -> None:
    found = survey(blocks(noise(channels, 100_000, RATE)), RATE, channels)
    assert (found.sample_rate, found.channels, found.samples) == (RATE, channels, 100_000)
    assert found.distinct_channels == channels
    assert found.channels_equal == (channels == 1)
    assert found.warnings == ()
    assert -40.0 < found.lufs < 0.0
    assert found.bandwidth_hz is not None


@pytest.mark.parametrize("length", [1_000, 30_000, 100_000])
def test_the_size_of_the_blocks_does_not_matter(length: int) -> None:
    waveform = noise(2, 100_000, RATE)
    assert survey(blocks(waveform, length), RATE, 2) == survey([waveform], RATE, 2)


def test_equal_channels_are_computed_once() -> None:
    waveform = np.repeat(noise(1, 50_000, RATE), 3, axis=0)
    found = survey(blocks(waveform), RATE, 3)
    assert found.channels_equal and found.distinct_channels == 1
    waveform[2, 49_999] += 1e-6
    assert survey(blocks(waveform), RATE, 3).distinct_channels == 3


@pytest.mark.parametrize("samples", [0, 1, 100_000])
def test_silence_has_no_bandwidth(samples: int) -> None:
    found = survey([np.zeros((2, samples), np.float32)], RATE, 2)
    assert found.bandwidth_hz is None
    assert found.lufs == -math.inf
    assert found.samples == samples
    assert found.distinct_channels == 1


def test_one_sample_is_no_silence() -> None:
    found = survey([np.full((1, 1), 0.5, np.float32)], RATE, 1)
    assert found.lufs == -math.inf  # too short to measure
    assert found.bandwidth_hz is not None


def test_what_is_no_number_is_counted_and_left_out() -> None:
    waveform = noise(2, 100_000, RATE)
    broken = waveform.copy()
    waveform[0, 500:600] = 0.0
    waveform[1, 70_000:70_002] = 0.0
    broken[0, 500:600] = np.nan
    broken[1, 70_000:70_002] = np.inf, -np.inf
    found, expected = survey(blocks(broken), RATE, 2), survey(blocks(waveform), RATE, 2)
    assert "102 samples were no numbers" in found.warnings[0]
    assert found.lufs == expected.lufs
    assert found.bandwidth_hz == expected.bandwidth_hz


def test_only_what_is_no_number_is_made_finite() -> None:
    sane = noise(2, 100, RATE)
    assert finite(sane) is sane
    loud = np.full((2, 100), 2.0**31, np.float32)
    assert finite(loud) is loud
    broken = sane.copy()
    broken[1, 3:7] = np.nan, np.inf, -np.inf, -1e20
    result = finite(broken)
    assert result.dtype == np.float32
    assert result[1, 3:7].tolist() == [0.0] * 4
    assert np.isnan(broken[1, 3])
    result[1, 3:7] = sane[1, 3:7]
    assert np.array_equal(result, sane)


def test_blocks_are_mixed_to_mono_only_if_asked() -> None:
    waveform = noise(2, 1_000, RATE).astype(np.float64)
    (kept,) = prepared([waveform], mono=False)
    (mixed,) = prepared([waveform], mono=True)
    assert kept.dtype == mixed.dtype == np.float32
    assert kept.shape == (2, 1_000)
    (mixed_infinities,) = prepared([np.array([[np.inf], [-np.inf]])], mono=True)
    assert np.isnan(mixed_infinities).all()
    assert np.allclose(mixed, waveform.mean(axis=0, keepdims=True), atol=1e-7)
