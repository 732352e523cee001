from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from speech import RATE, noise, voice

from speakup.errors import ConfigError
from speakup.judge import metrics

Float = NDArray[np.float64]


@pytest.mark.parametrize("delay", [-300, -7, 0, 1, 399])
def test_align_finds_a_known_delay(delay: int) -> None:
    sound = noise(1.0)
    estimate, reference = sound[max(0, -delay) :], sound[max(0, delay) :]
    assert metrics.lag(estimate, reference, RATE) == delay
    late, early = metrics.align(estimate, reference, RATE)
    np.testing.assert_array_equal(late, early)
    assert len(late) == len(sound) - abs(delay)


def test_align_looks_no_further_than_told_and_ignores_polarity() -> None:
    sound = noise(1.0)
    assert abs(metrics.lag(sound[800:], sound, RATE)) <= 400
    assert metrics.lag(-sound[160:], sound, RATE) == -160
    assert metrics.lag(sound[800:], sound, RATE, max_lag_seconds=0.1) == -800


def test_align_takes_silence_and_single_samples() -> None:
    late, early = metrics.align(np.zeros(100), noise(0.1), RATE)
    assert len(late) == len(early) == 100
    late, early = metrics.align(np.ones(1), np.ones(1), RATE)
    assert len(late) == len(early) == 1


def test_channels_are_mixed_to_their_mean() -> None:
    sound = noise(0.1)
    np.testing.assert_allclose(metrics.mono(np.stack([sound, 3 * sound])), 2 * sound)
    assert metrics.mono(sound).ndim == 1


def test_resampling_keeps_a_tone_and_gives_the_length_it_promises() -> None:
    time = np.arange(44_100) / 44_100
    low = metrics.resample(np.sin(2 * np.pi * 1000 * time), 44_100, RATE)
    assert len(low) == RATE
    expected = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(low[500:-500], expected[500:-500], atol=2e-3)
    assert len(metrics.resample(np.zeros(7), 44_100, RATE)) == math.ceil(7 * 16 / 44.1)
    assert len(metrics.resample(np.zeros(0), 44_100, RATE)) == 0


def test_levels_are_matched_by_rms() -> None:
    matched = metrics.match_level(noise(0.5, 0.3, seed=1), noise(0.5, 0.05))
    assert np.sqrt(np.mean(matched**2)) == pytest.approx(np.sqrt(np.mean(noise(0.5, 0.05) ** 2)))
    np.testing.assert_array_equal(metrics.match_level(np.zeros(10), noise(0.1)), np.zeros(10))


def test_si_sdr_is_what_its_definition_says() -> None:
    reference, other = noise(2.0, seed=1), noise(2.0, seed=2)
    reference -= reference.mean()
    other -= other.mean()
    other -= (other @ reference) / (reference @ reference) * reference  # orthogonal
    other *= math.sqrt((reference @ reference) / (other @ other)) / 10  # 20 dB below
    assert metrics.si_sdr(reference + other, reference, RATE) == pytest.approx(20.0)
    assert metrics.si_sdr(-7 * (reference + other), reference, RATE) == pytest.approx(20.0)
    assert metrics.si_sdr(3 * reference, reference, RATE) > 200
    assert math.isnan(metrics.si_sdr(reference, np.zeros(100), RATE))


def test_lsd_of_a_signal_against_itself_is_0() -> None:
    sound = noise(0.5, rate=44_100)
    assert metrics.lsd(sound, sound, 44_100) == 0.0


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_10_db_are_exactly_1_in_log10_power(rate: int) -> None:
    # Noise far above the floor; 48 kHz keeps clear of the resampler's edge with below_hz.
    sound = noise(0.5, rate=rate)
    louder = sound * math.sqrt(10)
    assert metrics.lsd(louder, sound, rate, below_hz=20_000) == pytest.approx(1.0, abs=1e-9)


def test_lsd_agrees_with_a_slow_reference() -> None:
    estimate, reference = noise(0.2, seed=1, rate=44_100), noise(0.2, 0.001, seed=2, rate=44_100)
    reference[2000:5000] = 0.0  # goes under the floor
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    per_frame = []
    for start in range(0, len(estimate) + 1, 512):
        logs = []
        for signal in (estimate, reference):
            frame = np.pad(signal, 1024)[start : start + 2048]
            power = np.abs(np.fft.rfft(frame * window)) ** 2
            logs.append([math.log10(max(one, 1e-8)) for one in power])
        squares = [(a - b) ** 2 for a, b in zip(*logs, strict=True)]
        per_frame.append(math.sqrt(sum(squares) / len(squares)))
    expected = sum(per_frame) / len(per_frame)
    assert metrics.lsd(estimate, reference, 44_100) == pytest.approx(expected, rel=1e-9)


