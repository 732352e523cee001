"""The bandwidth meter on synthetic speech with tops that are real, missing, noisy or false."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import butter, firwin, oaconvolve, sosfilt
from sounds import synthetic_speech

from speakup.measure.bandwidth import BandwidthMeter

RATE = 44_100


def measured(signal: np.ndarray, sample_rate: int = RATE) -> float:
    meter = BandwidthMeter(sample_rate)
    meter.push(np.atleast_2d(signal).astype(np.float32))
    return meter.bandwidth_hz()


def hiss(signal: np.ndarray, level_dbfs: float) -> np.ndarray:
    noise = np.random.default_rng(9).standard_normal(signal.shape)
    return signal + 10 ** (level_dbfs / 20) * noise


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return synthetic_speech()


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_full_band_reaches_half_the_rate(rate: int) -> None:
    assert measured(synthetic_speech(4.0, rate), rate) == rate / 2


@pytest.mark.parametrize("old_rate", [8_000, 11_025, 16_000, 22_050, 32_000])
@pytest.mark.parametrize("level", [None, -70.0, -60.0])
def test_a_band_limit_is_found(speech: np.ndarray, old_rate: int, level: float | None) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, old_rate), old_rate, RATE)
    if level is not None:
        limited = hiss(limited, level)
    assert measured(limited) == pytest.approx(old_rate / 2, rel=0.05 if level is None else 0.06)


def test_rounding_to_16_bits_is_not_a_top(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 16_000), 16_000, RATE)
    for gain in (1.0, 0.03, 0.003):
        rounded = np.round(limited * gain * 32_768) / 32_768
        assert measured(rounded) == pytest.approx(8_000, rel=0.06)


def test_the_low_pass_of_a_codec_is_found(speech: np.ndarray) -> None:
    low_passed = oaconvolve(speech, firwin(801, 16_000, fs=RATE), mode="same")
    assert measured(low_passed) == pytest.approx(16_000, rel=0.02)


@pytest.mark.parametrize(("order", "corner_hz"), [(6, 6_000), (6, 7_500), (8, 7_500), (10, 8_000)])
def test_what_a_filters_slope_has_all_but_removed_is_missing(
    speech: np.ndarray, order: int, corner_hz: float
) -> None:
    heard = hiss(sosfilt(butter(order, corner_hz, fs=RATE, output="sos"), speech), -100.0)
    assert 0.95 * corner_hz < measured(heard) < 1.5 * corner_hz


def test_a_voice_that_fades_gently_into_noise_is_whole_up_to_there(speech: np.ndarray) -> None:
    # 18 dB less per octave from 4 kHz on: dull, but no filter's work. At 13 kHz it meets the noise.
    dull = hiss(sosfilt(butter(3, 4_000, fs=RATE, output="sos"), speech), -75.0)
    assert 11_000 < measured(dull) < 16_000


def test_a_real_top_under_noise_is_recognised(speech: np.ndarray) -> None:
    assert measured(hiss(speech, -60.0)) == RATE / 2
    assert measured(hiss(speech, -45.0)) > 18_000


def test_a_top_deep_under_noise_is_as_good_as_missing(speech: np.ndarray) -> None:
    dull = oaconvolve(speech, firwin(201, 5_000, fs=RATE), mode="same") + 1e-3 * speech
    assert measured(hiss(dull, -50.0)) == pytest.approx(5_000, rel=0.15)


def test_noise_that_drifts_is_no_top(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 16_000), 16_000, RATE)
    time = np.arange(len(limited)) / RATE
    fan = np.random.default_rng(1).standard_normal(len(limited)) * 1e-3
    swelling = fan * 10 ** (np.linspace(-5, 5, len(limited)) / 20)
    breathing = fan * (1.0 + 0.3 * np.sin(2 * np.pi * 0.3 * time))
    for noise in (swelling, breathing):
        assert measured(limited + noise) == pytest.approx(8_000, rel=0.06)


def test_hum_and_whistles_are_no_top(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 16_000), 16_000, RATE)
    time = np.arange(len(limited)) / RATE
    for frequency, amplitude in ((50.0, 0.3), (15_625.0, 0.01), (11_000.0, 1e-4)):
        tone = amplitude * np.sin(2 * np.pi * frequency * time)
        assert measured(limited + tone) == pytest.approx(8_000, rel=0.05)


@pytest.mark.parametrize("old_rate", [8_000, 11_025, 16_000, 22_050])
@pytest.mark.parametrize("held", [False, True])
def test_mirror_images_of_a_bad_resampler_are_no_top(old_rate: int, held: bool) -> None:
    narrow = synthetic_speech(6.0, old_rate)
    places = np.arange(6 * RATE) * old_rate / RATE
    known = np.arange(len(narrow))
    image = narrow[places.astype(int)] if held else np.interp(places, known, narrow)
    assert measured(image) == old_rate / 2


def test_gated_pauses_do_not_matter(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 16_000), 16_000, RATE)
    padded = np.zeros(40 * RATE)
    padded[10 * RATE : 10 * RATE + len(limited)] = hiss(limited, -65.0)
    assert measured(padded) == pytest.approx(8_000, rel=0.05)


@pytest.mark.parametrize(
    "signal",
    [
        np.zeros(0),
        np.ones(1),
        np.zeros(3 * RATE),
        np.random.default_rng(0).standard_normal(5 * RATE) * 0.1,
        0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE),
        np.full(RATE, 0.25),
    ],
    ids=["empty", "one sample", "silence", "noise", "tone", "DC"],
)
def test_where_nothing_is_known_to_be_missing_it_is_half_the_rate(signal: np.ndarray) -> None:
    assert measured(signal) == RATE / 2
    assert BandwidthMeter(RATE).bandwidth_hz() == RATE / 2


def test_noise_makes_no_voice_narrower_than_a_telephone(speech: np.ndarray) -> None:
    muffled = oaconvolve(speech, firwin(801, 1_000, fs=RATE), mode="same")
    assert measured(muffled) == pytest.approx(1_000, rel=0.1)
    assert measured(hiss(speech, -25.0)) == 3_400.0


def test_block_borders_leave_no_trace_and_asking_does_not_disturb(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 22_050), 22_050, RATE)
    signal = np.stack([limited, 0.5 * limited]).astype(np.float32)
    copy = signal.copy()
    whole, pieces = BandwidthMeter(RATE), BandwidthMeter(RATE)
    whole.push(signal)
    random = np.random.default_rng(4)
    start = 0
    while start < signal.shape[1]:
        stop = start + int(random.integers(0, 50_000))
        pieces.push(signal[:, start:stop])
        pieces.bandwidth_hz()
        start = stop
    assert pieces.bandwidth_hz() == whole.bandwidth_hz() == pytest.approx(11_025, rel=0.05)
    for name in ("_bands", "_groups", "_swings"):
        counts = getattr(whole, name)._counts
        np.testing.assert_array_equal(getattr(pieces, name)._counts, counts)
    np.testing.assert_array_equal(signal, copy)


def test_channels_out_of_phase_do_not_cancel(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 16_000), 16_000, RATE)
    assert measured(np.stack([limited, -limited])) == pytest.approx(8_000, rel=0.05)


def test_samples_that_are_not_finite_count_as_zero(speech: np.ndarray) -> None:
    limited = soxr.resample(soxr.resample(speech, RATE, 16_000), 16_000, RATE)
    quiet = int(np.abs(limited[:RATE]).argmin())
    limited[quiet], limited[quiet + 1] = np.nan, np.inf
    assert measured(limited) == pytest.approx(8_000, rel=0.05)


def test_memory_does_not_grow() -> None:
    meter = BandwidthMeter(8_000)
    block = synthetic_speech(5.0, 8_000)[None].astype(np.float32)
    meter.push(block)
    assert meter._reframer is not None
    longest = meter._reframer._length
    for _ in range(20):
        meter.push(block)
        assert meter._reframer.rest.shape[1] < longest
        assert meter._recent.shape[1] < meter._size
    assert meter._bands._counts.size == 64 * 240


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sample rate"):
        BandwidthMeter(0)
    with pytest.raises(ValueError, match=r"\(C, T\)"):
        BandwidthMeter(RATE).push(np.zeros(10, np.float32))


def test_real_recordings(shared_recordings: Path) -> None:
    references = sorted(shared_recordings.rglob("reference.flac"))[::12]
    assert references
    for path in references:
        signal, rate = soundfile.read(path, always_2d=True)
        signal = signal.mean(axis=1)
        if rate < 32_000:
            continue
        for old_rate in (8_000, 16_000):
            limited = soxr.resample(soxr.resample(signal, rate, old_rate), old_rate, rate)
            assert measured(limited, rate) == pytest.approx(old_rate / 2, rel=0.06), path
