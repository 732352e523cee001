"""How fast the chain is on this machine, step by step."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy import signal

from speakup import audio
from speakup.config import WORKING_RATE, Config
from speakup.loudness import LoudnessMeter
from speakup.pipeline import Pipeline
from speakup.stages import Compute
from speakup.streaming import Resampler
from speakup.survey import survey

Block = NDArray[np.float32]

_SYNTHETIC_RATE = 48_000
_SYNTHETIC_BANDWIDTH_HZ = 7_000.0
_WARM_UP_SECONDS = 3.0


@dataclass(frozen=True)
class Step:
    """The seconds a step took, and how many times faster than real time that is."""

    name: str
    seconds: float
    speed: float


@dataclass(frozen=True)
class Bench:
    """What was measured, on what; `total` is the whole chain from file to file."""

    recording: str
    seconds: float
    channels: int
    sample_rate: int
    device: str
    precision: str
    threads: int
    steps: tuple[Step, ...]
    total: Step

    def to_json(self) -> dict[str, Any]:
        """Give a JSON-ready dict."""
        return {"event": "bench", **dataclasses.asdict(self)}


def run_bench(
    config: Config, recording: str | Path | None = None, *, seconds: float = 60.0
) -> Bench:
    """Enhance a recording and time every step; models are loaded and warm beforehand.

    The stages are timed within one run of the chain, which is also the total. What is between
    them (decoding, the survey, resampling, encoding and the meter behind it) is then timed by
    itself on the same recording. The chain's steps work at the same time, in threads, so that
    the total is less than their sum.

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
    with tempfile.TemporaryDirectory(prefix="speakup-") as folder:
        warm_up = Path(folder) / "warm-up.wav"
        _write_voice(warm_up, _WARM_UP_SECONDS)
        pipeline.run(warm_up, Path(folder) / "warm.wav")
        source = Path(folder) / "voice.wav" if recording is None else Path(recording)
        if recording is None:
            _write_voice(source, seconds)
        target = Path(folder) / "enhanced.wav"
        result = pipeline.run(source, target)
        times = {stage.name: stage.seconds for stage in result.stages}
        between = _between(source, target, pipeline)
    order = ("decode", "survey", "denoise", "super-resolve", "resample", "loudness", "encode")
    times |= between

    def step(name: str, taken: float) -> Step:
        return Step(name, round(taken, 4), round(result.seconds / max(taken, 1e-6), 1))

    names = [*order, *(name for name in times if name not in order)]
    return Bench(
        recording="synthetic voice" if recording is None else str(recording),
        seconds=result.seconds,
        channels=result.channels,
        sample_rate=result.sample_rate_in,
        device=str(compute.device),
        precision=str(compute.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        steps=tuple(step(name, times[name]) for name in names if times.get(name)),
        total=step("total", result.elapsed),
    )


def _between(source: Path, target: Path, pipeline: Pipeline) -> dict[str, float]:
    """Time what the chain does between its stages, on the recording and its result."""
    info = audio.probe(source)
    rate, channels = info.sample_rate, info.channels
    blocks, decode = _timed(lambda: list(audio.read_blocks(source)))
    _, surveyed = _timed(lambda: survey(blocks, rate, channels))

    def resample() -> list[Block]:
        passed, now = blocks, rate
        for to in (WORKING_RATE, pipeline.output_rate(rate)):
            step = Resampler(now, to, channels)
            passed, now = [*map(step.push, passed), step.flush()], to
        return passed

    _, resampled = _timed(resample)
    done = list(audio.read_blocks(target))
    out_rate = audio.probe(target).sample_rate
    coded = audio.resolve_format(
        target,
        format=pipeline.config.format,
        bit_depth=pipeline.config.bit_depth,
        bitrate=pipeline.config.bitrate,
        sample_rate=out_rate,
        channels=len(done[0]),
    )

    def encode() -> None:
        again = target.with_name(f"again{target.suffix}")
        with audio.AudioWriter(again, out_rate, len(done[0]), coded) as writer:
            for block in done:
                writer.write(block)

    def measure() -> None:
        meter = LoudnessMeter(out_rate, len(done[0]))
        for block in done:
            meter.push(block)
        meter.integrated_lufs()

    return {
        "decode": 2.0 * decode,  # once for each pass
        "survey": surveyed,
        "resample": resampled,
        "encode": _timed(encode)[1],
        "check": _timed(measure)[1],
    }


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = action()
    return result, time.perf_counter() - started


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
