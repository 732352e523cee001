"""Material for the upsampler: full-band voices, what is left of them, and what is drawn."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nets import save_model, small_mixer
from scipy.signal import butter, sosfilt
from torch import Tensor

from speakup.errors import ConfigError
from speakup.training.bandlimits import UpsampleRecipe, UpsampleSimulator
from speakup.training.mixtures import Material
from speakup.training.restored import Restorer
from speakup.training.voices import SAMPLE_RATE, VARIANTS, Voices, coded

CPU = torch.device("cpu")
PLAIN = {
    "telephone": 0.0,
    "coded": 0.0,
    "hollow": 0.0,
    "hiss": 0.0,
    "speed": 0.0,
    "coloured": 0.0,
    "level_spread_db": 0.0,
    "wall": 1.0,
    "gentle": 0.0,
    "cutoff_error": 0.0,
    "late": 0.0,
}


def voice(seconds: float, seed: int) -> np.ndarray:
    """Give bursts of noise that fall by 6 dB an octave, full band."""
    random = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    noise = sosfilt(butter(1, 2_000, fs=SAMPLE_RATE, output="sos"), random.standard_normal(count))
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * 3.0 * np.arange(count) / SAMPLE_RATE)
    return 0.2 * noise * swell


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voices")
    for name, seconds, seed in (("a/one", 2.0, 1), ("a/two", 6.0, 2), ("b/three", 2.0, 3)):
        path = root / "speech" / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, voice(seconds, seed).clip(-1, 1), SAMPLE_RATE)
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "top_hz"])
        writer.writerow(["speech/b/three.flac", "anna", "9000"])
    return root


@pytest.fixture(scope="module")
def voices(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Voices:
    return Voices(material, {"speech/*": 1.0}, tmp_path_factory.mktemp("cache"))


def drawn(voices: Voices, batch: int = 6, seed: int = 1, **changes: Any) -> list[np.ndarray]:
    simulator = UpsampleSimulator(voices, UpsampleRecipe(**{**PLAIN, **changes}))
    return [each.numpy() for each in simulator.draw(batch, 22_050, seed, CPU)]


def spectrum(signal: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(signal * np.hanning(len(signal))))


hertz = np.fft.rfftfreq(22_050, 1 / SAMPLE_RATE)


def test_a_recording_is_what_it_was_and_its_variants_lie_in_its_place(voices: Voices) -> None:
    clip = max(voices.clips, key=lambda one: one.samples)
    known = voice(6.0, 2)[44_100:88_200].clip(-1, 1)
    np.testing.assert_allclose(voices.full(clip, 44_100, 44_100), known, atol=1e-4)
    for name, rate in list(VARIANTS.items())[:2]:
        heard = voices.variant(clip, name, 44_100, 44_100)
        assert len(heard) == rate
        below = np.fft.rfft(known)[: rate // 2]
        above = np.fft.rfft(heard)[: rate // 2]
        told = slice(100, 3_000)
        agreement = np.vdot(below[told], above[told]).real
        assert agreement > 0.6 * np.linalg.norm(below[told]) * np.linalg.norm(above[told])


def test_a_top_is_as_stated_or_as_measured(voices: Voices) -> None:
    by_name = {Path(clip.path).stem: clip for clip in voices.clips}
    assert by_name["three"].speaker == "anna" and by_name["three"].top_hz < 9_000.0
    assert by_name["one"].speaker == "a" and by_name["one"].top_hz > 19_000.0


def test_a_speaker_counts_by_the_root_of_what_he_said(voices: Voices) -> None:
    random = np.random.default_rng(0)
    speakers = [voices.draw(random).speaker for _ in range(4_000)]
    # Eight seconds of one, two of the other: twice as often.
    assert speakers.count("a") / speakers.count("anna") == pytest.approx(2.0, rel=0.12)


def test_material_is_decoded_once(material: Path, tmp_path: Path) -> None:
    Voices(material, {"speech/*": 1.0}, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = Voices(material, {"speech/*": 1.0}, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert again.hours == pytest.approx(10.0 / 3600)


def test_material_that_there_is_not_is_told(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recording"):
        Voices(material, {"music/*": 1.0}, tmp_path)
    (material / "broken").mkdir(exist_ok=True)
    (material / "broken" / "one.flac").write_bytes(b"fLaC")
    with pytest.raises(ConfigError, match="cannot be decoded"):
        Voices(material, {"broken": 1.0}, tmp_path)


def test_what_is_heard_ends_at_the_cutoff_and_agrees_below_it(voices: Voices) -> None:
    heard, full, cutoffs, tops = drawn(voices, bands_hz=(), cutoff_hz=(1_000.0, 8_000.0))
    assert heard.shape == full.shape == (6, 22_050)
    for one, two, cutoff, top in zip(heard, full, cutoffs, tops, strict=True):
        before, after = spectrum(two), spectrum(one)
        assert after[hertz > 1.02 * cutoff].max() < 1e-2 * before.max()
        kept = hertz < 0.95 * cutoff
        assert np.linalg.norm((after - before)[kept]) < 0.02 * np.linalg.norm(before[kept])
        missing = (hertz > 1.1 * cutoff) & (hertz < top - 500.0)
        assert before[missing].mean() > 30.0 * after[missing].mean()


def test_nothing_is_asked_for_above_a_recordings_own_top(voices: Voices) -> None:
    _, full, _, tops = drawn(voices, batch=24, bands_hz=(), cutoff_hz=(1_000.0, 2_000.0))
    narrow = tops < 9_000.0
    assert narrow.any() and not narrow.all()
    for one in full[narrow]:
        assert spectrum(one)[hertz > 9_200.0].mean() < 1e-2 * spectrum(one)[hertz < 8_000.0].mean()


@pytest.mark.parametrize("change", ["speed", "coloured", "hiss", "hollow", "telephone", "coded"])
def test_each_damage_is_done(voices: Voices, change: str) -> None:
    limits = {"bands_hz": ((3_400.0, 3_500.0, 1.0),)}
    plain, other = drawn(voices, **limits), drawn(voices, **limits, **{change: 1.0})
    for each in other[:2]:
        assert np.isfinite(each).all() and np.sqrt(np.mean(np.square(each))) < 0.2
    assert not np.allclose(plain[0], other[0], atol=1e-3)
    if change in ("hiss", "hollow", "telephone", "coded"):  # What is untouched is not asked for.
        low = hertz < 0.65 * other[2].min()
        for one, two in zip(other[0], other[1], strict=True):
            assert np.linalg.norm((spectrum(one) - spectrum(two))[low]) < 0.05 * np.linalg.norm(
                spectrum(two)[low]
            )


def test_a_cutoff_may_be_told_later_than_what_its_filter_leaves(voices: Voices) -> None:
    limits = {"bands_hz": ((4_000.0, 4_001.0, 1.0),)}
    known, late = drawn(voices, **limits)[2], drawn(voices, 12, **limits, late=1.0)[2]
    assert np.abs(known - 4_000.0).max() < 2.0
    assert late.min() > 3_999.0 and 4_150.0 < late.max() < 4_362.0


def test_a_seed_decides_what_is_drawn(voices: Voices) -> None:
    first, again, other = drawn(voices, seed=1), drawn(voices, seed=1), drawn(voices, seed=2)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("coding", ["GSM610", "ULAW", "OPUS", "MPEG_LAYER_III"])
def test_a_coded_voice_lies_where_it_was(coding: str) -> None:
    rate = 16_000 if coding == "MPEG_LAYER_III" else 8_000
    container = {"OPUS": "OGG", "MPEG_LAYER_III": "MP3"}.get(coding, "WAV")
    random = np.random.default_rng(5)
    sos = butter(2, (300, 2_000), "bandpass", fs=rate, output="sos")
    known = (0.3 * sosfilt(sos, random.standard_normal(2 * rate))).astype(np.float32)
    heard = coded(known, rate, container, coding, 0.9)
    assert len(heard) == len(known)
    agreement = float(np.vdot(known, heard)) / (np.linalg.norm(known) * np.linalg.norm(heard))
    assert agreement > 0.8
    silence = np.zeros(rate, np.float32)
    assert not coded(silence, rate, container, coding, 0.9).any()


def test_restored_voices_are_what_the_denoiser_makes(material: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", small_mixer())
    noise = np.random.default_rng(1).integers(-3_000, 3_000, 40_000).astype(np.int16)
    nothing = Material([], [], 16_000)

    def restorer() -> Restorer:
        return Restorer(str(folder), Material([[noise]], [1.0], 16_000), nothing)

    pattern = {"speech/*": 1.0}
    made = Voices(material, pattern, tmp_path, denoiser=str(folder), restorer=restorer)
    with_it = [clip for clip in made.clips if "restored" in clip.variants]
    assert len(with_it) == 1
    low = made.variant(with_it[0], "restored", 0, 44_100)
    assert len(low) == 16_000 and np.isfinite(low).all() and low.any()
    heard, full, _, _ = drawn(made, restored=1.0, bands_hz=(), cutoff_hz=(15_000.0, 16_000.0))
    assert not np.allclose(heard, full, atol=1e-3)


def test_the_batch_is_of_tensors_on_the_device(voices: Voices) -> None:
    batch = UpsampleSimulator(voices, UpsampleRecipe()).draw(2, 22_050, 3, CPU)
    assert all(isinstance(each, Tensor) and each.dtype == torch.float32 for each in batch)
