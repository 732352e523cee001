"""A voice that was once coded at a low rate is told by the holes in it, and by nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import lfilter
from sounds import vowels

from speakup import Config, Pipeline
from speakup.judge.analysis import analyze
from speakup.measure.lossy import CodingMeter

RATE = 44_100
FORMANTS = ((600, 80), (1_500, 120), (2_600, 180), (3_500, 250), (4_600, 350), (5_800, 450))


def voice(seconds: float = 8.0, rate: int = RATE) -> np.ndarray:
    """Give vowels with a little breath over the whole band, that come and go twice a second."""
    random, time = np.random.default_rng(0), np.arange(round(seconds * rate)) / rate
    sound = vowels(120.0 + 25.0 * np.sin(2 * np.pi * 0.7 * time), (*FORMANTS, (6_900, 500)), rate)
    breath = 5e-4 * lfilter([1.0, -0.7], [1.0], random.standard_normal(len(time)))
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * time), 0.0, None)
    return syllables * (0.1 * sound / np.std(sound) + breath) + 1e-5 * random.standard_normal(
        len(time)
    )


def once(kind: str, compression: float, signal: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Encode and decode; compression from 0 to 1, where 0.9 is about 64 kbit/s for MP3."""
    options = {"bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
    subtype = "MPEG_LAYER_III" if kind == "MP3" else "VORBIS"
    file = io.BytesIO()
    soundfile.write(
        file, signal, rate, subtype, format=kind, compression_level=compression, **options
    )
    file.seek(0)
    return np.asarray(soundfile.read(file)[0])


def holes(signal: np.ndarray, rate: int = RATE) -> float:
    meter = CodingMeter(rate)
    meter.push(np.atleast_2d(signal).astype(np.float32))
    return meter.holes()


def coded(signal: np.ndarray, rate: int = RATE) -> bool:
    meter = CodingMeter(rate)
    meter.push(np.atleast_2d(signal).astype(np.float32))
    return meter.coded(rate / 2)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_voice_as_it_was_recorded_has_no_holes(rate: int) -> None:
    assert holes(voice(rate=rate), rate) < 1e-4


@pytest.mark.parametrize(("kind", "compression"), [("MP3", 0.9), ("OGG", 1.0)])
@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_a_low_rate_is_told_whatever_became_of_the_file(
    kind: str, compression: float, rate: int
) -> None:
    assert coded(soxr.resample(once(kind, compression, voice()), RATE, rate), rate)


@pytest.mark.parametrize(("kind", "compression"), [("MP3", 0.5), ("OGG", 0.3)])
def test_a_high_rate_is_as_good_as_none(kind: str, compression: float) -> None:
    assert not coded(once(kind, compression, voice()))


@pytest.mark.parametrize("level_db", [-40.0, -10.0, 20.0])
def test_the_level_does_not_matter(level_db: float) -> None:
    signal = once("MP3", 0.9, voice())
    assert holes(10 ** (level_db / 20) * signal) == pytest.approx(holes(signal), rel=0.15)


def test_noise_over_the_holes_leaves_nothing_to_tell() -> None:
    noise = 1e-3 * np.random.default_rng(1).standard_normal(8 * RATE)
    assert not coded(once("MP3", 0.9, voice()) + noise)


def test_gated_pauses_and_fades_are_no_holes() -> None:
    signal = voice()
    signal[np.abs(lfilter([0.01], [1.0, -0.99], np.abs(signal))) < 2e-3] = 0.0
    assert not coded(signal * np.linspace(1.0, 0.0, len(signal)))


@pytest.mark.parametrize("pitch_hz", [110.0, 300.0, 800.0])
def test_gaps_between_harmonics_are_no_holes(pitch_hz: float) -> None:
    time = np.arange(8 * RATE) / RATE
    phase = 2 * np.pi * pitch_hz * (time + 0.01 * np.sin(2 * np.pi * 0.7 * time))
    harmonics = [np.sin(k * phase) / k for k in range(1, int(20_000 / pitch_hz))]
    assert not coded(0.1 * np.sum(harmonics, axis=0))


def test_gaps_between_the_notes_of_chords_are_no_holes() -> None:
    time = np.arange(8 * RATE) / RATE
    root = 220.0 * 2.0 ** (np.floor(time) % 5 / 12)  # another chord every second
    phases = [2 * np.pi * np.cumsum(root * part) / RATE for part in (1.0, 1.26, 1.5)]
    notes = [np.sin(k * phase) / k for phase in phases for k in range(1, 45)]
    assert not coded(0.05 * np.sum(notes, axis=0))


@pytest.mark.parametrize("bandwidth_hz", [None, 3_400.0, 7_000.0])
def test_a_band_too_narrow_for_holes_tells_nothing(bandwidth_hz: float | None) -> None:
    meter = CodingMeter(RATE)
    meter.push(once("MP3", 0.9, voice())[None].astype(np.float32))
    assert meter.coded(8_000.0)
    assert not meter.coded(bandwidth_hz)


@pytest.mark.parametrize("samples", [0, 1, 1_000, 2 * RATE])
def test_silence_and_snippets_tell_nothing(samples: int) -> None:
    assert holes(np.zeros(samples)) == 0.0
    assert holes(voice(0.1)[:samples]) == 0.0


@pytest.mark.parametrize("rate", [1, 30, 8_000, 14_000])
def test_no_rate_is_too_low_to_be_asked(rate: int) -> None:
    meter = CodingMeter(rate)
    meter.push(voice(rate=RATE)[None].astype(np.float32))
    assert meter.holes() == 0.0
    assert not meter.coded(rate / 2)


def test_block_borders_leave_no_trace_and_asking_does_not_disturb() -> None:
    signal = once("MP3", 0.9, voice())[None].astype(np.float32)
    whole, parts = CodingMeter(RATE), CodingMeter(RATE)
    whole.push(signal)
    for start in range(0, signal.shape[1], 12_345):
        parts.push(signal[:, start : start + 12_345])
        parts.holes()
    assert parts.holes() == whole.holes() > 0.0


def test_channels_out_of_phase_do_not_cancel() -> None:
    signal = once("MP3", 0.9, voice())
    assert holes(np.stack([signal, -signal])) == pytest.approx(holes(signal))


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sample rate"):
        CodingMeter(0)
    with pytest.raises(ValueError, match=r"\(C, T\)"):
        CodingMeter(RATE).push(np.zeros(10, np.float32))


def level_db(signal: np.ndarray, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(signal)) ** 2
    hertz = np.fft.rfftfreq(len(signal), 1 / RATE)
    return float(10 * np.log10(power[(hertz > low_hz) & (hertz < high_hz)].sum()))


def test_nothing_is_made_up_where_a_coder_had_left_nothing() -> None:
    signals = {False: voice(), True: once("MP3", 0.9, voice())}
    tops = {}
    for was_coded, signal in signals.items():
        narrow = soxr.resample(signal, RATE, 16_000).astype(np.float32)
        for upsample in ("auto", "always"):
            config = Config(denoise=False, loudness="off", upsample=upsample)
            tops[was_coded, upsample] = Pipeline(config).process(narrow[None], 16_000)[0]
    for result in tops.values():
        assert level_db(result, 9_000, 15_500) > level_db(tops[False, "auto"], 9_000, 15_500) - 6
    above = {key: level_db(result, 16_400, 19_500) for key, result in tops.items()}
    assert above[True, "auto"] < above[False, "auto"] - 40.0
    assert above[True, "always"] > above[True, "auto"] + 40.0  # what is asked for is done


def test_analyze_tells_of_it(tmp_path: Path) -> None:
    for was_coded, signal in ((False, voice()), (True, once("MP3", 0.9, voice()))):
        path = tmp_path / f"{was_coded}.wav"
        soundfile.write(path, signal, RATE, "PCM_24")
        assert analyze(path).coded == was_coded
        wanted = "it seems so" if was_coded else "no sign of it"
        assert dict(analyze(path).rows())["Coded at a low rate"] == wanted


def test_real_recordings(shared_recordings: Path) -> None:
    references = sorted(shared_recordings.rglob("reference.flac"))[3::7]
    assert references
    for path in references:
        signal, rate = soundfile.read(path, always_2d=True)
        signal = signal[:, 0]
        if rate < 32_000:
            continue
        low = once("MP3", 0.9, signal, rate)
        assert holes(low, rate) > max(1e-3, holes(signal, rate)), path
