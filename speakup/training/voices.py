"""Full-band voices, decoded once, and what telephones and coders leave of their low band.

Everything is 16-bit samples in files of a cache folder, mapped into memory: a run touches what it
draws and shares it with every other run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy import fft

from speakup.errors import ConfigError
from speakup.measure.bandwidth import BandwidthMeter

Signal = NDArray[np.float32]

SAMPLE_RATE = 44_100
STEP = 441
"""Samples at 44.1 kHz at which stretches begin, a whole number of samples at 8 and 16 kHz too."""

SHORTEST = 4 * STEP
"""Samples of a recording under which it is left out."""

VARIANTS = {"telephone": 8_000, "coded": 16_000, "restored": 16_000}
"""What may have become of a low band, and its sample rate."""

_FORMAT = 2
_RESTORED_OF = 3  # A denoiser takes its time: every third recording is enough.
_SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3"}
_HIGHEST_TOP_HZ = 19_600.0
_EDGE_HZ = 250.0
_LONGEST_DELAY_SECONDS = 0.15
_CODERS: dict[str, tuple[tuple[str, str], ...]] = {
    "telephone": (("WAV", "GSM610"), ("WAV", "ULAW"), ("OGG", "OPUS"), ("WAV", "ALAW")),
    "coded": (("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
}


@dataclass(frozen=True)
class Clip:
    """One recording's place among the packed samples.

    Attributes:
        path: Relative to the data folder.
        speaker: Who speaks, as far as is known: else the file's folder.
        top_hz: Where its own content ends; above it nothing is known.
        start: Its first sample among all.
        samples: How many.
        variants: Of each variant it has, the first sample among all of that kind.
        pack: In which of the packs that its voices hold it lies.
    """

    path: str
    speaker: str
    top_hz: float
    start: int
    samples: int
    variants: dict[str, int]
    pack: int = 0


Restore = Callable[[Signal, np.random.Generator], Signal]
"""Makes a voice (T,) at 16 kHz noisy and clean again."""


class Voices:
    """Recordings with their variants, a pack for each pattern.

    A speaker counts by the root of what he said: files of one voice would else be most of what is
    drawn. Where the data folder's manifest.csv
    has columns `path`, `speaker` and `top_hz`, they are taken from it; a top that is not known
    is measured.

    Args:
        root: Folder the patterns are relative to.
        patterns: Folder pattern -> weight of all that lies under it.
        cache: Folder for the decoded samples; made if missing.
        denoiser: Name of the model that made the variant "restored", or "" for none.
        restorer: Called for what makes that variant, where it is not in the cache yet.

    Raises:
        ConfigError: a pattern matches nothing, or a recording cannot be decoded.
    """

    def __init__(
        self,
        root: Path,
        patterns: dict[str, float],
        cache: Path,
        *,
        denoiser: str = "",
        restorer: Callable[[], Restore] | None = None,
    ) -> None:
        self.clips: list[Clip] = []
        self._packs: list[dict[str, NDArray[np.int16]]] = []
        weights = []
        for pattern, weight in patterns.items():
            files = _matching(root, pattern)
            folder = cache / f"voices-{_digest(root, files, denoiser)}"
            if not (folder / "index.json").exists():
                _pack(root, files, folder, restorer() if restorer else None)
            stored = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.clips += [Clip(**{**clip, "pack": len(self._packs)}) for clip in stored]
            weights += [float(weight)] * len(stored)
            names = ("full", *VARIANTS)
            self._packs.append({name: _mapped(folder / f"{name}.i16") for name in names})
        if not self.clips:
            raise ConfigError("holds no recording long enough", root)
        self._ends = np.cumsum(self._shares(weights))

    @property
    def hours(self) -> float:
        """Hours of audio held."""
        return sum(clip.samples for clip in self.clips) / SAMPLE_RATE / 3600

    def draw(self, random: np.random.Generator) -> Clip:
        """Draw a recording."""
        return self.clips[int(np.searchsorted(self._ends, random.random()))]

    def full(self, clip: Clip, start: int, samples: int) -> Signal:
        """Give a stretch of a recording, (T,)."""
        return _floats(self._packs[clip.pack]["full"], clip.start + start, samples)

    def variant(self, clip: Clip, name: str, start: int, samples: int) -> Signal:
        """Give the same stretch of a variant at its own rate; start and samples at 44.1 kHz."""
        rate = VARIANTS[name]
        place = clip.variants[name] + start * rate // SAMPLE_RATE
        return _floats(self._packs[clip.pack][name], place, samples * rate // SAMPLE_RATE)

    def _shares(self, weights: list[float]) -> NDArray[np.float64]:
        spoken: Counter[str] = Counter()
        for clip in self.clips:
            spoken[clip.speaker] += clip.samples
        shares = np.array(
            [
                weight * clip.samples / spoken[clip.speaker] ** 0.5
                for weight, clip in zip(weights, self.clips, strict=True)
            ]
        )
        return shares / shares.sum()


def _matching(root: Path, pattern: str) -> list[Path]:
    found = sorted(path for folder in root.glob(pattern) for path in folder.rglob("*"))
    found = [path for path in found if path.suffix.lower() in _SUFFIXES]
    if not found:
        raise ConfigError("no recording matches this pattern of the recipe", root / pattern)
    return found


def _digest(root: Path, files: list[Path], denoiser: str) -> str:
    names = [[str(file.relative_to(root)), file.stat().st_size] for file in files]
    stamp = json.dumps([_FORMAT, names, denoiser])
    return hashlib.sha256(stamp.encode()).hexdigest()[:16]


def _pack(root: Path, files: list[Path], folder: Path, restore: Restore | None) -> None:
    """Decode everything and write it with its variants; the index comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    known = _manifest(root)
    written = dict.fromkeys(("full", *VARIANTS), 0)
    clips = []
    handles = {name: (folder / f"{name}.i16").open("wb") for name in written}
    try:
        for number, file in enumerate(files):
            samples = _decode(file)
            if len(samples) < SHORTEST:
                continue
            random = np.random.default_rng(number)
            restored = restore if number % _RESTORED_OF == 0 else None
            row = known.get(str(file.relative_to(root)), {})
            clip = Clip(
                str(file.relative_to(root)),
                row.get("speaker") or file.parent.name,
                _top_hz(samples, row.get("top_hz") or ""),
                written["full"],
                len(samples),
                {name: written[name] for name in VARIANTS if name != "restored" or restored},
            )
            clips.append(clip)
            for name, signal in [("full", samples), *_variants(samples, number, random, restored)]:
                handles[name].write(_integers(signal).tobytes())
                written[name] += len(signal)
    finally:
        for handle in handles.values():
            handle.close()
    temporary = folder / "index.part"
    temporary.write_text(json.dumps([asdict(clip) for clip in clips]), encoding="utf-8")
    temporary.replace(folder / "index.json")