def test_lsd_can_look_at_part_of_the_band() -> None:
    full = noise(0.5, rate=44_100)
    spectrum = np.fft.rfft(full)
    spectrum[round(len(spectrum) * 8000 / 22_050) :] = 0
    low = np.fft.irfft(spectrum, len(full))
    assert metrics.lsd(low, full, 44_100, below_hz=7_900) < 0.1
    assert metrics.lsd(low, full, 44_100, above_hz=8_100) > 4
    assert math.isnan(metrics.lsd(low, full, 44_100, above_hz=9_000, below_hz=8_000))
    assert math.isnan(metrics.lsd(np.zeros(0), full, 44_100))


def test_f0_error_tells_when_the_pitch_moves_and_not_when_the_timbre_does() -> None:
    said = voice()
    assert metrics.f0_error(said, said, RATE) == 0.0
    assert metrics.f0_error(0.1 * said, said, RATE) == 0.0
    duller = np.convolve(said, np.ones(5) / 5, "same")
    assert metrics.f0_error(duller, said, RATE) < 0.1
    assert metrics.f0_error(voice(f0_hz=170), said, RATE) > 0.3
    assert metrics.f0_error(np.zeros_like(said), said, RATE) > 0.3
    assert math.isnan(metrics.f0_error(said, noise(1.0), RATE))
    assert math.isnan(metrics.f0_error(said, np.zeros(10), RATE))


@pytest.mark.parametrize("f0_hz", [80, 120, 200, 320])
def test_f0_is_tracked_within_3_percent(f0_hz: float) -> None:
    time = np.arange(RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * f0_hz * k * time) / k for k in range(1, 10))
    track = metrics._f0_hz(np.asarray(buzz))
    np.testing.assert_allclose(track, f0_hz, rtol=0.03)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ConfigError, match=r"pesq.*speakup\[eval\]"):
        metrics.pesq_wb(noise(1.0), noise(1.0), RATE)


def test_pesq_of_the_same_is_high_and_noise_lowers_it() -> None:
    pytest.importorskip("pesq")
    said = voice()
    same = metrics.pesq_wb(said, said, RATE)
    little = metrics.pesq_wb(said + noise(3.0, 0.001), said, RATE)
    much = metrics.pesq_wb(said + noise(3.0, 0.02), said, RATE)
    assert same > 4.5
    assert same > little > much > 1.0


def test_pesq_needs_no_matched_level_and_takes_other_rates() -> None:
    pytest.importorskip("pesq")
    said = voice(rate=48_000)
    assert metrics.pesq_wb(0.2 * said, said, 48_000) > 4.5


def test_pesq_takes_any_length() -> None:
    pytest.importorskip("pesq")
    long = np.tile(voice(), 40)  # two minutes, which would overrun the standard's code
    assert metrics.pesq_wb(long, long, RATE) > 4.5
    for short in (np.zeros(0), np.zeros(RATE), noise(0.01)):
        assert math.isnan(metrics.pesq_wb(short, short, RATE))


def test_estoi_of_the_same_is_1_and_noise_lowers_it() -> None:
    pytest.importorskip("pystoi")
    said = voice()
    assert metrics.estoi(said, said, RATE) == pytest.approx(1.0, abs=1e-6)
    little = metrics.estoi(said + noise(3.0, 0.005), said, RATE)
    much = metrics.estoi(said + noise(3.0, 0.1), said, RATE)
    assert 1.0 > little > much
    for short in (np.zeros(0), np.zeros(RATE), noise(0.2)):
        assert math.isnan(metrics.estoi(short, short, RATE))


def test_dnsmos_hears_noise_and_takes_any_input() -> None:
    pytest.importorskip("speechmos")
    pytest.importorskip("onnxruntime")
    said = voice(9.0)
    clean = metrics.dnsmos(said, RATE)
    noisy = metrics.dnsmos(said + noise(9.0, 0.05), RATE)
    assert set(clean) == {"ovrl", "sig", "bak", "p808"}
    assert clean["bak"] > noisy["bak"] + 0.3
    assert all(1.0 <= value <= 5.0 for value in clean.values())
    assert math.isnan(metrics.dnsmos(np.zeros(0), RATE)["ovrl"])
    beyond = metrics.dnsmos(np.stack([said, said]) * 100, RATE)  # clipped, not refused
    assert math.isfinite(beyond["ovrl"])
