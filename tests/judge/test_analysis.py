from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from signals import RATE, Signal, bursts, noise, tone, write

from speakup.errors import ConfigError
from speakup.judge.analysis import Analysis, analyze, analyze_over_time
from speakup.judge.delivery import SPECS, check_delivery, delivery_checks
from speakup.media import recording


def test_a_tone_measures_as_calculated(tmp_path: Path) -> None:
    # BS.1770: a 997 Hz tone at 0 dBFS in one channel reads -3.01 LUFS.
    found = analyze(write(tmp_path / "tone.wav", tone(5.0, 0.1)))
    assert found.integrated_lufs == pytest.approx(-23.01, abs=0.05)
    assert found.true_peak_dbtp == pytest.approx(-20.0, abs=0.1)
    assert found.sample_peak_dbfs == pytest.approx(-20.0, abs=0.01)
    assert found.rms_dbfs == pytest.approx(-23.01, abs=0.01)
    assert found.noise_floor_dbfs == pytest.approx(-23.01, abs=0.05)
    assert found.loudness_range_lu == pytest.approx(0.0, abs=0.05)
    assert (found.seconds, found.sample_rate, found.channels) == (5.0, RATE, 1)
    assert found.clipped_share == 0.0 and found.silent_share == 0.0
    assert found.dnsmos is None and found.warnings == ()


@pytest.mark.parametrize("snr_db", [0, 10, 20, 30])
def test_steady_noise_is_told_within_1_db(tmp_path: Path, snr_db: float) -> None:
    mixed = bursts(6.0, 0.05) + noise(6.0, 0.05 * 10 ** (-snr_db / 20))
    assert analyze(write(tmp_path / "a.wav", mixed)).snr_db == pytest.approx(snr_db, abs=1.0)


def test_silence_has_no_level_and_no_clipping(tmp_path: Path) -> None:
    found = analyze(write(tmp_path / "silence.wav", np.zeros((2, RATE))))
    assert found.integrated_lufs == -math.inf and found.noise_floor_dbfs == -math.inf
    assert math.isnan(found.snr_db)
    assert found.silent_share == 1.0 and found.clipped_share == 0.0
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["integrated_lufs"] is None
    assert dict(found.rows())["Loudness"] == "-∞ LUFS"


def test_half_silence_is_half(tmp_path: Path) -> None:
    sound = np.concatenate([tone(1.0, 0.1), np.zeros(RATE)])
    found = analyze(write(tmp_path / "half.wav", sound))
    assert found.silent_share == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("level", [1.0, 0.4])
def test_clipping_is_found_at_any_level(tmp_path: Path, level: float) -> None:
    sound = noise(2.0, 0.2).cumsum()
    sound -= np.convolve(sound, np.ones(400) / 400, "same")  # smooth, as speech is
    edge = np.quantile(np.abs(sound), 0.97)
    clipped = np.clip(sound, -edge, edge) / edge * level * (1 - 2**-15)
    found = analyze(write(tmp_path / "clipped.wav", clipped, subtype="PCM_16"))
    assert 0.01 < found.clipped_share <= 0.03
    gentle = analyze(write(tmp_path / "whole.wav", sound / np.abs(sound).max() * level * 0.99))
    assert gentle.clipped_share < 1e-4


def test_measuring_is_the_same_in_any_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped = np.clip(bursts(2.0, 0.3), -0.5, 0.5)
    path = write(tmp_path / "a.wav", np.stack([clipped, 0.5 * clipped]))
    whole = analyze(path)
    read = recording.read_blocks
    monkeypatch.setattr(recording, "read_blocks", lambda name, **kw: read(name, 1013, **kw))
    in_blocks = analyze(path)
    assert in_blocks.clipped_share == whole.clipped_share
    assert in_blocks.silent_share == whole.silent_share
    assert in_blocks.snr_db == pytest.approx(whole.snr_db, abs=1e-6)


def test_samples_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    sound = tone(1.0, 0.1)
    sound[1000:1010] = np.nan
    sound[2000] = np.inf
    found = analyze(write(tmp_path / "odd.wav", sound))
    assert found.integrated_lufs == pytest.approx(-23.0, abs=0.2)
    assert math.isfinite(found.snr_db) and math.isfinite(found.silent_share)


