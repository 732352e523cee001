"""How fast the chain is on this machine, and which of its steps takes how much."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy import signal
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from speakup.blocks import prepared
from speakup.config import Config
from speakup.files import TemporaryFolder
from speakup.measure.loudness import LoudnessMeter
from speakup.measure.survey import survey
from speakup.media import recording
from speakup.media.tracks import open_writer, plan_tracks
from speakup.networks.compute import Compute
from speakup.pipeline import Pipeline
from speakup.stages.flow import Link, Resampler, TimedStage, flow

_SYNTHETIC_RATE = 48_000
_SYNTHETIC_BANDWIDTH_HZ = 7_000.0
_WARM_UP_SECONDS = 3.0


@dataclass(frozen=True)
class Step:
    """What a step takes of the CPU's time, how many times real time that is, and its share."""

    name: str
    seconds: float
    speed: float
    share: float


@dataclass(frozen=True)
class Total:
    """What the whole chain takes from file to file, by the clock."""

    seconds: float
    speed: float


@dataclass(frozen=True)
class Bench:
    """What was measured, on what; steps work at the same time, so the total is less."""

    recording: str
    seconds: float
    channels: int
    sample_rate: int
    device: str
    precision: str
    threads: int
    steps: tuple[Step, ...]
    total: Total

    def to_json(self) -> dict[str, Any]:
        """Give a JSON-ready dict."""
        return {"event": "bench", **dataclasses.asdict(self)}


def run_bench(
    config: Config, recording: str | Path | None = None, *, seconds: float = 60.0
) -> Bench:
    """Enhance a recording and time it, then every step of the chain by itself.

    The chain is timed by the clock. The steps are measured in CPU time, of all threads, so that
    their shares are the same on a machine that is busy with other things. Models are loaded and
    warm beforehand.

    Args:
        config: The models and the device.
        recording: A file; None takes a synthetic voice of 48 kHz without a top, so that every
            step has something to do.
        seconds: Length of the synthetic voice.

    Raises:
        SpeakupError: as `Pipeline.run`.
    """
    pipeline = Pipeline(config)
    compute = Compute(config.device, config.precision)
    with TemporaryFolder() as folder:
        warm_up = folder / "warm-up.wav"
        _write_voice(warm_up, _WARM_UP_SECONDS)
        pipeline.run(warm_up, folder / "warm.wav")
        source = folder / "voice.wav" if recording is None else Path(recording)
        if recording is None:
            _write_voice(source, seconds)
        target = folder / "enhanced.wav"
        result = pipeline.run(source, target)
        times = profile(pipeline, source, target)
    busy = sum(times.values())
    return Bench(
        recording="synthetic voice" if recording is None else str(recording),
        seconds=result.seconds,
        channels=result.channels,
        sample_rate=result.sample_rate_in,
        device=str(compute.device),
        precision=str(compute.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        steps=tuple(
            Step(name, round(taken, 4), _speed(result.seconds, taken), round(taken / busy, 4))
            for name, taken in times.items()
        ),
        total=Total(round(result.elapsed, 4), _speed(result.seconds, result.elapsed)),
    )


def profile(pipeline: Pipeline, source: Path, target: Path) -> dict[str, float]:
    """Do what `Pipeline.run` does, one link after the other, and give the CPU seconds of each.

    The links are those of the real chain, whatever it is made of. The recording, or the main
    track of several, is held in memory: this is for minutes, not for hours.

    Args:
        pipeline: What to profile.
        source: The recording.
        target: Where it was enhanced to; another file is written beside it.
    """
    clock = _Clock()
    again = target.with_name(f"again{target.suffix}")
    track = plan_tracks(source, again, pipeline.config, [])[0]
    rate, rate_out = track.info.sample_rate, track.output_format.sample_rate
    mono = pipeline.config.channels == "mono"
    for _ in range(2):  # once for each pass
        with clock("decode"):
            decoded = recording.read_blocks(source, track=track.number)
            blocks = list(prepared(decoded, mono=mono))
    with clock("survey"):
        found = survey(blocks, rate, track.channels)
    for link in pipeline.chain(found, rate_out):
        with clock.link(link):
            blocks = list(flow(blocks, [link]))
    meter = LoudnessMeter(rate_out, track.channels)
    with clock("check"):
        for block in blocks:
            meter.push(block)
        meter.integrated_lufs()
    with clock("encode"), open_writer(source, again, [track], None) as writer:
        for block in blocks:
            writer.write(block)
    return clock.seconds


class _Clock:
    """CPU seconds of the whole process, by the name of what it did."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what is done within under a name."""
        started = time.process_time()
        yield
        self._add(name, time.process_time() - started)

    def link(self, link: Link) -> AbstractContextManager[None]:
        """Count what a link of the chain does within, under its name."""
        if isinstance(link, TimedStage):
            return self._networks_apart(link.stage.name)
        return self("resample" if isinstance(link, Resampler) else "channels")

    @contextlib.contextmanager
    def _networks_apart(self, stage: str) -> Iterator[None]:
        """Count what networks do within, if any do, apart from what is done beside them."""
        depth, entered, taken = 0, 0.0, 0.0

        def enter(*_: object) -> None:
            nonlocal depth, entered
            if depth == 0:
                entered = time.process_time()
            depth += 1

        def leave(*_: object) -> None:
            nonlocal depth, taken
            depth -= 1
            if depth == 0:
                taken += time.process_time() - entered

        hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        started = time.process_time()
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        seconds = time.process_time() - started
        if taken == 0.0:
            self._add(stage, seconds)
            return
        self._add(f"{stage}: network", taken)
        self._add(f"{stage}: rest", seconds - taken)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def _speed(seconds: float, taken: float) -> float:
    return round(seconds / max(taken, 1e-6), 1)


def _write_voice(path: Path, seconds: float) -> None:
    with soundfile.SoundFile(path, "w", _SYNTHETIC_RATE, 1, "PCM_16") as file:
        for block in _voice(seconds):
            file.write(block)


def _voice(seconds: float) -> Iterator[NDArray[np.float64]]:
    """Yield seconds of something like a voice in hiss: syllables, pitch, no top."""
    rate = _SYNTHETIC_RATE
    generator = np.random.default_rng(0)
    edge = signal.ellip(10, 0.5, 90.0, _SYNTHETIC_BANDWIDTH_HZ, fs=rate, output="sos")
    state = np.zeros((len(edge), 2))
    samples = round(seconds * rate)
    for start in range(0, samples, rate):
        time_s = (start + np.arange(min(rate, samples - start))) / rate
        phase = 2 * np.pi * 120.0 * time_s + 3.0 * np.sin(2 * np.pi * 0.7 * time_s)
        pitch = sum(np.cos(k * phase) / k for k in range(1, 40))
        syllables = np.maximum(0.0, np.sin(2 * np.pi * 3.1 * time_s)) ** 2
        hisses = np.maximum(0.0, np.sin(2 * np.pi * 1.3 * time_s)) ** 8
        white = generator.standard_normal(len(time_s))
        sound = 0.03 * pitch * syllables + 0.1 * white * hisses
        limited, state = signal.sosfilt(edge, sound + 0.0003 * white, zi=state)
        yield limited
