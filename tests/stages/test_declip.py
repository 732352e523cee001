"""Peaks that were cut off, and waves that merely look so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import sawtooth, square
from sounds import noise, vowels

from speakup import Config, Pipeline
from speakup.measure.clipping import ClippingMeter
from speakup.stages.declip import Declip

RATE = 44_100
Waveform = NDArray[np.float32]


def voice(seconds: float = 4.0, rate: int = RATE, seed: int = 0) -> Waveform:
    """Draw pulses through formants, in syllables, amid a little noise; (1, T) with a peak of 1."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    pitch = 130.0 + 30.0 * np.sin(2 * np.pi * 0.9 * time)
    wave = vowels(pitch, ((500.0, 90.0), (1_400.0, 140.0), (2_500.0, 200.0)), rate)
    wave *= np.clip(np.sin(2 * np.pi * 2.3 * time), 0.05, None)
    wave /= np.abs(wave).max()
    wave += 2e-3 * random.standard_normal(count)
    return (wave / np.abs(wave).max()).astype(np.float32)[None]


def cut(waveform: Waveform, ceiling: float) -> Waveform:
    """Cut peaks off, and round to 16 bits."""
    return (np.round(waveform.clip(-ceiling, ceiling) * 32_768) / 32_768).astype(np.float32)


def ceilings(waveform: Waveform, rate: int = RATE, length: int = 65_536) -> list[list[list[float]]]:
    meter = ClippingMeter(rate, len(waveform))
    for start in range(0, waveform.shape[1], length):
        meter.push(waveform[:, start : start + length])
    return [[list(levels) for levels in both] for both in meter.ceilings()]


def declipped(
    waveform: Waveform, rate: int = RATE, lengths: tuple[int, ...] = (65_536,)
) -> Waveform:
    meter = ClippingMeter(rate, len(waveform))
    meter.push(waveform)
    stage = Declip(rate, meter.ceilings())
    given, place = [], 0
    while place < waveform.shape[1]:
        length = lengths[len(given) % len(lengths)]
        given.append(stage.push(waveform[:, place : place + length]))
        place += length
    return np.concatenate([*given, *stage.flush()], axis=1)


def distortion_db(result: Waveform, original: Waveform) -> float:
    return float(10 * np.log10(np.square(result - original).sum() / np.square(original).sum()))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("ceiling", [0.5, 0.3])
def test_cut_off_peaks_come_back(rate: int, ceiling: float) -> None:
    original = voice(rate=rate)
    clipped = cut(original, ceiling)
    gain = distortion_db(clipped, original) - distortion_db(declipped(clipped, rate), original)
    assert gain > (6.0 if rate > 8_000 else 0.0)  # at 8 kHz there is little to tell them by


def test_nothing_but_the_peaks_is_touched() -> None:
    clipped = cut(voice(), 0.5)
    result = declipped(clipped)
    below = np.abs(clipped) < 0.4995
    assert result.shape == clipped.shape
    assert np.array_equal(result[below], clipped[below])
    assert np.all(np.sign(result[~below]) == np.sign(clipped[~below]))
    assert np.all(np.abs(result[~below]) >= np.abs(clipped[~below]) - 1e-6)
    assert np.abs(result).max() < 4.0 * 0.5 + 1e-6


@pytest.mark.parametrize("lengths", [(1_000,), (7, 90_000), (44_101, 3, 333)])
def test_the_size_of_the_blocks_does_not_matter(lengths: tuple[int, ...]) -> None:
    clipped = cut(voice(), 0.5)
    assert np.array_equal(declipped(clipped, lengths=lengths), declipped(clipped))
    assert ceilings(clipped, length=lengths[-1]) == ceilings(clipped)


@pytest.mark.parametrize("samples", [1, 1_000, 1_014, 1_015, 2_029, 5_000])
def test_short_recordings_keep_their_length(samples: int) -> None:
    clipped = cut(voice(), 0.5)
    stage = Declip(RATE, (((0.5,), (0.5,)),))
    part = clipped[:, 20_000 : 20_000 + samples]
    result = np.concatenate([stage.push(part), *stage.flush()], axis=1)
    assert result.shape == part.shape