def test_listeners_scores_are_predicted_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def predict(samples: Signal, rate: int) -> dict[str, float]:
        lengths.append(samples.shape[-1])
        return {"ovrl": float(len(lengths)), "sig": 3.0, "bak": 4.0}

    monkeypatch.setattr("speakup.judge.metrics.dnsmos", predict)
    path = write(tmp_path / "a.wav", noise(26.0, 0.1, rate=8000), 8000)
    found = analyze(path, dnsmos=True)
    assert lengths == [80_000, 80_000, 48_000]
    assert found.dnsmos == {"ovrl": 2.0, "sig": 3.0, "bak": 4.0}
    assert dict(found.rows())["DNSMOS overall"] == "2.00"
    lengths.clear()
    analyze(write(tmp_path / "b.wav", noise(12.0, 0.1, rate=8000), 8000), dnsmos=True)
    assert lengths == [80_000], "a short rest does not count"


def test_loudness_over_time_is_that_of_the_window_that_ends_there(tmp_path: Path) -> None:
    # Four seconds at -23 LUFS, then four 20 dB lower.
    sound = np.concatenate([tone(4.0, 0.1), tone(4.0, 0.01)])
    found, curve = analyze_over_time(write(tmp_path / "a.wav", sound))
    momentary, short = curve.momentary_lufs, curve.short_term_lufs
    assert len(momentary) == len(short) == 80
    assert np.isnan(momentary[:3]).all() and np.isnan(short[:29]).all()
    assert momentary[[3, 39]] == pytest.approx(-23.01, abs=0.1)
    assert momentary[44:] == pytest.approx(-43.01, abs=0.1)
    assert short[[29, 39, 79]] == pytest.approx([-23.01, -23.01, -43.01], abs=0.1)
    half_way = 10 * np.log10((1.5 * 10**-2.301 + 1.5 * 10**-4.301) / 3)
    assert short[54] == pytest.approx(half_way, abs=0.1)
    assert found == analyze(tmp_path / "a.wav")


def test_the_floor_below_the_speech_does_not_depend_on_gain(tmp_path: Path) -> None:
    sound = bursts(6.0, 0.05) + noise(6.0, 0.001)
    quiet = analyze(write(tmp_path / "a.wav", 0.1 * sound))
    loud = analyze(write(tmp_path / "b.wav", sound))
    assert loud.noise_floor_dbfs == pytest.approx(quiet.noise_floor_dbfs + 20.0, abs=0.1)
    assert loud.floor_below_speech_db == pytest.approx(quiet.floor_below_speech_db, abs=0.1)


def measured(lufs: float, peak: float, rms: float, floor: float) -> Analysis:
    return Analysis(
        *("a.wav", 60.0, RATE, 1, lufs, 3.0, peak, peak - 0.1, rms, floor),
        *(30.0, 16_000.0, False, 0.0, 0.0),
    )


@pytest.mark.parametrize(
    ("lufs", "peak", "rms", "floor", "passing"),
    [
        (-16.0, -1.0, -17.0, -70.0, {"podcast"}),
        (-16.9, -1.5, -17.0, -70.0, {"podcast"}),
        (-14.3, -1.0, -15.0, -70.0, {"spotify", "youtube"}),
        (-23.4, -6.0, -25.0, -70.0, {"ebu"}),
        (-19.0, -3.0, -20.0, -60.0, {"acx", "aes"}),
        (-19.0, -3.0, -20.0, -59.0, {"aes"}),
        (-19.0, -2.0, -20.0, -70.0, {"aes"}),
        (-16.0, -0.5, -17.0, -70.0, set()),
        (-math.inf, -math.inf, -math.inf, -math.inf, set()),
    ],
)
def test_delivery_specifications(
    lufs: float, peak: float, rms: float, floor: float, passing: set[str]
) -> None:
    checks = delivery_checks(measured(lufs, peak, rms, floor))
    assert [one.target for one in checks] == list(SPECS)
    assert {one.target for one in checks if one.passed} == passing
    assert {one.target for one in checks if not one.change} == passing


def test_a_failed_check_says_what_is_wanted_and_what_to_do() -> None:
    apple = check_delivery(measured(-20.0, -0.2, -21.0, -70.0), "podcast")
    assert apple.why == "-20.0 LUFS, wanted -17 to -15; -0.2 dBTP, wanted at most -1"
    assert apple.change == "turn it up by 4.0 dB; limit peaks to -1 dBTP"
    book = check_delivery(measured(-16.0, -4.0, -16.5, -55.0), "acx")
    assert book.change == "turn it down by 4.0 dB; lower the noise floor by 5.0 dB"


def test_any_loudness_can_be_checked_against() -> None:
    found = check_delivery(measured(-18.4, -2.0, -20.0, -70.0), "-18")
    assert found.passed and found.spec == "-18 LUFS"
    with pytest.raises(ConfigError, match="nothing to check"):
        check_delivery(measured(-18.4, -2.0, -20.0, -70.0), "off")
