"""Forty recordings and where their voice ends: a table of right answers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import soxr
from scipy.interpolate import CubicSpline
from scipy.signal import butter, firwin, oaconvolve, sosfilt
from sounds import synthetic_speech

from speakup.measure.bandwidth import BandwidthMeter

RATE = 44_100
Signal = np.ndarray


def voice(seed: int = 0) -> Signal:
    return synthetic_speech(8.0, RATE, seed)


def wall(signal: Signal, hertz: float) -> Signal:
    return oaconvolve(signal, firwin(801, hertz, fs=RATE), mode="same")


def slope(signal: Signal, hertz: float, order: int) -> Signal:
    return sosfilt(butter(order, hertz, fs=RATE, output="sos"), signal)


def hiss(signal: Signal, level_dbfs: float) -> Signal:
    noise = np.random.default_rng(9).standard_normal(len(signal))
    return signal + 10 ** (level_dbfs / 20) * noise


def telephone(signal: Signal, order: int = 8) -> Signal:
    band = butter(order // 2, (300.0, 3_400.0), "bandpass", fs=RATE, output="sos")
    return sosfilt(band, sosfilt(band, signal))


def through(rate: int, signal: Signal) -> Signal:
    return soxr.resample(soxr.resample(signal, RATE, rate), rate, RATE)


def held(rate: int, signal: Signal) -> Signal:
    """Bring a recording up by repeating samples."""
    narrow = soxr.resample(signal, RATE, rate)
    return narrow[(np.arange(int(len(narrow) * RATE / rate)) * rate / RATE).astype(int)]


def joined(rate: int, signal: Signal, kind: str) -> Signal:
    """Bring a recording up by straight lines or cubic curves between samples."""
    narrow = soxr.resample(signal, RATE, rate)
    places = np.arange(int((len(narrow) - 2) * RATE / rate)) * rate / RATE
    known = np.arange(len(narrow))
    if kind == "lines":
        return np.interp(places, known, narrow)
    return CubicSpline(known, narrow)(places)


def coded(signal: Signal, container: str, coding: str, rate: int = RATE) -> Signal:
    file = io.BytesIO()
    narrow = soxr.resample(signal, RATE, rate)
    with soundfile.SoundFile(file, "w", rate, 1, coding, format=container) as writer:
        writer.write(narrow)
    file.seek(0)
    heard, decoded = soundfile.read(file)
    return soxr.resample(heard, decoded, RATE)


def chords(hertz: float = math.inf) -> Signal:
    """Play chords with eight harmonics each, and brushes on a drum."""
    time = np.arange(8 * RATE) / RATE
    random = np.random.default_rng(3)
    music = np.zeros(len(time))
    for beat in range(16):
        since = np.clip(time - beat / 2.0, 0.0, None)
        decay = np.where(time >= beat / 2.0, np.exp(-4.0 * since), 0.0)
        for note in (220.0, 277.2, 329.6, 440.0 * (1 + beat % 3)):
            for harmonic in range(1, 9):
                music += decay * np.sin(2 * np.pi * note * harmonic * time) / harmonic**1.5
        music += 0.3 * decay**6 * random.standard_normal(len(time))
    music *= 0.05
    return music if hertz == math.inf else wall(music, hertz)


def dull(signal: Signal) -> Signal:
    return hiss(slope(signal, 4_000.0, 3), -110.0)


WHOLE = RATE / 2
TABLE: list[tuple[str, Callable[[], Signal], float, float]] = [
    # What it is, how it is made, from where to where its band may be said to end.
    ("a whole voice", voice, 19_500.0, WHOLE),
    ("another", lambda: voice(5), 19_500.0, WHOLE),
    ("a whole voice amid faint hiss", lambda: hiss(voice(), -70.0), 19_500.0, WHOLE),
    ("a whole voice at 16 bits", lambda: np.round(voice() * 32_768) / 32_768, 19_500.0, WHOLE),
    ("MP3's shelf at 11 kHz", lambda: wall(voice(), 11_000.0), 10_500.0, 11_300.0),
    ("MP3's shelf at 14 kHz", lambda: wall(voice(), 14_000.0), 13_500.0, 14_400.0),
    ("MP3's shelf at 16 kHz", lambda: wall(voice(), 16_000.0), 15_500.0, 16_400.0),
    ("AAC's shelf at 15.5 kHz", lambda: wall(voice(3), 15_500.0), 15_000.0, 16_000.0),
    (
        "a shelf at 13 kHz with hiss",
        lambda: hiss(wall(voice(), 13_000.0), -80.0),
        12_500.0,
        13_400.0,
    ),
    (
        "MP3 of 22.05 kHz",
        lambda: coded(voice(), "MP3", "MPEG_LAYER_III", 22_050),
        9_500.0,
        11_100.0,
    ),
    ("MP3 of 16 kHz", lambda: coded(voice(), "MP3", "MPEG_LAYER_III", 16_000), 6_900.0, 8_050.0),
    ("Opus of 8 kHz", lambda: coded(voice(), "OGG", "OPUS", 8_000), 3_400.0, 4_100.0),
    ("Opus of 16 kHz", lambda: coded(voice(), "OGG", "OPUS", 16_000), 7_400.0, 8_050.0),
    ("GSM", lambda: coded(voice(), "WAV", "GSM610", 8_000), 3_300.0, 4_050.0),
    ("mu-law", lambda: coded(voice(), "WAV", "ULAW", 8_000), 3_600.0, 4_050.0),
    ("8 kHz, brought up well", lambda: through(8_000, voice()), 3_700.0, 4_050.0),
    ("16 kHz, brought up well", lambda: through(16_000, voice()), 7_400.0, 8_050.0),
    ("22.05 kHz, brought up well", lambda: through(22_050, voice()), 10_300.0, 11_100.0),
    ("32 kHz, brought up well", lambda: through(32_000, voice()), 14_800.0, 16_100.0),
    ("8 kHz, samples repeated", lambda: held(8_000, voice()), 3_600.0, 4_050.0),
    ("16 kHz, samples repeated", lambda: held(16_000, voice()), 7_300.0, 8_050.0),
    ("8 kHz, joined by lines", lambda: joined(8_000, voice(), "lines"), 3_600.0, 4_050.0),
    ("16 kHz, joined by lines", lambda: joined(16_000, voice(), "lines"), 7_300.0, 8_050.0),
    ("16 kHz, joined by curves", lambda: joined(16_000, voice(), "curves"), 7_300.0, 8_050.0),
    ("a telephone's gentle slope", lambda: slope(voice(), 3_400.0, 8), 2_700.0, 4_300.0),
    ("a steeper one", lambda: slope(voice(), 3_400.0, 12), 2_700.0, 4_000.0),
    ("a telephone without lows", lambda: telephone(voice()), 2_600.0, 4_500.0),
    ("a telephone amid faint hiss", lambda: hiss(telephone(voice()), -75.0), 2_600.0, 4_500.0),
    ("a tape's wall at 2 kHz", lambda: wall(voice(), 2_000.0), 1_900.0, 2_200.0),
    ("a slope from 2 kHz", lambda: slope(voice(), 2_000.0, 8), 1_600.0, 2_600.0),
    ("a wall at 1 kHz", lambda: wall(voice(), 1_000.0), 900.0, 1_200.0),
    (
        "a voice to 4 kHz, noise to the end",
        lambda: hiss(wall(voice(), 4_000.0), -60.0),
        3_400.0,
        4_200.0,
    ),
    (
        "a voice to 8 kHz, noise to the end",
        lambda: hiss(through(16_000, voice()), -55.0),
        7_300.0,
        8_300.0,
    ),
    (
        "a voice to 8 kHz and a whistle",
        lambda: (
            through(16_000, voice())
            + 0.01 * np.sin(2 * np.pi * 15_625 * np.arange(8 * RATE) / RATE)
        ),
        7_300.0,
        8_200.0,
    ),
    (
        "a voice to 3 kHz, quiet noise",
        lambda: hiss(wall(voice(), 3_000.0), -80.0),
        2_700.0,
        3_450.0,
    ),
    (
        "a microphone's slope from 10 kHz",
        lambda: hiss(slope(voice(), 10_000.0, 10), -100.0),
        9_000.0,
        14_000.0,
    ),
    ("a dull voice that nobody cut", lambda: dull(voice()), 10_500.0, WHOLE),
    ("music to the end", chords, 15_000.0, WHOLE),
    ("music with a shelf at 16 kHz", lambda: chords(16_000.0), 15_000.0, 16_500.0),
    ("noise alone", lambda: hiss(np.zeros(6 * RATE), -40.0), WHOLE, WHOLE),
]


def test_there_are_forty() -> None:
    assert len(TABLE) == 40 and len({name for name, *_ in TABLE}) == 40


@pytest.mark.parametrize(
    ("make", "low", "high"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_band_ends_where_it_does(make: Callable[[], Signal], low: float, high: float) -> None:
    meter = BandwidthMeter(RATE)
    meter.push(make()[None].astype(np.float32))
    assert low <= meter.bandwidth_hz() <= high


@pytest.mark.parametrize("level_dbfs", [-30.0, -22.0])
def test_a_band_that_noise_hides_is_not_one_that_was_cut(level_dbfs: float) -> None:
    meter = BandwidthMeter(RATE)
    meter.push(hiss(dull(voice()), level_dbfs)[None].astype(np.float32))
    assert meter.hidden_by_noise()
    for cut in (wall(voice(), 4_000.0), through(16_000, voice())):
        meter = BandwidthMeter(RATE)
        meter.push(hiss(cut, -60.0)[None].astype(np.float32))
        assert not meter.hidden_by_noise()
    meter = BandwidthMeter(RATE)
    meter.push(voice()[None].astype(np.float32))
    assert not meter.hidden_by_noise()