def test_each_channel_and_side_has_its_own_ceiling() -> None:
    waveform = voice()
    lopsided = np.concatenate([cut(waveform, 0.4), waveform.clip(-2.0, 0.3), waveform])
    (above, below), (lower, free), none = ceilings(lopsided.astype(np.float32))
    assert above == pytest.approx([0.4], rel=1e-3) and below == pytest.approx([0.4], rel=1e-3)
    assert lower == pytest.approx([0.3], rel=1e-3)
    assert free == [] and none == [[], []]
    result = declipped(lopsided.astype(np.float32))
    assert np.array_equal(result[2], waveform[0])
    assert distortion_db(result[1:2], waveform) < distortion_db(lopsided[1:2], waveform) - 6.0


def test_what_was_turned_down_after_it_was_cut_off_is_found() -> None:
    assert ceilings(0.05 * cut(voice(), 0.5)) == [
        [[pytest.approx(0.025, rel=1e-3)], [pytest.approx(0.025, rel=1e-3)]]
    ]


TIME = np.arange(4 * RATE) / RATE
WHOLE = {
    "a voice": voice(),
    "a voice in 16 bits": cut(voice(), 2.0),
    "a faint voice in 16 bits": cut(0.05 * voice(), 2.0),
    "a voice in 8 bits": np.round(100.0 * voice()) / 128.0,
    "hum": 0.9 * np.sin(2 * np.pi * 50.0 * TIME)[None],
    "a square wave": 0.5 * square(2 * np.pi * 220.0 * TIME)[None],
    "a saw": 0.5 * sawtooth(2 * np.pi * 220.0 * TIME)[None],
    "noise": noise(1, 4 * RATE),
    "silence": np.zeros((1, RATE)),
    "a level": np.full((1, RATE), 0.5),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_stays_bit_for_bit(name: str) -> None:
    waveform = WHOLE[name].astype(np.float32)
    assert np.array_equal(declipped(waveform), waveform)


def test_levels_told_by_logarithms_have_no_ceilings() -> None:
    """Telephone coding has 255 levels, the highest of them far apart."""
    compressed = np.round(127.0 * np.log1p(255.0 * np.abs(voice())) / np.log(256.0)) / 127.0
    decoded = np.sign(voice()) * np.expm1(compressed * np.log(256.0)) / 255.0
    assert ceilings(decoded.astype(np.float32)) == [[[], []]]


def test_a_clipped_recording_is_rebuilt_on_its_way(tmp_path: Path) -> None:
    """The stage takes part where it is needed, and what rises beyond full scale is turned down."""
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    clipped = cut(voice(seconds=3.0), 0.5)
    soundfile.write(source, 1.8 * clipped[0], RATE, "PCM_16")
    plain = {"upsample": "off", "loudness": "off", "bit_depth": "32f"}
    result = Pipeline(Config(**plain)).run(source, target)
    assert [stage.name for stage in result.stages] == ["declip", "denoise", "loudness"]
    restored = soundfile.read(target)[0]
    assert len(restored) == clipped.shape[1]
    assert np.abs(restored).max() <= 1.0
    assert result.gain_db is not None and result.gain_db < 0.0

    soundfile.write(source, 0.9 * voice(seconds=3.0)[0], RATE, "PCM_16")
    result = Pipeline(Config(**plain)).run(source, target, overwrite=True)
    assert [stage.name for stage in result.stages] == ["denoise", "loudness"]


def test_without_restoration_clipped_peaks_stay(tmp_path: Path) -> None:
    clipped = cut(voice(seconds=2.0), 0.5)
    config = Config(denoise=False, upsample="off", loudness="off")
    assert np.array_equal(Pipeline(config).process(clipped, RATE), clipped)
