"""What can be told of a recording by itself."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speakup.blocks import finite, power_to_db
from speakup.judge import metrics
from speakup.measure.bandwidth import BandwidthMeter
from speakup.measure.clipping import ClippingMeter
from speakup.measure.lossy import CodingMeter
from speakup.measure.loudness import LoudnessMeter
from speakup.media import recording
from speakup.result import duration

_SILENT_DBFS = -60.0
_DNSMOS_SECONDS = 10


@dataclass(frozen=True)
class Analysis:
    """What can be told of a recording by itself; infinite or NaN where it holds too little.

    Attributes:
        path: The file.
        seconds: Length.
        sample_rate: In Hz.
        channels: How many.
        integrated_lufs: Gated loudness, ITU-R BS.1770.
        loudness_range_lu: EBU Tech 3342.
        true_peak_dbtp: Of the loudest channel.
        sample_peak_dbfs: Of the loudest channel.
        rms_dbfs: Of the whole, ungated.
        noise_floor_dbfs: RMS of the quietest half second.
        snr_db: Estimated signal-to-noise ratio, see `_Levels.snr_db`.
        bandwidth_hz: Up to where there is real content.
        coded: Whether it was coded at a low rate, see `speakup.measure.lossy`.
        clipped_share: Of all samples, 0 to 1, see `ClippingMeter.clipped_samples`.
        silent_share: Of 20 ms frames under -60 dBFS, 0 to 1.
        dnsmos: Predicted listeners' scores, those of `metrics.dnsmos`; None when not asked for.
        warnings: What was wrong with the file.
    """

    path: str
    seconds: float
    sample_rate: int
    channels: int
    integrated_lufs: float
    loudness_range_lu: float
    true_peak_dbtp: float
    sample_peak_dbfs: float
    rms_dbfs: float
    noise_floor_dbfs: float
    snr_db: float
    bandwidth_hz: float
    coded: bool
    clipped_share: float
    silent_share: float
    dnsmos: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give plain values, the path as `input`; None for what is infinite or NaN."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        return {"input": values.pop("path"), **values}

    @property
    def floor_below_speech_db(self) -> float:
        """How far the noise floor lies below the loudness of the speech: no gain changes it."""
        return self.integrated_lufs - self.noise_floor_dbfs

    def rows(self) -> list[tuple[str, str]]:
        """Give what a person reads: a label and a value with its unit."""
        found = [
            ("Loudness", text(self.integrated_lufs, "LUFS")),
            ("Loudness range", text(self.loudness_range_lu, "LU")),
            ("True peak", text(self.true_peak_dbtp, "dBTP")),
            ("RMS", text(self.rms_dbfs, "dBFS")),
            ("Noise floor", text(self.noise_floor_dbfs, "dBFS")),
            ("Signal to steady noise", text(self.snr_db, "dB")),
            ("Bandwidth", text(self.bandwidth_hz / 1000, "kHz")),
            ("Coded at a low rate", "it seems so" if self.coded else "no sign of it"),
            ("Clipped samples", f"{100 * self.clipped_share:.2f} %"),
            ("Silence", f"{100 * self.silent_share:.0f} %"),
            ("Sample rate", f"{self.sample_rate / 1000:g} kHz"),
            ("Channels", str(self.channels)),
            ("Length", duration(self.seconds)),
        ]
        if self.dnsmos is not None:
            names = {
                "ovrl": "DNSMOS overall",
                "sig": "DNSMOS speech",
                "bak": "DNSMOS background",
                "p808": "DNSMOS P.808",
            }
            found += [(names[key], f"{value:.2f}") for key, value in self.dnsmos.items()]
        return found


@dataclass(frozen=True)
class LoudnessCurve:
    """Loudness over time, every 100 ms, of the window that ends there; -inf for silence.

    Attributes:
        momentary_lufs: Of 400 ms, (N,).
        short_term_lufs: Of 3 s, (N,); NaN for the first 2.9 s.
    """

    momentary_lufs: NDArray[np.float64]
    short_term_lufs: NDArray[np.float64]


def analyze(
    path: str | os.PathLike[str], *, dnsmos: bool = False, name: str | None = None
) -> Analysis:
    """Measure a file in one pass; see `analyze_over_time`.

    Args:
        path: The file.
        dnsmos: Also predict listeners' scores (extra `eval`), as the mean over stretches of 10 s.
        name: What to call it; None takes the path.

    Raises:
        InputError: as `recording.probe`.
        ConfigError: the extra `eval` is not installed.
    """
    found, _ = analyze_over_time(path, dnsmos=dnsmos)
    return found if name is None else replace(found, path=name)


def analyze_over_time(
    path: str | os.PathLike[str], *, dnsmos: bool = False
) -> tuple[Analysis, LoudnessCurve]:
    """Measure a file in one pass; memory grows by 160 bytes for each of its seconds.

    Args:
        path: The file.
        dnsmos: Also predict listeners' scores (extra `eval`), as the mean over stretches of 10 s.

    Raises:
        InputError: as `recording.probe`.
        ConfigError: the extra `eval` is not installed.
    """
    info = recording.probe(path)
    warnings: list[str] = []
    samples = 0
    loudness = LoudnessMeter(info.sample_rate, info.channels, info.speakers, keep_hops=True)
    bandwidth, coding = BandwidthMeter(info.sample_rate), CodingMeter(info.sample_rate)
    levels, clipping = _Levels(info.sample_rate), ClippingMeter(info.sample_rate, info.channels)
    opinion = _Opinion(info.sample_rate) if dnsmos else None
    for block in recording.read_blocks(path, warnings=warnings):
        samples += block.shape[1]
        sane = finite(block)
        for meter in (loudness, bandwidth, coding, levels, clipping, opinion):
            if meter is not None:
                meter.push(sane)
    found = Analysis(
        path=str(path),
        seconds=samples / info.sample_rate,
        sample_rate=info.sample_rate,
        channels=info.channels,
        integrated_lufs=loudness.integrated_lufs(),
        loudness_range_lu=loudness.loudness_range(),
        true_peak_dbtp=loudness.true_peak_dbtp(),
        sample_peak_dbfs=loudness.sample_peak_dbfs(),
        rms_dbfs=loudness.rms_dbfs(),
        noise_floor_dbfs=loudness.noise_floor_dbfs(),
        snr_db=levels.snr_db(),
        bandwidth_hz=bandwidth.bandwidth_hz(),
        coded=coding.coded(bandwidth.bandwidth_hz()),
        clipped_share=clipping.clipped_samples() / max(1, samples * info.channels),
        silent_share=levels.silent_share(),
        dnsmos=None if opinion is None else opinion.mean(),
        warnings=tuple(warnings),
    )
    return found, LoudnessCurve(*loudness.over_time())


class _Levels:
    """Counts 20 ms frames of a stream by their RMS, in steps of 0.1 dB."""

    _LOWEST_DBFS, _STEP_DB, _STEPS = -120.0, 0.1, 1500
    _DIGITAL_SILENCE = 100  # steps: up to -110 dBFS

    def __init__(self, sample_rate: int) -> None:
        self._length = max(1, round(0.02 * sample_rate))
        self._rest = np.zeros(0)
        self._counts = np.zeros(self._STEPS, np.int64)

    def push(self, block: NDArray[np.float32]) -> None:
        power = np.concatenate([self._rest, np.square(block, dtype=np.float64).mean(axis=0)])
        whole = len(power) // self._length * self._length
        self._rest = power[whole:]
        frames = power[:whole].reshape(-1, self._length).mean(axis=1)
        level = 10.0 * np.log10(np.maximum(frames, 1e-12))
        steps = ((level - self._LOWEST_DBFS) / self._STEP_DB).astype(np.int64)
        self._counts += np.bincount(steps.clip(0, self._STEPS - 1), minlength=self._STEPS)

    def snr_db(self) -> float:
        """Estimate the ratio of speech to steady noise from the levels alone.

        The noise is the tenth percentile of the frames, the speech what the mean power exceeds it
        by; digitally silent frames are left out. Speech in white noise of 0 to 30 dB is told
        within 1 dB; noise that comes in bursts counts as speech.
        """
        counts = self._counts[self._DIGITAL_SILENCE :]
        if not counts.any():
            return math.nan
        steps = np.arange(self._DIGITAL_SILENCE, self._STEPS) + 0.5
        powers = 10.0 ** ((steps * self._STEP_DB + self._LOWEST_DBFS) / 10.0)
        noise = float(powers[np.searchsorted(np.cumsum(counts), 0.1 * counts.sum())])
        speech = float(powers @ counts) / float(counts.sum()) - noise
        return power_to_db(speech / noise)

    def silent_share(self) -> float:
        loudest = round((_SILENT_DBFS - self._LOWEST_DBFS) / self._STEP_DB)
        return int(self._counts[:loudest].sum()) / max(1, int(self._counts.sum()))


class _Opinion:
    """Averages DNSMOS over stretches of 10 s; a last one under 5 s counts only if it is alone."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._blocks: list[NDArray[np.float32]] = []
        self._scores: list[dict[str, float]] = []

    def push(self, block: NDArray[np.float32]) -> None:
        self._blocks.append(block)
        stretch = _DNSMOS_SECONDS * self._rate
        if sum(part.shape[1] for part in self._blocks) < stretch:
            return
        joined = np.concatenate(self._blocks, axis=1)
        while joined.shape[1] >= stretch:
            self._scores.append(metrics.dnsmos(joined[:, :stretch], self._rate))
            joined = joined[:, stretch:]
        self._blocks = [joined]

    def mean(self) -> dict[str, float]:
        rest = np.concatenate(self._blocks, axis=1) if self._blocks else np.zeros((1, 0))
        scores = list(self._scores)
        if not scores or rest.shape[1] >= _DNSMOS_SECONDS * self._rate // 2:
            scores.append(metrics.dnsmos(rest, self._rate))
        return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}


def text(value: float, unit: str) -> str:
    """Write a figure for a person."""
    if math.isnan(value):
        return "too short to tell"
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}∞ {unit}"
    rounded = round(value, 1) + 0.0
    return f"{rounded:.1f} {unit}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
