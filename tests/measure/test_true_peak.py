"""The limiter's promises, and the oversampling it and the meter stand on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter, resample_poly

from speakup.measure.loudness import LoudnessMeter
from speakup.measure.true_peak import Oversampler, annex_factor
from speakup.stages.limiter import Limiter

RATE = 44_100


def limited(signal: np.ndarray, ceiling: float, sample_rate: int = RATE) -> np.ndarray:
    limiter = Limiter(sample_rate, signal.shape[0], ceiling)
    return np.concatenate([limiter.push(signal), limiter.flush()], axis=1)


def true_peak(signal: np.ndarray, sample_rate: int = RATE) -> float:
    meter = LoudnessMeter(sample_rate, signal.shape[0])
    meter.push(signal)
    return meter.true_peak_dbtp()


def bursts(seconds: float, channels: int = 1, level: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Coloured noise that swells and fades, with a few clicks."""
    random = np.random.default_rng(7)
    count = round(seconds * rate)
    noise = lfilter([1.0], [1.0, -0.9], random.standard_normal((channels, count)))
    swell = np.clip(np.sin(2 * np.pi * 2.3 * np.arange(count) / rate), 0.0, None)
    signal = 0.15 * noise * swell
    signal[:, random.integers(0, count, 5)] += 0.8
    return (level * signal).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8_000, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("over_db", [3.0, 20.0])
def test_the_ceiling_holds(sample_rate: int, over_db: float) -> None:
    signal = bursts(2.0, 2, rate=sample_rate)
    signal *= np.float32(10 ** ((over_db - 1.0 - true_peak(signal, sample_rate)) / 20))
    output = limited(signal, -1.0, sample_rate)
    assert true_peak(output, sample_rate) <= -1.0
    # A much finer grid and another filter find hardly more.
    finest = max(np.abs(resample_poly(row.astype(float), 16, 1)).max() for row in output)
    assert 20 * np.log10(finest) <= -0.9
    assert np.abs(output).max() > 10 ** (-2.0 / 20)


@pytest.mark.parametrize("frequency", [50.0, 997.0, 10_000.0, 17_000.0])
def test_the_ceiling_holds_for_sines(frequency: float) -> None:
    sine = 10.0 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
    assert true_peak(limited(sine[None].astype(np.float32), -3.0)) <= -3.0


@pytest.mark.parametrize("samples", [0, 1, 5, 8_191, 8_192, 8_193, 50_000])
def test_length_is_kept_and_lag_is_zero(samples: int) -> None:
    signal = np.zeros((2, samples), np.float32)
    signal[:, samples // 2 : samples // 2 + 1] = 2.0
    output = limited(signal, -1.0)
    assert output.shape == signal.shape
    if samples:
        assert int(np.abs(output[0]).argmax()) == samples // 2
        assert (output != 0).sum() == 2


def test_what_is_under_the_ceiling_is_untouched() -> None:
    signal = bursts(3.0, 2)
    signal *= np.float32(10 ** ((-1.01 - true_peak(signal)) / 20))
    np.testing.assert_array_equal(limited(signal, -1.0), signal)


def test_far_from_a_peak_the_signal_is_untouched() -> None:
    signal = bursts(6.0, level=0.1)
    signal[0, 3 * RATE] = 4.0
    output = limited(signal, -1.0)
    before, after = 3 * RATE - round(0.006 * RATE), 5 * RATE
    np.testing.assert_array_equal(output[:, :before], signal[:, :before])
    np.testing.assert_array_equal(output[:, after:], signal[:, after:])


def test_block_borders_leave_no_trace() -> None:
    signal = bursts(4.0, 2, level=6.0)
    whole = limited(signal, -1.0)
    random = np.random.default_rng(3)
    limiter = Limiter(RATE, 2, -1.0)
    outputs, start, out = [], 0, 0
    while start < signal.shape[1]:
        stop = start + int(random.choice([0, 1, 7, 512, 8_192, 20_000]))
        outputs.append(limiter.push(signal[:, start:stop]))
        out += outputs[-1].shape[1]
        start = min(stop, signal.shape[1])
        assert start - out <= limiter.latency
    outputs.append(limiter.flush())
    np.testing.assert_array_equal(np.concatenate(outputs, axis=1), whole)


def test_one_gain_for_all_channels() -> None:
    signal = bursts(1.0, 2, level=0.3)
    signal[0] *= 20.0
    output = limited(signal, -1.0)
    audible = np.abs(signal).min(axis=0) > 1e-3
    gains = output[:, audible] / signal[:, audible]
    np.testing.assert_allclose(gains[0], gains[1], rtol=1e-4)
    assert gains.min() < 0.5


def test_the_gain_has_no_steps() -> None:
    # A steady carrier shows the gain: it must not move by more than its 5 ms slope allows.
    signal = np.full((1, RATE), 0.5, np.float32)
    signal[0, RATE // 2 : RATE // 2 + 40] = 5.0
    output = limited(signal, -1.0)
    gain = (output / signal)[0]
    assert np.abs(np.diff(gain)).max() < 2.0 / (0.0025 * RATE)
    assert gain.min() < 0.2
    assert gain[-1] > 0.98


def test_the_callers_array_is_not_changed() -> None:
    signal = bursts(1.0, level=8.0)
    copy = signal.copy()
    limited(signal, -1.0)
    np.testing.assert_array_equal(signal, copy)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_oversampling_finds_the_crest_of_a_sine(factor: int) -> None:
    for relative in (0.01, 0.1, 0.25, 0.4, 0.45):
        phases = np.linspace(0.0, np.pi, 40, endpoint=False)[:, None]
        sines = np.sin(2 * np.pi * relative * np.arange(400) + phases).astype(np.float32)
        middle = Oversampler(factor).between(sines, 0.0)[:, 100:200]
        found = np.maximum(middle.max(axis=1), np.abs(sines).max(axis=1))
        under = np.cos(np.pi * relative / factor)  # worst case, between two points of the grid
        # 40 phases and 100 samples sweep the grid densely: the best reads 1, none over 1.3 %.
        assert found.max() <= 1.013
        assert found.min() >= under - 0.013


def test_stretches_under_the_threshold_are_skipped_and_the_others_exact() -> None:
    signal = bursts(0.5, 2)
    oversampler = Oversampler(4)
    everywhere = oversampler.between(signal, 0.0)
    threshold = float(everywhere.max()) * 0.6
    somewhere = oversampler.between(signal, threshold)
    found = somewhere > 0
    assert 0 < found.sum() < found.size
    np.testing.assert_allclose(somewhere[found], everywhere[found], rtol=1e-5)
    assert everywhere[~found].max() <= threshold


def test_the_annex_asks_for_less_at_high_rates() -> None:
    rates = (8_000, 48_000, 88_200, 96_000, 176_400, 192_000)
    assert [annex_factor(rate) for rate in rates] == [4, 4, 4, 2, 2, 1]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, T\)"):
        Limiter(RATE, 2, -1.0).push(np.zeros(10, np.float32))
