from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from nets import save_model, small_extender, small_mixer
from sounds import noise

from speakup.config import Config
from speakup.errors import InputError
from speakup.machine.bench import _SYNTHETIC_RATE, _voice, profile, run_bench
from speakup.measure.bandwidth import BandwidthMeter
from speakup.pipeline import Pipeline

STAGES = {f"{name}: {part}" for name in ("denoise", "upsample") for part in ("network", "rest")}
BETWEEN = {"decode", "survey", "resample", "level", "loudness", "encode", "check"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    denoiser = save_model(tmp_path / "denoiser", small_mixer())
    upsampler = save_model(tmp_path / "upsampler", small_extender())
    return Config(denoiser=str(denoiser), upsampler=str(upsampler), device="cpu")


def test_every_step_of_the_chain_is_timed(config: Config) -> None:
    found = run_bench(config, seconds=2.0)
    steps = {step.name: step for step in found.steps}
    assert set(steps) == BETWEEN | STAGES
    assert sum(step.share for step in found.steps) == pytest.approx(1.0, abs=0.01)
    assert found.seconds == 2.0
    assert (found.device, found.sample_rate, found.channels) == ("cpu", _SYNTHETIC_RATE, 1)
    assert found.threads >= 1
    for step in (*found.steps, found.total):
        assert step.seconds > 0.0
        assert step.speed == pytest.approx(2.0 / step.seconds, rel=0.5, abs=1.0)
    assert json.loads(json.dumps(found.to_json()))["event"] == "bench"


def test_what_is_timed_is_the_chain_that_runs(config: Config, tmp_path: Path) -> None:
    source, target = tmp_path / "two.wav", tmp_path / "out.wav"
    loud = np.clip(6.0 * noise(1, 44_100), -0.5, 0.5)
    soundfile.write(source, np.repeat(loud, 2, axis=0).T, 44_100)
    pipeline = Pipeline(config)
    result = pipeline.run(source, target)
    steps = profile(pipeline, source, target)
    assert (tmp_path / "again.wav").read_bytes() == target.read_bytes()
    assert "channels" in steps, "equal channels are computed once"
    assert {name.partition(":")[0] for name in steps} >= {stage.name for stage in result.stages}


def test_a_recording_of_ones_own(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "two.flac"
    soundfile.write(path, noise(2, 22_050).T, 44_100)
    found = run_bench(config, path)
    assert (found.recording, found.seconds, found.channels) == (str(path), 0.5, 2)
    assert list(tmp_path.glob("*enhanced*")) == []
    with pytest.raises(InputError):
        run_bench(config, tmp_path / "missing.wav")


def test_the_synthetic_voice_leaves_every_step_something_to_do() -> None:
    voice = np.concatenate(list(_voice(4.0))).astype(np.float32)
    assert len(voice) == 4 * _SYNTHETIC_RATE
    assert np.abs(voice).max() < 1.0
    meter = BandwidthMeter(_SYNTHETIC_RATE)
    meter.push(voice[None])
    assert 6_000.0 < meter.bandwidth_hz() < 8_500.0
