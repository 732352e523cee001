from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from speech import RATE, noise, voice

from speakup.errors import ConfigError, ModelError
from speakup.judge import speaker
from speakup.judge.pairs import read_pairs


@pytest.fixture
def package() -> None:
    if not speaker.available():
        pytest.skip("the package Resemblyzer is not installed")


@pytest.mark.usefixtures("package")
def test_a_voice_is_like_itself_at_any_level_and_rate() -> None:
    said = voice(rate=48_000)
    assert speaker.similarity(said, said, 48_000) == pytest.approx(1.0, abs=1e-6)
    stereo = np.stack([said, said]) * -0.01
    assert speaker.similarity(stereo, said, 48_000) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.usefixtures("package")
def test_another_voice_is_less_like_it_than_the_same_in_light_noise() -> None:
    said = voice()
    noisy = speaker.similarity(said + noise(3.0, 0.001), said, RATE)
    assert 1.0 > noisy > 0.99
    assert speaker.similarity(voice(f0_hz=260), said, RATE) < 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("package")
def test_people_are_told_apart(shared_recordings: Path) -> None:
    """Hold voices in light noise against those of other people, on a few real recordings."""
    manifest = next(shared_recordings.rglob("dev/manifest.csv"), None)
    if manifest is None:
        pytest.skip("SPEAKUP_TEST_DATA holds no folder dev of pairs")
    voices: dict[str, tuple[Any, int]] = {}
    for pair in read_pairs(manifest.parent):
        samples, rate = soundfile.read(pair.reference)
        voices.setdefault(pair.tags["speaker"], (samples.T, rate))
    clean, noisy = [], []
    for waveform, rate in list(voices.values())[:8]:
        hiss = np.random.default_rng(0).standard_normal(waveform.shape)
        level = 0.01 * np.sqrt(np.mean(np.square(waveform)))  # 40 dB below the voice
        clean.append(speaker.embed(waveform, rate))
        noisy.append(speaker.embed(waveform + level * hiss, rate))
    alike = np.array(noisy) @ np.array(clean).T
    same, others = np.diag(alike), alike[~np.eye(len(alike), dtype=bool)]
    assert len(same) == 8
    assert same.min() > others.max()
    assert others.mean() < 0.75


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("seconds", "largest"),
    [
        (3.0, {89: 0.29469, 127: 0.28023, 220: 0.22733, 34: 0.22593, 179: 0.20619}),
        (4.13, {89: 0.28879, 127: 0.27467, 220: 0.23632, 34: 0.21881, 179: 0.20615}),
    ],
)
def test_vectors_are_those_of_the_package(seconds: float, largest: dict[int, float]) -> None:
    # What Resemblyzer 0.1.4's own code gives for this sound at -30 dBFS.
    found = speaker.embed(voice(seconds), RATE)
    assert np.linalg.norm(found) == pytest.approx(1.0)
    for place, value in largest.items():
        assert found[place] == pytest.approx(value, abs=1e-4)
    assert sorted(largest) == sorted(np.argsort(-found)[: len(largest)])


@pytest.mark.usefixtures("package")
def test_what_sounds_in_the_references_pauses_does_not_count() -> None:
    pause = noise(1.0, 0.0005)  # a quiet room
    said = np.concatenate([voice(2.0), pause, voice(2.0)])
    hiss = np.concatenate([voice(2.0), noise(1.0, 0.05), voice(2.0)])
    hiss[2 * RATE : 2 * RATE + 2400] = said[2 * RATE : 2 * RATE + 2400]  # near speech it may
    hiss[3 * RATE - 2400 : 3 * RATE] = said[3 * RATE - 2400 : 3 * RATE]
    assert speaker.similarity(hiss, said, RATE) == pytest.approx(1.0, abs=1e-6)
    assert speaker.similarity(said + noise(5.0, 0.05), said, RATE) < 0.9


@pytest.mark.usefixtures("package")
def test_a_long_recording_gives_what_it_gives_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    said = voice(5.0)
    whole = speaker.embed(said, RATE)
    monkeypatch.setattr(speaker, "_PARTS_AT_ONCE", 2)
    np.testing.assert_allclose(speaker.embed(said, RATE), whole, atol=1e-6)


@pytest.mark.usefixtures("package")
def test_silence_and_short_sounds_have_no_voice() -> None:
    said = voice()
    for estimate, reference in (
        (np.zeros_like(said), said),
        (said, np.zeros_like(said)),
        (said[:RATE], said[:RATE]),
        (np.zeros(0), said),
    ):
        assert math.isnan(speaker.similarity(estimate, reference, RATE))


def test_the_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    assert not speaker.available()
    with pytest.raises(ConfigError, match=r"Resemblyzer.*--no-deps resemblyzer"):
        speaker.similarity(voice(), voice(), RATE)


class _Foreign:
    pass


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"model_state": {"linear.bias": torch.zeros(256)}}, "missing"),
        ({"weights": {}}, "KeyError"),
        ({"model_state": {}, "step": _Foreign()}, "UnpicklingError"),
    ],
)
def test_damaged_and_foreign_weights_are_refused(
    content: object, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(content, tmp_path / "pretrained.pt")
    monkeypatch.setattr(speaker, "_weights_file", lambda: tmp_path / "pretrained.pt")
    with pytest.raises(ModelError, match=problem):
        speaker.embed(voice(), RATE)
