"""Recordings in memory.

A `Corpus` holds one kind of material (speech, noise, room responses) as 16-bit samples at one
rate, decoded once and kept in a cache folder between runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speakup.errors import ConfigError

_SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3"}


class Corpus:
    """Many recordings at one sample rate, by source, each with its weight, int16.

    Args:
        root: Folder the patterns are relative to.
        patterns: Folder pattern -> weight of all files under it together, e.g.
            {"speech/*/librispeech": 2.0}. Each matching folder's weight is the pattern's.
        sample_rate: Hz to which everything is brought.
        cache: Folder for the decoded samples; made if missing.
        floor_db: Recordings whose floor lies less than this under the voice are left out.

    Raises:
        ConfigError: a pattern matches nothing, a folder holds no recordings, or one of them
            cannot be decoded.
    """

    def __init__(
        self,
        root: Path,
        patterns: dict[str, float],
        sample_rate: int,
        cache: Path,
        *,
        floor_db: float = 0.0,
    ) -> None:
        self.sample_rate = sample_rate
        self.sources: list[list[np.ndarray]] = []
        self.weights: list[float] = []
        for pattern, weight in patterns.items():
            folders = sorted(path for path in root.glob(pattern) if path.is_dir())
            if not folders:
                raise ConfigError("no folder matches this pattern of the recipe", root / pattern)
            for folder in folders:
                files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
                items = [item for item in _decode_all(files, sample_rate, cache) if len(item)]
                if not items:
                    raise ConfigError("the folder holds no recordings", folder)
                if floor_db > 0.0:
                    items = [item for item in items if floor_under_db(item, sample_rate) > floor_db]
                if not items:
                    continue
                self.sources.append(items)
                self.weights.append(float(weight))

    @property
    def hours(self) -> float:
        """Hours of audio held."""
        samples = sum(len(item) for items in self.sources for item in items)
        return samples / self.sample_rate / 3600


def floor_under_db(recording: np.ndarray, sample_rate: int) -> float:
    """Give how far a recording's floor lies under its voice: what a target may hold at most.

    The voice is the mean of those 20 ms frames that are within 35 dB of the loudest, the floor
    the 5th percentile of all that are no digital silence.
    """
    frame = sample_rate // 50
    frames = recording[: len(recording) // frame * frame].reshape(-1, frame).astype(np.float32)
    energy = np.einsum("nt,nt->n", frames, frames) / (frame * 32_768.0**2)
    energy = energy[energy > 1e-9]
    if not len(energy):
        return 0.0
    voice = energy[energy > energy.max() * 10.0**-3.5].mean()
    return 10.0 * float(np.log10(voice / np.percentile(energy, 5.0)))


def _decode_all(files: Iterable[Path], sample_rate: int, cache: Path) -> list[np.ndarray]:
    files = list(files)
    stamp = json.dumps([[str(f), f.stat().st_size, sample_rate] for f in files])
    stored = cache / (hashlib.sha256(stamp.encode()).hexdigest()[:24] + ".npz")
    if not stored.exists():
        decoded = {f"{index:06d}": _decode(file, sample_rate) for index, file in enumerate(files)}
        cache.mkdir(parents=True, exist_ok=True)
        temporary = stored.with_suffix(".part.npz")
        np.savez(temporary, **decoded)  # type: ignore[arg-type]
        temporary.replace(stored)
    with np.load(stored) as archive:
        return [archive[name] for name in sorted(archive.files)]


def _decode(file: Path, sample_rate: int) -> np.ndarray:
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ConfigError(f"cannot be decoded ({error})", file, "Take it out") from error
    mono = samples[:, 0]
    if rate != sample_rate and len(mono):
        mono = soxr.resample(mono, rate, sample_rate)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak > 0.99:
        mono = mono * (0.99 / peak)
    return np.round(mono * 32767.0).astype(np.int16)
