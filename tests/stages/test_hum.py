"""Facts about hum: its lines go, also when they drift, and a voice without it stays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from speech import voice

from speakup.blocks import db_to_gain, power_to_db
from speakup.measure.hum import Hum, HumMeter
from speakup.stages.hum import Dehum

RATE = 16_000
Waveform = NDArray[np.float32]


def hum(
    seconds: float, mains_hz: float, level_db: float, drift: float = 0.0, rate: int = RATE
) -> Waveform:
    """Give twelve lines, (1, T), whose frequency sways by a share of it once a minute."""
    time = np.arange(round(seconds * rate)) / rate
    turned = np.cumsum(mains_hz * (1.0 + drift * np.sin(2 * np.pi * time / 60.0))) / rate
    random = np.random.default_rng(4)
    sound = np.zeros(len(time))
    for line in range(1, 13):
        shift = random.uniform(0.0, 1.0)
        sound += random.uniform(0.3, 1.0) / line * np.sin(2 * np.pi * (line * turned + shift))
    sound *= db_to_gain(level_db) / np.sqrt(np.mean(np.square(sound)))
    return sound[None].astype(np.float32)


def said(seconds: float, rate: int = RATE) -> Waveform:
    return voice(seconds, 115.0, rate)[None].astype(np.float32)


def heard(waveform: Waveform, rate: int = RATE, block: int = 20_000) -> tuple[Hum, ...]:
    meter = HumMeter(rate, len(waveform))
    for start in range(0, waveform.shape[1], block):
        meter.push(waveform[:, start : start + block])
    return meter.hum()


def cleaned(
    waveform: Waveform, hums: tuple[Hum, ...], rate: int = RATE, block: int = 20_000
) -> tuple[Waveform, dict[str, float]]:
    stage = Dehum(rate, hums)
    blocks = [waveform[:, i : i + block] for i in range(0, waveform.shape[1], block)]
    held, parts = 0, []
    for one in blocks:
        parts.append(stage.push(one.copy()))
        held += one.shape[1] - parts[-1].shape[1]
        assert held <= (stage.latency or 0)
    result = np.concatenate([*parts, *stage.flush()], axis=1)
    assert result.shape == waveform.shape
    return result, stage.did


def power_db(waveform: NDArray[np.floating]) -> float:
    return power_to_db(float(np.mean(np.square(waveform, dtype=np.float64))))


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
@pytest.mark.parametrize("drift", [0.0, 0.002])
def test_hum_goes_and_the_voice_stays(mains_hz: float, drift: float) -> None:
    spoken, hums = said(25.0), hum(25.0, mains_hz, -40.0, drift)
    found = heard(spoken + hums)
    assert found[0].mains_hz == mains_hz
    result, did = cleaned(spoken + hums, found)
    assert power_db(result - spoken) <= power_db(hums) - 30.0
    assert did["mains_hz"] == pytest.approx(mains_hz, rel=0.0025)
    assert did["taken_dbfs"] == pytest.approx(-40.0, abs=0.5)


@pytest.mark.parametrize("rate", [4_000, 8_000, 44_100])
def test_every_rate_will_do(rate: int) -> None:
    hums = hum(13.0, 50.0, -30.0, 0.001, rate)
    noise = np.random.default_rng(2).standard_normal(hums.shape).astype(np.float32) * 1e-4
    found = heard(hums + noise, rate)
    assert set(range(1, 13)) <= set(found[0].lines)
    result, _ = cleaned(hums + noise, found, rate)
    assert power_db(result - noise) <= power_db(hums) - 30.0


@pytest.mark.parametrize("seconds", [2.95, 5.0, 6.0, 8.9, 9.0, 12.3])
def test_every_length_will_do(seconds: float) -> None:
    hums = hum(seconds, 60.0, -30.0)
    result, _ = cleaned(hums, heard(hums))
    assert power_db(result) <= power_db(hums) - 30.0


def test_a_voice_without_hum_passes_bit_for_bit() -> None:
    spoken = said(20.0)
    found = heard(spoken)
    assert found == (Hum(),)
    result, did = cleaned(spoken, found)
    assert np.array_equal(result, spoken)
    assert did == {}


@pytest.mark.parametrize(
    "frequencies", [(440.0,), (1_000.0,), (220.0, 277.2, 329.6), (98.0, 196.0)]
)
def test_tones_are_no_hum(frequencies: tuple[float, ...]) -> None:
    time = np.arange(15 * RATE) / RATE
    sound = sum(0.1 * np.sin(2 * np.pi * hertz * time) for hertz in frequencies)
    waveform = np.asarray(sound)[None].astype(np.float32)
    noise = np.random.default_rng(2).standard_normal(waveform.shape).astype(np.float32) * 1e-4
    assert heard(waveform + noise) == (Hum(),)


@pytest.mark.parametrize("sound", ["noise", "silence", "nothing", "short"])
def test_where_there_is_no_hum_none_is_found(sound: str) -> None:
    noise = np.random.default_rng(2).standard_normal((1, 20 * RATE)).astype(np.float32) * 0.01
    waveforms = {
        "noise": noise,
        "silence": 0 * noise,
        "nothing": noise[:, :0],
        "short": noise[:, :9],
    }
    found = heard(waveforms[sound])
    assert found == (Hum(),)
    assert np.array_equal(cleaned(waveforms[sound], found)[0], waveforms[sound])


def test_channels_have_their_own_hum() -> None:
    spoken = said(15.0)
    waveform = np.concatenate(
        [spoken + hum(15.0, 50.0, -40.0), spoken, spoken + hum(15.0, 60.0, -45.0)]
    )
    found = heard(waveform)
    assert [one.mains_hz for one in found] == [50.0, 0.0, 60.0]
    result, _ = cleaned(waveform, found)
    assert np.array_equal(result[1], spoken[0])
    assert np.abs(result - spoken).max() < 2e-3


@pytest.mark.parametrize("block", [1_013, 100_000, 400_000])
def test_the_size_of_the_blocks_does_not_matter(block: int) -> None:
    waveform = said(20.0) + hum(20.0, 50.0, -40.0, 0.002)
    found = heard(waveform)
    assert heard(waveform, block=block)[0].mains_hz == found[0].mains_hz
    assert np.array_equal(cleaned(waveform, found, block=block)[0], cleaned(waveform, found)[0])


def test_a_formant_on_a_line_stays() -> None:
    """What is taken out of a voice that has no hum, told that it has, is next to nothing."""
    spoken = said(20.0)
    result, _ = cleaned(spoken, (Hum(50.0, tuple(range(1, 41))),))
    assert power_db(result - spoken) <= power_db(spoken) - 25.0


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_a_voice_with_hum_sounds_as_without(mains_hz: float) -> None:
    pesq = pytest.importorskip("pesq").pesq
    spoken = said(20.0)
    waveform = spoken + hum(20.0, mains_hz, -40.0, 0.002)
    result, _ = cleaned(waveform, heard(waveform))
    part = slice(5 * RATE, 15 * RATE)
    assert pesq(RATE, spoken[0, part], waveform[0, part], "wb") < 4.0
    assert pesq(RATE, spoken[0, part], result[0, part], "wb") >= 4.4