def _variants(
    samples: Signal, number: int, random: np.random.Generator, restore: Restore | None
) -> Iterator[tuple[str, Signal]]:
    for name, rate in VARIANTS.items():
        low = soxr.resample(samples, SAMPLE_RATE, rate)
        if name in _CODERS:
            coders = _CODERS[name]
            yield name, coded(low, rate, *coders[number % len(coders)], random.uniform(0.8, 0.98))
        elif restore is not None:
            yield name, restore(low, random)


def coded(signal: Signal, rate: int, container: str, coding: str, effort: float) -> Signal:
    """Code a signal (T,) and decode it, in its place, (T,).

    Args:
        signal: At `rate`.
        rate: Hz.
        container: As soundfile calls it.
        coding: Likewise.
        effort: Compression level of lossy coders, 0 to 1; the nearer to one, the worse.
    """
    peak = float(np.abs(signal).max(initial=0.0))
    if peak == 0.0:
        return signal
    loud = signal * np.float32(0.7 / peak)
    settings = {} if container == "WAV" else {"compression_level": effort}
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, coding, format=container, **settings) as writer:
        writer.write(loud)
    file.seek(0)
    heard, decoded_rate = soundfile.read(file, dtype="float32")
    heard = soxr.resample(heard, decoded_rate, rate) if decoded_rate != rate else heard
    heard = np.pad(heard, (0, max(0, len(loud) - len(heard))))[: len(loud)]
    return np.roll(heard, -_delay(heard, loud, rate)) * np.float32(peak / 0.7)


def _delay(late: Signal, early: Signal, rate: int) -> int:
    size = fft.next_fast_len(2 * len(late), real=True)
    spectrum = fft.rfft(late, size) * np.conj(fft.rfft(early, size))
    longest = min(int(_LONGEST_DELAY_SECONDS * rate), len(late))
    lags = np.arange(-longest, longest)
    return int(lags[fft.irfft(spectrum, size)[lags].argmax()])


def _manifest(root: Path) -> dict[str, dict[str, str]]:
    file = root / "manifest.csv"
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {row.get("path", ""): row for row in csv.DictReader(lines)}


def _top_hz(samples: Signal, stated: str) -> float:
    """Give the frequency up to which a recording is known to hold all that the voice had."""
    if stated:
        return min(float(stated) - _EDGE_HZ, _HIGHEST_TOP_HZ)
    meter = BandwidthMeter(SAMPLE_RATE)
    meter.push(samples[None])
    return min(meter.bandwidth_hz(), _HIGHEST_TOP_HZ)


def _decode(file: Path) -> Signal:
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ConfigError(f"cannot be decoded ({error})", file, "Take it out") from error
    mono = np.ascontiguousarray(samples[:, 0])
    if rate != SAMPLE_RATE and len(mono):
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    peak = np.abs(mono).max(initial=0.0)
    return mono * np.float32(0.99 / peak) if peak > 0.99 else mono


def _integers(signal: Signal) -> NDArray[np.int16]:
    return np.round(signal.clip(-1.0, 1.0) * 32767.0).astype(np.int16)


def _floats(stored: NDArray[np.int16], start: int, samples: int) -> Signal:
    signal = stored[start : start + samples].astype(np.float32) * np.float32(1 / 32767)
    return np.pad(signal, (0, samples - len(signal)))


def _mapped(file: Path) -> NDArray[np.int16]:
    if file.stat().st_size == 0:
        return np.zeros(0, np.int16)
    return np.memmap(file, np.int16, "r")
